//! Rows about people, synced to marketing tools: at every run only what changed since the tool last confirmed it, and for
//! every row what became of it.
//!
//! A Rust program has rows about people: a table, a file, a warehouse model, a segment. A marketing tool needs them. This
//! crate maps columns to the tool's fields, compares every row with what the tool has acknowledged, and sends the
//! difference in batches. The first tool is Emarsys (SAP Engagement Cloud); others are one trait away.
//!
//! ```
//! # #[cfg(feature = "sandbox")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> reverse_etl::Result<()> {
//! use reverse_etl::{
//!     Activation, Mapping, MemoryStore, Record, Source,
//!     emarsys::{Client, ContactsDestination, Credentials, FieldId},
//! };
//!
//! # let sandbox = reverse_etl::emarsys::sandbox::Sandbox::start().await?;
//! # sandbox.add_list("Customers");
//! let client = Client::builder(Credentials::oauth2("client id", "client secret")).build()?;
//! # let client = Client::builder(Credentials::oauth2(sandbox.client_id(), sandbox.client_secret()))
//! #     .base_url(sandbox.url())
//! #     .build()?;
//! // Contacts that do not exist are created in this list; leave it out, and none is ever created.
//! let contacts = ContactsDestination::new(client).insert_into("Customers");
//! let mapping = Mapping::new("email") // links a row to a contact
//!     .map("first_name", FieldId::FIRST_NAME) // into a field that exists
//!     .custom("points"); // into a field of the same name, created if it is missing
//! let sync = Activation::new(mapping, contacts, MemoryStore::new());
//!
//! let ada = Record::new().with("email", "ada@shop.test").with("first_name", "Ada").with("points", 120);
//! let report = sync.run(Source::iter([&ada])).await?; // everybody
//! assert_eq!((report.outcomes.applied, report.created), (1, 1));
//! let report = sync.run(Source::iter([&ada])).await?; // only what changed: nothing
//! assert_eq!((report.counts.unchanged, report.batches), (1, 0));
//! let report = sync.run(Source::iter([ada.with("points", 130)])).await?; // one field of one contact
//! assert_eq!(report.counts.fields, 1);
//! println!("{report}");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sandbox"))]
//! # fn main() {}
//! ```
//!
//! # The road of a row
//!
//! ```text
//! source ─▶ Mapping ─▶ diff ─▶ Change ─▶ Plan ─▶ Run ─▶ Batch ─▶ Destination ─▶ Outcome ─▶ Commit ─▶ StateStore
//!                       ▲                 │ guards                                                      │
//!                  PriorState             └ a dry run ends here                                         │
//!                       └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. A [`Source`] gives rows: records of any serde type, text cells as of a CSV file, or chunks of your own ([`Rows`]).
//! 2. A [`Mapping`] takes their columns to fields, each value in the form in which the field takes it ([`FieldKind`]). A
//!    value that does not fit makes its row invalid; it is named, and not sent.
//! 3. [`plan()`] compares each row with what the state has of it: keyed [`fingerprint`]s, no keys and no values. What
//!    differs is a [`Change`]: the key and the fields that differ, nothing else.
//! 4. A [`Plan`] is data: counts, changes, what would be created. [`Guards`] look at all of it before the first write.
//! 5. A [`Run`] carries it out. Before a [`Batch`] is handed out, the state has durably forgotten what is in it.
//! 6. A [`Destination`] sends the batch and gives each row its [`Outcome`].
//! 7. A commit lets a [`StateStore`] remember what was acknowledged. The [`Report`] counts every row once.
//!
//! There are three ways in, each built on the one below, so nobody has to take more than they need:
//!
//! * the typed client [`emarsys::Client`], usable with nothing else of this crate;
//! * the engine: [`plan()`], [`Plan::start`] and the batches of a [`Run`], executed by whatever the caller likes;
//! * [`Activation`]: mapping, destination and store together, and the whole road in one call.
//!
//! # What holds
//!
//! * **The state never claims what the destination has not acknowledged**, whatever crashes and whenever. Fields are
//!   *forgotten before they are sent and remembered after the acknowledgement*, so a lost answer costs one more request
//!   and never a difference that nobody notices, also when it takes effect late. [`state::record`] has the rules.
//! * **A sync converges**: once faults stop, one more run makes the destination equal to the mapped source for every row
//!   that it accepts, and the run after that sends no write request.
//! * **An update carries the key and the changed fields.** A field that is not mapped is never written.
//! * **Planning cannot write**: it is given a [`PriorState`], not a store. Only a run makes a [`Commit`], and a batch
//!   exists only after its fields were forgotten.
//! * **Every row is counted once**, and the counts add up.
//! * **People's data stays out of sight**: no key and no value in clear text in the state, an error, a log line or a
//!   `Debug`, and secrets nowhere. Plan files and files of rejected rows are about people by nature; treat them so.
//! * Mapping, fingerprints, the diff, the record of a row and outcomes are plain functions: no clock, no I/O, no randomness
//!   (a [`host::Host`] brings those). There is no global state, and the library reads no environment variable.
//!
//! A null of the source **clears** the field: see [`NullPolicy`]. An absent value leaves it alone.
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `arrow` | no | Arrow `RecordBatch`es as rows, read in place |
//! | `emarsys` | yes | the Emarsys client and destination |
//! | `redb` | yes | [`RedbStore`]: the state in one embedded file |
//! | `rustls` | yes | TLS for the Emarsys client by rustls, with the certificates of the platform |
//! | `native-tls` | no | TLS by the platform's own library; used if `rustls` is switched off |
//! | `sandbox` | no | a stateful Emarsys, on loopback or without sockets, for tests and examples |
//!
//! Features add; none switches behaviour. Without any the engine and [`MemoryStore`] remain.
//!
//! # How it is tested
//!
//! Each promise has tests named after it. Beside them a model test plays the engine, and a simulation plays whole syncs, with
//! the client and the sandbox, under random histories of crashes, losses, late effects and other people's edits. The page
//! `pages::simulation` says what is drawn and checked, and what was found.
//!
//! # How fast it is
//!
//! A row that has not changed costs its two hashes and one look-up, on all cores, and rows that lie in Arrow batches (feature
//! `arrow`) are read where they lie. Ten million of them are planned from a file in less time than reading and joining them takes a database.
//! The page `pages::speed` has the figures, and says what bounds them.
//!
//! # What it does not do
//!
//! It schedules nothing, reads no warehouse and no file by itself, and keeps no copy of the source. It does not notice what
//! others change at the destination in fields that it has set, until it writes them again. Emarsys contact lists, segments
//! and relational data are no destinations yet, and neither is a state in Postgres.
//!
//! # Versions
//!
//! Semantic versioning. The format of the state is part of the public interface: a newer version reads what an older one
//! wrote. The oldest supported Rust version is `rust-version` in `Cargo.toml`; raising it is a minor change.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// The road of a row, step by step.
mod record; // what flows: keys, names, values
mod rows; // sources: many rows, read in place
mod field; // what a field takes, and the canonical form of a value
mod mapping; // columns -> fields
pub mod fingerprint; // what the state keeps instead of keys and values
mod change; // the diff: row + record -> change
mod plan; // every change, counted and guarded
mod run; // forget, hand out, remember
mod batch; // changes of one operation, on their way
mod destination; // the trait that carries batches
mod outcome; // what became of each row
pub mod state; // what is remembered, and the stores
mod activation; // all of it in one call
mod report; // counts that add up

// What every step needs.
mod error;
mod event;
mod handover;
pub mod host;
mod seal;

#[cfg(feature = "emarsys")]
pub mod emarsys;

#[cfg(all(doc, feature = "sandbox"))]
pub mod pages;

#[cfg(all(test, feature = "emarsys"))]
#[path = "../tests/it/watch.rs"]
mod watch;

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
pub use rows::{Rows, Source, Texts};
pub use run::Run;
#[cfg(feature = "redb")]
pub use state::RedbStore;
pub use state::{
    Commit, Header, MemoryStore, PriorState, RowState, ScannedRows, StateStore, record::Backoff,
};

/// The programs of the README are tests as well.
#[cfg(all(doctest, feature = "redb", feature = "sandbox"))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
