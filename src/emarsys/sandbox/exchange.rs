//! One request and what comes back, as plain data: the shell translates them to and from HTTP, a simulation makes
//! them by itself.

use std::{fmt, time::Duration};

use serde_json::Value;

use super::{
    endpoint::{Endpoint, Route},
    reply,
};

/// A request to the sandbox, as it would arrive over HTTP.
///
/// `Debug` shows neither its headers nor its query nor its body: they hold credentials and personal data.
#[derive(Clone)]
#[must_use]
pub struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A request without headers and body. `target` is the path with the query, such as
    /// `/api/v3/contact/?create_if_not_exists=1`.
    pub fn new(method: impl Into<String>, target: impl Into<String>) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// The same request with one more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same request with this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Which call it is.
    pub fn endpoint(&self) -> Endpoint {
        Route::of(&self.method, &self.target).endpoint
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn header_value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split(['?', '=']).next().unwrap_or_default();
        f.debug_struct("Request").field("method", &self.method).field("path", &path).finish_non_exhaustive()
    }
}

/// A reply of the sandbox. `Debug` does not show its body, which may hold personal data.
#[derive(Clone)]
pub struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self { status, headers: vec![(reply::CONTENT_TYPE, content_type.to_owned())], body: body.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers, names in the spelling of the wire.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body.
    pub fn body(&self) -> &str {
        &self.body
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What the caller of a request gets to see.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The reply as it is.
    Whole(Response),
    /// Status, headers and the first half of the body; then the connection breaks.
    Cut(Response),
    /// Nothing: the connection closes without a reply.
    Lost,
    /// Nothing: there was no connection, so that the request was not sent. Only a [`Network`](super::Network) says so.
    Unreachable,
}

/// An answer and how long it takes to arrive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reaction {
    /// The time from the request to its answer. What the request changes is changed at once.
    pub delay: Duration,
    /// The answer.
    pub answer: Answer,
}

impl Reaction {
    pub(super) fn at_once(answer: Answer) -> Self {
        Self { delay: Duration::ZERO, answer }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Whole(response) | Answer::Cut(response) => Some(response.status),
            Answer::Lost | Answer::Unreachable => None,
        }
    }
}
