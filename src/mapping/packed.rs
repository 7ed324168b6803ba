//! The values of one row, their texts in one piece of memory.

mod exact;

use std::{borrow::Cow, fmt};

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
/// Of most rows that differ all but one or two values are dropped again, once the state has said which of them changed.
#[derive(Clone, Default)]
pub(crate) struct PackedValues {
    texts: String,
    values: Vec<(Slot, Packed)>,
}

#[derive(Clone)]
enum Packed {
    /// Begins where the text before it ends.
    Text {
        end: usize,
    },
    Other(Value),
}

impl PackedValues {
    /// With room for so many.
    pub(super) fn with_capacity(values: usize) -> Self {
        Self { texts: String::with_capacity(values * TEXT), values: Vec::with_capacity(values) }
    }

    pub(super) fn push(&mut self, slot: Slot, value: ValueRef<'_>) {
        let packed = match value {
            ValueRef::Text(text) => {
                self.texts.push_str(&text);
                Packed::Text { end: self.texts.len() }
            }
            other => Packed::Other(other.into_owned()),
        };
        self.values.push((slot, packed));
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
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
        let mut start = 0;
        self.values.iter().map(move |(slot, packed)| {
            let value = match packed {
                Packed::Text { end } => {
                    let text = self.texts.get(start..*end).unwrap_or_default();
                    start = *end;
                    ValueRef::Text(Cow::Borrowed(text))
                }
                Packed::Other(value) => value.as_ref(),
            };
            (*slot, value)
        })
    }
}

impl Serialize for PackedValues {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(|(slot, value)| (slot, Exact::from(value))))
    }
}

impl<'de> Deserialize<'de> for PackedValues {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Values)
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
