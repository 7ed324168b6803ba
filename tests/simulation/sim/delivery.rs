//! The destination, watched: what goes into batches, and what becomes of each row.

use async_trait::async_trait;
use reverse_etl::{
    Batch, Change, Delivery, Destination, FieldName, FieldSpec, Key, Outcome, Outcomes, Record,
    RejectedPolicy, Result, Target, Value, emarsys::ContactsDestination, host::Host as _,
};

use super::{
    clock::Machine,
    world::{Known, Process, Refused, Shared, World, email},
};

/// The contacts destination as one process uses it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) inner: ContactsDestination,
    pub(crate) shared: Shared,
    pub(crate) process: usize,
    pub(crate) policy: RejectedPolicy,
}

#[async_trait]
impl Destination for Watched {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        self.inner.describe(wanted).await
    }

    async fn prepare(&self, target: Target) -> Result<Target> {
        self.inner.prepare(target).await
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        for change in batch.changes() {
            self.shared.lock().note_handed_out(change, self.policy);
        }
        let applied = self.inner.apply(batch).await;
        let world = &mut *self.shared.lock();
        match &applied {
            Err(error) => {
                let name = if error.delivery() == Delivery::Unknown { "unknown" } else { "not attempted" };
                world.meet(format!("outcome: {:?}, {name}", batch.operation()));
                world
                    .tell(|| format!("  all rows of the batch of process {}: {name}, {error}", self.process));
            }
            Ok(outcomes) => {
                for (change, outcome) in batch.changes().iter().zip(outcomes.iter()) {
                    let name = name(outcome);
                    world.meet(format!("outcome: {:?}, {name}", batch.operation()));
                    world.tell(|| format!("  {} of process {}: {name}", change.key().as_str(), self.process));
                    if let Outcome::Rejected { .. } = outcome {
                        world.note_refused(self.process, change);
                    }
                }
            }
        }
        applied
    }

    async fn find(&self, keys: &[Key], fields: &[FieldName]) -> Result<Vec<Option<Record>>> {
        self.inner.find(keys, fields).await
    }
}

impl World {
    fn key_of_change(&self, change: &Change) -> Option<usize> {
        (0..self.keys.len()).find(|key| email(*key) == change.key().as_str())
    }

    /// A row that was refused goes out again when its values have changed or its time has come, and not before.
    fn note_handed_out(&mut self, change: &Change, policy: RejectedPolicy) {
        let Some(key) = self.key_of_change(change) else {
            self.violate("promise 4: a batch has a row that is in no source");
            return;
        };
        let Known { refused: Some(refused), record: Some(record), .. } = &self.keys[key] else { return };
        let Some(rejection) = record.rejection() else { return };
        let now = Machine(std::sync::Arc::clone(&self.clock)).wall();
        let is_held = match policy {
            RejectedPolicy::Backoff(_) => rejection.holds_back(rejection.sent(), false, now),
            RejectedPolicy::Never => true,
            _ => false,
        };
        if is_held && !change.fields().is_empty() && refused.sent == sent(change) {
            self.violate(format!("a row that was refused goes out again too early and unchanged: k{key}"));
        }
        self.checked("a row that was refused waits");
    }

    fn note_refused(&mut self, process: usize, change: &Change) {
        let Some(key) = self.key_of_change(change) else { return };
        let Process { rows, setup, .. } = &self.processes[process];
        if change.fields().is_empty() {
            // Its key alone was refused, and what was refused before is still what it was.
            return;
        }
        let refused = Refused { sent: sent(change), row: rows[key].clone(), setup: setup.clone() };
        self.keys[key].refused = Some(refused);
    }
}

/// What a change writes: by id, since a field that was made anew is another one.
fn sent(change: &Change) -> Vec<(String, Value)> {
    let fields = change.fields().iter().chain(change.on_create().iter());
    fields.map(|field| (field.id().unwrap_or_default().to_owned(), field.value().clone())).collect()
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { created: false } => "applied",
        Outcome::Applied { created: true } => "created",
        Outcome::NoMatch => "no match",
        Outcome::AlreadyExists => "already exists",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Unknown => "unknown",
        Outcome::NotAttempted => "not attempted",
        _ => "something new",
    }
}
