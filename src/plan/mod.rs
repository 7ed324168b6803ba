//! Plan: every change, counted and guarded before the first write.
//!
//! Planning is given a [`PriorState`](crate::PriorState) and cannot write. A plan is data: it can be looked at, written to a
//! file, read back in another process, and carried out at most once.
//!
//! A row's road: [`read`] hands its source out in pieces; [`digest`] makes key hash and fingerprint of it and looks it up in
//! the [`index`] of the state; the [`planner`] decides what it needs, with [`met`] to know what came before; an entry goes
//! into the [`spool`]. Then the plan has its [`head`], and may [`resolve`] what only the destination knows, or become a
//! [file](mod@file).

mod counts;
mod digest;
mod file;
mod guard;
mod head;
mod index;
mod met;
mod options;
mod planner;
mod read;
mod resolve;
mod spool;

use std::{fmt, sync::Arc};

use crate::{
    Error, ErrorKind, Result,
    change::{Change, Step},
    destination::Limits,
    event::{Event, Observer, Problem},
    fingerprint::Secret,
    host::Host,
    run::Run,
    state::{Header, StateStore},
};

pub use counts::Counts;
use file::{FORMAT, Written};
pub use guard::{Guards, Share};
pub(crate) use head::Head;
pub use options::{DuplicatePolicy, MissingPolicy, PlanOptions, RejectedPolicy};
pub use planner::plan;
pub(crate) use spool::{Entries, Spool};

/// Problems that a plan or a report keeps; an observer is told all of them.
pub(crate) const PROBLEMS_KEPT: usize = 100;

/// Every change that a sync would make.
///
/// What it holds is personal data, and for a new state also the secret that was generated for it: a file that it is
/// written to should be readable by its owner alone.
#[must_use]
pub struct Plan {
    pub(crate) head: Head,
    pub(crate) spool: Spool,
    /// The secret that the caller supplied.
    pub(crate) secret: Option<Secret>,
    /// The state's secret, as far as it is known.
    sealing: Option<Secret>,
    pub(crate) written: Option<Written>,
    pub(crate) observer: Option<Observer>,
    pub(crate) host: Arc<dyn Host>,
    memory_max: usize,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("counts", &self.head.counts)
            .field("refusals", &self.head.refusals)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// How many rows are what.
    pub fn counts(&self) -> &Counts {
        &self.head.counts
    }

    /// What the destination lacks and would create first.
    pub fn creates(&self) -> &[String] {
        &self.head.creates
    }

    /// Why the guards refuse the plan; empty if they do not.
    pub fn refusals(&self) -> &[String] {
        &self.head.refusals
    }

    /// The first problems that were met; an observer was told all of them.
    pub fn problems(&self) -> &[Problem] {
        &self.head.problems
    }

    /// The same plan, whatever the guards say.
    pub fn waive_guards(mut self) -> Self {
        self.head.waived = true;
        self.head.guard();
        self
    }

    /// Whether carrying it out would send nothing.
    pub fn is_empty(&self) -> bool {
        self.head.counts.planned() == 0 && self.head.counts.resolved == 0
    }

    /// The changes, in the order of their key hashes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the temporary file cannot be read back.
    pub fn changes(&self) -> impl Iterator<Item = Result<Change>> + Send + '_ {
        let names = Arc::new(self.head.names());
        self.spool.entries().filter_map(move |entry| match entry {
            Ok(mut entry) => {
                // Only a run needs what the state has of the row.
                entry.before = None;
                matches!(entry.step, Step::Send | Step::Resolve).then(|| Ok(Change::new(entry, &names)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// The secret of the state, for a plan read from a file whose state does not store it.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Who is told what happens while the plan is carried out.
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where time and randomness come from. An [`Activation`](crate::Activation) brings its own.
    pub fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = host;
        self
    }

    /// Takes the plan up: the state is held from here on, until the run ends.
    ///
    /// # Errors
    /// * [`ErrorKind::Guard`] if a guard refuses the plan;
    /// * [`ErrorKind::StateMoved`] if the state has changed since it was made, as it has when the plan was applied before;
    /// * [`ErrorKind::Busy`] if another run holds the state;
    /// * [`ErrorKind::StateDamaged`] if it belongs to another sync, or is damaged.
    pub async fn start(self, store: &dyn StateStore, limits: Limits) -> Result<Run<'_>> {
        self.allowed()?;
        Run::start(self, store, limits).await
    }

    /// Refuses what the guards refuse.
    pub(crate) fn allowed(&self) -> Result<()> {
        if self.head.refusals.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Guard, format!("nothing was written: {}", self.head.refusals.join("; "))))
    }

    /// Refuses, without writing anything, what [`start`](Self::start) would refuse; else gives the state's header.
    pub(crate) async fn check_startable(&self, store: &dyn StateStore) -> Result<Option<Header>> {
        self.allowed()?;
        let header = store.header().await?;
        if let Some(header) = &header {
            header.belongs_to(&self.head.identity)?;
        }
        self.head.check_of(header.as_ref())?;
        Ok(header)
    }

    /// What a plan read from a file lacks, from the options of whoever applies it.
    pub(crate) fn with_defaults(mut self, options: &PlanOptions) -> Self {
        self.secret = self.secret.or_else(|| options.secret.clone());
        self.observer = self.observer.or_else(|| options.observer.clone());
        self.host = Arc::clone(&options.host);
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        writeln!(f, "plan for {}", self.head.identity)?;
        writeln!(f, "  mode          {}", self.head.mode())?;
        crate::report::write_counts(f, counts)?;
        for what in self.creates() {
            writeln!(f, "  to create     {what}")?;
        }
        crate::report::write_problems(f, self.problems())?;
        for refusal in self.refusals() {
            writeln!(f, "  REFUSED       {refusal}")?;
        }
        Ok(())
    }
}
