//! The values of one row, their texts in one piece of memory.

mod exact;

use std::{borrow::Cow, fmt, mem};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use self::exact::Exact;
use crate::{
    fingerprint::Slot,
    record::{Value, ValueRef},
};

/// What a text is expected to have, in bytes.
const TEXT: usize = 24;

/// The most values that are made room for before they are there.
const FORESEEN: usize = 1024;

/// Values by the slot of their field, or by their place among those for creation.
///
/// Of most rows that differ all but one or two values are dropped again, once the state has said which of them changed. Of
/// a new row they all go through the plan's spool to the delivery, so they are made, written, read and dropped as one.
#[derive(Clone, Default)]
pub(crate) struct PackedValues {
    texts: String,
    values: Vec<(Slot, Packed)>,
    /// Values that are neither texts nor null, which are few.
    others: Vec<Value>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Packed {
    Null,
    /// Begins where the text before it ends.
    Text {
        end: u32,
    },
    /// The next one of the others.
    Other,
}

impl PackedValues {
    /// With room for so many.
    pub(super) fn with_capacity(values: usize) -> Self {
        Self {
            texts: String::with_capacity(values * TEXT),
            values: Vec::with_capacity(values),
            others: Vec::new(),
        }
    }

    /// Drops the values, and keeps the room.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.values.clear();
        self.others.clear();
    }

    pub(crate) fn push(&mut self, slot: Slot, value: ValueRef<'_>) {
        let packed = match value {
            ValueRef::Null => Packed::Null,
            ValueRef::Text(text) => match u32::try_from(self.texts.len() + text.len()) {
                Ok(end) => {
                    self.texts.push_str(&text);
                    Packed::Text { end }
                }
                Err(_) => self.other(ValueRef::Text(text)),
            },
            other => self.other(other),
        };
        self.values.push((slot, packed));
    }

    fn other(&mut self, value: ValueRef<'_>) -> Packed {
        self.others.push(value.into_owned());
        Packed::Other
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// About the memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.texts.capacity() + size_of_val(&*self.values) + bytes(&self.others)
    }

    /// How many of the values clear their fields.
    pub(crate) fn cleared(&self) -> u64 {
        let mut start = 0;
        let clears = |packed: Packed| match packed {
            Packed::Null => true,
            Packed::Text { end } => mem::replace(&mut start, end) == end,
            Packed::Other => false,
        };
        self.values.iter().map(|(_, packed)| *packed).map(clears).filter(|clears| *clears).count() as u64
    }

    /// Whether there is one of this slot, where they are in the order of their slots.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.values.binary_search_by_key(&slot, |(slot, _)| *slot).is_ok()
    }

    /// Those that are wanted, alone.
    pub(crate) fn only(self, is_wanted: impl Fn(Slot) -> bool) -> Self {
        if self.values.iter().all(|(slot, _)| is_wanted(*slot)) {
            return self;
        }
        let mut wanted = Self::default();
        self.iter().filter(|(slot, _)| is_wanted(*slot)).for_each(|(slot, value)| wanted.push(slot, value));
        wanted
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, ValueRef<'_>)> {
        self.checked().map(|(slot, value)| (slot, value.unwrap_or(ValueRef::Null)))
    }

    /// The values; `None` for one that is not there.
    fn checked(&self) -> impl Iterator<Item = (Slot, Option<ValueRef<'_>>)> {
        let (mut start, mut others) = (0, self.others.iter());
        self.values.iter().map(move |(slot, packed)| {
            let value = match *packed {
                Packed::Null => Some(ValueRef::Null),
                Packed::Text { end } => {
                    let text = self.texts.get(mem::replace(&mut start, end as usize)..end as usize);
                    text.map(|text| ValueRef::Text(Cow::Borrowed(text)))
                }
                Packed::Other => others.next().map(Value::as_ref),
            };
            (*slot, value)
        })
    }
}

fn bytes(values: &[Value]) -> usize {
    let behind = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::List(values) => bytes(values),
        _ => 0,
    };
    size_of_val(values) + values.iter().map(behind).sum::<usize>()
}

/// Read by people, it is a list of slots and values; in the spool it is its parts, each of which is copied as a whole.
impl Serialize for PackedValues {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return to.collect_seq(self.iter().map(|(slot, value)| (slot, Exact::from(value))));
        }
        let others: Vec<_> = self.others.iter().map(|value| Exact::from(value.as_ref())).collect();
        (&self.texts, &self.values, others).serialize(to)
    }
}

impl<'de> Deserialize<'de> for PackedValues {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return from.deserialize_seq(Values);
        }
        let (texts, values, exact) = <(_, _, Vec<Exact<'_>>)>::deserialize(from)?;
        let others: Option<_> =
            exact.into_iter().map(|value| value.value().map(ValueRef::into_owned)).collect();
        let read = others.map(|others| Self { texts, values, others });
        let is_whole = |read: &Self| read.checked().all(|(_, value)| value.is_some());
        read.filter(is_whole).ok_or_else(|| D::Error::custom("values of which some are missing"))
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = PackedValues;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slots with their values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<PackedValues, A::Error> {
        let mut values = PackedValues::with_capacity(from.size_hint().unwrap_or(0).min(FORESEEN));
        while let Some((slot, value)) = from.next_element::<(Slot, Exact<'de>)>()? {
            values.push(slot, value.value().ok_or_else(|| A::Error::custom("a number that is none"))?);
        }
        Ok(values)
    }
}

/// Shows how many values there are, never what they are.
impl fmt::Debug for PackedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedValues").field("len", &self.values.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(values: impl IntoIterator<Item = Value>) -> PackedValues {
        let mut packed = PackedValues::default();
        (0..)
            .zip(&values.into_iter().collect::<Vec<_>>())
            .for_each(|(slot, value)| packed.push(slot, value.as_ref()));
        packed
    }

    fn unpacked(packed: &PackedValues) -> Vec<(Slot, Value)> {
        packed.iter().map(|(slot, value)| (slot, value.into_owned())).collect()
    }

    /// Plans are kept for later, and read by other versions.
    #[test]
    fn a_plans_file_has_values_of_every_type_in_this_form() {
        let day = chrono::NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
        let list = Value::List(vec![Value::Int(-1), Value::from("\"b\"")]);
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::Int(i128::MAX),
            Value::Float(0.1),
            Value::from("ä\n"),
            Value::Date(day),
            list,
            Value::from(""),
        ];
        let text = concat!(
            r#"[[0,"null"],[1,{"bool":true}],[2,{"int":"170141183460469231731687303715884105727"}],"#,
            r#"[3,{"float":4591870180066957722}],[4,{"text":"ä\n"}],[5,{"date":"2024-02-29"}],"#,
            r#"[6,{"list":[{"int":"-1"},{"text":"\"b\""}]}],[7,{"text":""}]]"#
        );
        let packed = packed(values.clone());
        assert_eq!(serde_json::to_string(&packed).unwrap(), text);
        let read: PackedValues = serde_json::from_str(text).unwrap();
        assert!(unpacked(&read) == (0..).zip(values).collect::<Vec<_>>());
        let bytes = postcard::to_allocvec(&packed).unwrap();
        assert!(unpacked(&postcard::from_bytes(&bytes).unwrap()) == unpacked(&packed));
        assert!(serde_json::from_str::<PackedValues>(r#"[[0,{"int":"1a"}]]"#).is_err());
    }

    #[test]
    fn bytes_of_the_spool_that_lack_a_value_are_an_error() {
        let whole = packed([Value::from("one"), Value::Int(2), Value::Null, Value::from("é")]);
        assert_eq!(whole.cleared(), 1);
        let read = |values: &PackedValues| {
            postcard::from_bytes::<PackedValues>(&postcard::to_allocvec(values).unwrap())
                .map(|read| unpacked(&read))
        };
        assert!(read(&whole).unwrap() == unpacked(&whole));
        let no_number = PackedValues { others: Vec::new(), ..whole.clone() };
        let short_text = PackedValues { texts: "oneé"[..3].to_owned(), ..whole.clone() };
        let values = whole.values.iter().map(|(slot, value)| match value {
            Packed::Text { end: 5 } => (*slot, Packed::Text { end: 4 }),
            value => (*slot, *value),
        });
        let half_a_letter = PackedValues { values: values.collect(), ..whole.clone() };
        for damaged in [no_number, short_text, half_a_letter] {
            assert!(read(&damaged).is_err());
        }
    }

    #[test]
    fn those_that_are_wanted_keep_their_slots_and_texts() {
        let all = [Value::from("one"), Value::Int(2), Value::from(""), Value::from("four")];
        let expected: Vec<(Slot, Value)> = (0..).zip(all.clone()).collect();
        for wanted in 0_u16..16 {
            let is_wanted = |slot: Slot| wanted >> slot & 1 == 1;
            let kept = packed(all.clone()).only(is_wanted);
            let expected = expected.iter().filter(|(slot, _)| is_wanted(*slot)).cloned();
            assert!(unpacked(&kept) == expected.collect::<Vec<_>>(), "{wanted:04b}");
        }
    }
}
