//! What a sync remembers between two runs.
//!
//! The state holds, for each row that was ever announced, the fingerprints that the destination has acknowledged, and
//! never a key or a value in clear text. [`record`] says what a row's record is and what each event does to it.
//!
//! Reading and writing are two traits: whoever plans is given a [`PriorState`] and cannot write.

mod commit;
pub(crate) mod header;
mod memory;
pub mod record;
#[cfg(feature = "redb")]
mod redb;

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

/// What earlier runs left: all that planning sees of a store.
///
/// # Contract
/// * The three reads agree with each other as long as the header's version is the same.
/// * A read never changes anything, and works beside a writer.
#[async_trait]
pub trait PriorState: fmt::Debug + Send + Sync {
    /// The header; `None` while nothing was ever committed.
    async fn header(&self) -> Result<Option<Header>>;

    /// The rows of these keys, one answer per key in the same order; `None` for a row that is not there.
    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>>;

    /// Every row's key hash and [`fingerprint`](RowState::fingerprint), in big chunks, in any order.
    fn scan(&self) -> BoxStream<'_, Result<Vec<(KeyHash, RowFingerprint)>>>;
}

/// Where the state of one sync is kept.
///
/// A store keeps opaque bytes: a header, and per key hash a hot value and a record.
///
/// # Contract
/// [`commit`](Self::commit) is atomic and durable. In one transaction it reads the current header, asks
/// [`Commit::admit`], writes every row of [`Commit::rows`] and the header that `admit` gave. If `admit` refuses, it
/// changes nothing and returns that error.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep the state of a sync",
    note = "implement `PriorState` and `StateStore` for it"
)]
pub trait StateStore: PriorState {
    /// Stores a commit, all of it or nothing, and returns once it is durable.
    async fn commit(&self, commit: &Commit) -> Result<()>;
}

const _: fn(&dyn StateStore) -> &dyn PriorState = |store| store; // both stay usable as trait objects
