//! A typed client for Emarsys (SAP Engagement Cloud), usable with nothing else of this crate.
//!
//! ```no_run
//! use reverse_etl::emarsys::{Client, Contact, Credentials, FieldId, RowResult};
//!
//! # async fn update() -> reverse_etl::Result<()> {
//! let client = Client::builder(Credentials::oauth2("client id", "client secret")).build()?;
//! let contacts = [Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada")];
//! let results = client.contacts().update(FieldId::EMAIL, &contacts).await?;
//! for (row, result) in results.iter().enumerate() {
//!     match result {
//!         RowResult::Done => {}
//!         RowResult::Rejected(rejection) if rejection.is_missing() => println!("row {row}: no such contact"),
//!         RowResult::Rejected(rejection) => println!("row {row}: {rejection}"),
//!         RowResult::Failed(error) => println!("row {row}: {error}"),
//!         _ => println!("row {row}: unknown"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! * A write that may have been applied is not sent again, unless twice is the same as once ([`Effect`]): its error says
//!   [`Delivery::Unknown`](crate::Delivery).
//! * A row counts as done only if the reply accounts for every row of its request.
//! * The request limit of the API user is kept, whatever the number of callers; see [`Limiter`].
//! * No key, value or secret is in an error, a log line or a `Debug`. Text from the server is not passed on.
//!
//! Each request is a span of `tracing` with one event per attempt: endpoint, status, reply code, attempt, duration and how
//! many requests are left.
//!
#![doc = include_str!("endpoints.md")]

mod auth;
mod builder;
mod client;
mod combined;
mod contacts;
mod destination;
mod events;
mod exchange;
mod exports;
mod fields;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod limiter;
mod lists;
mod path;
mod polling;
mod refusal;
mod relational;
mod reply;
mod request;
mod retry;
mod rows;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod segments;
mod settings;
mod sources;
mod system;
mod transport;
mod words;

pub use auth::Credentials;
pub use builder::ClientBuilder;
pub use client::Client;
pub use combined::{Combined, CombinedDefinition, CombinedSegment, Relation, SegmentSet};
pub use contacts::{
    Contact, ContactData, Contacts, Mailing, Merge, MergeRule, QueriedContact, Query, Unsubscription,
    Upserted, Written,
};
pub use destination::{ContactsDestination, ListRef};
pub use events::{Events, Trigger};
pub use exports::{
    Delimiter, Distribution, ExportRef, ExportRow, ExportState, ExportStatus, Exports, NewExport, Origin,
    TimeRange,
};
pub use fields::{ApplicationType, Choice, Field, Fields, NewField};
pub use ids::{ContactId, EmailId, EventId, ExportId, FieldId, KeyField, ListId, RunId, SegmentId, SourceId};
pub use limiter::Limiter;
pub use lists::{ContactList, CreatedList, Lists};
pub use path::Path;
pub use polling::Polling;
pub use refusal::{Refusal, Rejection};
pub use relational::{RelationalData, Table};
pub use request::{Effect, Method, ReplyForm, Request, Root, Version};
pub use retry::RetryPolicy;
pub use rows::{KeyValue, Lookup, RowResult};
pub use segments::{
    ContactRun, Criteria, NewSegment, Operator, RunResult, RunStatus, Segment, SegmentRun, SegmentType,
    Segments,
};
pub use settings::Settings;
pub use sources::{ContactSource, Sources};
pub use system::SystemField;
