//! Values as a plan's file keeps them: read back they are what they were. A date does not become a text, and a
//! floating-point number keeps its last bit, since the fingerprints are those of the value that was planned.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::record::{Value, ValueRef};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Exact<'v> {
    Null,
    Bool(bool),
    /// Digits, since JSON numbers of many of them are rounded.
    Int(String),
    /// The bits.
    Float(u64),
    #[serde(borrow)]
    Text(Cow<'v, str>),
    Date(chrono::NaiveDate),
    List(Vec<Exact<'v>>),
}

impl<'v> From<ValueRef<'v>> for Exact<'v> {
    fn from(value: ValueRef<'v>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Int(value) => Self::Int(value.to_string()),
            ValueRef::Float(value) => Self::Float(value.to_bits()),
            ValueRef::Text(text) => Self::Text(text),
            ValueRef::Date(day) => Self::Date(day),
            ValueRef::List(values) => {
                Self::List(values.into_owned().into_iter().map(|value| value.into_ref().into()).collect())
            }
        }
    }
}

impl<'v> Exact<'v> {
    /// `None` for a number that is none.
    pub(super) fn value(self) -> Option<ValueRef<'v>> {
        Some(match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(value),
            Self::Int(digits) => ValueRef::Int(digits.parse().ok()?),
            Self::Float(bits) => ValueRef::Float(f64::from_bits(bits)),
            Self::Text(text) => ValueRef::Text(text),
            Self::Date(day) => ValueRef::Date(day),
            Self::List(values) => {
                let values = values.into_iter().map(|value| value.value().map(ValueRef::into_owned));
                ValueRef::List(values.collect::<Option<Vec<Value>>>()?.into())
            }
        })
    }
}
