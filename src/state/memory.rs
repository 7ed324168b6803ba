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
    /// An empty state whose leases run on the clock of `host`.
    pub fn with_host(host: Arc<dyn Host>) -> Self {
        Self { inner: Arc::default(), host }
    }

    /// A copy of the state as it is now, which lives on its own.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let inner = self.read(|inner| Inner { header: inner.header.clone(), rows: inner.rows.clone() });
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
    use std::time::{Duration, SystemTime};

    use futures::{TryStreamExt, executor::block_on};

    use super::*;
    use crate::{
        ErrorKind, Secret,
        host::SystemHost,
        state::{
            header::{Lease, RunId},
            record::RowRecord,
        },
    };

    const KEY: KeyHash = KeyHash::from_u128(1);

    fn run() -> RunId {
        RunId::generate(&*SystemHost::shared()).unwrap()
    }

    fn header(lease: Option<Lease>) -> Header {
        Header { lease, ..Header::new("crm/people".into(), &Secret::new([1; 32]), false).unwrap() }
    }

    fn lease(run: RunId, left: Duration) -> Lease {
        let now = SystemTime::now();
        Lease {
            run,
            holder: "host 7, process 1".into(),
            since: now - Duration::from_secs(9),
            until: now + left,
        }
    }

    fn write(run: RunId, planned: u64) -> Commit {
        Commit::new(run, planned, header(None), vec![(KEY, Some(RowState::new(&RowRecord::default())))])
    }

    fn version(store: &MemoryStore) -> u64 {
        block_on(store.header()).unwrap().map_or(0, |header| header.version())
    }

    #[test]
    fn a_commit_is_read_back_by_load_and_scan() {
        let store = MemoryStore::default();
        block_on(store.commit(&write(run(), 0))).unwrap();
        let rows = block_on(store.load(&[KEY, KeyHash::from_u128(2)])).unwrap();
        assert_eq!(rows[0].as_ref().unwrap().record().unwrap(), RowRecord::default());
        assert_eq!(rows[1], None);
        let scanned: Vec<_> = block_on(store.scan().try_collect()).unwrap();
        assert_eq!(scanned, [[(KEY, RowFingerprint::LOAD)]]);
    }

    #[test]
    fn a_deleted_row_is_gone() {
        let store = MemoryStore::default();
        let run = run();
        block_on(store.commit(&write(run, 0))).unwrap();
        block_on(store.commit(&Commit::new(run, 0, header(None), vec![(KEY, None)]))).unwrap();
        assert_eq!(block_on(store.load(&[KEY])).unwrap(), [None]);
    }

    #[test]
    fn a_commit_planned_against_an_older_version_changes_nothing() {
        let store = MemoryStore::default();
        block_on(store.commit(&write(run(), 0))).unwrap();
        let error = block_on(store.commit(&write(run(), 0))).unwrap_err();
        assert_eq!((error.kind(), version(&store)), (ErrorKind::StateMoved, 1));
    }

    #[test]
    fn a_run_goes_on_after_its_own_commits_until_another_one_writes() {
        let store = MemoryStore::default();
        let (first, second) = (run(), run());
        block_on(store.commit(&write(first, 0))).unwrap();
        block_on(store.commit(&write(first, 0))).unwrap();
        block_on(store.commit(&write(second, 2))).unwrap();
        let error = block_on(store.commit(&write(first, 0))).unwrap_err();
        assert_eq!((error.kind(), version(&store)), (ErrorKind::StateMoved, 3));
    }

    #[test]
    fn a_second_writer_is_told_who_holds_the_state_and_since_when() {
        let store = MemoryStore::default();
        let holder = run();
        let held = header(Some(lease(holder, Duration::from_secs(60))));
        block_on(store.commit(&Commit::new(holder, 0, held, vec![]))).unwrap();
        let error = block_on(store.commit(&write(run(), 1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(
            error.to_string().contains("host 7, process 1") && error.to_string().contains("for 9 s"),
            "{error}"
        );
        assert_eq!(version(&store), 1);
    }

    #[test]
    fn a_lease_that_has_run_out_holds_nobody() {
        let store = MemoryStore::default();
        let holder = run();
        let held = header(Some(lease(holder, Duration::ZERO)));
        block_on(store.commit(&Commit::new(holder, 0, held, vec![]))).unwrap();
        block_on(store.commit(&write(run(), 1))).unwrap();
        assert_eq!(version(&store), 2);
    }

    #[test]
    fn a_state_of_another_sync_is_refused() {
        let store = MemoryStore::default();
        block_on(store.commit(&write(run(), 0))).unwrap();
        let other = Header { identity: "crm/others".into(), ..header(None) };
        let error = block_on(store.commit(&Commit::new(run(), 1, other, vec![]))).unwrap_err();
        assert_eq!((error.kind(), version(&store)), (ErrorKind::StateDamaged, 1));
    }

    #[test]
    fn a_snapshot_lives_on_its_own() {
        let store = MemoryStore::default();
        let before = store.snapshot();
        block_on(store.commit(&write(run(), 0))).unwrap();
        assert_eq!((version(&before), version(&store)), (0, 1));
    }
}
