//! `event/{id}/trigger`: external events, which set off programs. Here they are only kept.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::{Map, Value, json};

use super::{
    Sandbox,
    context::Context,
    key::Key,
    reply::{Data, Failure, RowError, RowErrors},
    value,
};
use crate::emarsys::ids::{ContactId, EventId};

pub(super) const FIRST_ID: u64 = 12;

/// Bytes of the data of one contact, as JSON.
const DATA_BYTES_MAX: usize = 100_000;

/// An event that was triggered for a contact. `Debug` does not show its data.
#[derive(Clone, PartialEq)]
pub struct StoredTrigger {
    event: EventId,
    contact: ContactId,
    data: Value,
}

impl StoredTrigger {
    /// The id of the event.
    pub fn event(&self) -> EventId {
        self.event
    }

    /// The id of the contact.
    pub fn contact(&self) -> ContactId {
        self.contact
    }

    /// The data that came with it; null if there was none.
    pub fn data(&self) -> &Value {
        &self.data
    }
}

impl fmt::Debug for StoredTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTrigger")
            .field("event", &self.event)
            .field("contact", &self.contact)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Adds an external event and returns its id.
    pub fn add_event(&self, name: &str) -> EventId {
        EventId::new(self.shared.now(|account, _| account.store.events.add(name)))
    }

    /// What was triggered, in the order of the requests.
    pub fn triggers(&self) -> Vec<StoredTrigger> {
        self.shared.now(|account, _| account.store.triggers.clone())
    }
}

/// For one contact, or for several whose failures are errors of their rows.
pub(super) fn trigger(cx: &mut Context<'_>, event: u64, body: &Map<String, Value>) -> Data {
    if !cx.store.events.has(event) {
        return Err(Failure::bad(5001, "No event found with the specified ID."));
    }
    let key = Key::parse(cx.catalog(), cx.switches, body.get("key_id"))?;
    let contacts = match body.get("contacts") {
        None => {
            trigger_one(cx, event, key, body)?;
            return Ok(json!({}));
        }
        Some(Value::Array(contacts)) => contacts,
        Some(_) => return Err(Failure::parameters()),
    };
    let contacts: Option<Vec<_>> = contacts.iter().map(Value::as_object).collect();
    let mut errors = RowErrors::default();
    for contact in contacts.ok_or_else(Failure::parameters)? {
        if let Err(error) = trigger_one(cx, event, key, contact) {
            let sent = contact.get("external_id").unwrap_or(&Value::Null);
            errors.insert(cx.key_text(key, sent).unwrap_or_default(), error);
        }
    }
    Ok(json!({ "errors": errors.into_value() }))
}

fn trigger_one(
    cx: &mut Context<'_>,
    event: u64,
    key: Key,
    sent: &Map<String, Value>,
) -> Result<(), RowError> {
    let data = sent.get("data").cloned().unwrap_or_default();
    check_data(&data)?;
    if sent.get("event_time").is_some_and(|time| !is_time(time)) {
        return Err(RowError::new(5010, "The event time is invalid."));
    }
    let value = cx.key_text(key, sent.get("external_id").unwrap_or(&Value::Null))?;
    let contact = cx.resolve(key, &value, cx.horizon())?;
    cx.store.triggers.push(StoredTrigger {
        event: EventId::new(event),
        contact: ContactId::new(contact),
        data,
    });
    Ok(())
}

fn check_data(data: &Value) -> Result<(), RowError> {
    match data {
        Value::Null | Value::Object(_) => {}
        Value::String(text) if serde_json::from_str::<Value>(text).is_err() => {
            return Err(RowError::new(5009, "The event data is no JSON."));
        }
        _ => return Err(RowError::new(5011, "The event data is no object.")),
    }
    if data.to_string().len() > DATA_BYTES_MAX {
        return Err(RowError::new(5008, "The event data is too large."));
    }
    Ok(())
}

/// Which forms the real service takes is not known: here it is ISO 8601, with or without a zone.
fn is_time(sent: &Value) -> bool {
    let Some(text) = value::text(sent) else { return sent.is_null() };
    DateTime::parse_from_rfc3339(&text).is_ok()
        || ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .any(|form| NaiveDateTime::parse_from_str(&text, form).is_ok())
        || NaiveDate::parse_from_str(&text, "%Y-%m-%d").is_ok()
}
