//! The reply envelope and everything that is refused as a whole.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::{
    exchange::Response,
    switches::{ErrorBody, Switches},
};

pub(super) const CONTENT_TYPE: &str = "Content-Type";

/// What the real service labels its JSON with.
const ENVELOPE_TYPE: &str = "text/html; charset=utf-8";

/// The `data` of a success, or why the request as a whole is refused.
pub(super) type Data = Result<Value, Failure>;

/// A refusal of a whole request.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: u16,
    /// None where the documentation has none.
    code: Option<u16>,
    text: String,
}

impl Failure {
    pub(super) fn new(status: u16, code: u16, text: impl Into<String>) -> Self {
        Self { status, code: Some(code), text: text.into() }
    }

    /// A refusal whose body may be anything, as that of the gateway.
    pub(super) fn without_code(status: u16, text: impl Into<String>) -> Self {
        Self { status, code: None, text: text.into() }
    }

    /// A refusal with the status of most of them, 400.
    pub(super) fn bad(code: u16, text: impl Into<String>) -> Self {
        Self::new(400, code, text)
    }

    pub(super) fn payload() -> Self {
        Self::bad(1010, "Invalid request payload.")
    }

    pub(super) fn parameters() -> Self {
        Self::bad(1001, "One or more parameters are invalid or missing.")
    }

    pub(super) fn wrong_verb() -> Self {
        Self::bad(1009, "Invalid HTTP method.")
    }

    pub(super) fn batch_too_long() -> Self {
        Self::bad(1000, "The request exceeded the maximum batch size of 1,000")
    }

    /// A request that leads nowhere, `what` being its verb and its path without ids.
    pub(super) fn not_served(what: impl fmt::Display) -> Self {
        Self::without_code(404, format!("the sandbox does not serve {what}"))
    }

    pub(super) fn forbidden() -> Self {
        Self::without_code(403, "Forbidden")
    }

    pub(super) fn unauthorized(text: &str) -> Self {
        Self::new(401, 1, text)
    }

    /// A part of a path that should be a number and is none: the real service takes it for an action.
    pub(super) fn action(word: &str) -> Self {
        Self::bad(1, format!("Action {} is invalid.", capitalised(word)))
    }

    /// An action that the real service may know, although the sandbox does not. `what` is as for
    /// [`not_served`](Self::not_served), whose words come after those of the real service.
    pub(super) fn unknown_action(word: &str, what: impl fmt::Display) -> Self {
        let not_served = Self::not_served(what).text;
        Self::bad(1, format!("Action {} is invalid: {not_served}", capitalised(word)))
    }

    pub(super) fn language() -> Self {
        Self::bad(1002, "Invalid language code")
    }

    pub(super) fn key_field(sent: &str) -> Self {
        Self::bad(2004, format!("Invalid key field id: {sent}"))
    }

    pub(super) fn no_list() -> Self {
        Self::new(404, 3006, "No contact list found with the specified ID.")
    }

    pub(super) fn response(&self, switches: &Switches) -> Response {
        let status = if self.status == 400 { switches.request_error_status } else { self.status };
        match self.code {
            Some(code) => envelope(status, Some(code), &self.text, &json!("")),
            None => gateway(status, None, &self.text, switches.error_body),
        }
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// A refusal of one row: `{"<key value>": {"<code>": "<text>"}}` in a batch, a [`Failure`] when it is alone.
#[derive(Clone, Debug)]
pub(super) struct RowError {
    pub(super) code: u16,
    pub(super) text: String,
}

impl RowError {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<RowError> for Failure {
    fn from(error: RowError) -> Self {
        Self::bad(error.code, error.text)
    }
}

/// The errors of a batch: one entry per key value, so of two rows with the same one the later shows.
#[derive(Debug, Default)]
pub(super) struct RowErrors(Map<String, Value>);

impl RowErrors {
    pub(super) fn insert(&mut self, key: String, error: RowError) {
        let RowError { code, text } = error;
        self.0.insert(key, json!({ code.to_string(): text }));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_value(self) -> Value {
        map_or_list(self.0)
    }
}

/// A map as PHP prints it: an empty one is `[]`.
pub(super) fn map_or_list(map: Map<String, Value>) -> Value {
    if map.is_empty() { json!([]) } else { Value::Object(map) }
}

/// `data` with whatever is empty in it printed as switched: itself and its members, which is where maps and lists of rows
/// are.
pub(super) fn with_empty_as_switched(mut data: Value, switches: &Switches) -> Value {
    let print = |value: &mut Value| match value {
        Value::Object(map) if map.is_empty() && switches.empty_objects_as_arrays => *value = json!([]),
        Value::Array(list) if list.is_empty() && switches.empty_arrays_as_objects => *value = json!({}),
        _ => {}
    };
    if let Value::Object(members) = &mut data {
        members.values_mut().for_each(print);
    }
    print(&mut data);
    data
}

pub(super) fn success(data: &Value) -> Response {
    envelope(200, Some(0), "OK", data)
}

fn envelope(status: u16, code: Option<u16>, text: &str, data: &Value) -> Response {
    // Written member by member: in this order they come from the real service.
    let code = code.map_or_else(String::new, |code| format!(r#""replyCode":{code},"#));
    let body = format!(r#"{{{code}"replyText":{},"data":{data}}}"#, json!(text));
    Response::new(status, ENVELOPE_TYPE, body)
}

/// A refusal of the gateway, whose body is an envelope, a plain text or a `message`, as switched. The envelope has no
/// `replyCode` if the documentation has none.
pub(super) fn gateway(status: u16, code: Option<u16>, text: &str, body: ErrorBody) -> Response {
    match body {
        ErrorBody::Envelope => envelope(status, code, text, &json!("")),
        ErrorBody::Plain => Response::new(status, "text/plain; charset=utf-8", text),
        ErrorBody::Message => {
            Response::new(status, "application/json; charset=utf-8", json!({ "message": text }).to_string())
        }
    }
}

/// The gateway's usual words for a status.
pub(super) fn gateway_status(status: u16, body: ErrorBody) -> Response {
    let (code, text) = match status {
        401 => (Some(1), "Unauthorized"),
        403 => (None, "Forbidden"),
        413 => (None, "Request size limit exceeded"),
        429 => (Some(7003), "Too many requests for this account and resource within the last minute."),
        500 => (Some(1), "Database connection error"),
        502 => (None, "Bad Gateway"),
        503 => (None, "The system is overloaded for this resource."),
        504 => (None, "Gateway Timeout"),
        _ => (None, "Refused"),
    };
    gateway(status, code, text, body)
}

/// Whole seconds since 1970; 0 for anything before.
pub(super) fn unix_seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
