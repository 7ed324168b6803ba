//! Intake: the next entries of the plan, and the records of their rows, which are loaded while batches are out.

use std::{mem, pin::Pin};

use futures::{
    FutureExt,
    future::{BoxFuture, MaybeDone, maybe_done},
};

use crate::{
    Error, ErrorKind, Result,
    change::{Entry, Step},
    fingerprint::{KeyHash, RowFingerprint},
    run::{Row, Run},
    state::RowState,
};

/// The most rows whose records are loaded at once.
const ROWS_AHEAD: usize = 8192;

/// The records of some rows, on their way.
pub(super) type Loading<'s> = MaybeDone<BoxFuture<'s, Result<Vec<Option<RowState>>>>>;

impl<'s> Run<'s> {
    /// Takes the next entries from the plan and their records from the store.
    pub(super) async fn fill(&mut self) -> Result<()> {
        self.read_ahead()?;
        let Some(loading) = &mut self.loading else { return Ok(()) };
        Pin::new(&mut *loading).await;
        let states = Pin::new(loading).take_output();
        self.loading = None;
        let Some(states) = states.transpose()? else { return Ok(()) };
        for (entry, state) in mem::take(&mut self.unloaded).into_iter().zip(states) {
            let row = Row::new(state.as_ref())?;
            self.take_entry(entry, row)?;
        }
        // The next ones are loaded while these are sent.
        self.read_ahead()?;
        self.loading.as_mut().map(FutureExt::now_or_never);
        Ok(())
    }

    /// Takes the next entries from the plan and begins to load their records, unless that is being done.
    ///
    /// No commit of this run has these rows before it has taken them, so it does not matter which of them the records were
    /// loaded before. The one exception is a key that was sealed alone: whatever follows for its row seals it as well.
    fn read_ahead(&mut self) -> Result<()> {
        if self.loading.is_some() {
            return Ok(());
        }
        let wanted = self.limits.rows.saturating_mul(self.room()).clamp(64, ROWS_AHEAD);
        while self.unloaded.len() < wanted && !self.is_exhausted {
            match self.entries.next().transpose()? {
                None => self.is_exhausted = true,
                Some(entry) if entry.step == Step::Ask && !self.head.seals_anew => {}
                // A key that was met twice may be sealed more than once, and is by whatever else is done with its row.
                Some(entry) if entry.step == Step::Seal && self.is_last(entry.hash()) => {}
                Some(entry) => {
                    let is_second = self.is_last(entry.hash());
                    let last = self.last_entry.replace((entry.hash(), entry.step));
                    if is_second && last.is_none_or(|(_, step)| step != Step::Seal) {
                        return Err(Error::new(
                            ErrorKind::Source,
                            "the plan has two entries for one row: it was altered; plan again",
                        ));
                    }
                    self.unloaded.push(entry);
                }
            }
        }
        if !self.unloaded.is_empty() {
            let hashes: Vec<KeyHash> = self.unloaded.iter().map(Entry::hash).collect();
            let store = self.store;
            let loading: BoxFuture<'s, _> = Box::pin(async move { store.load(&hashes).await });
            self.loading = Some(maybe_done(loading));
        }
        Ok(())
    }

    /// Whether the last entry that was taken from the plan is of this row.
    fn is_last(&self, hash: KeyHash) -> bool {
        self.last_entry.is_some_and(|(last, _)| last == hash)
    }

    fn take_entry(&mut self, entry: Entry, mut row: Row) -> Result<()> {
        let hash = entry.hash();
        match entry.step {
            Step::Send | Step::Resolve => {
                let change = self.table.change(entry);
                let waiting = self.waiting(change, row);
                if waiting.is_over(self.host.wall()) {
                    self.enqueue(waiting);
                } else {
                    self.late.push(waiting);
                }
            }
            Step::Settle => {
                row.record.settled(&entry.wanted, RowFingerprint::from_u64(entry.print));
                if self.head.seals {
                    row.record.set_sealed_key(Some(self.sealer.seal(hash, &entry.key)?));
                }
                self.put(hash, &mut row);
            }
            Step::Unsettle => {
                row.record.unsettled();
                self.put(hash, &mut row);
            }
            // A row that the state does not have needs no key.
            Step::Ask | Step::Seal if !row.stored => {}
            Step::Ask | Step::Seal => {
                row.record.set_sealed_key(Some(self.sealer.seal(hash, &entry.key)?));
                self.put(hash, &mut row);
            }
            Step::Drop => self.put_deleted(hash, &row),
        }
        Ok(())
    }

    /// Whether every entry of the plan is in a queue, or was.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_exhausted && self.unloaded.is_empty()
    }
}
