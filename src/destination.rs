//! Destinations: what they can do, what they take, and the trait that carries batches to them.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    batch::Batch,
    field::FieldKind,
    outcome::Outcomes,
    record::{FieldName, Key, Record},
};

/// What is done with the rows of a batch; a batch has one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Write fields of records that exist, and report those that do not.
    Update,
    /// Create records that are known to be missing, and report those that exist.
    Insert,
    /// Write fields of records, creating those that do not exist.
    Upsert,
    /// Remove records.
    Remove,
}

/// A field that a mapping writes to.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSpec {
    name: FieldName,
    create: Option<FieldKind>,
}

impl FieldSpec {
    pub(crate) fn new(name: FieldName, create: Option<FieldKind>) -> Self {
        Self { name, create }
    }

    /// The field's name or id, as the mapping spells it.
    pub fn name(&self) -> &FieldName {
        &self.name
    }

    /// What the field is to be if the destination does not have it; `None` if it must exist.
    pub fn create(&self) -> Option<&FieldKind> {
        self.create.as_ref()
    }
}

/// How much goes into a batch, how many batches are under way at once, and how long one may matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) late: Duration,
    pub(crate) send_within: Duration,
    pub(crate) clock_margin: Duration,
}

impl Limits {
    /// Batches of at most `rows` rows; at least one.
    ///
    /// The defaults of the rest: no limit of bytes, one batch at a time, sent within 90 s of its announcement, late by
    /// 2 minutes at the most, clocks that differ by 30 s.
    pub fn rows(rows: usize) -> Self {
        Self {
            rows: rows.max(1),
            bytes: usize::MAX,
            in_flight: 1,
            late: Duration::from_secs(120),
            send_within: Duration::from_secs(90),
            clock_margin: Duration::from_secs(30),
        }
    }

    /// The most bytes of a batch, counted as JSON. A row that is larger alone is a batch of its own.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The most batches that are prepared while others are under way; a caller that asks for one more gets it. With more than
    /// one, a batch is announced to the state while another is sent, and what has come back is remembered meanwhile. The time
    /// to send a batch runs from its announcement: one that is not fetched in time is announced anew.
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches.max(1);
        self
    }

    /// How long after it was sent a request may still take effect.
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    /// How long after its announcement a batch may be sent. It should be longer than a window of the destination's
    /// request limit.
    pub fn send_within(mut self, span: Duration) -> Self {
        self.send_within = span;
        self
    }

    /// By how much the clocks of two machines that run the same sync may differ.
    pub fn clock_margin(mut self, margin: Duration) -> Self {
        self.clock_margin = margin;
        self
    }

    /// The most batches that are under way at once.
    pub fn in_flight_max(&self) -> usize {
        self.in_flight
    }
}

/// What a destination is to a mapping: what it takes, what it can do, and which of the mapped fields it has.
#[derive(Clone, Debug)]
#[must_use]
pub struct Target {
    pub(crate) name: String,
    pub(crate) key: FieldKind,
    pub(crate) limits: Limits,
    pub(crate) operations: Vec<Operation>,
    pub(crate) place: Option<String>,
    pub(crate) finds: bool,
    pub(crate) any_field: bool,
    pub(crate) fields: Vec<TargetField>,
    missing: Vec<FieldSpec>,
    creates_also: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct TargetField {
    pub(crate) name: FieldName,
    pub(crate) kind: FieldKind,
    pub(crate) id: Option<String>,
}

impl Target {
    /// A destination that offers upsert and remove, and has no fields yet.
    ///
    /// `name` says which account and which object in it, for example `crm/5120/people`: a state belongs to it. `key` is
    /// what links rows to records.
    pub fn new(name: impl Into<String>, key: FieldKind, limits: Limits) -> Self {
        Self {
            name: name.into(),
            key,
            limits,
            operations: vec![Operation::Upsert, Operation::Remove],
            place: None,
            finds: false,
            any_field: false,
            fields: Vec::new(),
            missing: Vec::new(),
            creates_also: Vec::new(),
        }
    }

    /// It has this field, which takes this, and calls it by this id. Fields are told apart by their ids.
    pub fn field(mut self, spec: &FieldSpec, kind: FieldKind, id: Option<&str>) -> Self {
        self.missing.retain(|missing| missing != spec);
        self.fields.push(TargetField { name: spec.name.clone(), kind, id: id.map(str::to_owned) });
        self
    }

    /// It does not have this field, and would create it in [`prepare`](Destination::prepare).
    pub fn creates(mut self, spec: &FieldSpec) -> Self {
        self.missing.push(spec.clone());
        self
    }

    /// It would create this, too, in [`prepare`](Destination::prepare).
    pub fn creates_also(mut self, what: impl Into<String>) -> Self {
        self.creates_also.push(what.into());
        self
    }

    /// It takes any field, and anything in it.
    pub fn any_field(mut self) -> Self {
        self.any_field = true;
        self
    }

    /// The operations that it offers.
    pub fn offers(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations = operations.into_iter().collect();
        self
    }

    /// Where an insert puts a record, such as the id of a list.
    pub fn inserts_into(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// It answers [`find`](Destination::find).
    pub fn finds(mut self) -> Self {
        self.finds = true;
        self
    }

    /// The fields to create.
    pub fn missing(&self) -> &[FieldSpec] {
        &self.missing
    }

    /// How much goes into a batch.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// All that would be created, in words.
    pub(crate) fn to_create(&self) -> Vec<String> {
        let fields = self.missing.iter().map(|spec| format!("field `{}`", spec.name));
        fields.chain(self.creates_also.iter().cloned()).collect()
    }
}

/// A system that takes batches of changes.
///
/// # Contract
/// * [`describe`](Self::describe) only reads; [`prepare`](Self::prepare) is idempotent.
/// * Delivery is at least once: the same values may arrive twice.
/// * `Err` from [`apply`](Self::apply) means that no row's outcome is known, and its [`delivery`](Error::delivery) says
///   whether anything may have been applied. Once any row's outcome is known, `apply` returns outcomes.
/// * Nothing of a batch is sent after its [`deadline`](Batch::deadline), and a request that got no answer is not
///   repeated: its rows are [`Unknown`](crate::Outcome::Unknown).
/// * `apply` ends by itself: a request needs a timeout, since a run waits for every batch that it handed out.
/// * Texts, of errors, rejections and notes, should be of its own words. The keys of the batch, and in a rejection the
///   row's values, are blacked out of them, but values of other rows, causes of errors and single characters are not.
///
/// An implementation needs the crate `async-trait`; `examples/own_destination.rs` is a whole one.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot receive batches",
    note = "implement `Destination` for it"
)]
pub trait Destination: fmt::Debug + Send + Sync {
    /// What the destination is to a mapping that wants these fields. Reads only.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field that does not exist or cannot be written.
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target>;

    /// Creates what is missing, and returns the target complete. Called again it creates nothing.
    ///
    /// The state is held until it ends, however long it takes. A run that is told to stop, or can no longer hold the
    /// state, drops its future at whatever it waits for.
    ///
    /// # Errors
    /// What creating fails with.
    async fn prepare(&self, target: Target) -> Result<Target> {
        Ok(target)
    }

    /// Sends a batch and says what became of each row.
    ///
    /// It may run in a process in which [`describe`](Self::describe) did not: a field of a change carries the id that
    /// `describe` gave it.
    ///
    /// # Errors
    /// No row's outcome is known.
    async fn apply(&self, batch: &Batch) -> Result<Outcomes>;

    /// Which of the keys exist, in the order of `keys`, with the values of `fields` that they have. No fields asks only
    /// whether they exist. Reads only.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the destination cannot be asked; otherwise what reading fails
    /// with.
    async fn find(&self, keys: &[Key], fields: &[FieldName]) -> Result<Vec<Option<Record>>> {
        let _ = (keys, fields);
        Err(Error::config("this destination cannot be asked which records exist"))
    }
}

const _: fn(&dyn Destination) = |_| (); // stays usable as a trait object

macro_rules! destination_behind {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Destination + ?Sized> Destination for $pointer<T> {
            async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
                (**self).describe(wanted).await
            }

            async fn prepare(&self, target: Target) -> Result<Target> {
                (**self).prepare(target).await
            }

            async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
                (**self).apply(batch).await
            }

            async fn find(&self, keys: &[Key], fields: &[FieldName]) -> Result<Vec<Option<Record>>> {
                (**self).find(keys, fields).await
            }
        }
    };
}

destination_behind!(Arc);
destination_behind!(Box);
