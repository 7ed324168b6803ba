//! Run: a plan being carried out. Forget, hand out, remember.
//!
//! Every step is one commit: it remembers what has come back, and forgets what goes out next. What is to be sent waits
//! in a queue for each operation until a batch is full; a row whose earlier request may still take effect waits until
//! that is over. A row that an update did not find goes into the queue of inserts, if the destination creates records.
//!
//! Steps overlap: while a commit is stored or a batch is out, the entries of the next batch are taken, and where more batches
//! may be out at once it is put together and its commit begun. None is handed out before its commit is stored.
//!
//! A row's road: [`ahead`] reads its entry and makes it ready; [`intake`] takes it, and its record with it; [`queue`] has it
//! until a batch is full; [`announce`] puts it into that batch and notes so in its record; [`commit`] stores this; the caller
//! sends the batch; [`settle`] makes of its outcome what the next commit remembers. [`hold`] keeps the state meanwhile.

mod ahead;
mod announce;
mod commit;
mod hold;
mod intake;
mod queue;
mod settle;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use hashbrown::HashMap;

use crate::{
    Error, ErrorKind, Result,
    batch::{Batch, Ledger},
    change::Names,
    destination::{Limits, Target},
    event::{Event, Observer, Problem},
    fingerprint::{Fingerprinter, KeyHash},
    host::{Host, yield_once},
    plan::{Head, Plan},
    report::{Report, Tally},
    run::{
        ahead::Ahead,
        commit::{Pending, ROWS_A_COMMIT},
        queue::{Queues, Row, Waiting},
    },
    seal::Sealer,
    state::{
        Header, RowState, StateStore,
        header::{Lease, RunId},
    },
};

/// A plan being carried out; it holds the state until [`finish`](Self::finish).
///
/// ```
/// # futures::executor::block_on(async {
/// use reverse_etl::{Limits, Mapping, MemoryStore, Outcome, PlanOptions, Record, plan};
///
/// let store = MemoryStore::default();
/// let people = vec![Record::new().with("id", 1).with("name", "Ada")];
/// let plan = plan(&people, &Mapping::new("id").map("name", "full_name"), &store, &PlanOptions::default()).await?;
/// let mut run = plan.start(&store, Limits::rows(500)).await?;
/// while let Some(batch) = run.next_batch().await {
///     // … send `batch.changes()` …
///     let outcomes = batch.all(&Outcome::applied());
///     batch.settle(outcomes);
/// }
/// assert_eq!(run.finish().await?.outcomes.applied, 1);
/// # Ok::<(), reverse_etl::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a run does nothing until its batches are taken, and holds the state until it is finished"]
pub struct Run<'s> {
    store: &'s dyn StateStore,
    host: Arc<dyn Host>,
    observer: Option<Observer>,
    limits: Limits,
    id: RunId,
    header: Header,
    /// When the hold on the state was last renewed.
    renewed: Duration,
    head: Head,
    place: Option<Arc<str>>,
    names: Arc<Names>,
    sealer: Sealer,
    ledger: Arc<Ledger>,
    ahead: Ahead,
    /// Whether every entry of the plan is in a queue, or was.
    is_loaded: bool,
    queues: Queues,
    /// Rows of which something sent earlier may still take effect.
    late: Vec<Waiting>,
    /// Whether the observer was told that they are waited for.
    told_late: bool,
    in_flight: HashMap<KeyHash, Row>,
    /// Rows as the next commit will write them.
    dirty: BTreeMap<KeyHash, Option<RowState>>,
    pending: Option<Pending<'s>>,
    /// Batches that the next commit is to announce.
    prepared: Vec<Batch>,
    /// Batches that were announced and not handed out yet.
    ready: VecDeque<Batch>,
    /// When the last answer to a batch that was handed out can come.
    last_answer: Duration,
    failure: Option<Error>,
    /// Whether the state belongs to somebody else by now, so that nothing more is to be stored.
    is_lost: bool,
    silent: u32,
    outcomes: Tally,
    resolved: Tally,
    created: u64,
    batches: u64,
    problems: Vec<Problem>,
    started: Duration,
}

impl<'s> Run<'s> {
    pub(crate) async fn start(plan: Plan, store: &'s dyn StateStore, limits: Limits) -> Result<Run<'s>> {
        let names = Arc::new(plan.head.names());
        let Plan { head, spool, secret, written, observer, host, .. } = plan;
        let stored = store.header().await?;
        if let Some(header) = &stored {
            header.belongs_to(&head.identity)?;
        }
        head.check_of(stored.as_ref())?;
        let secret = match (&stored, secret, head.secret) {
            (Some(header), supplied, _) => header.secret(supplied.as_ref())?,
            (None, Some(supplied), _) => supplied,
            (None, None, Some(generated)) => crate::Secret::new(generated.0),
            (None, None, None) => {
                return Err(Error::config(
                    "the state of this plan is keyed by a secret of the caller's: supply it with `Plan::secret`",
                ));
            }
        };
        if secret.check_value()? != head.check.0 {
            return Err(Error::config(
                "this plan was made with another secret: supply that one, or plan again",
            ));
        }
        if let Some(written) = written {
            written.check(&secret)?;
        }
        let is_generated = stored.is_none() && head.secret.is_some();
        let mut header = match stored {
            Some(header) => header,
            None => Header::new(head.identity.clone(), &secret, is_generated)?,
        };
        header.slots = head.slots.clone();
        let sealer = Sealer::new(&secret)?;
        let ahead = Ahead::new(&spool, &head, &Fingerprinter::new(&secret)?, &sealer);
        let started = host.monotonic();
        let mut run = Run {
            store,
            observer,
            limits,
            id: RunId::generate(&*host)?,
            header,
            renewed: started,
            place: head.place.as_deref().map(Arc::from),
            names,
            sealer,
            ledger: Arc::default(),
            ahead,
            is_loaded: false,
            queues: Queues::default(),
            late: Vec::new(),
            told_late: false,
            in_flight: HashMap::new(),
            dirty: BTreeMap::new(),
            pending: None,
            prepared: Vec::new(),
            ready: VecDeque::new(),
            last_answer: started,
            failure: None,
            is_lost: false,
            silent: 0,
            outcomes: Tally::default(),
            resolved: Tally::default(),
            created: 0,
            batches: 0,
            problems: head.problems.clone(),
            started,
            host,
            head,
        };
        let now = run.host.wall();
        run.header.lease = Some(Lease { run: run.id, holder: run.host.name(), since: now, until: now });
        run.begin(Vec::new());
        run.complete().await;
        if run.failure.is_some() {
            // The commit may have been stored all the same, and then nobody would give the state back.
            run.give_back().await;
        }
        match run.failure.take() {
            Some(error) => Err(error),
            None => Ok(run),
        }
    }

    /// Takes over the ids of fields and the place that `target` has by now, before the first batch.
    pub(crate) fn bind(&mut self, target: &Target) -> Result<()> {
        self.head.bind(target)?;
        self.header.slots = self.head.slots.clone();
        self.place = self.head.place.as_deref().map(Arc::from);
        self.names = Arc::new(self.head.names());
        Ok(())
    }

    /// The next batch: one durable commit remembers what was settled and forgets what the batch sends.
    ///
    /// Waits while batches under way may still lead to more (an update without a match becomes an insert), and while an
    /// earlier request of a row may still take effect. `None`: everything has its outcome, or the run must stop;
    /// [`finish`](Self::finish) says which.
    ///
    /// While fewer batches are under way than [`Limits::in_flight`] allows, the next one is prepared and announced ahead.
    /// The hold on the state is renewed by this method and by `finish`: a caller that comes back to neither for longer than
    /// a request may take (four minutes, unless its [`Limits`] say otherwise) may find that another run has taken over.
    ///
    /// Cancel-safe: a commit once begun belongs to the run, and is completed by the next call or by `finish`.
    pub async fn next_batch(&mut self) -> Option<Batch> {
        let mut was_ahead = true;
        loop {
            // While a commit is stored, what has come back is seen to, and the next batch put together.
            self.take_settled();
            self.prepare();
            self.complete().await;
            self.take_settled();
            if self.failure.is_some() {
                return None;
            }
            if let Some(mut batch) = self.ready.pop_front() {
                if was_ahead && batch.is_expired() {
                    // Nobody came for it in time, and nobody was to know of it: its rows are announced anew.
                    batch.fail(Error::new(ErrorKind::Expired, "the time to send a batch has passed"));
                    continue;
                }
                batch.hand_out();
                self.prepare();
                self.announce_prepared();
                self.batches += 1;
                let answered_within =
                    batch.deadline().remaining(&*self.host).saturating_add(self.limits.late);
                self.last_answer =
                    self.host.monotonic().saturating_add(answered_within).max(self.last_answer);
                return Some(batch);
            }
            was_ahead = false;
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => self.fail(error),
            }
        }
    }

    /// The batches as a stream, for several of them under way at once.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use futures::StreamExt;
    /// use reverse_etl::{Batch, Error, Limits, Mapping, MemoryStore, Outcome, PlanOptions, Record, plan};
    /// use serde_json::{Value, json};
    ///
    /// /// Executes a batch with whatever the program likes: here something that says which rows it refused.
    /// async fn deliver(batch: Batch) {
    ///     let rows: Vec<_> = batch.changes().iter().map(|change| (change.key(), change.fields())).collect();
    ///     match post(json!({ "operation": batch.operation(), "rows": rows })).await {
    ///         Ok(refused) => {
    ///             let outcomes = batch.outcomes(|row, _| match refused.contains(&row) {
    ///                 true => Outcome::rejected("422", "refused"),
    ///                 false => Outcome::applied(),
    ///             });
    ///             batch.settle(outcomes);
    ///         }
    ///         Err(error) => batch.fail(Error::no_answer("POST /people", error)),
    ///     }
    /// }
    /// # async fn post(body: Value) -> Result<Vec<usize>, std::io::Error> { Ok(vec![]) }
    ///
    /// let people: Vec<_> = (0..1_000).map(|id| Record::new().with("id", id).with("name", "Ada")).collect();
    /// let mapping = Mapping::new("id").map("name", "full_name");
    /// let store = MemoryStore::default();
    /// let plan = plan(&people, &mapping, &store, &PlanOptions::default()).await?;
    /// let mut run = plan.start(&store, Limits::rows(100)).await?;
    /// run.batches().for_each_concurrent(4, deliver).await;
    /// assert_eq!(run.finish().await?.outcomes.applied, 1_000);
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn batches(&mut self) -> BoxStream<'_, Batch> {
        stream::unfold(self, |run| async move { run.next_batch().await.map(|batch| (batch, run)) }).boxed()
    }

    /// Remembers what is left to remember, and gives the state back.
    ///
    /// Batches that are still under way are waited for until their answers can no longer come.
    ///
    /// To a state that is damaged, or that another run has taken over, nothing more is written: a hold on a damaged one runs
    /// out by itself, within minutes.
    ///
    /// # Errors
    /// What the run had to stop for; [`Error::report`] says how far it came.
    pub async fn finish(mut self) -> Result<Report> {
        self.complete().await;
        self.give_up_ready();
        let over = self.last_answer;
        while self.ledger.count_open() > 0 && self.host.monotonic() < over {
            let now = self.host.monotonic();
            let until = if self.may_store() { over.min(self.renewal()) } else { over };
            self.comes_back_within(until.saturating_sub(now)).await;
            self.take_settled();
            if self.is_renewal_due() && self.may_store() {
                self.begin(Vec::new());
                self.complete().await;
                self.renewed = self.host.monotonic();
            }
        }
        self.take_settled();
        for row in mem::take(&mut self.in_flight).into_values() {
            // Nobody gave these back: what became of them is unknown, and their marks say so.
            let tally = if row.is_resolved { &mut self.resolved } else { &mut self.outcomes };
            tally.unknown += 1;
        }
        let is_complete = self.is_loaded && self.queues.is_empty() && self.late.is_empty();
        if is_complete && self.failure.is_none() {
            // From here on every row has its key sealed: not earlier, since the next plan relies on it.
            self.header.seals = self.head.seals;
        }
        self.give_back().await;
        let planned = self.head.counts.planned();
        self.outcomes.not_attempted = planned.saturating_sub(self.outcomes.total());
        self.resolved.not_attempted = self.head.counts.resolved.saturating_sub(self.resolved.total());
        // Rows that are left to the next run because it was told so are no early end.
        let left = if self.head.leave_late { self.late.len() as u64 } else { 0 };
        let report = Report {
            sync: mem::take(&mut self.head.identity),
            stopped: self.failure.is_some()
                || !self.is_loaded
                || self.outcomes.not_attempted + self.resolved.not_attempted > left,
            counts: mem::take(&mut self.head.counts),
            outcomes: mem::take(&mut self.outcomes),
            resolved: mem::take(&mut self.resolved),
            created: self.created,
            batches: self.batches,
            problems: mem::take(&mut self.problems),
            duration: self.host.monotonic().saturating_sub(self.started),
        };
        tracing::info!(sync = report.sync, planned, outcomes = ?report.outcomes, "run finished");
        match self.failure.take() {
            Some(error) => Err(error.with_report(report)),
            None => Ok(report),
        }
    }

    /// The next thing there is to do: a commit begun, entries taken, or a wait. False if there is nothing.
    async fn step(&mut self) -> Result<bool> {
        let mut batches = mem::take(&mut self.prepared);
        if batches.is_empty() {
            batches = self.form()?;
        }
        let waits_for_late = !self.late.is_empty() && !self.head.leave_late;
        if !batches.is_empty() || self.dirty.len() >= ROWS_A_COMMIT {
            self.begin(batches);
        } else if !self.is_loaded {
            self.fill().await?;
            yield_once().await;
        } else if (self.ledger.count_open() == 0 && !waits_for_late) || self.is_overdue() {
            // What is left to remember is remembered by `finish`, in the commit that gives the state back.
            return Ok(false);
        } else if !self.dirty.is_empty() || self.is_renewal_due() {
            self.begin(Vec::new());
        } else {
            self.wait().await;
        }
        Ok(true)
    }

    /// The run has to stop.
    pub(crate) fn fail(&mut self, error: Error) {
        self.ledger.halt();
        self.failure.get_or_insert(error);
    }

    fn tell(&self, event: &Event<'_>) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("sync", &self.head.identity)
            .field("outcomes", &self.outcomes)
            .finish_non_exhaustive()
    }
}
