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
