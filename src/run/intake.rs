//! Intake: the next entries of the plan, each with what the state had of its row when it was planned.

use crate::{
    Error, ErrorKind, Result,
    change::{Entry, Step},
    fingerprint::RowFingerprint,
    run::{Row, Run},
};

/// The most rows that are taken at once.
const ROWS_AT_ONCE: usize = 8192;

impl Run<'_> {
    /// Takes the next entries from the plan, and says how many at most.
    pub(super) fn fill(&mut self) -> Result<usize> {
        let wanted = self.limits.rows.saturating_mul(self.room()).clamp(64, ROWS_AT_ONCE);
        for _ in 0..wanted {
            let Some(mut entry) = self.entries.next().transpose()? else {
                self.is_loaded = true;
                break;
            };
            if entry.step == Step::Ask && !self.head.seals_anew {
                continue;
            }
            let hash = entry.hash();
            if let Some((last, step)) = self.last_entry
                && last == hash
            {
                // A key that was met twice may be sealed more than once, and is by whatever else is done with its row.
                if entry.step == Step::Seal {
                    continue;
                }
                if step != Step::Seal {
                    return Err(Error::new(
                        ErrorKind::Source,
                        "the plan has two entries for one row: it was altered; plan again",
                    ));
                }
            }
            self.last_entry = Some((hash, entry.step));
            entry.fingerprint(&self.prints, &self.head.creation, &mut self.scratch);
            let row = Row::new(entry.before.take().map(|record| *record));
            self.take_entry(entry, row)?;
        }
        Ok(wanted)
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
            Step::Ask | Step::Seal => {
                row.record.set_sealed_key(Some(self.sealer.seal(hash, &entry.key)?));
                self.put(hash, &mut row);
            }
            Step::Drop => self.put_deleted(hash, &row),
        }
        Ok(())
    }
}
