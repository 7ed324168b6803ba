//! What waits to be sent, by operation, each change with the record of its row.

use std::{collections::VecDeque, time::SystemTime};

use crate::{
    change::Change,
    destination::{Limits, Operation},
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
        self.all().iter().all(|queue| queue.is_empty())
    }

    /// Whether there is a full batch in one of them.
    pub(super) fn have_batch(&self, limits: &Limits) -> bool {
        self.all().iter().any(|queue| next_batch(queue, limits).1)
    }

    fn all(&self) -> [&VecDeque<Waiting>; 4] {
        let Self { remove, insert, update, upsert } = self;
        [remove, insert, update, upsert]
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

/// How many of the rows of a queue make the next batch, and whether it is full.
pub(super) fn next_batch(queue: &VecDeque<Waiting>, limits: &Limits) -> (usize, bool) {
    let Limits { rows, bytes, .. } = *limits;
    let (mut taken, mut size) = (0, 0_usize);
    while let Some(waiting) = queue.get(taken)
        && taken < rows
        && (taken == 0 || size.saturating_add(waiting.bytes) <= bytes)
    {
        size = size.saturating_add(waiting.bytes);
        taken += 1;
    }
    (taken, taken > 0 && (taken == rows || taken < queue.len()))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        change::{ChangeKind, Entry, Step},
        fingerprint::KeyHash,
        record::Key,
    };

    fn waiting(bytes: usize) -> Waiting {
        let entry = Entry::new(Step::Send, ChangeKind::Added, KeyHash::from_u128(1), Key::new("k"), 1);
        let change = Change::new(entry, &Arc::default());
        Waiting { change, row: Row::new(None), bytes }
    }

    /// What is taken ahead ends with a full batch, so memory would not be bounded if bytes did not count.
    #[test]
    fn batch_is_full_by_its_rows_or_by_its_bytes() {
        let limits = Limits::rows(3).bytes(100);
        for (sizes, expected) in [
            (&[][..], (0, false)),
            (&[10, 10], (2, false)),
            (&[10, 10, 10], (3, true)),
            (&[60, 40], (2, false)),
            (&[60, 41], (1, true)),
            (&[500], (1, false)),
            (&[500, 1], (1, true)),
        ] {
            let mut queues = Queues::default();
            queues.update.extend(sizes.iter().map(|bytes| waiting(*bytes)));
            assert_eq!(next_batch(&queues.update, &limits), expected, "{sizes:?}");
            assert_eq!(queues.have_batch(&limits), expected.1, "{sizes:?}");
        }
    }
}
