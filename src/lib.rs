//! Rows about people, synced to marketing tools: only what changed, and the fate of every row.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// In the order in which a row travels.
mod activation;
mod batch;
mod change;
mod destination;
mod field;
pub mod fingerprint;
mod mapping;
mod outcome;
mod plan;
mod record;
mod report;
mod rows;
mod run;
pub mod state;
// What all of them need.
mod error;
mod event;
pub mod host;
mod seal;

#[cfg(feature = "emarsys")]
pub mod emarsys;

pub use activation::Activation;
pub use batch::Batch;
pub use change::{Change, ChangeKind, Field, Fields};
pub use destination::{Destination, FieldSpec, Limits, Operation, Target};
pub use error::{BoxError, Delivery, Error, ErrorKind, Result};
pub use event::{Event, Problem, ProblemKind};
pub use field::{Choices, FieldKind, Mismatch};
pub use fingerprint::{KeyHash, RowFingerprint, Secret};
pub use mapping::{Column, Mapping, NullPolicy};
pub use outcome::{Outcome, Outcomes};
pub use plan::{
    Counts, DuplicatePolicy, Guards, MissingPolicy, Plan, PlanOptions, RejectedPolicy, Share, plan,
};
pub use record::{FieldName, Key, Record, Value, ValueRef};
pub use report::{Report, Tally};
pub use rows::{Rows, Source};
pub use run::Run;
#[cfg(feature = "redb")]
pub use state::RedbStore;
pub use state::{Commit, Header, MemoryStore, PriorState, RowState, StateStore};
