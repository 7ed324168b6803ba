//! The destination, watched: what goes into batches, and what becomes of each row.

use async_trait::async_trait;
use reverse_etl::{
    Batch, Change, Delivery, Destination, Field, FieldName, FieldSpec, Key, Outcome, Outcomes, Record,
    RejectedPolicy, Result, Target, Value,
    emarsys::{ContactsDestination, FieldId},
    host::Host as _,
};

use super::{
    clock::CLOCK_MARGIN,
    world::{HandedOut, Known, Process, Shared, World, email},
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
            self.shared.lock().note_handed_out(self.process, change, self.policy);
        }
        let applied = self.inner.apply(batch).await;
        let world = &mut *self.shared.lock();
        match &applied {
            Err(error) => {
                let name = if error.delivery() == Delivery::Unknown { "unknown" } else { "not attempted" };
                world.meet(format!("outcome: {:?}, {name}", batch.operation()));
                world.tell(|| format!("  process {} is told of its batch: {name}, {error}", self.process));
            }
            Ok(outcomes) => {
                for (change, outcome) in batch.changes().iter().zip(outcomes.iter()) {
                    let name = name(outcome);
                    world.meet(format!("outcome: {:?}, {name}", batch.operation()));
                    world
                        .tell(|| format!("  process {} is told of {}: {name}", self.process, key_of(change)));
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

    fn note_handed_out(&mut self, process: usize, change: &Change, policy: RejectedPolicy) {
        let Some(key) = self.key_of_change(change) else {
            self.violate("promise 4: a batch has a row that is in no source");
            return;
        };
        let Process { rows, setup, .. } = &self.processes[process];
        let has_no_fields = rows[key].expected(setup).is_some_and(|expected| expected.is_empty());
        if change.fields().is_empty() && !has_no_fields {
            // A row in doubt that is asked for by its key alone: should that be refused, nothing else is than was before.
            let known = &mut self.keys[key];
            known.handed_out.clone_from(&known.refused);
            return;
        }
        self.check_waits(process, key, change, policy);
        let Process { rows, setup, .. } = &self.processes[process];
        let (row, setup) = (rows[key].clone(), setup.clone());
        let handed_out = HandedOut { sent: self.sent(change), row, setup, heard: None };
        self.keys[key].handed_out = Some(handed_out);
    }

    /// What a change writes, by slot: a field that was made anew, or that a run believes to be, is another one.
    fn sent(&self, change: &Change) -> Vec<(Option<u16>, Value)> {
        let slot = |field: &Field<'_>| self.slot(field.id()?.parse().ok().map(FieldId::new)?);
        let fields = change.fields().iter().chain(change.on_create().iter());
        fields.map(|field| (slot(&field), field.value().into_owned())).collect()
    }

    /// A row that was refused goes out again when its values have changed or its time has come, and not before.
    fn check_waits(&mut self, process: usize, key: usize, change: &Change, policy: RejectedPolicy) {
        let Known { refused: Some(refused), record: Some(record), .. } = &self.keys[key] else { return };
        let Some(rejection) = record.rejection() else { return };
        if record.is_in_doubt() && change.fields().is_empty() {
            // The doubt goes before, and has a pause of its own.
            return;
        }
        let now = self.processes[process].machine.wall() + CLOCK_MARGIN;
        let is_held = match policy {
            // Whoever judges by the record trusts it; so the first pause is looked at as well.
            RejectedPolicy::Backoff(_) => {
                rejection.holds_back(rejection.sent(), false, now)
                    || refused.heard.is_some_and(|heard| now < heard + self.first_pause)
            }
            RejectedPolicy::Never => true,
            _ => false,
        };
        if is_held && refused.sent == self.sent(change) {
            self.violate(format!("a row that was refused goes out again too early and unchanged: k{key}"));
        }
        self.checked("a row that was refused waits");
    }
}

/// The key without what all keys have in common.
fn key_of(change: &Change) -> &str {
    change.key().as_str().split('@').next().unwrap_or_default()
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
