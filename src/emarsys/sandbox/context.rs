//! What a call of the API gets to work with.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{
    catalog::{Catalog, StoredField},
    faults::Twist,
    key::Key,
    reply::{Failure, RowError, RowErrors},
    store::{Horizon, Store},
    switches::Switches,
    value,
};

/// The account as one call sees it.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) store: &'a mut Store,
    pub(super) switches: &'a Switches,
    pub(super) now: SystemTime,
    /// What is to go wrong inside this call.
    pub(super) twist: Option<Twist>,
    /// Custom fields that the account has room for.
    pub(super) field_slots: usize,
}

impl Context<'_> {
    pub(super) fn catalog(&self) -> &Catalog {
        &self.store.catalog
    }

    /// How far reads see now.
    pub(super) fn horizon(&self) -> Horizon {
        let delay = self.switches.read_delay;
        if delay.is_zero() { Horizon::NONE } else { Horizon(self.now.checked_sub(delay)) }
    }

    /// The one contact that a key value names.
    pub(super) fn resolve(&mut self, key: Key, value: &str, horizon: Horizon) -> Result<u64, RowError> {
        match self.store.find(key, value, horizon).as_slice() {
            [] => Err(key.nobody(value)),
            [contact] => Ok(*contact),
            _ => Err(key.several(value)),
        }
    }

    /// A key value as text. Of a field with several choices it is an array of them, and becomes `1,2`.
    pub(super) fn key_text(&self, key: Key, sent: &Value) -> Result<String, RowError> {
        if let (Key::Field(field), Value::Array(choices)) = (key, sent)
            && self.catalog().field(field).is_some_and(StoredField::holds_several)
        {
            let choices: Vec<_> = choices.iter().filter_map(value::text).collect();
            return key.value(&Value::String(choices.join(",")));
        }
        key.value(sent)
    }

    /// The contacts that a list of key values names, and the errors of the others.
    pub(super) fn resolve_all(
        &mut self,
        key: Key,
        sent: &[Value],
        horizon: Horizon,
    ) -> (Vec<u64>, RowErrors) {
        let (mut found, mut errors) = (Vec::new(), RowErrors::default());
        for element in sent {
            match self.key_text(key, element) {
                Ok(text) => match self.resolve(key, &text, horizon) {
                    Ok(contact) => found.push(contact),
                    Err(error) => errors.insert(text, error),
                },
                Err(error) => errors.insert(String::new(), error),
            }
        }
        found.sort_unstable();
        found.dedup();
        (found, errors)
    }

    /// The list that `contact_list_id` names, if the request has one.
    pub(super) fn contact_list(&self, body: &Map<String, Value>) -> Result<Option<u64>, Failure> {
        let Some(sent) = body.get("contact_list_id").filter(|sent| !sent.is_null()) else { return Ok(None) };
        let text = value::text(sent).unwrap_or_default();
        let list = text.parse().ok().filter(|id| self.store.list(*id).is_some());
        let unknown = || {
            let status = self.switches.unknown_list_status;
            Failure::new(status, 2020, format!("Invalid contact list id: {text}"))
        };
        list.map(Some).ok_or_else(unknown)
    }
}

/// The body of a call, which is always an object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Failure::payload()),
    }
}
