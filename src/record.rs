//! What flows: a key, names of fields, values, and records of them.
//!
//! All of it is about people, so nothing here shows its content through `Debug`, and nothing implements `Display`.

use std::{borrow::Cow, collections::BTreeMap, fmt, io::Write, sync::Arc};

use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

/// The name of a source column or of a destination field; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldName(Arc<str>);

impl FieldName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FieldName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for FieldName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What links a row to a record of the destination, in canonical form: for an e-mail trimmed and in lower case.
///
/// A key is text, also where the source has a number: a row keeps its identity when the same number comes from a CSV
/// file one day and from a database the next. A decimal of a database keeps its places behind the point: `1.00` is not `1`, so
/// cast keys to whole numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// A key in canonical form. The mapping makes keys; this is for tests and for state that is brought along.
    pub fn new(canonical: impl Into<String>) -> Self {
        Self(canonical.into())
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// The key in clear text, to be sent to the destination and nowhere else.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// One value of a row.
///
/// `Null` is a value: it clears the field, unless the mapping says otherwise. An
/// absent value leaves the field alone, and has no `Value`.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing: the field is to be cleared.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A binary floating-point number.
    Float(f64),
    /// Text; the empty text is not `Null`.
    Text(String),
    /// A day of the calendar.
    Date(NaiveDate),
    /// Several values, such as the choices of a multiple-choice field.
    List(Vec<Value>),
}

/// A [`Value`] that may borrow its text: one that a source gives, or one that a destination is sent.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ValueRef<'a> {
    /// Nothing: the field is to be cleared.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A binary floating-point number.
    Float(f64),
    /// Text; the empty text is not `Null`.
    Text(Cow<'a, str>),
    /// A day of the calendar.
    Date(NaiveDate),
    /// Several values.
    List(Cow<'a, [Value]>),
}

impl Value {
    /// The same value, borrowed.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Text(text) => ValueRef::Text(Cow::Borrowed(text)),
            Self::Date(day) => ValueRef::Date(*day),
            Self::List(values) => ValueRef::List(Cow::Borrowed(values)),
        }
    }

    pub(crate) fn into_ref(self) -> ValueRef<'static> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(value),
            Self::Int(value) => ValueRef::Int(value),
            Self::Float(value) => ValueRef::Float(value),
            Self::Text(text) => ValueRef::Text(Cow::Owned(text)),
            Self::Date(day) => ValueRef::Date(day),
            Self::List(values) => ValueRef::List(Cow::Owned(values)),
        }
    }

    /// The value that a JSON value stands for; an object becomes its JSON text.
    pub fn from_json(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            object @ serde_json::Value::Object(_) => Self::Text(in_order(object).to_string()),
        }
    }
}

impl ValueRef<'_> {
    /// The same value, owned.
    pub fn into_owned(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text(text.into_owned()),
            Self::Date(day) => Value::Date(day),
            Self::List(values) => Value::List(values.into_owned()),
        }
    }

    /// The same value, which borrows what this one owns.
    pub fn borrowed(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Text(text) => ValueRef::Text(Cow::Borrowed(text)),
            Self::Date(day) => ValueRef::Date(*day),
            Self::List(values) => ValueRef::List(Cow::Borrowed(values)),
        }
    }

    /// The name of the value's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a floating-point number",
            Self::Text(_) => "text",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
        }
    }
}

/// Shows the type of the value, never its content.
impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.type_name())
    }
}

/// Shows the type of the value, never its content.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().serialize(serializer)
    }
}

impl Serialize for ValueRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.serialize_i128(*value),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Date(day) => serializer.collect_str(day),
            Self::List(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(Self::from_json)
    }
}

/// The same value, with the names of each object in order: a hash map gives them in another one each time, and its row would
/// seem to have changed.
pub(crate) fn in_order(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(values) => {
            let values: BTreeMap<_, _> =
                values.into_iter().map(|(name, value)| (name, in_order(value))).collect();
            serde_json::Value::Object(values.into_iter().collect())
        }
        serde_json::Value::Array(values) => values.into_iter().map(in_order).collect(),
        other => other,
    }
}

/// The shortest decimal number that stands for `value`: 0.1 stays 0.1, and does not become 0.10000000149.
pub(crate) fn widened(value: f32) -> f64 {
    let mut digits = [0_u8; 32];
    let mut rest = &mut digits[..];
    // Too long for the buffer is no number.
    let written = write!(rest, "{value:e}").ok().map(|()| rest.len());
    let length = written.map_or(0, |rest| digits.len() - rest);
    let text = std::str::from_utf8(&digits[..length]).unwrap_or_default();
    text.parse().unwrap_or(f64::from(value))
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

value_from! {
    bool => |value| Self::Bool(value);
    i32 => |value| Self::Int(value.into());
    i64 => |value| Self::Int(value.into());
    u32 => |value| Self::Int(value.into());
    u64 => |value| Self::Int(value.into());
    f64 => |value| Self::Float(value);
    &str => |value| Self::Text(value.to_owned());
    String => |value| Self::Text(value);
    NaiveDate => |value| Self::Date(value);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// Values by name: a row of a source, or what a destination holds.
///
/// ```
/// use reverse_etl::Record;
///
/// let row = Record::new().with("email", "ada@shop.test").with("points", 120).with("phone", None::<String>);
/// assert_eq!(format!("{row:?}"), "Record { columns: 3, .. }"); // what a row holds stays out of logs
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Record(Vec<(FieldName, Value)>);

impl Record {
    /// A record without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record with one more value; a value of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<FieldName>, value: impl Into<Value>) -> Self {
        self.set(name.into(), value.into());
        self
    }

    /// Sets a value.
    pub fn set(&mut self, name: FieldName, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of a name; `None` if the record has none, which is not [`Value::Null`].
    pub fn get(&self, name: &FieldName) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of a name, looked for first where that of the last record was found.
    #[inline]
    pub(crate) fn get_near<'r>(&'r self, name: &FieldName, near: &mut Near<'r>) -> Option<&'r Value> {
        match self.0.get(near.place) {
            // Records made by one hand share their names, and then there is nothing to compare.
            Some((known, value)) if near.name.is_some_and(|name| Arc::ptr_eq(&name.0, &known.0)) => {
                Some(value)
            }
            _ => self.look_for(name, near),
        }
    }

    #[inline(never)]
    fn look_for<'r>(&'r self, name: &FieldName, near: &mut Near<'r>) -> Option<&'r Value> {
        let is_there = |index: &usize| self.0.get(*index).is_some_and(|(known, _)| known == name);
        let place = Some(near.place).filter(is_there).or_else(|| (0..self.0.len()).find(is_there))?;
        let (known, value) = self.0.get(place)?;
        *near = Near { place, name: Some(known) };
        Some(value)
    }

    /// Names and values, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&FieldName, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

/// Where a record had the value of a name, and that name as the record has it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Near<'r> {
    place: usize,
    name: Option<&'r FieldName>,
}

impl FromIterator<(FieldName, Value)> for Record {
    fn from_iter<I: IntoIterator<Item = (FieldName, Value)>>(values: I) -> Self {
        let values = values.into_iter();
        // With room for more, records would lie farther apart, and be read more slowly.
        let mut record = Self(Vec::with_capacity(values.size_hint().0));
        for (name, value) in values {
            record.set(name, value);
        }
        record
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("columns", &self.0.len()).finish_non_exhaustive()
    }
}
