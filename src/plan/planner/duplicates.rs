//! Duplicates: what becomes of rows whose key the source has more than once.

use super::{Before, Planner};
use crate::{
    Result,
    event::{Problem, ProblemKind},
    fingerprint::{KeyHash, RowFingerprint},
    plan::{
        DuplicatePolicy,
        met::{Counted, Met},
    },
    record::Key,
};

impl Planner<'_> {
    /// A key came twice. Counts the row, and says whether it takes the place of the first one.
    pub(super) fn is_to_be_planned_again(
        &mut self,
        hash: KeyHash,
        print: RowFingerprint,
        row: u64,
        first: Met,
        known: Option<(&Key, &Before)>,
    ) -> Result<bool> {
        if first.print == Some(print) && first.counted != Counted::Duplicate {
            self.head.counts.duplicate += 1;
            return Ok(false);
        }
        Ok(match self.options.duplicates {
            DuplicatePolicy::Withhold => {
                self.head.counts.duplicate += 1;
                self.head.counts.withheld += 1;
                self.clash(hash, known, first, row)?;
                false
            }
            DuplicatePolicy::First if first.is_valid() => {
                self.head.counts.duplicate += 1;
                false
            }
            DuplicatePolicy::First | DuplicatePolicy::Last => {
                self.withdraw(first);
                true
            }
        })
    }

    /// Two rows of one key differ: the first one is withheld as well.
    pub(super) fn clash(
        &mut self,
        hash: KeyHash,
        known: Option<(&Key, &Before)>,
        first: Met,
        row: u64,
    ) -> Result<()> {
        if let Some((key, record)) = known
            && first.is_valid()
            && first.counted != Counted::Duplicate
        {
            self.seal(hash, key.clone(), record.clone(), true)?;
        }
        let before = self.head.counts.duplicate;
        self.withdraw(first);
        self.head.counts.withheld += self.head.counts.duplicate - before;
        let counted = if first.counted == Counted::Invalid { Counted::Invalid } else { Counted::Duplicate };
        self.met.insert(hash, Met { counted, print: None, ..first })?;
        let earlier = match first.row {
            0 => "an earlier row".to_owned(),
            earlier => format!("row {earlier}"),
        };
        self.problem(Problem {
            row: Some(row),
            kind: ProblemKind::Duplicate,
            code: None,
            column: None,
            field: None,
            text: format!("has the key of {earlier} and other values: neither is sent; keep one of the two"),
        });
        Ok(())
    }

    /// Takes a row out of its count, which becomes `duplicate`; an invalid one stays what it is.
    pub(super) fn withdraw(&mut self, met: Met) {
        let counts = &mut self.head.counts;
        match met.counted {
            Counted::Invalid | Counted::Duplicate => return,
            Counted::Unchanged => counts.unchanged -= 1,
            Counted::Held => counts.held -= 1,
            Counted::Added => counts.added -= 1,
            Counted::Changed => counts.changed -= 1,
        }
        counts.duplicate += 1;
        counts.fields -= u64::from(met.fields);
        counts.cleared -= u64::from(met.cleared);
        if met.row > 0 {
            self.spooler.withdraw(met.row);
        }
    }
}
