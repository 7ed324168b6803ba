//! Intake: the next entries of the plan, each with what the state had of its row when it was planned.

use crate::{
    Result,
    change::{Change, Step},
    fingerprint::RowFingerprint,
    run::{Row, Run, ahead::Ready},
};

/// The most rows that are taken at once.
const ROWS_AT_ONCE: usize = 8192;

impl Run<'_> {
    /// Takes the next entries from the plan, and says how many at most. Those that were taken stay so if it is given up.
    pub(super) async fn fill(&mut self) -> Result<usize> {
        let wanted = self.limits.rows.saturating_mul(self.room()).clamp(64, ROWS_AT_ONCE);
        for _ in 0..wanted {
            let Some(ready) = self.ahead.next().await else {
                self.is_loaded = true;
                break;
            };
            self.take(ready?);
        }
        Ok(wanted)
    }

    fn take(&mut self, Ready { mut entry, sealed }: Ready) {
        let hash = entry.hash();
        let mut row = Row::new(entry.before.take().map(|record| *record));
        if sealed.is_some() {
            row.record.set_sealed_key(sealed);
        }
        match entry.step {
            Step::Send | Step::Resolve => {
                let change = Change::new(entry, &self.names);
                let waiting = self.waiting(change, row);
                if waiting.is_over(self.host.wall()) {
                    self.enqueue(waiting);
                } else {
                    self.late.push(waiting);
                }
            }
            Step::Settle => {
                row.record.settled(&entry.wanted, RowFingerprint::from_u64(entry.print));
                self.put(hash, &mut row);
            }
            Step::Unsettle => {
                row.record.unsettled();
                self.put(hash, &mut row);
            }
            Step::Ask | Step::Seal => self.put(hash, &mut row),
            Step::Drop => self.put_deleted(hash, &row),
        }
    }
}
