//! What the tests of the engine share: a clock that only sleeping moves, a small destination in memory, a process that
//! dies where the test wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use reverse_etl::{
    Activation, Batch, Commit, Destination, Error, ErrorKind, FieldKind, FieldName, FieldSpec, Header, Key,
    KeyHash, Limits, Mapping, MemoryStore, Operation, Outcome, Outcomes, PlanOptions, PriorState, Record,
    Report, Result, RowState, ScannedRows, StateStore, Target, host::Host,
};
use serde_json::Value as Json;

/// A clock that stands still but for sleeps, which are over at once.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<Ticks>>);

#[derive(Default)]
struct Ticks {
    now: Duration,
    randoms: u64,
    at_sleep: Option<Box<dyn FnMut() + Send>>,
}

impl Clock {
    pub(crate) fn advance(&self, span: Duration) {
        self.0.lock().unwrap().now += span;
    }

    pub(crate) fn since(&self, start: Duration) -> Duration {
        self.monotonic().checked_sub(start).unwrap()
    }

    /// What happens whenever somebody sleeps.
    pub(crate) fn at_sleep(&self, happens: impl FnMut() + Send + 'static) {
        self.0.lock().unwrap().at_sleep = Some(Box::new(happens));
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[async_trait]
impl Host for Clock {
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    async fn sleep(&self, pause: Duration) {
        // Whoever else has something to do does it first.
        for _ in 0..8 {
            yield_once().await;
        }
        let mut ticks = self.0.lock().unwrap();
        if let Some(happens) = &mut ticks.at_sleep {
            happens();
        }
        ticks.now += pause;
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        let mut ticks = self.0.lock().unwrap();
        ticks.randoms += 1;
        let mut seed = ticks.randoms.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for byte in bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_be_bytes()[0];
        }
        Ok(())
    }
}

pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What the destination of the tests can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Update and remove only what exists.
    Updates,
    /// Update, and insert into a list.
    Inserts,
    /// Upsert and remove.
    Upserts,
}

/// A batch as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) rows: Vec<(String, Json)>,
    pub(crate) on_create: Vec<Json>,
    pub(crate) place: Option<String>,
}

impl Call {
    pub(crate) fn of(batch: &Batch) -> Self {
        let changes = batch.changes();
        let json = |fields| serde_json::to_value(fields).unwrap();
        Self {
            operation: batch.operation(),
            rows: changes
                .iter()
                .map(|change| (change.key().as_str().to_owned(), json(change.fields())))
                .collect(),
            on_create: changes.iter().map(|change| json(change.on_create())).collect(),
            place: batch.place().map(str::to_owned),
        }
    }
}

/// What exists at the destination, and what arrived there.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) records: BTreeMap<String, BTreeMap<String, Json>>,
    /// Who is in the list of those created.
    pub(crate) list: BTreeSet<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) finds: usize,
    /// Requests that are still to take effect.
    pub(crate) late: Vec<Call>,
}

impl World {
    /// Carries out a request, and says what became of each row.
    pub(crate) fn effect(&mut self, call: &Call) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for ((key, fields), on_create) in call.rows.iter().zip(&call.on_create) {
            let exists = self.records.contains_key(key);
            outcomes.push(match (call.operation, exists) {
                (Operation::Update | Operation::Remove, false) => Outcome::NoMatch,
                (Operation::Insert, true) => Outcome::AlreadyExists,
                (Operation::Remove, true) => {
                    self.records.remove(key);
                    Outcome::applied()
                }
                _ => {
                    self.write(key, fields);
                    if !exists {
                        self.write(key, on_create);
                    }
                    if call.operation == Operation::Insert {
                        self.list.insert(key.clone());
                    }
                    Outcome::Applied { created: !exists }
                }
            });
        }
        outcomes
    }

    fn write(&mut self, key: &str, fields: &Json) {
        let record = self.records.entry(key.to_owned()).or_default();
        for (name, value) in fields.as_object().unwrap() {
            record.insert(name.clone(), value.clone());
        }
    }

    /// What was on its way takes effect.
    pub(crate) fn land(&mut self) {
        for call in std::mem::take(&mut self.late) {
            self.effect(&call);
        }
    }

    pub(crate) fn value(&self, key: &str, field: &str) -> Json {
        self.records.get(key).and_then(|record| record.get(field)).cloned().unwrap_or(Json::Null)
    }
}

/// What a call is answered with; `None` for what the destination would answer by itself.
pub(crate) type Answer = dyn Fn(usize, &Batch, &mut World) -> Option<Result<Outcomes>> + Send + Sync;

/// A destination of people in memory.
#[derive(Clone)]
pub(crate) struct People {
    service: Service,
    world: Arc<Mutex<World>>,
    answer: Arc<Mutex<Arc<Answer>>>,
    pub(crate) limits: Limits,
    pub(crate) mortal: Mortal,
    pub(crate) kind: FieldKind,
    /// A request during which the process dies takes effect later.
    pub(crate) dies_late: bool,
}

impl People {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            world: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_, _, _| None))),
            limits: Limits::rows(100),
            mortal: Mortal::default(),
            kind: FieldKind::Text { chars_max: 60 },
            dies_late: false,
        }
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn serving(mut self, service: Service) -> Self {
        self.service = service;
        self
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Sets how calls, counted from 1, are answered from here on.
    pub(crate) fn answer(
        &self,
        answer: impl Fn(usize, &Batch, &mut World) -> Option<Result<Outcomes>> + Send + Sync + 'static,
    ) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    pub(crate) fn answer_by_itself(&self) {
        self.answer(|_, _, _| None);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.world().calls.clone()
    }

    /// The calls since the last time.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.world().calls)
    }

    pub(crate) fn exists(&self, keys: &[&str]) {
        for key in keys {
            self.world().records.insert((*key).to_owned(), BTreeMap::new());
        }
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("People")
    }
}

/// A field has one id, however it is spelled.
pub(crate) fn field_id(name: &FieldName) -> String {
    format!("id-{}", name.as_str().to_lowercase())
}

#[async_trait]
impl Destination for People {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        let mut target = Target::new("test/people", FieldKind::Email, self.limits).finds();
        target = match self.service {
            Service::Updates => target.offers([Operation::Update, Operation::Remove]),
            Service::Inserts => target.offers([Operation::Update, Operation::Insert]).inserts_into("list"),
            Service::Upserts => target,
        };
        for spec in wanted {
            target = target.field(spec, self.kind.clone(), Some(&field_id(spec.name())));
        }
        Ok(target)
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        let call = Call::of(batch);
        if self.mortal.step_is_last() {
            if self.dies_late {
                self.world().late.push(call.clone());
            }
            std::future::pending::<()>().await;
        }
        yield_once().await;
        let answered = {
            let answer = Arc::clone(&self.answer.lock().unwrap());
            let mut world = self.world();
            world.calls.push(call.clone());
            let count = world.calls.len();
            answer(count, batch, &mut world).unwrap_or_else(|| {
                let mut rows = world.effect(&call).into_iter();
                let mut outcomes = batch.outcomes(|_, _| rows.next().unwrap_or(Outcome::Unknown));
                for (place, rows) in batch.in_doubt(&outcomes) {
                    assert_eq!(place, "list");
                    for row in rows {
                        world.list.insert(call.rows[row].0.clone());
                    }
                }
                outcomes.set(usize::MAX, Outcome::Unknown);
                Ok(outcomes)
            })
        };
        self.mortal.step().await;
        answered
    }

    async fn find(&self, keys: &[Key], _: &[FieldName]) -> Result<Vec<Option<Record>>> {
        let mut world = self.world();
        world.finds += 1;
        Ok(keys.iter().map(|key| world.records.contains_key(key.as_str()).then(Record::new)).collect())
    }
}

/// A process that dies at one of its steps.
#[derive(Clone, Default)]
pub(crate) struct Mortal(Arc<Mutex<Life>>);

#[derive(Default)]
struct Life {
    steps: usize,
    last: Option<usize>,
    is_dead: bool,
}

impl Mortal {
    /// A new life, which ends at the step `last`.
    pub(crate) fn dies_at(&self, last: Option<usize>) {
        *self.0.lock().unwrap() = Life { steps: 0, last, is_dead: false };
    }

    fn step_is_last(&self) -> bool {
        let mut life = self.0.lock().unwrap();
        life.steps += 1;
        life.is_dead |= life.last == Some(life.steps);
        life.is_dead
    }

    pub(crate) async fn step(&self) {
        if self.step_is_last() {
            std::future::pending::<()>().await;
        }
    }

    /// The future's output, or `None` if the process died before; then all of it is dropped.
    pub(crate) async fn live<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context).map(Some);
            if self.0.lock().unwrap().is_dead { Poll::Ready(None) } else { polled }
        })
        .await
    }
}

/// A store in memory that fails or dies with its process.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) inner: MemoryStore,
    pub(crate) mortal: Mortal,
    commits: Arc<Mutex<Commits>>,
}

#[derive(Default)]
struct Commits {
    count: usize,
    failing: Option<(usize, bool)>,
    failing_from: Option<usize>,
    /// Each commit takes its time.
    slow: usize,
    /// The most rows in one.
    rows_max: usize,
    /// How often records were asked for.
    loads: usize,
}

impl Store {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self::over(MemoryStore::with_host(Arc::new(clock.clone())))
    }

    pub(crate) fn over(inner: MemoryStore) -> Self {
        Self { inner, mortal: Mortal::default(), commits: Arc::default() }
    }

    /// The commit `number`, from 1, fails, perhaps after it was stored.
    pub(crate) fn fail(&self, number: usize, stored: bool) {
        *self.commits.lock().unwrap() = Commits { failing: Some((number, stored)), ..Commits::default() };
    }

    /// The commit `number`, from 1, and all after it fail.
    pub(crate) fn fail_from(&self, number: usize) {
        *self.commits.lock().unwrap() = Commits { failing_from: Some(number), ..Commits::default() };
    }

    /// Every commit needs so many more polls.
    pub(crate) fn slow(&self, polls: usize) {
        self.commits.lock().unwrap().slow = polls;
    }

    pub(crate) fn commits(&self) -> usize {
        self.commits.lock().unwrap().count
    }

    /// How often records were asked for.
    pub(crate) fn loads(&self) -> usize {
        self.commits.lock().unwrap().loads
    }

    /// The most rows that one commit wrote.
    pub(crate) fn rows_max(&self) -> usize {
        self.commits.lock().unwrap().rows_max
    }

    /// The same state for another process.
    pub(crate) fn reopened(&self) -> Self {
        Self::over(self.inner.snapshot())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[async_trait]
impl PriorState for Store {
    async fn header(&self) -> Result<Option<Header>> {
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        self.commits.lock().unwrap().loads += 1;
        self.inner.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.inner.scan()
    }
}

#[async_trait]
impl StateStore for Store {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.mortal.step().await;
        let (slow, fails) = {
            let mut commits = self.commits.lock().unwrap();
            commits.count += 1;
            commits.rows_max = commits.rows_max.max(commit.rows().count());
            let fails_for_good = commits.failing_from.filter(|number| *number <= commits.count);
            let fails = commits.failing.filter(|(number, _)| *number == commits.count);
            (commits.slow, fails.or(fails_for_good.map(|number| (number, false))))
        };
        for _ in 0..slow {
            yield_once().await;
        }
        let full = || Error::new(ErrorKind::Io, "the disk is full: make room");
        if let Some((_, false)) = fails {
            return Err(full());
        }
        self.inner.commit(commit).await?;
        for _ in 0..slow {
            yield_once().await;
        }
        self.mortal.step().await;
        if fails.is_some() { Err(full()) } else { Ok(()) }
    }
}

/// All that a sync needs, in memory.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) clock: Clock,
    pub(crate) people: People,
    pub(crate) store: Store,
}

impl Setup {
    pub(crate) fn new(service: Service) -> Self {
        crate::watch::install();
        let clock = Clock::default();
        Self { people: People::new(service), store: Store::new(&clock), clock }
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.people = self.people.limits(limits);
        self
    }

    pub(crate) fn options(&self) -> PlanOptions {
        PlanOptions::default().host(Arc::new(self.clock.clone()))
    }

    pub(crate) fn sync(&self) -> Activation {
        self.with(names(), self.options())
    }

    pub(crate) fn with(&self, mapping: Mapping, options: PlanOptions) -> Activation {
        Activation::new(mapping, self.people.clone(), self.store.clone()).options(options)
    }

    pub(crate) async fn run(&self, people: &Vec<Record>) -> Report {
        let report = self.sync().run(people).await.unwrap();
        assert_adds_up(&report);
        report
    }

    /// One more run makes both sides equal, and the run after that sends nothing.
    pub(crate) async fn assert_converges(&self, people: &Vec<Record>) {
        self.run(people).await;
        self.people.take_calls();
        let report = self.run(people).await;
        assert_eq!(report.counts.planned(), 0, "{report}");
        assert!(self.people.calls().is_empty());
    }

    /// A row that the state takes for settled is so at the destination, whatever version of the source is asked for.
    pub(crate) async fn assert_honest(&self, versions: &[Vec<Record>], told: &str) {
        for people in versions {
            let plan = self.sync().plan(people).await.unwrap();
            let planned: Vec<_> = plan.changes().map(|change| change.unwrap()).collect();
            let world = self.people.world();
            for person in people {
                let Some(reverse_etl::Value::Text(key)) = person.get(&"email".into()) else { continue };
                // A row that is held as missing claims nothing.
                if plan.counts().held > 0 && !world.records.contains_key(key) {
                    continue;
                }
                let change = planned.iter().find(|change| change.key().as_str() == key);
                for (column, field) in [("name", "Name"), ("city", "City")] {
                    let Some(value) = person.get(&column.into()) else { continue };
                    let is_sent = change.is_some_and(|change| {
                        change.fields().iter().any(|sent| sent.name().as_str() == field)
                    });
                    let value = serde_json::to_value(value).unwrap();
                    assert!(
                        is_sent || world.value(key, field) == value,
                        "{told}: the state claims `{field}` of {key}, and it is not so"
                    );
                }
            }
        }
    }
}

pub(crate) fn names() -> Mapping {
    Mapping::new("email").map("name", "Name").map("city", "City")
}

pub(crate) fn person(email: &str, name: &str) -> Record {
    Record::new().with("email", email).with("name", name)
}

pub(crate) fn citizen(email: &str, name: &str, city: &str) -> Record {
    person(email, name).with("city", city)
}

/// `count` people whose names end in `suffix`.
pub(crate) fn crowd(count: usize, suffix: &str) -> Vec<Record> {
    (0..count).map(|number| person(&format!("p{number}@shop.test"), &format!("N{number}{suffix}"))).collect()
}

/// (applied, no match, rejected, unknown, not attempted)
pub(crate) fn tally(report: &Report) -> [u64; 5] {
    let outcomes = &report.outcomes;
    [outcomes.applied, outcomes.no_match, outcomes.rejected, outcomes.unknown, outcomes.not_attempted]
}

pub(crate) fn assert_adds_up(report: &Report) {
    let counts = &report.counts;
    let rows =
        counts.unchanged + counts.held + counts.added + counts.changed + counts.invalid + counts.duplicate;
    assert_eq!(counts.rows, rows, "{report}");
    assert_eq!(report.outcomes.total(), counts.planned(), "{report}");
    assert_eq!(report.resolved.total(), counts.resolved, "{report}");
}

pub(crate) fn no_answer() -> Error {
    Error::no_answer("the answer did not come", std::io::Error::other("connection reset"))
}
