//! What a sync remembers between two runs.
//!
//! The state holds, for each row that was ever announced, the fingerprints that the destination has acknowledged, and
//! never a key or a value in clear text. [`record`] says what a row's record is and what each event does to it.
//!
//! A copy of a state is worth nothing once a later run has written: it claims what the destination may no longer have.
//! A state that is lost is no harm; the next run sends every row, and the destination is as it was.
//!
//! Reading and writing are two traits: whoever plans is given a [`PriorState`] and cannot write.

mod commit;
pub(crate) mod header;
mod memory;
pub mod record;
#[cfg(feature = "redb")]
mod redb;
mod scanned;

#[cfg(test)]
mod checks;

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    Result,
    fingerprint::{KeyHash, RowFingerprint},
};

#[cfg(feature = "redb")]
pub use self::redb::RedbStore;
pub use commit::{Commit, RowState};
pub use header::Header;
pub use memory::MemoryStore;
pub use scanned::ScannedRows;

/// What earlier runs left: all that planning sees of a store.
///
/// # Contract
/// * The reads agree with each other as long as the header's version is the same.
/// * A read never changes anything, and works beside a writer.
#[async_trait]
pub trait PriorState: fmt::Debug + Send + Sync {
    /// The header; `None` while nothing was ever committed.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`](crate::ErrorKind::StateDamaged) if what is there is no state,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be read; so of the other reads.
    async fn header(&self) -> Result<Option<Header>>;

    /// The rows of these keys, one answer per key in the same order; `None` for a row that is not there.
    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>>;

    /// The [`fingerprint`](RowState::fingerprint) of each of these rows, as [`load`](Self::load) gives the rows; most need
    /// nothing else of theirs.
    async fn load_fingerprints(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowFingerprint>>> {
        let rows = self.load(keys).await?.into_iter();
        Ok(rows.map(|row| row.map(|row| row.fingerprint())).collect())
    }

    /// The rows whose fingerprints were given by a [`scan`](Self::scan) of this state or by
    /// [`load_fingerprints`](Self::load_fingerprints), each as it was given.
    ///
    /// A store may rely on it that they are there with this fingerprint, and look for less. What it answers for a row that
    /// was never given, or that has changed since, is of no use, but no error either: whoever asks has to look at the
    /// header again.
    async fn load_scanned(&self, rows: &[(KeyHash, RowFingerprint)]) -> Result<Vec<Option<RowState>>> {
        let keys: Vec<KeyHash> = rows.iter().map(|(key, _)| *key).collect();
        self.load(&keys).await
    }

    /// Every row's key hash and [`fingerprint`](RowState::fingerprint), in big chunks, in any order. In the order of key
    /// hashes they are compared with the least work.
    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>>;
}

/// Where the state of one sync is kept.
///
/// A store keeps opaque bytes: a header, and per key hash a hot value and a record.
///
/// # Contract
/// [`commit`](Self::commit) is atomic and durable. In one transaction it reads the current header, asks
/// [`Commit::admit`], writes every row of [`Commit::rows`] and the header that `admit` gave. If `admit` refuses, it
/// changes nothing and returns that error.
///
/// ```
/// use std::{collections::BTreeMap, sync::Mutex, time::SystemTime};
///
/// use async_trait::async_trait;
/// use futures::{StreamExt, stream, stream::BoxStream};
/// use reverse_etl::{Commit, Header, KeyHash, PriorState, Result, RowState, ScannedRows, StateStore};
///
/// #[derive(Debug, Default)]
/// struct OwnStore(Mutex<Inner>);
///
/// #[derive(Debug, Default)]
/// struct Inner {
///     header: Option<Header>,            // as bytes: `Header::to_bytes`, `Header::from_bytes`
///     rows: BTreeMap<KeyHash, RowState>, // as bytes: `KeyHash::to_bytes`, `RowState::{fingerprint, as_bytes}`
/// }
///
/// #[async_trait]
/// impl PriorState for OwnStore {
///     async fn header(&self) -> Result<Option<Header>> {
///         Ok(self.0.lock().unwrap().header.clone())
///     }
///
///     async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
///         let inner = self.0.lock().unwrap();
///         Ok(keys.iter().map(|key| inner.rows.get(key).cloned()).collect())
///     }
///
///     fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
///         let inner = self.0.lock().unwrap();
///         let rows = inner.rows.iter().map(|(key, row)| (*key, row.fingerprint())).collect();
///         stream::iter([Ok(rows)]).boxed()
///     }
/// }
///
/// #[async_trait]
/// impl StateStore for OwnStore {
///     async fn commit(&self, commit: &Commit) -> Result<()> {
///         let mut inner = self.0.lock().unwrap(); // in a database: one transaction
///         let header = commit.admit(inner.header.as_ref(), SystemTime::now())?; // version, identity, lease
///         for (key, row) in commit.rows() {
///             match row {
///                 Some(row) => inner.rows.insert(key, row.clone()),
///                 None => inner.rows.remove(&key),
///             };
///         }
///         inner.header = Some(header);
///         Ok(())
///     }
/// }
/// # use reverse_etl::{Limits, Mapping, Outcome, PlanOptions, Record, plan};
/// # futures::executor::block_on(async {
/// # let store = OwnStore::default();
/// # let people = vec![Record::new().with("id", 1).with("name", "Ada")];
/// # let mapping = Mapping::new("id").map("name", "full_name");
/// # for unchanged in [0, 1] {
/// #     let plan = plan(&people, &mapping, &store, &PlanOptions::default()).await?;
/// #     assert_eq!(plan.counts().unchanged, unchanged);
/// #     let mut run = plan.start(&store, Limits::rows(500)).await?;
/// #     while let Some(batch) = run.next_batch().await {
/// #         let outcomes = batch.all(&Outcome::applied());
/// #         batch.settle(outcomes);
/// #     }
/// #     run.finish().await?;
/// # }
/// # Ok::<(), reverse_etl::Error>(())
/// # }).unwrap();
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep the state of a sync",
    note = "implement `PriorState` and `StateStore` for it"
)]
pub trait StateStore: PriorState {
    /// Stores a commit, all of it or nothing, and returns once it is durable.
    ///
    /// # Errors
    /// What [`Commit::admit`] refuses, else [`ErrorKind::Io`](crate::ErrorKind::Io). An error may leave open whether the
    /// commit was stored: a run then stores all of it again.
    async fn commit(&self, commit: &Commit) -> Result<()>;
}

const _: fn(&dyn StateStore) -> &dyn PriorState = |store| store; // both stay usable as trait objects
