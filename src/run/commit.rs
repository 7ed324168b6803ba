//! Commits: what the state is to remember is gathered row by row and stored at once, one commit after the other.

use std::{mem, pin::Pin, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, MaybeDone, maybe_done},
};

use crate::{
    ErrorKind, Result,
    batch::Batch,
    destination::Limits,
    fingerprint::KeyHash,
    host::later,
    outcome::Outcome,
    run::{Row, Run},
    state::{Commit, RowState},
};

/// How long a run holds the state after each of its commits.
const LEASE: Duration = Duration::from_secs(120);

/// Rows that are set right without a request and make a commit of their own.
pub(super) const ROWS_A_COMMIT: usize = 4096;

/// A commit that was begun, and the batches that it announces.
pub(super) struct Pending<'s> {
    storing: MaybeDone<BoxFuture<'s, Result<()>>>,
    commit: Arc<Commit>,
    batches: Vec<Batch>,
    begun: Duration,
}

impl<'s> Run<'s> {
    /// Has the next commit write the row as it is now.
    pub(super) fn put(&mut self, hash: KeyHash, row: &mut Row) {
        if !self.head.seals && !row.record.is_in_doubt() {
            row.record.set_sealed_key(None);
        }
        let slots = &self.header.slots;
        row.record.retain_fields(|slot| slots.is_active(slot));
        let is_in_doubt = row.record.is_in_doubt();
        self.count(row, true, is_in_doubt);
        (row.stored, row.stored_in_doubt) = (true, is_in_doubt);
        self.dirty.insert(hash, Some(RowState::new(&row.record)));
    }

    pub(super) fn put_deleted(&mut self, hash: KeyHash, row: &Row) {
        self.count(row, false, false);
        self.dirty.insert(hash, None);
    }

    fn count(&mut self, row: &Row, is_stored: bool, is_in_doubt: bool) {
        let header = &mut self.header;
        header.rows = (header.rows + u64::from(is_stored)).saturating_sub(u64::from(row.stored));
        header.in_doubt =
            (header.in_doubt + u64::from(is_in_doubt)).saturating_sub(u64::from(row.stored_in_doubt));
    }

    /// Begins to store what is to be written: a store with threads of its own is at it from here on.
    pub(super) fn begin(&mut self, batches: Vec<Batch>) {
        let now = self.host.wall();
        // Whoever takes the state over has to wait for the marks anyway, and nobody may poll the run meanwhile.
        let Limits { send_within, late, clock_margin, .. } = self.limits;
        let span = LEASE.max(send_within.saturating_add(late).saturating_add(clock_margin));
        if let Some(lease) = &mut self.header.lease {
            lease.until = later(now, span);
        }
        let rows: Vec<_> = mem::take(&mut self.dirty).into_iter().collect();
        let commit = Arc::new(Commit::new(self.id, self.head.version, self.header.clone(), rows));
        let store = self.store;
        let storing = {
            let commit = Arc::clone(&commit);
            let storing: BoxFuture<'s, _> = Box::pin(async move { store.commit(&commit).await });
            maybe_done(storing)
        };
        self.pending = Some(Pending { storing, commit, batches, begun: self.host.monotonic() });
        self.stored().now_or_never();
    }

    /// Begins to announce the batches that were prepared, as far as that goes without waiting for it.
    pub(super) fn announce_prepared(&mut self) {
        if !self.prepared.is_empty() {
            let prepared = mem::take(&mut self.prepared);
            self.begin(prepared);
        }
    }

    /// Waits until the commit that was begun is stored.
    async fn stored(&mut self) {
        if let Some(pending) = &mut self.pending {
            Pin::new(&mut pending.storing).await;
        }
    }

    /// Completes a commit that was begun.
    pub(super) async fn complete(&mut self) {
        self.stored().await;
        let Some(Pending { mut storing, commit, batches, begun }) = self.pending.take() else { return };
        let Some(stored) = Pin::new(&mut storing).take_output() else { return };
        self.ready.extend(batches);
        match stored {
            Ok(()) => self.renewed = begun,
            Err(error) => {
                // It is not known whether it was stored; rows are written whole, so writing them again is right either
                // way, unless somebody else writes by now.
                for (hash, row) in commit.rows() {
                    self.dirty.entry(hash).or_insert_with(|| row.cloned());
                }
                // A destination that has moved leaves the state ours, and the hold on it is given back.
                self.is_lost |= matches!(error.kind(), ErrorKind::StateMoved | ErrorKind::Busy);
                self.fail(error);
                self.give_up_ready();
            }
        }
    }

    /// Batches that were not handed out are not attempted.
    pub(super) fn give_up_ready(&mut self) {
        for batch in mem::take(&mut self.ready).into_iter().chain(mem::take(&mut self.prepared)) {
            let outcomes = batch.all(&Outcome::NotAttempted);
            batch.settle(outcomes);
        }
        self.take_settled();
    }

    /// Stores what is left to store, and gives the state back.
    pub(super) async fn give_back(&mut self) {
        if self.may_store() {
            self.header.lease = None;
            self.begin(Vec::new());
            self.complete().await;
        }
    }

    /// Whether the state is still this run's to write.
    pub(super) fn may_store(&self) -> bool {
        let is_damaged = self.failure.as_ref().is_some_and(|error| error.kind() == ErrorKind::StateDamaged);
        !self.is_lost && !is_damaged
    }
}
