//! Absent rows: what the state knows and the source does not have, removed if the source is complete, and rows in doubt.

use std::{mem, sync::Arc};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{Lookup, Planner, loads::answered};
use crate::{
    Result,
    change::{ChangeKind, Entry, Step},
    fingerprint::{KeyHash, RowFingerprint},
    host::yield_once,
    plan::met::{Counted, Met},
    record::Key,
    state::{
        PriorState, RowState,
        record::{Doubt, Mark, Rejection, RowRecord},
    },
};

/// Each call of the store gets so many rows: few, since nothing else is left to do while the first and the last ones are
/// loaded and planned. They come in the order of their keys anyway.
const AT_ONCE: usize = 1024;
/// Loads that are under way at once.
const LOADS_AT_ONCE: usize = 8;

/// A row of the state, and whether it is gone from the source, and not only invalid there.
type Gone = ((KeyHash, RowFingerprint), bool);

/// The same with its record.
type LoadedGone = (Gone, Option<RowState>);

/// Loads the records of these rows.
fn with_records<'a>(
    rows: impl Iterator<Item = Gone> + Send + 'a,
    prior: &'a dyn PriorState,
) -> BoxStream<'a, Result<Vec<LoadedGone>>> {
    stream::iter(rows)
        .chunks(AT_ONCE)
        .map(async |part: Vec<Gone>| {
            let rows: Vec<_> = part.iter().map(|(row, _)| *row).collect();
            let states = answered(prior.load_scanned(&rows).await?, rows.len())?;
            Ok(part.into_iter().zip(states).collect())
        })
        .buffered(LOADS_AT_ONCE)
        .boxed()
}

impl Planner<'_> {
    /// Rows that the source does not have: removed if it is complete, resolved if they are in doubt.
    pub(super) async fn plan_absent(&mut self) -> Result<()> {
        let Lookup::Index(seen) = mem::replace(&mut self.lookup, Lookup::Nothing) else { return Ok(()) };
        let (prior, index) = (self.prior, Arc::clone(&self.digester.index));
        let resolves = self.resolves();
        let removes = self.options.remove_absent;
        let may_be_in_doubt = |print: RowFingerprint| resolves && print == RowFingerprint::LOAD;
        let unplanned = |met: &Met| matches!(met.counted, Counted::Invalid | Counted::Duplicate);
        let mut unplanned: Vec<_> = if resolves {
            let unplanned = self.met.iter().filter(|(_, met)| unplanned(met));
            unplanned.filter_map(|(hash, _)| Some(index.row(index.find(hash)?))).collect()
        } else {
            Vec::new()
        };
        unplanned.retain(|(_, print)| may_be_in_doubt(*print));
        unplanned.sort_unstable_by_key(|(hash, _)| *hash);

        // There may be as many as the state has, so they are not gathered before they are loaded.
        let gone = seen.unseen(&index).filter(|(_, print)| removes || may_be_in_doubt(*print));
        let gone = gone.map(|row| (row, true)).chain(unplanned.into_iter().map(|row| (row, false)));
        let mut parts = with_records(gone, prior);
        while let Some(part) = parts.next().await {
            for (((hash, _), is_gone), state) in part? {
                if let Some(state) = state {
                    self.plan_gone(hash, state.record()?, removes && is_gone)?;
                }
            }
            yield_once().await;
        }
        Ok(())
    }

    fn plan_gone(&mut self, hash: KeyHash, record: RowRecord, removes: bool) -> Result<()> {
        let unsealed = |sealed: &[u8]| self.sealer.open(hash, sealed);
        if removes {
            if !record.is_ours() && !record.is_in_doubt() {
                let expired = record.mark().is_none_or(|mark| mark.until() < self.now);
                if expired && record.held().is_none() {
                    let entry = Entry::new(Step::Drop, ChangeKind::Removed, hash, Key::new(""), 0);
                    self.spooler.push(&entry.of(record))?;
                }
                return Ok(());
            }
            let rejection = record.rejection();
            let rejected = self.options.rejected;
            if rejection.is_some_and(|rejection| rejected.holds_back(rejection, 0, true, self.now)) {
                return Ok(());
            }
            let Some(key) = record.sealed_key().map(unsealed).transpose()? else {
                self.head.counts.unremovable += 1;
                if record.row().is_some() {
                    // Should it come back, planning has to look at its record, and sees to its key.
                    let entry = Entry::new(Step::Unsettle, ChangeKind::Changed, hash, Key::new(""), 0);
                    self.spooler.push(&entry.of(record))?;
                }
                return Ok(());
            };
            self.head.counts.removed += 1;
            let mut entry = Entry::new(Step::Send, ChangeKind::Removed, hash, key, 0);
            entry.known = record.is_known();
            return self.spooler.push(&entry.of(record));
        }
        let Some(Doubt::Exists { place: Some(place) }) = record.mark().map(Mark::doubt) else {
            return Ok(());
        };
        if record.rejection().is_some_and(|rejection| rejection.holds_back_key(self.now)) {
            return Ok(());
        }
        let Some(key) = record.sealed_key().map(unsealed).transpose()? else { return Ok(()) };
        self.head.counts.resolved += 1;
        let mut entry = Entry::new(Step::Resolve, ChangeKind::Changed, hash, key, 0);
        entry.known = true;
        entry.place = Some(place.clone());
        entry.sent = record.rejection().map_or(0, Rejection::sent);
        entry.key_only = true;
        self.spooler.push(&entry.of(record))
    }
}
