//! What a scan gives.

use std::{fmt, sync::Arc};

use crate::fingerprint::{KeyHash, RowFingerprint};

/// Some of a state's rows, as a [`scan`](crate::PriorState::scan) gives them: of each its key hash and its
/// [`fingerprint`](crate::RowState::fingerprint).
///
/// Both lie apart, and clones share them: who compares rows keeps the key hashes where they are.
///
/// ```
/// use reverse_etl::{KeyHash, RowFingerprint, ScannedRows};
///
/// let rows: ScannedRows = [(KeyHash::from_u128(7), RowFingerprint::from_u64(5))].into_iter().collect();
/// assert_eq!(rows.len(), 1);
/// ```
#[derive(Clone, Default)]
pub struct ScannedRows {
    keys: Arc<Vec<KeyHash>>,
    prints: Arc<Vec<RowFingerprint>>,
}

impl ScannedRows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The rows.
    pub fn iter(&self) -> impl Iterator<Item = (KeyHash, RowFingerprint)> + Clone + '_ {
        self.keys.iter().copied().zip(self.prints.iter().copied())
    }

    pub(crate) fn prints(&self) -> &[RowFingerprint] {
        &self.prints
    }

    pub(crate) fn keys(&self) -> &Arc<Vec<KeyHash>> {
        &self.keys
    }
}

/// For stores that fill one piece by piece.
#[cfg(feature = "redb")]
impl ScannedRows {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { keys: Arc::new(Vec::with_capacity(rows)), prints: Arc::new(Vec::with_capacity(rows)) }
    }

    /// Adds rows to those that are there.
    pub(crate) fn extend(&mut self, rows: impl Iterator<Item = (KeyHash, RowFingerprint)> + Clone) {
        Arc::make_mut(&mut self.keys).extend(rows.clone().map(|(key, _)| key));
        Arc::make_mut(&mut self.prints).extend(rows.map(|(_, print)| print));
    }
}

impl FromIterator<(KeyHash, RowFingerprint)> for ScannedRows {
    fn from_iter<I: IntoIterator<Item = (KeyHash, RowFingerprint)>>(rows: I) -> Self {
        let (keys, prints) = rows.into_iter().unzip();
        Self { keys: Arc::new(keys), prints: Arc::new(prints) }
    }
}

impl fmt::Debug for ScannedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScannedRows").field("len", &self.len()).finish_non_exhaustive()
    }
}
