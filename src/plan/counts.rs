//! Counts: how many rows of a source a plan found to be what.

use serde::{Deserialize, Serialize};

/// How many rows a plan found to be what. Every row of the source is in exactly one count.
///
/// `rows` = `unchanged` + `held` + `added` + `changed` + `invalid` + `duplicate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Rows of the source.
    pub rows: u64,
    /// Rows of which the destination has acknowledged everything.
    pub unchanged: u64,
    /// Rows that differ and are left alone for now: rejected, or missing at the destination.
    pub held: u64,
    /// Rows that the state does not know to exist at the destination.
    pub added: u64,
    /// Rows of which some fields differ.
    pub changed: u64,
    /// Rows with a value that does not fit, or with an unusable key.
    pub invalid: u64,
    /// Rows whose key another row has as well.
    pub duplicate: u64,
    /// Rows among the duplicates that were not sent because another row has their key and other values.
    pub withheld: u64,
    /// Rows that left the source and are to be removed; not among `rows`.
    pub removed: u64,
    /// Rows in doubt that left the source or became invalid, and are to be resolved; not among `rows`.
    pub resolved: u64,
    /// Rows among the invalid ones whose key is unusable.
    pub keyless: u64,
    /// Rows that left the source and cannot be removed, because their keys were not kept: this sync did not remove absent
    /// rows when it sent them.
    pub unremovable: u64,
    /// Added rows that exist at the destination, once that was asked.
    pub existing: Option<u64>,
    /// Fields that are to be sent, values for creation not counted.
    pub fields: u64,
    /// Fields among them that get a null or an empty text, which clears most of them.
    pub cleared: u64,
}

impl Counts {
    /// Rows that are to be sent: added, changed and removed.
    pub fn planned(&self) -> u64 {
        self.added + self.changed + self.removed
    }
}
