//! What a destination can be asked to do.

/// What is done with the rows of a batch; a batch has one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Write fields of records that exist, and report those that do not.
    Update,
    /// Create records that are known to be missing, and report those that exist.
    Insert,
    /// Write fields of records, creating those that do not exist.
    Upsert,
    /// Remove records.
    Remove,
}
