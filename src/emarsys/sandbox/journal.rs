//! What came in: how many requests of each kind, and every write as it was sent.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::{endpoint::Endpoint, exchange::Request};

/// A write request as it came in, whether or not it took effect. `Debug` does not show its body.
#[derive(Clone)]
pub struct WriteRequest {
    endpoint: Endpoint,
    target: String,
    body: Vec<u8>,
    status: Option<u16>,
}

impl WriteRequest {
    /// Which call it is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Path and query as sent.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The body as sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The status of the answer; none if the answer was lost.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Debug for WriteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteRequest")
            .field("endpoint", &self.endpoint)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Whether a request is there to write, also where its body decides.
fn writes(endpoint: Endpoint, request: &Request) -> bool {
    let names_a_list = || {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        body.get("contact_list_id").is_some_and(|list| !list.is_null())
    };
    endpoint.is_write() || (endpoint == Endpoint::CheckIds && names_a_list())
}

/// The counts and the writes since the last [`clear`](Self::clear).
#[derive(Debug)]
pub(super) struct Journal {
    bodies_kept: bool,
    counts: BTreeMap<Endpoint, u64>,
    write_count: u64,
    writes: Vec<WriteRequest>,
}

impl Journal {
    pub(super) fn new(bodies_kept: bool) -> Self {
        Self { bodies_kept, counts: BTreeMap::new(), write_count: 0, writes: Vec::new() }
    }

    pub(super) fn note(&mut self, endpoint: Endpoint, request: &Request, status: Option<u16>) {
        *self.counts.entry(endpoint).or_default() += 1;
        if !writes(endpoint, request) {
            return;
        }
        self.write_count += 1;
        if self.bodies_kept {
            let (target, body) = (request.target.clone(), request.body.clone());
            self.writes.push(WriteRequest { endpoint, target, body, status });
        }
    }

    pub(super) fn counts(&self) -> &BTreeMap<Endpoint, u64> {
        &self.counts
    }

    pub(super) fn write_count(&self) -> u64 {
        self.write_count
    }

    pub(super) fn writes(&self) -> &[WriteRequest] {
        &self.writes
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.write_count = 0;
        self.writes.clear();
    }
}
