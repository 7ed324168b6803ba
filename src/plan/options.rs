//! How a plan is made.

use std::{fmt, num::NonZero, sync::Arc, thread, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Observer},
    fingerprint::Secret,
    host::{Host, SystemHost},
    plan::guard::Guards,
    state::record::{Backoff, Rejection},
};

/// Which of two rows with one key counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DuplicatePolicy {
    /// Neither, unless they are equal: nobody can know which one is right.
    #[default]
    Withhold,
    /// The first one that is valid, in a source whose order means something.
    First,
    /// The last one, in a source whose order means something; if it is invalid, none, since the others are out of date.
    Last,
}

/// When a row that the destination did not know is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingPolicy {
    /// When a read finds it, which [`Plan::resolve`](crate::Plan::resolve) asks for. A destination that creates records
    /// gets it at once.
    #[default]
    Ask,
    /// At every run.
    Send,
    /// Never.
    Leave,
}

/// When a row that the destination rejected is sent again although nothing about it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RejectedPolicy {
    /// When its back-off has ended.
    Backoff(Backoff),
    /// At every run.
    EveryRun,
    /// Never.
    Never,
}

impl Default for RejectedPolicy {
    /// After one hour, doubled at each rejection up to seven days.
    fn default() -> Self {
        Self::Backoff(Backoff::default())
    }
}

impl RejectedPolicy {
    pub(crate) fn holds_back(self, rejection: &Rejection, sent: u64, removal: bool, now: SystemTime) -> bool {
        match self {
            Self::Backoff(_) => rejection.holds_back(sent, removal, now),
            Self::EveryRun => false,
            Self::Never => rejection.is_of(sent, removal),
        }
    }

    pub(crate) fn backoff(self) -> Backoff {
        match self {
            Self::Backoff(backoff) => backoff,
            Self::EveryRun | Self::Never => Backoff::default(),
        }
    }
}

/// How a plan is made. The default suits a full model: every row is looked at, and rows that are absent are left alone.
#[derive(Clone)]
#[must_use]
pub struct PlanOptions {
    pub(crate) sync: String,
    pub(crate) guards: Guards,
    pub(crate) remove_absent: bool,
    pub(crate) secret: Option<Secret>,
    pub(crate) memory_max: usize,
    pub(crate) duplicates: DuplicatePolicy,
    pub(crate) missing: MissingPolicy,
    pub(crate) rejected: RejectedPolicy,
    pub(crate) leave_late: bool,
    threads: Option<usize>,
    pub(crate) observer: Option<Observer>,
    pub(crate) host: Arc<dyn Host>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            sync: "default".to_owned(),
            guards: Guards::default(),
            remove_absent: false,
            secret: None,
            memory_max: 64 << 20,
            duplicates: DuplicatePolicy::default(),
            missing: MissingPolicy::default(),
            rejected: RejectedPolicy::default(),
            leave_late: false,
            threads: None,
            observer: None,
            host: SystemHost::shared(),
        }
    }
}

/// More threads than this share nothing but the work of being many.
const THREADS_MAX: usize = 256;

impl PlanOptions {
    /// The name of the sync, part of what its state belongs to; `default` if there is only one to a destination.
    pub fn sync(mut self, name: impl Into<String>) -> Self {
        self.sync = name.into();
        self
    }

    /// What a plan must not exceed.
    pub fn guards(mut self, guards: Guards) -> Self {
        self.guards = guards;
        self
    }

    /// The source is complete: what this sync added at the destination and the source no longer has is removed there.
    ///
    /// A source that was cut in half would have half of all removed: see [`Guards::removed_max`]. From the first run on with
    /// this option the state keeps each key, sealed, which takes the bytes of the key and 16 more; to switch it on later has
    /// each row written once more.
    pub fn remove_absent(mut self) -> Self {
        self.remove_absent = true;
        self
    }

    /// The secret of the state, if it is not to be generated and kept in the state itself.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// The memory that changes may take, in bytes; 64 MiB by default. When half of it is full, they are spooled to a temporary
    /// file while the other half is filled.
    ///
    /// Beside these, planning holds 28 bytes for each row of the state, 50 to 90 for each row that is not as the state says,
    /// and for each thread and two more the values of up to 8,192 rows that differ, or of up to 35,000 rows, or 10 MB, if the
    /// source comes in [parts](crate::Source::parts). Rows that wait for what the state has of them come in groups of 8 MB and
    /// up to 8,192 rows more, of which there are seven at most. While it is not known whether a source has many rows, up to 24
    /// of its chunks are held, or 65,536 rows, or a 256th of what the state has.
    pub fn memory_max(mut self, bytes: usize) -> Self {
        self.memory_max = bytes;
        self
    }

    /// Which of two rows with one key counts; by default neither.
    pub fn duplicates(mut self, policy: DuplicatePolicy) -> Self {
        self.duplicates = policy;
        self
    }

    /// When a row that the destination did not know is sent again.
    pub fn missing(mut self, policy: MissingPolicy) -> Self {
        self.missing = policy;
        self
    }

    /// When a row that the destination rejected is sent again.
    pub fn rejected(mut self, policy: RejectedPolicy) -> Self {
        self.rejected = policy;
        self
    }

    /// Rows of which a request may still take effect are left to the next run; by default the run waits for them.
    pub fn leave_late(mut self) -> Self {
        self.leave_late = true;
        self
    }

    /// How many threads compare rows with the state, and decode the parts of a source that has some, from 1 to 256; by default
    /// as many as the machine has cores. Beside them another one helps to read a big state, decodes a part while rows are looked
    /// up one by one, or writes a plan's temporary file.
    ///
    /// They are threads of the plan's own. For rows that are borrowed the caller's thread takes part and waits for the
    /// others; that of rows which come in chunks puts results in order. Either way it lets others have their turn after each
    /// 8,192 rows. The plan is the same for any number.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    pub(super) fn threads_wanted(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.unwrap_or_else(cores).clamp(1, THREADS_MAX)
    }

    /// Who is told what happens, while planning and while the plan is carried out.
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where time and randomness come from.
    pub fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = host;
        self
    }
}

impl fmt::Debug for PlanOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanOptions")
            .field("sync", &self.sync)
            .field("guards", &self.guards)
            .field("remove_absent", &self.remove_absent)
            .finish_non_exhaustive()
    }
}
