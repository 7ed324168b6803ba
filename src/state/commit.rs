//! A commit: the one way in which a state changes.

use std::{sync::Arc, time::SystemTime};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, RowFingerprint},
    state::{
        header::{Header, RunId},
        record::RowRecord,
    },
};

/// A row as a store keeps it: its hot value, and the bytes of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowState {
    hot: RowFingerprint,
    record: Vec<u8>,
}

impl RowState {
    /// The hot value, which a scan gives.
    pub fn fingerprint(&self) -> RowFingerprint {
        self.hot
    }

    /// The bytes of the record.
    pub fn as_bytes(&self) -> &[u8] {
        &self.record
    }

    /// The row from its hot value and the bytes that [`as_bytes`](Self::as_bytes) gave.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`] if they are not a record of a format that this version knows.
    pub fn from_bytes(hot: RowFingerprint, record: Vec<u8>) -> Result<Self> {
        RowRecord::from_bytes(hot, &record)?;
        Ok(Self { hot, record })
    }

    pub(crate) fn new(record: &RowRecord) -> Self {
        Self { hot: record.hot(), record: record.to_bytes() }
    }

    pub(crate) fn record(&self) -> Result<RowRecord> {
        RowRecord::from_bytes(self.hot, &self.record)
    }
}

/// Rows to write and a header to set, all of it or nothing.
///
/// Only a run makes one. It writes rows whole, so the same commit may be stored twice, as after a failure of which a
/// store cannot tell whether it came before or after the write.
#[derive(Clone, Debug)]
#[must_use]
pub struct Commit {
    /// Shared, since a store that works on another thread takes a clone there.
    rows: Arc<Vec<(KeyHash, Option<RowState>)>>,
    run: RunId,
    /// The version that the run's plan was made against.
    planned: u64,
    header: Header,
}

impl Commit {
    /// `header` is the one to be stored but for its version and its last writer.
    pub(crate) fn new(
        run: RunId,
        planned: u64,
        header: Header,
        mut rows: Vec<(KeyHash, Option<RowState>)>,
    ) -> Self {
        rows.sort_by_key(|(key, _)| *key);
        Self { rows: Arc::new(rows), run, planned, header }
    }

    /// The rows, in the order of their key hashes: one to write whole, or `None` to delete it.
    pub fn rows(&self) -> impl Iterator<Item = (KeyHash, Option<&RowState>)> + '_ {
        self.rows.iter().map(|(key, row)| (*key, row.as_ref()))
    }

    /// The header to store, if the commit may be stored on top of `current`.
    ///
    /// A store calls it inside its transaction, before it writes anything.
    ///
    /// # Errors
    /// * [`ErrorKind::Busy`] if another run holds the state;
    /// * [`ErrorKind::StateMoved`] if it has changed since the plan was made;
    /// * [`ErrorKind::StateDamaged`] if it belongs to another sync.
    pub fn admit(&self, current: Option<&Header>, now: SystemTime) -> Result<Header> {
        let version = current.map_or(0, Header::version);
        if let Some(current) = current {
            current.belongs_to(self.header.identity())?;
            if let Some(lease) = &current.lease {
                lease.admits(self.run, now)?;
            }
        }
        let is_continued = current.is_some_and(|current| current.last_writer == Some(self.run));
        if !is_continued && version != self.planned {
            return Err(Error::new(
                ErrorKind::StateMoved,
                "the state has changed since this plan was made, so the plan no longer holds: plan again",
            ));
        }
        Ok(Header { version: version + 1, last_writer: Some(self.run), ..self.header.clone() })
    }
}
