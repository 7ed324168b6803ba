//! The sandbox against the fact sheet: every endpoint, every odd shape of a reply. All but `server` work without
//! sockets, on a clock that stands still until it is moved.

mod auth;
mod campaigns;
mod combined;
mod contacts;
mod empty;
mod events;
mod exports;
mod faults;
mod fields;
mod limits;
mod lists;
mod merge;
mod paths;
mod query;
mod reads;
mod relational;
mod segment_runs;
mod segments;
mod server;
mod snapshot;
mod sources;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::*;
use crate::{Result, host::TestHost};

/// A Sunday evening in Vienna: 2026-03-01 20:00:00, an hour before UTC. A [`TestHost`] begins then.
const START: u64 = 1_772_391_600;

/// A caller with a token, and the sandbox that it calls.
struct Caller {
    sandbox: Sandbox,
    clock: Arc<TestHost>,
    token: String,
}

impl Caller {
    fn new() -> Self {
        Self::with(Sandbox::builder())
    }

    fn switched(switches: Switches) -> Self {
        Self::with(Sandbox::builder().switches(switches))
    }

    fn with(builder: SandboxBuilder) -> Self {
        crate::watch::install();
        let clock = TestHost::shared();
        let sandbox = builder.host(clock.clone()).build();
        let mut caller = Self { sandbox, clock, token: String::new() };
        caller.log_in();
        caller
    }

    fn log_in(&mut self) {
        let response = whole(self.sandbox.handle(&token_request()));
        let reply: Value = serde_json::from_str(response.body()).unwrap();
        reply["access_token"].as_str().unwrap().clone_into(&mut self.token);
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Request {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Request::new(method, format!("/api/v3/{path}"))
            .header("Authorization", format!("Bearer {}", self.token))
            .body(body)
    }

    fn react(&self, method: &str, path: &str, body: &Value) -> Reaction {
        self.sandbox.handle(&self.request(method, path, body))
    }

    fn response(&self, method: &str, path: &str, body: &Value) -> Response {
        whole(self.react(method, path, body))
    }

    /// Status and parsed body.
    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.response(method, path, body);
        (response.status(), serde_json::from_str(response.body()).unwrap())
    }

    /// The `data` of a call that succeeds.
    fn data(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, mut reply) = self.call(method, path, body);
        assert_eq!((status, &reply["replyCode"]), (200, &json!(0)), "{method} {path}: {reply}");
        reply["data"].take()
    }

    fn get(&self, path: &str) -> Value {
        self.data("GET", path, &Value::Null)
    }

    /// Status and reply code of a call that fails.
    fn refusal(&self, method: &str, path: &str, body: &Value) -> (u16, u64) {
        let (status, reply) = self.call(method, path, body);
        assert_eq!(reply["data"], "", "{method} {path}: {reply}");
        (status, reply["replyCode"].as_u64().unwrap())
    }

    fn person(&self, email: &str) -> ContactId {
        self.sandbox.add_contact([(FieldId::EMAIL, json!(email))])
    }
}

fn token_request() -> Request {
    // sandbox-client:sandbox-client-secret
    Request::new("POST", "/oauth2/token")
        .header("Authorization", "Basic c2FuZGJveC1jbGllbnQ6c2FuZGJveC1jbGllbnQtc2VjcmV0")
        .body("grant_type=client_credentials")
}

fn whole(reaction: Reaction) -> Response {
    match reaction.answer {
        Answer::Whole(response) => response,
        other => panic!("{other:?} is not a whole reply"),
    }
}
