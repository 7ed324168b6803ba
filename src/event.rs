//! What a plan or a run tells whoever watches it.

use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::record::FieldName;

/// Something that happened while planning or running.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A row that was not synced, or something else that the user should know.
    Problem(&'e Problem),
    /// Rows are done.
    Progress {
        /// Rows that have their outcome.
        done: u64,
        /// Rows that were planned.
        planned: u64,
    },
    /// Nothing can be sent before a request that was sent earlier can no longer take effect.
    Waiting {
        /// How many rows wait.
        rows: u64,
        /// Until when.
        until: SystemTime,
    },
}

pub(crate) type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Why a row was not synced. It names the row, never its key or a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub(crate) row: Option<u64>,
    pub(crate) kind: ProblemKind,
    pub(crate) code: Option<String>,
    pub(crate) column: Option<FieldName>,
    pub(crate) field: Option<FieldName>,
    pub(crate) text: String,
}

/// What sort of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A value of the row does not fit its field, or its key is unusable.
    Invalid,
    /// The row's key stands in another row as well.
    Duplicate,
    /// The destination refused the row.
    Rejected,
    /// The destination does not know the row, and it was not to be created. Only an observer is told of these.
    NoMatch,
    /// Nobody knows what became of the row.
    Unknown,
    /// The row was synced, and something about it is worth knowing.
    Note,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::NoMatch => "no match",
            Self::Unknown => "unknown",
            Self::Note => "note",
        })
    }
}

impl Problem {
    /// The number of the row in the source, from 1; `None` for a row that is no longer in the source.
    pub fn row(&self) -> Option<u64> {
        self.row
    }

    /// What sort of problem it is.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The destination's code.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The source column that is to blame.
    pub fn column(&self) -> Option<&FieldName> {
        self.column.as_ref()
    }

    /// The field of the destination that is to blame.
    pub fn field(&self) -> Option<&FieldName> {
        self.field.as_ref()
    }

    /// The reason in words.
    pub fn reason(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "row {row}: ")?,
            // It is about a column of the source, and no row.
            None if self.column.is_some() => {}
            None => write!(f, "a row that left the source: ")?,
        }
        match (&self.column, &self.field) {
            (Some(column), Some(field)) if column != field => write!(f, "`{column}` (field `{field}`) ")?,
            (Some(name), _) | (None, Some(name)) => write!(f, "`{name}` ")?,
            (None, None) => {}
        }
        f.write_str(&self.text)?;
        match &self.code {
            Some(code) => write!(f, " (code {code})"),
            None => Ok(()),
        }
    }
}
