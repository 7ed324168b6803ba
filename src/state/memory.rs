//! A state that lives as long as the process: for tests, and for syncs that start from nothing every time.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use hashbrown::HashMap;

use crate::{
    Result,
    fingerprint::{KeyHash, RowFingerprint},
    host::{Host, SystemHost},
    state::{Commit, Header, PriorState, RowState, ScannedRows, StateStore},
};

/// Rows in one chunk of a scan: so few that they are still near when they are used.
const CHUNK: usize = 12 * 1024;

/// Keeps the state in memory; clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<RwLock<Inner>>,
    host: Arc<dyn Host>,
}

#[derive(Default)]
struct Inner {
    header: Option<Header>,
    rows: HashMap<KeyHash, RowState>,
    /// The hot values once more, in order, which is all that a scan reads: as they were at the last scan,
    hot: Vec<ScannedRows>,
    /// and what has become of them since.
    since: BTreeMap<KeyHash, Option<RowFingerprint>>,
}

impl Inner {
    /// Brings the hot values up to date.
    fn hot(&mut self) -> Vec<ScannedRows> {
        if !self.since.is_empty() {
            let mut hot = Vec::with_capacity(self.rows.len());
            let mut since = mem::take(&mut self.since).into_iter().peekable();
            for (key, print) in self.hot.iter().flat_map(ScannedRows::iter) {
                while let Some((new, print)) = since.next_if(|(new, _)| *new < key) {
                    hot.extend(print.map(|print| (new, print)));
                }
                let newer = since.next_if(|(new, _)| *new == key);
                hot.extend(newer.map_or(Some(print), |(_, print)| print).map(|print| (key, print)));
            }
            hot.extend(since.filter_map(|(key, print)| Some((key, print?))));
            self.hot = hot.chunks(CHUNK).map(|rows| rows.iter().copied().collect()).collect();
        }
        self.hot.clone()
    }
}

impl MemoryStore {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty state whose leases run on the clock of `host`.
    pub fn with_host(host: Arc<dyn Host>) -> Self {
        Self { inner: Arc::default(), host }
    }

    /// A copy of the state as it is now, which lives on its own: no run holds it.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let header = |inner: &Inner| inner.header.clone().map(Header::without_lease);
        let inner = self.read(|inner| Inner {
            header: header(inner),
            rows: inner.rows.clone(),
            hot: inner.hot.clone(),
            since: inner.since.clone(),
        });
        Self { inner: Arc::new(RwLock::new(inner)), host: Arc::clone(&self.host) }
    }

    // A panic while the lock is held cannot leave a commit half done in a way that matters: rows are written whole and
    // the header last, so a poisoned lock is as good as any.
    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_host(SystemHost::shared())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|inner| {
            f.debug_struct("MemoryStore").field("rows", &inner.rows.len()).finish_non_exhaustive()
        })
    }
}

#[async_trait]
impl PriorState for MemoryStore {
    async fn header(&self) -> Result<Option<Header>> {
        Ok(self.read(|inner| inner.header.clone()))
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        Ok(self.read(|inner| keys.iter().map(|key| inner.rows.get(key).cloned()).collect()))
    }

    async fn load_fingerprints(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowFingerprint>>> {
        Ok(self.read(|inner| keys.iter().map(|key| Some(inner.rows.get(key)?.fingerprint())).collect()))
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        stream::iter(self.write().hot()).map(Ok).boxed()
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut inner = self.write();
        let header = commit.admit(inner.header.as_ref(), self.host.wall())?;
        for (key, row) in commit.rows() {
            match row {
                Some(row) => inner.rows.insert(key, row.clone()),
                None => inner.rows.remove(&key),
            };
            inner.since.insert(key, row.map(RowState::fingerprint));
        }
        inner.header = Some(header);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::state::checks::{run, store_checks, version, write};

    store_checks!((MemoryStore::default(), ()));

    #[test]
    fn a_snapshot_lives_on_its_own() {
        let store = MemoryStore::default();
        let before = store.snapshot();
        block_on(store.commit(&write(run(), 0))).unwrap();
        assert_eq!((version(&before), version(&store)), (0, 1));
    }
}
