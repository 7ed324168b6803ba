//! `source`: where contacts are said to come from.

use serde_json::{Map, Value, json};

use super::{
    Sandbox,
    catalog::same_name,
    context::Context,
    reply::{Data, Failure},
    store::Store,
    value,
};
use crate::emarsys::ids::SourceId;

pub(super) const FIRST_ID: u64 = 77;

/// A contact source of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSource {
    id: SourceId,
    name: String,
}

impl StoredSource {
    /// The id.
    pub fn id(&self) -> SourceId {
        self.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Sandbox {
    /// Adds a contact source and returns its id, also if its name exists already. Contacts can be written with no
    /// other `source_id`.
    pub fn add_source(&self, name: &str) -> SourceId {
        SourceId::new(self.shared.now(|account, _| account.store.sources.add(name)))
    }

    /// All contact sources, by id.
    pub fn sources(&self) -> Vec<StoredSource> {
        self.shared.now(|account, _| account.store.source_snapshots())
    }
}

impl Store {
    pub(super) fn source_snapshots(&self) -> Vec<StoredSource> {
        self.sources
            .iter()
            .map(|(id, name)| StoredSource { id: SourceId::new(id), name: name.to_owned() })
            .collect()
    }
}

pub(super) fn list(cx: &Context<'_>) -> Value {
    cx.store.sources.iter().map(|(id, name)| json!({ "id": id.to_string(), "name": name })).collect()
}

/// What the reply of the real service says besides success is not known.
pub(super) fn create(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let name = body.get("name").and_then(value::text).unwrap_or_default();
    if name.trim().is_empty() {
        return Err(Failure::parameters());
    }
    if cx.store.sources.iter().any(|(_, known)| same_name(known, &name)) {
        return Err(Failure::bad(7001, "A contact source with this name already exists."));
    }
    cx.store.sources.add(&name);
    Ok(json!(""))
}

pub(super) fn delete(cx: &mut Context<'_>, id: u64) -> Data {
    if cx.store.sources.remove(id) {
        return Ok(json!(""));
    }
    Err(Failure::bad(7002, "No contact source found with the specified ID."))
}
