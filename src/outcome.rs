//! Outcomes: what became of each row of a batch.

use std::fmt;

use crate::{Error, record::FieldName};

/// What became of one row. Its `Debug` does not show what the destination said, which may name keys and values.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The destination acknowledged it.
    Applied {
        /// Whether the destination said that it created the record.
        created: bool,
    },
    /// An update or removal found nobody.
    NoMatch,
    /// An insert found somebody.
    AlreadyExists,
    /// The destination refused it.
    Rejected {
        /// The destination's code.
        code: String,
        /// The field that the destination named.
        field: Option<FieldName>,
        /// What the destination said. Keys and values of the row are blacked out of it before a [`Problem`](crate::Problem)
        /// shows it.
        message: String,
    },
    /// It was sent, and nobody knows what became of it.
    Unknown,
    /// Nothing of it was ever sent, or certainly none of it took effect.
    NotAttempted,
}

impl Outcome {
    /// Acknowledged, of a record that existed or of which nothing else is known.
    pub fn applied() -> Self {
        Self::Applied { created: false }
    }

    /// Acknowledged, of a record that was created.
    pub fn created() -> Self {
        Self::Applied { created: true }
    }

    /// Refused with a code and a text.
    pub fn rejected(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Rejected { code: code.into(), field: None, message: message.into() }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { created } => f.debug_struct("Applied").field("created", created).finish(),
            Self::NoMatch => f.write_str("NoMatch"),
            Self::AlreadyExists => f.write_str("AlreadyExists"),
            Self::Rejected { field, .. } => {
                f.debug_struct("Rejected").field("field", field).finish_non_exhaustive()
            }
            Self::Unknown => f.write_str("Unknown"),
            Self::NotAttempted => f.write_str("NotAttempted"),
        }
    }
}

/// One outcome for each row of a batch; only a [`Batch`](crate::Batch) makes one, so none is ever missing.
#[must_use]
pub struct Outcomes {
    /// The number of the batch, since those of another one say nothing about its rows.
    pub(crate) batch: u64,
    pub(crate) rows: Vec<Outcome>,
    pub(crate) notes: Vec<(usize, String)>,
    pub(crate) interrupted: Option<Error>,
}

impl Outcomes {
    pub(crate) fn new(batch: u64, rows: Vec<Outcome>) -> Self {
        Self { batch, rows, notes: Vec::new(), interrupted: None }
    }

    /// The outcomes, in the order of the batch's changes.
    pub fn iter(&self) -> impl Iterator<Item = &Outcome> {
        self.rows.iter()
    }

    /// Sets the outcome of the row at `index`; an index outside the batch is ignored.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(row) = self.rows.get_mut(index) {
            *row = outcome;
        }
    }

    /// The rows whose outcome is `wanted`.
    pub fn positions(&self, wanted: impl Fn(usize, &Outcome) -> bool) -> Vec<usize> {
        self.rows
            .iter()
            .enumerate()
            .filter(|(index, outcome)| wanted(*index, outcome))
            .map(|(index, _)| index)
            .collect()
    }

    /// A later call that these rows needed as well failed: they are unknown, the others stand, and the run treats
    /// `error` like one of the batch.
    pub fn interrupt(&mut self, rows: &[usize], error: Error) {
        for &row in rows {
            self.set(row, Outcome::Unknown);
        }
        self.set_error(error);
    }

    /// Some rows have their outcomes because of this error, and the run treats it like one of the batch. The first error
    /// counts.
    pub fn set_error(&mut self, error: Error) {
        self.interrupted.get_or_insert(error);
    }

    /// Something that the user should know about the row at `index`, without a key or a value in it.
    pub fn note(&mut self, index: usize, text: impl Into<String>) {
        self.notes.push((index, text.into()));
    }
}

/// Shows no text of the destination's.
impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes")
            .field("rows", &self.rows)
            .field("notes", &self.notes.len())
            .field("interrupted", &self.interrupted.as_ref().map(Error::kind))
            .finish_non_exhaustive()
    }
}
