//! `GET settings`: the cheapest call, used to test a connection.

use serde_json::{Value, json};

use super::context::Context;

pub(super) fn show(cx: &Context<'_>) -> Value {
    json!({
        "id": 5120,
        "environment": "suite0.emarsys.net",
        "timezone": "Europe/Vienna",
        "name": "sandbox",
        "password_history_queue_size": 3,
        "country": "Austria",
        "totalContacts": cx.store.contact_count().to_string(),
    })
}
