//! The values of one row, their texts in one piece of memory.

use std::{borrow::Cow, fmt};

use crate::{
    fingerprint::Slot,
    record::{Value, ValueRef},
};

/// What a text is expected to have, in bytes.
const TEXT: usize = 24;

/// Values by the slot of their field.
///
/// Of most rows that differ all but one or two values are dropped again, once the state has said which of them changed.
pub(crate) struct PackedValues {
    texts: String,
    values: Vec<(Slot, Packed)>,
}

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

/// Shows how many values there are, never what they are.
impl fmt::Debug for PackedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedValues").field("len", &self.values.len()).finish_non_exhaustive()
    }
}
