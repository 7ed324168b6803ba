//! Rows about people, synced to marketing tools: only what changed, and the fate of every row.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod destination;
mod error;
mod field;
pub mod fingerprint;
pub mod host;
mod record;
mod rows;
pub mod state;

#[cfg(feature = "emarsys")]
pub mod emarsys;

pub use destination::Operation;
pub use error::{BoxError, Delivery, Error, ErrorKind, Result};
pub use field::{Choices, FieldKind, Mismatch};
pub use fingerprint::{KeyHash, RowFingerprint, Secret};
pub use record::{FieldName, Key, Record, Value, ValueRef};
pub use rows::{Rows, Source};
#[cfg(feature = "redb")]
pub use state::RedbStore;
pub use state::{Commit, Header, MemoryStore, PriorState, RowState, StateStore};
