//! The key values of a call's rows.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use serde_json::Value;

use super::super::{
    ids::{ContactId, KeyField},
    reply::key_text,
};
use crate::{Error, Result};

/// The key values of a call's rows, each of them once. Personal data: no `Debug`.
pub(crate) struct Keys {
    /// What the call is named in errors.
    pub(crate) endpoint: String,
    rows: HashMap<String, usize>,
}

impl Keys {
    /// Refuses keys that are empty or, apart from case and surrounding blanks, equal: a reply could not be matched
    /// to their rows.
    pub(crate) fn new(
        endpoint: String,
        key: KeyField,
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self> {
        let mut rows = HashMap::new();
        for (row, value) in values.into_iter().enumerate() {
            let value = lenient(value.as_ref());
            if value.is_empty() {
                return Err(Error::config(format!(
                    "{endpoint}: row {row} (the first is 0) has no usable value of the key field {key}: it has to be a \
                     text that is not empty, or a number"
                )));
            }
            if let Some(other) = rows.insert(value, row) {
                return Err(Error::config(format!(
                    "{endpoint}: rows {other} and {row} (the first is 0) have the same value of the key field {key}, \
                     apart from case and surrounding blanks; send each contact once"
                )));
            }
        }
        Ok(Self { endpoint, rows })
    }

    /// The row with this key, within one request.
    pub(crate) fn row(&self, key: &str, request: &Range<usize>) -> Option<usize> {
        self.rows.get(&lenient(key)).copied().filter(|row| request.contains(row))
    }
}

/// Refuses a key that is empty, of a call for one contact.
pub(crate) fn check_key(endpoint: &str, key: KeyField, value: &str) -> Result<()> {
    if lenient(value).is_empty() {
        return Err(Error::config(format!(
            "{endpoint}: the contact has no usable value of the key field {key}: it has to be a text that is not empty, \
             or a number"
        )));
    }
    Ok(())
}

/// What can be the value of a key field: a text, a whole number, or the number of a contact.
///
/// Numbers with a point are not among them, since how Emarsys compares those is not known.
pub trait KeyValue: sealed::Sealed {}

mod sealed {
    pub trait Sealed {
        /// The value as it is sent.
        fn key_text(&self) -> String;
    }
}

/// Those that print themselves as they are sent.
macro_rules! key_values {
    ($($kind:ty),+) => {$(
        impl KeyValue for $kind {}

        impl sealed::Sealed for $kind {
            fn key_text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

key_values!(str, String, Cow<'_, str>, ContactId, u32, u64, i32, i64);

impl<T: KeyValue + ?Sized> KeyValue for &T {}

impl<T: KeyValue + ?Sized> sealed::Sealed for &T {
    fn key_text(&self) -> String {
        T::key_text(self)
    }
}

/// A key value as text.
pub(crate) fn text(value: &(impl KeyValue + ?Sized)) -> String {
    value.key_text()
}

/// Keys in whatever form, as text.
pub(crate) fn texts(keys: &[impl KeyValue]) -> Vec<String> {
    keys.iter().map(text).collect()
}

/// The text by which a reply will know this key value; empty if it can be no key.
pub(crate) fn usable_key(value: Option<&Value>) -> String {
    match value {
        Some(value @ (Value::String(_) | Value::Number(_))) => key_text(value),
        _ => String::new(),
    }
}

/// How Emarsys compares keys, and whether it echoes them as they were sent, is not known.
fn lenient(key: &str) -> String {
    key.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, ErrorKind, emarsys::FieldId};

    fn keys(values: &[&str]) -> Result<Keys> {
        Keys::new("PUT contact".to_owned(), FieldId::EMAIL.into(), values)
    }

    #[test]
    fn keys_that_a_reply_could_not_tell_apart_are_refused_before_sending() {
        let error = keys(&["ada@shop.test", "b", " Ada@shop.TEST"]).err().unwrap();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        assert!(error.to_string().contains("rows 0 and 2"), "{error}");
        assert!(!format!("{error:?}").to_lowercase().contains("ada"));
    }

    #[test]
    fn key_that_is_empty_is_refused_and_the_key_field_named() {
        for error in [
            keys(&["b", "  "]).err().unwrap(),
            check_key("PUT contact", FieldId::EMAIL.into(), "").unwrap_err(),
        ] {
            assert!(error.to_string().contains("no usable value of the key field 3"), "{error}");
        }
        for value in [None, Some(&Value::Null), Some(&Value::Bool(true))] {
            assert_eq!(usable_key(value), "");
        }
    }
}
