//! What waits to be sent, by operation, each change with the record of its row.

use std::{collections::VecDeque, time::SystemTime};

use crate::{
    change::Change,
    destination::Operation,
    state::record::{Mark, RowRecord},
};

/// A row's record while the run has to do with it.
pub(super) struct Row {
    pub(super) record: RowRecord,
    /// Whether the store has it, and whether as a row in doubt, by the last commit that was put together.
    pub(super) stored: bool,
    pub(super) stored_in_doubt: bool,
    /// The mark of before the batch that the row is in.
    pub(super) prior: Option<Mark>,
    /// Whether the row is not in the source and counted apart.
    pub(super) is_resolved: bool,
}

/// A change that waits to be put into a batch.
pub(super) struct Waiting {
    pub(super) change: Change,
    pub(super) row: Row,
    pub(super) bytes: usize,
}

/// What waits to be sent, by operation.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) remove: VecDeque<Waiting>,
    pub(super) insert: VecDeque<Waiting>,
    pub(super) update: VecDeque<Waiting>,
    pub(super) upsert: VecDeque<Waiting>,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        !self.have(1)
    }

    /// Whether one of them has so many rows.
    pub(super) fn have(&self, rows: usize) -> bool {
        let Self { remove, insert, update, upsert } = self;
        [remove, insert, update, upsert].iter().any(|queue| queue.len() >= rows)
    }

    pub(super) fn of(&mut self, operation: Operation) -> &mut VecDeque<Waiting> {
        match operation {
            Operation::Remove => &mut self.remove,
            Operation::Insert => &mut self.insert,
            Operation::Update => &mut self.update,
            Operation::Upsert => &mut self.upsert,
        }
    }
}

impl Row {
    pub(super) fn new(record: Option<RowRecord>) -> Self {
        let stored = record.is_some();
        let record = record.unwrap_or_default();
        Self { stored, stored_in_doubt: record.is_in_doubt(), record, prior: None, is_resolved: false }
    }
}

impl Waiting {
    /// Until when something sent earlier may still take effect.
    pub(super) fn until(&self) -> Option<SystemTime> {
        self.row.record.mark().map(Mark::until)
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.until().is_none_or(|until| until < now)
    }
}
