//! The way into the decoder for programs that try to break it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    ids::{ContactId, FieldId, ListId, RunId},
    reply::{self, Envelope, KeyMap, List, RowErrors},
    request::ReplyForm,
};

/// Reads a body in every form and as everything that a reply can hold. Whatever it is, this returns.
pub fn decode(body: &[u8]) {
    for form in [ReplyForm::Envelope, ReplyForm::Any, ReplyForm::Text] {
        if let Some(envelope) = Envelope::read_success(body, form) {
            let _ = envelope.names_successes();
            read_as_each(&envelope.data);
        }
    }
    let shape = reply::shape(body);
    debug_assert!(shape.is_ascii() || shape.contains('×'));
}

fn read_as_each(data: &Value) {
    let members = ["ids", "errors", "result", "value", "next", "id"].map(|name| data.get(name));
    for value in members.into_iter().flatten().chain([data]) {
        read::<List<ContactId>>(value);
        read::<List<String>>(value);
        read::<KeyMap<ContactId>>(value);
        read::<RowErrors>(value);
        read::<FieldId>(value);
        read::<ListId>(value);
        read::<RunId>(value);
        let _ = (reply::number(value), reply::key_text(value));
    }
}

fn read<T: DeserializeOwned>(value: &Value) {
    let _ = reply::data::<T>(value.clone());
}
