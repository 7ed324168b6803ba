//! A state that lives as long as the process: for tests, and for syncs that start from nothing every time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{
    Result,
    fingerprint::{KeyHash, RowFingerprint},
    host::{Host, SystemHost},
    state::{Commit, Header, PriorState, RowState, StateStore},
};

/// Rows in one chunk of a scan.
const CHUNK: usize = 64 * 1024;

/// Keeps the state in memory; clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<RwLock<Inner>>,
    host: Arc<dyn Host>,
}

#[derive(Default)]
struct Inner {
    header: Option<Header>,
    rows: BTreeMap<KeyHash, RowState>,
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
        let inner = self.read(|inner| Inner { header: header(inner), rows: inner.rows.clone() });
        Self { inner: Arc::new(RwLock::new(inner)), host: Arc::clone(&self.host) }
    }

    // A panic while the lock is held cannot leave a commit half done in a way that matters: rows are written whole and
    // the header last, so a poisoned lock is as good as any.
    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
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

    fn scan(&self) -> BoxStream<'_, Result<Vec<(KeyHash, RowFingerprint)>>> {
        let rows: Vec<_> =
            self.read(|inner| inner.rows.iter().map(|(key, row)| (*key, row.fingerprint())).collect());
        let chunks: Vec<_> = rows.chunks(CHUNK).map(|chunk| Ok(chunk.to_vec())).collect();
        stream::iter(chunks).boxed()
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let header = commit.admit(inner.header.as_ref(), self.host.wall())?;
        for (key, row) in commit.rows() {
            match row {
                Some(row) => inner.rows.insert(key, row.clone()),
                None => inner.rows.remove(&key),
            };
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
