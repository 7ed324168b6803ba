//! Run: a plan being carried out. Forget, hand out, remember.
//!
//! Every step is one commit: it remembers what has come back, and forgets what goes out next. What is to be sent waits
//! in a queue for each operation until a batch is full; a row whose earlier request may still take effect waits until
//! that is over. A row that an update did not find goes into the queue of inserts, if the destination creates records.
//!
//! Steps overlap: the next records are loaded while batches are out, and if more batches may be, the next ones are put
//! together and their commit is begun. None is handed out before its commit is stored.

mod queue;
mod settle;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, MaybeDone, maybe_done, select},
    stream::{self, BoxStream},
};
use hashbrown::HashMap;

use crate::{
    Error, ErrorKind, Result,
    batch::{Batch, Ledger},
    change::{Change, ChangeKind, Entry, Phase, Step},
    destination::{Limits, Operation, Target},
    event::{Event, Observer, Problem},
    fingerprint::{KeyHash, RowFingerprint},
    host::{Deadline, Host, later},
    outcome::Outcome,
    plan::{Entries, Head, Plan, Table},
    report::{Report, Tally},
    run::queue::{Queues, Row, Waiting},
    seal::Sealer,
    state::{
        Commit, Header, RowState, StateStore,
        header::{Lease, RunId},
    },
};

/// How long a run holds the state after each of its commits.
const LEASE: Duration = Duration::from_secs(120);

/// How often the hold is renewed while there is nothing else to commit.
const RENEWED_EVERY: Duration = Duration::from_secs(30);

/// Rows that are set right without a request, in one commit.
const ROWS_A_COMMIT: usize = 4096;

/// The most rows whose records are loaded at once.
const ROWS_AHEAD: usize = 8192;

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
    table: Table,
    sealer: Sealer,
    ledger: Arc<Ledger>,
    entries: Entries,
    last_entry: Option<(KeyHash, Step)>,
    /// Entries that were taken from the plan and whose records are being loaded.
    unloaded: Vec<Entry>,
    loading: Option<MaybeDone<Loading<'s>>>,
    is_exhausted: bool,
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

/// The records of some entries.
type Loading<'s> = BoxFuture<'s, Result<Vec<Option<RowState>>>>;

/// A commit that was begun, and the batches that it announces.
struct Pending<'s> {
    storing: MaybeDone<BoxFuture<'s, Result<()>>>,
    commit: Arc<Commit>,
    batches: Vec<Batch>,
    begun: Duration,
}

impl<'s> Run<'s> {
    pub(crate) async fn start(plan: Plan, store: &'s dyn StateStore, limits: Limits) -> Result<Run<'s>> {
        let table = plan.head.table();
        let entries = plan.spool.entries();
        let Plan { head, secret, written, observer, host, .. } = plan;
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
        let started = host.monotonic();
        let mut run = Run {
            store,
            observer,
            limits,
            id: RunId::generate(&*host)?,
            header,
            renewed: started,
            place: head.place.as_deref().map(Arc::from),
            table,
            sealer: Sealer::new(&secret)?,
            ledger: Arc::default(),
            entries,
            last_entry: None,
            unloaded: Vec::new(),
            loading: None,
            is_exhausted: false,
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

    /// Waits for something while the hold on the state is renewed; `None` if that fails, and with it the run.
    pub(crate) async fn held_during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        while self.failure.is_none() {
            let pause = (self.renewed + RENEWED_EVERY).saturating_sub(self.host.monotonic());
            if let Either::Left((done, _)) = select(work.as_mut(), self.host.sleep(pause)).await {
                return Some(done);
            }
            self.begin(Vec::new());
            self.complete().await;
        }
        None
    }

    /// Takes over the ids of fields and the place that `target` has by now, before the first batch.
    pub(crate) fn bind(&mut self, target: &Target) -> Result<()> {
        self.head.bind(target)?;
        self.header.slots = self.head.slots.clone();
        self.place = self.head.place.as_deref().map(Arc::from);
        self.table = self.head.table();
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
            let until = if self.may_store() { over.min(self.renewed + RENEWED_EVERY) } else { over };
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
        let is_complete = self.is_loaded() && self.queues.is_empty() && self.late.is_empty();
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
                || !self.is_loaded()
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

    /// Stores what is left to store, and gives the state back.
    async fn give_back(&mut self) {
        if self.may_store() {
            self.header.lease = None;
            self.begin(Vec::new());
            self.complete().await;
        }
    }

    /// Whether the state is still this run's to write.
    fn may_store(&self) -> bool {
        let is_damaged = self.failure.as_ref().is_some_and(|error| error.kind() == ErrorKind::StateDamaged);
        !self.is_lost && !is_damaged
    }

    /// The next thing there is to do: a commit begun, records loaded, or a wait. False if there is nothing.
    async fn step(&mut self) -> Result<bool> {
        let mut batches = mem::take(&mut self.prepared);
        if batches.is_empty() {
            batches = self.form()?;
        }
        let waits_for_late = !self.late.is_empty() && !self.head.leave_late;
        if !batches.is_empty() || self.dirty.len() >= ROWS_A_COMMIT {
            self.begin(batches);
        } else if !self.is_loaded() {
            self.fill().await?;
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

    /// Whether batches are under way whose answers can no longer come: whoever has them does not give them back.
    fn is_overdue(&self) -> bool {
        self.ledger.count_open() > 0 && self.host.monotonic() > self.last_answer
    }

    /// Whether every entry of the plan is in a queue, or was.
    fn is_loaded(&self) -> bool {
        self.is_exhausted && self.unloaded.is_empty()
    }

    /// Waits until something comes back, a late request is over, or the hold on the state has to be renewed.
    async fn wait(&mut self) {
        let now = self.host.wall();
        let renewal = (self.renewed + RENEWED_EVERY).saturating_sub(self.host.monotonic());
        let mut pause = renewal;
        if self.ledger.count_open() > 0 {
            let left = self.last_answer.saturating_sub(self.host.monotonic());
            pause = pause.min(left.saturating_add(Duration::from_millis(1)));
        }
        if !self.head.leave_late
            && let Some(until) = self.late.iter().filter_map(Waiting::until).min()
        {
            // The mark has to be over, not just to be at its end.
            let left = until.duration_since(now).unwrap_or_default() + Duration::from_millis(1);
            pause = pause.min(left);
            if !self.told_late {
                self.told_late = true;
                tracing::info!(rows = self.late.len(), seconds = left.as_secs(), "waiting for late requests");
                self.tell(&Event::Waiting { rows: self.late.len() as u64, until });
            }
        }
        self.comes_back_within(pause).await;
        let now = self.host.wall();
        let over: Vec<Waiting> = self.late.extract_if(.., |waiting| waiting.is_over(now)).collect();
        for waiting in over {
            self.enqueue(waiting);
        }
    }

    /// Waits until something comes back, at most so long.
    async fn comes_back_within(&mut self, pause: Duration) {
        let (change, pause) = (pin!(self.ledger.changed()), pin!(self.host.sleep(pause)));
        select(change, pause).await;
    }

    fn is_renewal_due(&self) -> bool {
        self.host.monotonic() >= self.renewed + RENEWED_EVERY
    }

    /// Takes the next entries from the plan and their records from the store.
    async fn fill(&mut self) -> Result<()> {
        self.read_ahead()?;
        let Some(loading) = &mut self.loading else { return Ok(()) };
        Pin::new(&mut *loading).await;
        let states = Pin::new(loading).take_output();
        self.loading = None;
        let Some(states) = states.transpose()? else { return Ok(()) };
        for (entry, state) in mem::take(&mut self.unloaded).into_iter().zip(states) {
            let row = Row::new(state.as_ref())?;
            self.take_entry(entry, row)?;
        }
        // The next ones are loaded while these are sent.
        self.read_ahead()?;
        self.loading.as_mut().map(FutureExt::now_or_never);
        Ok(())
    }

    /// Takes the next entries from the plan and begins to load their records, unless that is being done.
    ///
    /// No commit of this run has these rows before it has taken them, so it does not matter which of them the records were
    /// loaded before. The one exception is a key that was sealed alone: whatever follows for its row seals it as well.
    fn read_ahead(&mut self) -> Result<()> {
        if self.loading.is_some() {
            return Ok(());
        }
        let wanted = self.limits.rows.saturating_mul(self.room()).clamp(64, ROWS_AHEAD);
        while self.unloaded.len() < wanted && !self.is_exhausted {
            match self.entries.next().transpose()? {
                None => self.is_exhausted = true,
                Some(entry) if entry.step == Step::Ask && !self.head.seals_anew => {}
                // A key that was met twice may be sealed more than once, and is by whatever else is done with its row.
                Some(entry) if entry.step == Step::Seal && self.is_last(entry.hash()) => {}
                Some(entry) => {
                    let is_second = self.is_last(entry.hash());
                    let last = self.last_entry.replace((entry.hash(), entry.step));
                    if is_second && last.is_none_or(|(_, step)| step != Step::Seal) {
                        return Err(Error::new(
                            ErrorKind::Source,
                            "the plan has two entries for one row: it was altered; plan again",
                        ));
                    }
                    self.unloaded.push(entry);
                }
            }
        }
        if !self.unloaded.is_empty() {
            let hashes: Vec<KeyHash> = self.unloaded.iter().map(Entry::hash).collect();
            let store = self.store;
            let loading: Loading<'s> = Box::pin(async move { store.load(&hashes).await });
            self.loading = Some(maybe_done(loading));
        }
        Ok(())
    }

    /// Whether the last entry that was taken from the plan is of this row.
    fn is_last(&self, hash: KeyHash) -> bool {
        self.last_entry.is_some_and(|(last, _)| last == hash)
    }

    fn take_entry(&mut self, entry: Entry, mut row: Row) -> Result<()> {
        let hash = entry.hash();
        match entry.step {
            Step::Send | Step::Resolve => {
                let change = self.table.change(entry);
                let waiting = self.waiting(change, row);
                if waiting.is_over(self.host.wall()) {
                    self.enqueue(waiting);
                } else {
                    self.late.push(waiting);
                }
            }
            Step::Settle => {
                row.record.settled(&entry.wanted, RowFingerprint::from_u64(entry.print));
                if self.head.seals {
                    row.record.set_sealed_key(Some(self.sealer.seal(hash, &entry.key)?));
                }
                self.put(hash, &mut row);
            }
            Step::Unsettle => {
                row.record.unsettled();
                self.put(hash, &mut row);
            }
            // A row that the state does not have needs no key.
            Step::Ask | Step::Seal if !row.stored => {}
            Step::Ask | Step::Seal => {
                row.record.set_sealed_key(Some(self.sealer.seal(hash, &entry.key)?));
                self.put(hash, &mut row);
            }
            Step::Drop => self.put_deleted(hash, &row),
        }
        Ok(())
    }

    fn waiting(&self, change: Change, row: Row) -> Waiting {
        // Only a limit of bytes makes it worth counting them.
        let bytes = if self.limits.bytes == usize::MAX { 0 } else { change.json_bytes() };
        Waiting { change, row, bytes }
    }

    fn enqueue(&mut self, waiting: Waiting) {
        let operation = self.operation(&waiting.change);
        self.queues.of(operation).push_back(waiting);
    }

    /// The operation that a change needs next.
    fn operation(&self, change: &Change) -> Operation {
        match (change.kind(), change.phase) {
            (ChangeKind::Removed, _) => Operation::Remove,
            (_, Phase::Insert) => Operation::Insert,
            (_, Phase::First) if self.head.operations.contains(&Operation::Upsert) => Operation::Upsert,
            (_, Phase::First | Phase::UpdateAgain) => Operation::Update,
        }
    }

    /// How many more batches may be under way; always one, since the caller asks for it.
    fn room(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.ledger.count_open()).max(1)
    }

    /// Puts batches together from what waits: full ones, and the rest once nothing more can come to fill them.
    fn form(&mut self) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        let room = self.room();
        let is_last = self.is_loaded();
        for operation in [Operation::Remove, Operation::Insert, Operation::Update, Operation::Upsert] {
            while batches.len() < room {
                let Limits { rows, bytes, .. } = self.limits;
                let queue = self.queues.of(operation);
                let (mut taken, mut size) = (0, 0_usize);
                while let Some(waiting) = queue.get(taken)
                    && taken < rows
                    && (taken == 0 || size.saturating_add(waiting.bytes) <= bytes)
                {
                    size = size.saturating_add(waiting.bytes);
                    taken += 1;
                }
                let is_full = taken == rows || taken < queue.len();
                if taken == 0 || !(is_full || is_last) {
                    break;
                }
                let rows: Vec<Waiting> = queue.drain(..taken).collect();
                batches.push(self.announce(operation, rows)?);
            }
        }
        Ok(batches)
    }

    /// Notes in the records of these rows that they are about to be sent.
    fn announce(&mut self, operation: Operation, mut rows: Vec<Waiting>) -> Result<Batch> {
        rows.sort_unstable_by_key(|waiting| waiting.change.hash());
        let deadline = Deadline::after(&*self.host, self.limits.send_within);
        let until = later(deadline.wall(), self.limits.late.saturating_add(self.limits.clock_margin));
        let place = self.place.clone().filter(|_| operation == Operation::Insert);
        let mut changes = Vec::with_capacity(rows.len());
        for Waiting { change, mut row, .. } in rows {
            let hash = change.hash();
            let prints = change.prints();
            row.is_resolved = change.entry.step == Step::Resolve;
            row.prior = row.record.announced(&change.sending(operation, &prints), until, place.as_deref());
            if row.record.sealed_key().is_none() && (self.head.seals || row.record.is_in_doubt()) {
                row.record.set_sealed_key(Some(self.sealer.seal(hash, change.key())?));
            }
            self.put(hash, &mut row);
            self.in_flight.insert(hash, row);
            changes.push(change);
        }
        self.ledger.open(1);
        let (host, ledger) = (Arc::clone(&self.host), Arc::clone(&self.ledger));
        Ok(Batch::new(operation, place, changes, deadline, host, ledger))
    }

    /// Has the next commit write the row as it is now.
    fn put(&mut self, hash: KeyHash, row: &mut Row) {
        if !self.head.seals && !row.record.is_in_doubt() {
            row.record.set_sealed_key(None);
        }
        let slots = &self.header.slots;
        row.record.retain_fields(|slot| slots.is_active(slot));
        let is_in_doubt = row.record.is_in_doubt();
        self.count(row, true, is_in_doubt);
        (row.stored, row.stored_in_doubt) = (true, is_in_doubt);
        self.dirty.insert(hash, Some(RowState::new(&row.record)));
    }

    fn put_deleted(&mut self, hash: KeyHash, row: &Row) {
        self.count(row, false, false);
        self.dirty.insert(hash, None);
    }

    fn count(&mut self, row: &Row, is_stored: bool, is_in_doubt: bool) {
        let header = &mut self.header;
        header.rows = (header.rows + u64::from(is_stored)).saturating_sub(u64::from(row.stored));
        header.in_doubt =
            (header.in_doubt + u64::from(is_in_doubt)).saturating_sub(u64::from(row.stored_in_doubt));
    }

    /// Begins to store what is to be written.
    fn begin(&mut self, batches: Vec<Batch>) {
        let now = self.host.wall();
        // Whoever takes the state over has to wait for the marks anyway, and nobody may poll the run meanwhile.
        let Limits { send_within, late, clock_margin, .. } = self.limits;
        let span = LEASE.max(send_within.saturating_add(late).saturating_add(clock_margin));
        if let Some(lease) = &mut self.header.lease {
            lease.until = later(now, span);
        }
        let rows: Vec<_> = mem::take(&mut self.dirty).into_iter().collect();
        let commit = Arc::new(Commit::new(self.id, self.head.version, self.header.clone(), rows));
        let store = self.store;
        let storing = {
            let commit = Arc::clone(&commit);
            let storing: BoxFuture<'s, _> = Box::pin(async move { store.commit(&commit).await });
            maybe_done(storing)
        };
        self.pending = Some(Pending { storing, commit, batches, begun: self.host.monotonic() });
    }

    /// Puts the next batches together if more may be under way, without waiting for anything.
    fn prepare(&mut self) {
        while self.failure.is_none()
            && self.prepared.is_empty()
            && self.dirty.len() < ROWS_A_COMMIT
            && self.ledger.count_open() < self.limits.in_flight
        {
            match self.form() {
                Ok(batches) => self.prepared = batches,
                Err(error) => return self.fail(error),
            }
            if !self.prepared.is_empty() || self.is_loaded() {
                return;
            }
            match self.fill().now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => self.fail(error),
                None => return,
            }
        }
    }

    /// Begins to announce the batches that were prepared, as far as that goes without waiting for it.
    fn announce_prepared(&mut self) {
        if !self.prepared.is_empty() {
            let prepared = mem::take(&mut self.prepared);
            self.begin(prepared);
            self.stored().now_or_never();
        }
    }

    /// Waits until the commit that was begun is stored; records are loaded meanwhile.
    async fn stored(&mut self) {
        let (Some(pending), loading) = (&mut self.pending, &mut self.loading) else { return };
        poll_fn(|context| {
            if let Some(loading) = loading {
                // Whether it is done, `fill` asks.
                let _: Poll<()> = Pin::new(loading).poll(context);
            }
            pending.storing.poll_unpin(context)
        })
        .await;
    }

    /// Completes a commit that was begun.
    async fn complete(&mut self) {
        self.stored().await;
        let Some(Pending { mut storing, commit, batches, begun }) = self.pending.take() else { return };
        let Some(stored) = Pin::new(&mut storing).take_output() else { return };
        self.ready.extend(batches);
        match stored {
            Ok(()) => self.renewed = begun,
            Err(error) => {
                // It is not known whether it was stored; rows are written whole, so writing them again is right either
                // way, unless somebody else writes by now.
                for (hash, row) in commit.rows() {
                    self.dirty.entry(hash).or_insert_with(|| row.cloned());
                }
                // A destination that has moved leaves the state ours, and the hold on it is given back.
                self.is_lost |= matches!(error.kind(), ErrorKind::StateMoved | ErrorKind::Busy);
                self.fail(error);
                self.give_up_ready();
            }
        }
    }

    /// Batches that were not handed out are not attempted.
    fn give_up_ready(&mut self) {
        for batch in mem::take(&mut self.ready).into_iter().chain(mem::take(&mut self.prepared)) {
            let outcomes = batch.all(&Outcome::NotAttempted);
            batch.settle(outcomes);
        }
        self.take_settled();
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
