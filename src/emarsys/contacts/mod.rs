//! Contacts (Emarsys API: Contacts): what they are here; each kind of call is in a file of its own.

mod delete;
mod history;
mod merge;
mod query;
mod read;
mod write;

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    client::Client,
    ids::{ContactId, FieldId, KeyField, SourceId},
};
use crate::Result;

pub use self::{
    history::Mailing,
    merge::{Merge, MergeRule, Unsubscription},
    query::{QueriedContact, Query},
    write::{Upserted, Written},
};

/// The most contacts, or keys, of one request.
const ROWS_MAX: usize = 1_000;

/// The calls about contacts; made by [`Client::contacts`].
#[derive(Clone, Copy, Debug)]
pub struct Contacts<'a>(pub(crate) &'a Client);

/// Some fields of one contact, to be written.
///
/// A field that is not in it stays as it is; one that is null or an empty string is cleared. Its `Debug` shows the
/// fields and not their values.
#[derive(Clone, PartialEq)]
pub struct Contact {
    /// The key is among them.
    fields: Vec<(KeyField, Value)>,
    source: Option<SourceId>,
}

impl Contact {
    /// The contact whose field `key` has this value.
    pub fn new(key: impl Into<KeyField>, value: impl Into<Value>) -> Self {
        Self { fields: vec![(key.into(), value.into())], source: None }
    }

    /// The same contact with a value for `field`, in place of one it may have had.
    #[must_use]
    pub fn with(mut self, field: FieldId, value: impl Into<Value>) -> Self {
        match self.fields.iter_mut().find(|(known, _)| *known == field.into()) {
            Some((_, known)) => *known = value.into(),
            None => self.fields.push((field.into(), value.into())),
        }
        self
    }

    /// The same contact, said to come from this source (Emarsys API: Contact sources). An unknown one is rejected
    /// with 2013.
    #[must_use]
    pub fn from_source(mut self, source: SourceId) -> Self {
        self.source = Some(source);
        self
    }

    /// The value to be written to `field`, or of the key, if there is one.
    pub fn value(&self, field: impl Into<KeyField>) -> Option<&Value> {
        let field = field.into();
        self.fields.iter().find(|(known, _)| *known == field).map(|(_, value)| value)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.fields.iter().map(|(field, _)| field.to_string()).collect();
        f.debug_struct("Contact").field("fields", &fields).finish_non_exhaustive()
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map =
            serializer.serialize_map(Some(self.fields.len() + usize::from(self.source.is_some())))?;
        for (field, value) in &self.fields {
            map.serialize_entry(field, value)?;
        }
        if let Some(source) = self.source {
            map.serialize_entry("source_id", &source)?;
        }
        map.end()
    }
}

/// Some fields of one contact, as read. Its `Debug` shows the fields and not their values.
#[derive(Clone, PartialEq)]
pub struct ContactData {
    id: ContactId,
    uid: Option<String>,
    values: BTreeMap<FieldId, Value>,
}

impl ContactData {
    /// The internal number of the contact.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The internal text id of the contact, if the reply has it.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// The value of a field: mostly a string, of a multiple choice a list of numbers, null if it is empty. `None`
    /// if the reply does not have the field.
    pub fn value(&self, field: FieldId) -> Option<&Value> {
        self.values.get(&field)
    }
}

impl ContactData {
    /// All fields that the reply has, by number, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &Value)> {
        self.values.iter().map(|(field, value)| (*field, value))
    }
}

impl fmt::Debug for ContactData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<u32> = self.values.keys().map(|field| field.get()).collect();
        f.debug_struct("ContactData").field("id", &self.id).field("fields", &fields).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
