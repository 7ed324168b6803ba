//! The one decoder of replies: the envelope, and the shapes in which the same thing may be printed.
//!
//! The rules: JSON is read whatever the `Content-Type` says; an id is a number or a string of digits; an empty map
//! may be printed as `[]`, `""`, `false`, `null` or not at all; the text of a reply decides nothing but which of
//! the meanings of a reply code is meant, and goes nowhere, because it may quote the key of a person.

use chrono::NaiveDateTime;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, IgnoredAny},
};
use serde_json::{Map, Value};

use super::{ids::FieldId, request::ReplyForm};

/// A reply that is `{"replyCode": .., "data": ..}` (Emarsys API: Concepts).
pub(crate) struct Envelope {
    pub(crate) code: i64,
    /// The field that the text names, for codes about a field.
    pub(crate) field: Option<FieldId>,
    /// Whether the text says that the contact exists: a meaning that some codes have beside their own.
    pub(crate) says_exists: bool,
    pub(crate) data: Value,
}

impl Envelope {
    /// Reads a body; `None` if it is not an envelope, as the replies of a gateway often are not.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let mut reply: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
        let reply = reply.as_object_mut()?;
        let code = number(reply.get("replyCode")?)?;
        let text = lower(reply.get("replyText"));
        Some(Self {
            code,
            field: field_in(code, &text),
            says_exists: says_exists(&text),
            data: reply.remove("data").unwrap_or_default(),
        })
    }

    /// Reads the body of a reply with status 2xx, where other forms than the envelope say that something was done.
    /// `None` if it is in none of them, such as the web page of a gateway or JSON that breaks off.
    pub(crate) fn read_success(body: &[u8], form: ReplyForm) -> Option<Self> {
        let envelope = Self::read(body);
        match (form, &envelope) {
            (ReplyForm::Envelope, _) | (ReplyForm::Any, Some(_)) => return envelope,
            // An envelope is no text, and one that says that all is well not what was asked for.
            (ReplyForm::Text, Some(_)) => return envelope.filter(|envelope| envelope.code != 0),
            (ReplyForm::Text | ReplyForm::Any, None) => {}
        }
        let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}');
        let data = if form == ReplyForm::Text { text.into() } else { bare(text)? };
        // The codes of relational data, which may stand outside an envelope.
        let code = data.get("code").and_then(number).filter(|code| (15_001..=15_013).contains(code));
        Some(Self { code: code.unwrap_or_default(), field: None, says_exists: false, data })
    }

    /// Whether the reply names something that was done, whatever its code says.
    pub(crate) fn names_successes(&self) -> bool {
        let named = |member: &str| match self.data.get(member) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(other) => number(other).is_some_and(|count| count > 0),
            None => false,
        };
        ["id", "ids", "inserted_contacts", "deleted_contacts"].into_iter().any(named)
    }
}

/// What is in a body that may be nothing, JSON, or a word or two.
fn bare(text: &str) -> Option<Value> {
    const WORDS_MAX: usize = 100;
    let text = text.trim();
    if text.is_empty() {
        return Some(Value::Null);
    }
    let words = || (text.len() <= WORDS_MAX && !text.starts_with(['<', '{', '[', '"'])).then(|| text.into());
    serde_json::from_str(text).ok().or_else(words)
}

/// Reads `data` as `T`; an empty one in any of its spellings counts as an empty object, too.
///
/// The reason of a failure is left out: serde quotes the value it stumbled over.
pub(crate) fn data<T: DeserializeOwned>(data: Value) -> Option<T> {
    let empty = is_empty(&data);
    match serde_json::from_value(data) {
        Ok(reply) => Some(reply),
        Err(_) if empty => serde_json::from_value(Map::new().into()).ok(),
        Err(_) => None,
    }
}

/// What a body looks like, in a few words that hold nothing of what it says: no key, no value, no text.
pub(crate) fn shape(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let bytes = body.len();
    match serde_json::from_str::<Value>(text) {
        Ok(value) => format!("JSON of {bytes} bytes: {}", shape_of(&value, 3)),
        Err(_) if text.is_empty() => "an empty body".to_owned(),
        Err(error) if text.starts_with(['{', '[']) => {
            let how = if error.is_eof() { "breaks off" } else { "is not valid" };
            format!("JSON of {bytes} bytes that {how} in line {}, column {}", error.line(), error.column())
        }
        Err(_) if text.starts_with('<') => format!(
            "a web page of {bytes} bytes; if it is no passing failure of a gateway, check the base URL"
        ),
        Err(_) => format!("a text of {bytes} bytes"),
    }
}

fn shape_of(value: &Value, depth: usize) -> String {
    /// Names that are the API's own. Others may be the keys of people.
    const MEMBERS: [&str; 18] = [
        "code",
        "contact_list_id",
        "data",
        "deleted_contacts",
        "errors",
        "error",
        "id",
        "ids",
        "inserted_contacts",
        "message",
        "name",
        "next",
        "replyCode",
        "replyText",
        "result",
        "run_id",
        "status",
        "value",
    ];
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(text) if text.is_empty() => "an empty text".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(list) => match list.first().filter(|_| depth > 0) {
            Some(first) => format!("[{} × {}]", list.len(), shape_of(first, depth - 1)),
            None => format!("[{}]", list.len()),
        },
        Value::Object(map) if depth == 0 => format!("{{{}}}", map.len()),
        Value::Object(map) => {
            let known = map.iter().filter(|(name, _)| MEMBERS.contains(&name.as_str()));
            let mut members: Vec<String> =
                known.map(|(name, value)| format!("{name}: {}", shape_of(value, depth - 1))).collect();
            let others = map.len() - members.len();
            if others > 0 {
                members.push(format!("and {others} more"));
            }
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// Data that is not looked at, whatever it is: of calls whose success is all that they say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A number of something, which may be printed as a string.
#[derive(Debug)]
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let count = number(&value).and_then(|count| count.try_into().ok());
        count.map(Self).ok_or_else(|| D::Error::custom("expected a number of something"))
    }
}

/// A yes or no, which may be printed as a number, a text, or, if no, as anything empty.
#[derive(Debug)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(flag) => Ok(Self(flag)),
            // It may be left out altogether, which says nothing.
            Value::Null => Err(D::Error::custom("expected yes or no")),
            empty if is_empty(&empty) => Ok(Self(false)),
            Value::String(text) if text == "true" => Ok(Self(true)),
            Value::String(text) if text == "false" => Ok(Self(false)),
            other => match number(&other) {
                Some(0) => Ok(Self(false)),
                Some(1) => Ok(Self(true)),
                _ => Err(D::Error::custom("expected yes or no")),
            },
        }
    }
}

/// A time as replies print it, in the local time of Emarsys; `None` if it is none.
pub(crate) fn local_time(text: &str) -> Option<NaiveDateTime> {
    NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%d %H:%M:%S").ok()
}

/// A list, which may be printed as an object with numbers for keys, and if empty as nearly anything.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = match Value::deserialize(deserializer)? {
            Value::Array(items) => items,
            Value::Object(map) if map.keys().all(|key| key.parse::<u64>().is_ok()) => {
                let mut items: Vec<_> = map.into_iter().collect();
                items.sort_by_key(|(key, _)| key.parse::<u64>().ok());
                items.into_iter().map(|(_, item)| item).collect()
            }
            empty if is_empty(&empty) => Vec::new(),
            _ => return Err(D::Error::custom("expected a list")),
        };
        items
            .into_iter()
            .map(|item| {
                serde_json::from_value(item).map_err(|_| D::Error::custom("unexpected item in a list"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A map from key values, which may be printed as a list when its keys happen to be 0, 1, 2, and if empty as nearly
/// anything.
#[derive(Debug)]
pub(crate) struct KeyMap<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for KeyMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for KeyMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries: Vec<(String, Value)> = match Value::deserialize(deserializer)? {
            Value::Object(map) => map.into_iter().collect(),
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(key, item)| (key.to_string(), item)).collect()
            }
            empty if is_empty(&empty) => Vec::new(),
            _ => return Err(D::Error::custom("expected a map")),
        };
        entries
            .into_iter()
            .map(|(key, item)| match serde_json::from_value(item) {
                Ok(item) => Ok((key, item)),
                Err(_) => Err(D::Error::custom("unexpected item in a map")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The row errors of a reply: of `contact`, `checkids` and the lists a map from the key value to code and text, of
/// `getdata` a list of `{"key", "errorCode", "errorMsg"}`.
#[derive(Default)]
pub(crate) struct RowErrors(pub(crate) Vec<RowError>);

/// One of them. The key is the value that was sent, so this has no `Debug`.
pub(crate) struct RowError {
    pub(crate) key: String,
    /// `None` if there is an entry for the key but no code in it.
    pub(crate) code: Option<i64>,
    /// The field that the text names, for codes about a field.
    pub(crate) field: Option<FieldId>,
    /// Whether the text says that the contact exists: a meaning that 2006 and 2010 may have beside their own.
    pub(crate) says_exists: bool,
}

impl RowError {
    /// Whether it is about the whole request and not about one key.
    pub(crate) fn is_of_the_request(&self) -> bool {
        matches!(self.key.trim(), "" | "<NO_KEY_ID>")
    }

    fn new(key: String, code: Option<&Value>, text: Option<&Value>) -> Self {
        let code = code.and_then(number);
        let text = lower(text);
        Self {
            key,
            code,
            field: code.and_then(|code| field_in(code, &text)),
            says_exists: says_exists(&text),
        }
    }
}

impl<'de> Deserialize<'de> for RowErrors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let KeyMap(entries) = KeyMap::<Value>::deserialize(deserializer)?;
        let errors = entries.into_iter().map(|(key, entry)| match entry {
            Value::Object(entry) if entry.contains_key("key") => {
                let key = entry.get("key").map(key_text).unwrap_or_default();
                RowError::new(key, entry.get("errorCode"), entry.get("errorMsg"))
            }
            Value::Object(entry) => {
                let (code, text) = entry.into_iter().next().unzip();
                RowError::new(key, code.map(Value::String).as_ref(), text.as_ref())
            }
            _ => RowError::new(key, None, None),
        });
        Ok(Self(errors.collect()))
    }
}

/// The text under which a reply knows the key value of a row.
pub(crate) fn key_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A whole number, which may be printed as a string.
pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A number of 0 or more that need not be there.
pub(crate) fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(number(&value).and_then(|number| number.try_into().ok()))
}

/// A text that need not be there, and if empty is printed as nearly anything.
pub(crate) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let is_text = matches!(value, Value::String(_) | Value::Number(_)) && !is_empty(&value);
    Ok(is_text.then(|| key_text(&value)))
}

/// Whether a value is one of the ways in which nothing is printed.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn lower(text: Option<&Value>) -> String {
    text.and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase()
}

fn says_exists(text: &str) -> bool {
    text.starts_with("contact") && text.contains(" external id already exist")
}

/// The digits after `field id:`. Only for codes whose texts are about fields: others quote the key of the row.
fn field_in(code: i64, text: &str) -> Option<FieldId> {
    if !matches!(code, 2004 | 2006 | 2007) {
        return None;
    }
    let (_, rest) = text.split_once("field id:")?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
