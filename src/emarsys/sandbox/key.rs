//! By what a request names its contacts: `key_id` and the values that go with it.

use std::fmt;

use serde_json::{Map, Value};

use super::{
    catalog::{Catalog, EMAIL},
    reply::{Failure, RowError},
    switches::Switches,
    value,
};

/// What identifies a contact in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The internal id.
    Id,
    /// The internal text id.
    Uid,
    /// A contact field.
    Field(u32),
}

impl Key {
    /// The key where a request names none.
    pub(super) const DEFAULT: Self = Self::Field(EMAIL);

    /// The key of a read or of a list call, where a missing one meant the internal id in 2016.
    pub(super) fn parse_for_read(
        catalog: &Catalog,
        switches: &Switches,
        sent: Option<&Value>,
    ) -> Result<Self, Failure> {
        let missing = sent.is_none_or(Value::is_null);
        if missing && switches.missing_key_is_internal_id {
            return Ok(Self::Id);
        }
        Self::parse(catalog, switches, sent)
    }

    pub(super) fn parse(
        catalog: &Catalog,
        switches: &Switches,
        sent: Option<&Value>,
    ) -> Result<Self, Failure> {
        let Some(sent) = sent.filter(|sent| !sent.is_null()) else { return Ok(Self::DEFAULT) };
        let sent = value::text(sent).ok_or_else(|| Failure::key_field(""))?;
        match sent.as_str() {
            "id" => return Ok(Self::Id),
            "uid" => return Ok(Self::Uid),
            _ => {}
        }
        let by_number = field_id(&sent).and_then(|id| catalog.field(id));
        let field = by_number.or_else(|| catalog.named(&sent).filter(|_| switches.key_names));
        field.map(|field| Self::Field(field.id)).ok_or_else(|| Failure::key_field(&sent))
    }

    /// The name of the member that holds the key value in a contact.
    pub(super) fn member(self) -> String {
        self.to_string()
    }

    /// The key value of a row, as text.
    pub(super) fn value_in(self, row: &Map<String, Value>) -> Result<String, RowError> {
        self.value(row.get(&self.member()).unwrap_or(&Value::Null))
    }

    /// A key value as text. Its error has the place of the row's key.
    pub(super) fn value(self, sent: &Value) -> Result<String, RowError> {
        match value::text(sent) {
            Some(text) if !text.is_empty() => Ok(text),
            None if !sent.is_null() => {
                Err(RowError::new(2005, format!("Invalid value provided for key field: {self}")))
            }
            _ => Err(RowError::new(2005, format!("No value provided for key field: {self}"))),
        }
    }

    pub(super) fn nobody(self, value: &str) -> RowError {
        RowError::new(2008, format!("No contact found with the external id: {self} - {value}"))
    }

    pub(super) fn several(self, value: &str) -> RowError {
        RowError::new(2010, format!("More contacts found with the external id: {self} - {value}"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("id"),
            Self::Uid => f.write_str("uid"),
            Self::Field(field) => field.fmt(f),
        }
    }
}

/// A name that is the number of a field, written as numbers are.
pub(super) fn field_id(name: &str) -> Option<u32> {
    name.parse().ok().filter(|id: &u32| id.to_string() == name)
}
