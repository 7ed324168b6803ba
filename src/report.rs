//! Report: what became of every row, in counts that add up.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{event::Problem, plan::Counts};

/// Problems that are printed; a report keeps more of them, and an observer is told all.
pub(crate) const PROBLEMS_SHOWN: usize = 10;

/// How many rows of a plan had which outcome. The outcome of a row that was sent twice is the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tally {
    /// Acknowledged by the destination.
    pub applied: u64,
    /// Unknown to the destination, and not to be created.
    pub no_match: u64,
    /// Refused by the destination.
    pub rejected: u64,
    /// Sent, and nobody knows what became of them: the next run sends them again.
    pub unknown: u64,
    /// Never sent.
    pub not_attempted: u64,
}

impl Tally {
    /// All rows that are counted.
    pub fn total(&self) -> u64 {
        self.applied + self.no_match + self.rejected + self.unknown + self.not_attempted
    }
}

/// How a run ended. It can be printed and written by serde, and holds no key and no value.
///
/// Every row of the source is in one of [`counts`](Self::counts), every row that was planned in one of
/// [`outcomes`](Self::outcomes): `outcomes.total()` = `counts.planned()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Which sync it was: destination, key and name.
    pub sync: String,
    /// What the plan found.
    pub counts: Counts,
    /// What became of the rows that were planned.
    pub outcomes: Tally,
    /// What became of rows in doubt that are no longer in the source, or invalid there; not among the outcomes.
    pub resolved: Tally,
    /// Records that the destination said it created.
    pub created: u64,
    /// Batches that were handed out.
    pub batches: u64,
    /// Whether the run ended before its plan did: it was stopped, or had to stop.
    pub stopped: bool,
    /// The first problems of plan and run; an observer was told all of them.
    pub problems: Vec<Problem>,
    /// How long the run took, planning not included.
    pub duration: Duration,
}

impl Report {
    /// Whether there is nothing to look after: no row is invalid, withheld, rejected, unknown or not attempted.
    pub fn is_clean(&self) -> bool {
        let Tally { rejected, unknown, not_attempted, .. } = self.outcomes;
        let rows = rejected + unknown + not_attempted + self.counts.invalid + self.counts.withheld;
        rows == 0 && !self.stopped && self.resolved.rejected + self.resolved.unknown == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { applied, no_match, rejected, unknown, not_attempted } = self.outcomes;
        writeln!(f, "report of {}", self.sync)?;
        write_counts(f, &self.counts)?;
        let (planned, millis) = (self.counts.planned(), self.duration.as_millis());
        writeln!(f, "  = planned     {planned:>9}   batches: {}, {millis} ms", self.batches)?;
        let created =
            if self.created == 0 { String::new() } else { format!("   {} were created", self.created) };
        writeln!(f, "  applied       {applied:>9}{created}")?;
        write_if(f, "no match", no_match, "the destination does not know them")?;
        write_if(f, "rejected", rejected, "left alone until they change or their back-off ends")?;
        write_if(f, "unknown", unknown, "nobody knows; the next run sends them again")?;
        write_if(f, "not attempted", not_attempted, "the next run sends them")?;
        if self.stopped {
            writeln!(f, "  stopped before the end of the plan")?;
        }
        write_problems(f, &self.problems)
    }
}

/// The counts of a plan, a line each; those that are nearly always zero only if they are not.
pub(crate) fn write_counts(f: &mut fmt::Formatter<'_>, counts: &Counts) -> fmt::Result {
    writeln!(f, "  source rows   {:>9}", counts.rows)?;
    writeln!(f, "  unchanged     {:>9}", counts.unchanged)?;
    write_if(f, "held", counts.held, "differ, and are left alone: missing or rejected earlier")?;
    write_if(f, "invalid", counts.invalid, "not sent")?;
    let withheld = match counts.withheld {
        0 => "another row has their key, and counts".to_owned(),
        withheld => format!("{withheld} of them withheld: same key, other values"),
    };
    write_if(f, "duplicate", counts.duplicate, &withheld)?;
    let existing = match counts.existing {
        Some(existing) => format!("   {existing} exist already"),
        None => String::new(),
    };
    writeln!(f, "  added         {:>9}{existing}", counts.added)?;
    writeln!(f, "  changed       {:>9}", counts.changed)?;
    write_if(f, "removed", counts.removed, "no longer in the source")?;
    write_if(f, "in doubt", counts.resolved, "left the source before their insert was answered")?;
    write_if(f, "not removable", counts.unremovable, "their keys were not kept when they were sent")?;
    let cleared = match counts.cleared {
        0 => String::new(),
        cleared => format!(", {cleared} of them with nothing"),
    };
    writeln!(f, "  fields        {:>9}   to be written{cleared}", counts.fields)
}

fn write_if(f: &mut fmt::Formatter<'_>, name: &str, rows: u64, note: &str) -> fmt::Result {
    if rows == 0 { Ok(()) } else { writeln!(f, "  {name:<13} {rows:>9}   {note}") }
}

pub(crate) fn write_problems(f: &mut fmt::Formatter<'_>, problems: &[Problem]) -> fmt::Result {
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        writeln!(f, "  ! {problem}")?;
    }
    match problems.len().saturating_sub(PROBLEMS_SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  ! and {more} more"),
    }
}
