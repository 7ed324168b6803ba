//! Announcing: batches are put together of what waits, and the records of their rows say so before they are sent.

use std::sync::Arc;

use futures::FutureExt;

use crate::{
    Result,
    batch::Batch,
    change::{Change, ChangeKind, Phase, Step},
    destination::Operation,
    host::{Deadline, later},
    run::{Row, Run, Waiting, commit::ROWS_A_COMMIT, queue::next_batch},
};

/// Entries after which no more are taken for a batch ahead: nobody else has a turn meanwhile.
const ROWS_AHEAD: usize = 16 * 1024;

impl Run<'_> {
    /// Puts the next batches together if more may be under way, else takes their entries, without waiting for anything.
    pub(super) fn prepare(&mut self) {
        // What has come back is no reason to wait; what is set right on the way is not to become one great commit.
        let most = self.dirty.len() + ROWS_A_COMMIT;
        let mut taken = 0;
        while self.failure.is_none()
            && self.prepared.is_empty()
            && self.dirty.len() < most
            && taken < ROWS_AHEAD
        {
            if self.ledger.count_open() < self.limits.in_flight {
                match self.form() {
                    Ok(batches) => self.prepared = batches,
                    Err(error) => return self.fail(error),
                }
            }
            if self.is_loaded || !self.prepared.is_empty() || self.queues.have_batch(&self.limits) {
                return;
            }
            match self.fill().now_or_never() {
                Some(Ok(rows)) => taken += rows,
                Some(Err(error)) => self.fail(error),
                // The thread that reads the plan has to catch up.
                None => return,
            }
        }
    }

    /// Puts batches together from what waits: full ones, and the rest once nothing more can come to fill them.
    pub(super) fn form(&mut self) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        let room = self.room();
        let is_last = self.is_loaded;
        for operation in [Operation::Remove, Operation::Insert, Operation::Update, Operation::Upsert] {
            while batches.len() < room {
                let queue = self.queues.of(operation);
                let (taken, is_full) = next_batch(queue, &self.limits);
                if taken == 0 || !(is_full || is_last) {
                    break;
                }
                let rows: Vec<Waiting> = queue.drain(..taken).collect();
                batches.push(self.announce(operation, rows)?);
            }
        }
        Ok(batches)
    }

    /// How many more batches may be under way; always one, since the caller asks for it.
    pub(super) fn room(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.ledger.count_open()).max(1)
    }

    /// The operation that a change needs next.
    fn operation(&self, change: &Change) -> Operation {
        match (change.kind(), change.phase) {
            (ChangeKind::Removed, _) => Operation::Remove,
            (_, Phase::Insert) => Operation::Insert,
            (_, Phase::First) if self.head.operations.contains(&Operation::Upsert) => Operation::Upsert,
            (_, Phase::First | Phase::UpdateAgain) => Operation::Update,
        }
    }

    pub(super) fn waiting(&self, change: Change, row: Row) -> Waiting {
        // Only a limit of bytes makes it worth counting them.
        let bytes = if self.limits.bytes == usize::MAX { 0 } else { change.json_bytes() };
        Waiting { change, row, bytes }
    }

    pub(super) fn enqueue(&mut self, waiting: Waiting) {
        let operation = self.operation(&waiting.change);
        self.queues.of(operation).push_back(waiting);
    }

    /// Notes in the records of these rows that they are about to be sent.
    fn announce(&mut self, operation: Operation, mut rows: Vec<Waiting>) -> Result<Batch> {
        rows.sort_unstable_by_key(|waiting| waiting.change.hash());
        let deadline = Deadline::after(&*self.host, self.limits.send_within);
        let until = later(deadline.wall(), self.limits.late.saturating_add(self.limits.clock_margin));
        let place = self.place.clone().filter(|_| operation == Operation::Insert);
        let mut changes = Vec::with_capacity(rows.len());
        for Waiting { change, mut row, .. } in rows {
            let hash = change.hash();
            let prints = change.prints();
            row.is_resolved = change.entry.step == Step::Resolve;
            row.prior = row.record.announced(&change.sending(operation, &prints), until, place.as_deref());
            if row.record.sealed_key().is_none() && (self.head.seals || row.record.is_in_doubt()) {
                row.record.set_sealed_key(Some(self.sealer.seal(hash, change.key())?));
            }
            self.put(hash, &mut row);
            self.in_flight.insert(hash, row);
            changes.push(change);
        }
        self.ledger.open(1);
        let (host, ledger) = (Arc::clone(&self.host), Arc::clone(&self.ledger));
        Ok(Batch::new(operation, place, changes, deadline, host, ledger))
    }
}
