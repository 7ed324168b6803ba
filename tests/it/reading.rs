//! What planning asks of a state and of a source, and that it checks what it is given.

use std::{
    future::Future,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{
    executor::block_on,
    stream::{self, BoxStream},
};
use reverse_etl::{
    Error, ErrorKind, Event, FieldName, Header, KeyHash, Mapping, MemoryStore, PlanOptions, PriorState,
    Record, Result, RowState, Rows, ScannedRows, Source, ValueRef, plan,
};

use crate::threads::deliver;

fn people(ids: Range<i64>, name: &str) -> Vec<Record> {
    ids.map(|id| Record::new().with("id", id).with("name", name)).collect()
}

fn mapping() -> Mapping {
    Mapping::new("id").map("name", "name")
}

fn known(people: &Vec<Record>) -> MemoryStore {
    let store = MemoryStore::default();
    deliver(people, &mapping(), &store, &PlanOptions::default());
    store
}

/// A state that counts the rows it is asked for, and how often for all.
#[derive(Debug)]
struct Asked {
    inner: MemoryStore,
    loaded: AtomicUsize,
    scans: AtomicUsize,
}

#[async_trait]
impl PriorState for Asked {
    async fn header(&self) -> Result<Option<Header>> {
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        self.loaded.fetch_add(keys.len(), Ordering::Relaxed);
        self.inner.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.inner.scan()
    }
}

/// Plans rows that are all as they were, in chunks of this size, and gives the rows loaded and the scans.
fn asked(rows: usize, chunk: usize) -> (usize, usize) {
    let people = people(0..3_000, "Ada");
    let state = Asked { inner: known(&people), loaded: AtomicUsize::new(0), scans: AtomicUsize::new(0) };
    let chunks = people[..rows].chunks(chunk).map(|chunk| Ok::<_, Error>(chunk.to_vec()));
    let source = Source::chunks(stream::iter(chunks.collect::<Vec<_>>()));
    let plan = block_on(plan(source, &mapping(), &state, &PlanOptions::default())).unwrap();
    assert_eq!(plan.counts().unchanged, rows as u64);
    (state.loaded.into_inner(), state.scans.into_inner())
}

/// A state that forgets its last answer.
#[derive(Debug)]
struct Short(MemoryStore);

#[async_trait]
impl PriorState for Short {
    async fn header(&self) -> Result<Option<Header>> {
        self.0.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        self.0.load(&keys[1..]).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.0.scan()
    }
}

/// A state that writes down which rows it was asked for, call by call.
#[derive(Debug)]
struct Noting {
    inner: MemoryStore,
    calls: Mutex<Vec<Vec<KeyHash>>>,
}

#[async_trait]
impl PriorState for Noting {
    async fn header(&self) -> Result<Option<Header>> {
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        self.calls.lock().unwrap().push(keys.to_vec());
        self.inner.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.inner.scan()
    }
}

#[test]
fn rows_that_differ_are_asked_for_in_the_order_of_their_keys_and_not_too_many_at_once() {
    const AT_ONCE: usize = 4096;
    let state = Noting { inner: known(&people(0..20_000, "Ada")), calls: Mutex::default() };
    let changed = people(0..20_000, "Bob");
    let plan = block_on(plan(&changed, &mapping(), &state, &PlanOptions::default())).unwrap();
    assert_eq!(plan.counts().changed, 20_000);
    let calls = state.calls.into_inner().unwrap();
    assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 20_000);
    assert!(calls.iter().all(|call| call.len() <= AT_ONCE && call.is_sorted()));
    // Some calls go on where the one before ended.
    let goes_on = |calls: &[Vec<KeyHash>]| calls[0].last() < calls[1].first();
    assert!(calls.windows(2).filter(|calls| goes_on(calls)).count() >= 2, "{}", calls.len());
}

#[test]
fn a_state_that_gives_fewer_answers_than_it_was_asked_for_is_an_error() {
    let before = people(0..100, "Ada");
    let (state, options) = (Short(known(&before)), PlanOptions::default());
    let changed = people(0..100, "Bob");
    let absent: Vec<_> = before[..50].to_vec();
    for (rows, options) in [
        (&before, options.clone()),                  // looked up one by one,
        (&changed, options.clone().remove_absent()), // found by a scan and loaded because they differ,
        (&absent, options.remove_absent()),          // or because they are gone
    ] {
        let error = block_on(plan(rows, &mapping(), &state, &options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged);
        assert!(error.to_string().contains("mend its `PriorState`"), "{error}");
    }
}

/// Polls a plan to its end, and gives the most rows that were read in one poll.
fn most_read_at_once<T>(plan: impl Future<Output = Result<T>>, read: &AtomicUsize) -> usize {
    let (mut plan, mut context) = (pin!(plan), Context::from_waker(Waker::noop()));
    let mut most = 0;
    loop {
        let before = read.load(Ordering::Relaxed);
        let polled = plan.as_mut().poll(&mut context);
        most = most.max(read.load(Ordering::Relaxed) - before);
        match polled {
            Poll::Ready(planned) => {
                planned.unwrap();
                return most;
            }
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

#[test]
fn planning_lets_others_have_their_turn_after_some_thousand_rows() {
    const ROWS: i64 = 200_000;
    let (store, read) = (known(&people(0..10, "Ada")), AtomicUsize::new(0));
    let mapping = mapping();
    let options = PlanOptions::default().threads(256);
    let counted = |id| {
        read.fetch_add(1, Ordering::Relaxed);
        Record::new().with("id", id).with("name", "Ada")
    };
    let by_row = plan(Source::iter((0..ROWS).map(counted)), &mapping, &store, &options);
    assert!(most_read_at_once(by_row, &read) < 50_000);
    let chunks =
        (0..ROWS / 400).map(|at| Ok::<_, Error>((at * 400..at * 400 + 400).map(counted).collect::<Vec<_>>()));
    let in_chunks = plan(Source::chunks(stream::iter(chunks)), &mapping, &store, &options);
    assert!(most_read_at_once(in_chunks, &read) < 50_000);
    // Borrowed rows are read while the caller's thread waits, by as many others as it wants.
    let options = PlanOptions::default().threads(2);
    let rows = Visited { rows: people(0..ROWS, "Ada"), read: &read };
    assert!(most_read_at_once(plan(&rows, &mapping, &store, &options), &read) < 50_000);
}

/// Rows that count how many of them are visited.
struct Visited<'r> {
    rows: Vec<Record>,
    read: &'r AtomicUsize,
}

impl Rows for Visited<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        self.read.fetch_add(range.len(), Ordering::Relaxed);
        self.rows.visit(columns, range, row)
    }
}

/// Rows whose `visit` panics.
struct Panicking(usize);

impl Rows for Panicking {
    fn len(&self) -> usize {
        self.0
    }

    fn visit(
        &self,
        _: &[FieldName],
        _: Range<usize>,
        _: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        panic!("this source is broken")
    }
}

#[test]
fn a_panic_of_a_source_reaches_the_caller_and_the_next_plan_works() {
    let store = MemoryStore::default();
    let options = PlanOptions::default().threads(2);
    for rows in [10, 20_000] {
        let caught = |source: Source<'_>| {
            let planned =
                catch_unwind(AssertUnwindSafe(|| block_on(plan(source, &mapping(), &store, &options))));
            *planned.unwrap_err().downcast::<&str>().unwrap()
        };
        assert_eq!(caught((&Panicking(rows)).into()), "this source is broken");
        let owned = Source::chunks(stream::iter([Ok::<_, Error>(Panicking(rows))]));
        assert_eq!(caught(owned), "this source is broken");
    }
    assert_eq!(
        block_on(plan(&people(0..10, "Ada"), &mapping(), &store, &options)).unwrap().counts().added,
        10
    );
}

#[test]
fn few_rows_are_looked_up_one_by_one() {
    assert_eq!(asked(500, 100), (500, 0));
}

#[test]
fn a_chunk_of_many_rows_is_compared_with_a_scan_and_none_of_them_is_loaded() {
    assert_eq!(asked(3_000, 3_000), (0, 1));
}

#[test]
fn once_many_rows_have_come_in_small_chunks_the_state_is_scanned_and_none_was_looked_up_in_vain() {
    assert_eq!(asked(3_000, 100), (0, 1));
    assert_eq!(asked(1_000, 100), (1_000, 0));
}

/// A state that says that it has so many rows.
#[derive(Debug)]
struct Big(Asked, u64);

#[async_trait]
impl PriorState for Big {
    async fn header(&self) -> Result<Option<Header>> {
        let mut header = serde_json::to_value(self.0.header().await?).unwrap();
        header["rows"] = self.1.into();
        Ok(serde_json::from_value(header).unwrap())
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        assert!(keys.len() <= 8_192, "{} at once", keys.len());
        self.0.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.0.scan()
    }
}

/// Plans 100,000 rows, of which a state of so many rows knows 90,000, and gives the rows loaded and the scans.
fn asked_of_big(rows: u64, chunk: usize) -> (usize, usize) {
    let people = people(0..100_000, "Ada");
    let inner = known(&people[..90_000].to_vec());
    let state = Big(Asked { inner, loaded: AtomicUsize::new(0), scans: AtomicUsize::new(0) }, rows);
    let chunks = people.chunks(chunk).map(|chunk| Ok::<_, Error>(chunk.to_vec()));
    let source = Source::chunks(stream::iter(chunks.collect::<Vec<_>>()));
    let plan = block_on(plan(source, &mapping(), &state, &PlanOptions::default())).unwrap();
    assert_eq!((plan.counts().unchanged, plan.counts().added), (90_000, 10_000));
    (state.0.loaded.into_inner(), state.0.scans.into_inner())
}

#[test]
fn few_rows_beside_those_of_a_state_are_looked_up_however_many_they_are_and_not_all_at_once() {
    assert_eq!(asked_of_big(100_000_000, 30_000), (100_000, 0));
    assert_eq!(asked_of_big(100_000_000, 500), (100_000, 0));
}

#[test]
fn rows_that_were_looked_up_before_a_scan_and_rows_that_waited_for_it_are_planned_once() {
    let (loaded, scans) = asked_of_big(10_000_000, 500);
    assert!(scans == 1 && (20_000..30_000).contains(&loaded), "{loaded} loaded");
}

#[test]
fn what_is_wrong_with_rows_that_wait_is_said_before_an_error_that_the_source_has_behind_them() {
    let keyless = vec![Record::new().with("name", "Ada")];
    let source = Source::chunks(stream::iter([Ok(keyless), Err("half a file")]));
    let problems = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&problems);
    let options = PlanOptions::default().observe(move |event| {
        if let Event::Problem(problem) = event {
            assert_eq!(problem.row(), Some(1));
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let state = known(&people(0..2_000, "Ada"));
    let error = block_on(plan(source, &mapping(), &state, &options)).unwrap_err();
    assert_eq!((error.kind(), problems.load(Ordering::Relaxed)), (ErrorKind::Source, 1), "{error}");
}

/// Rows that visit one row more than they were asked for, or one less, where `is_wrong`. The last one is in nobody's count.
struct Miscounting {
    rows: Vec<Record>,
    more: bool,
    is_wrong: fn(&Range<usize>) -> bool,
}

impl Rows for Miscounting {
    fn len(&self) -> usize {
        self.rows.len() - 1
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        let given = match (self.is_wrong)(&range) {
            true if self.more => range.start..range.end + 1,
            true => range.start..range.end - 1,
            false => range,
        };
        self.rows.visit(columns, given, row)
    }
}

#[test]
fn rows_that_are_miscounted_by_their_source_are_an_error_and_no_plan() {
    // So many that rows which are owned go to a thread.
    let people = people(0..700, "Ada");
    let store = known(&people);
    let mut changed = people;
    changed[40] = Record::new().with("id", 40).with("name", "Bob");
    // The one row that differs is visited once more, on its own.
    let wrongs: [fn(&Range<usize>) -> bool; 2] = [|range| range.len() == 1, |range| range.len() > 1];
    for (more, is_wrong) in [(true, wrongs[0]), (false, wrongs[0]), (true, wrongs[1]), (false, wrongs[1])] {
        let rows = Miscounting { rows: changed.clone(), more, is_wrong };
        for is_borrowed in [true, false] {
            let options = PlanOptions::default();
            let error = if is_borrowed {
                block_on(plan(&rows, &mapping(), &store, &options)).unwrap_err()
            } else {
                let rows = Miscounting { rows: changed.clone(), more, is_wrong };
                let source = Source::chunks(stream::iter([Ok::<_, Error>(rows)]));
                block_on(plan(source, &mapping(), &store, &options)).unwrap_err()
            };
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(error.to_string().contains("mend its `Rows::visit`"), "{error}");
        }
    }
}

/// Parts of so many rows each, in chunks of so many.
fn in_parts(rows: i64, a_part: usize, a_chunk: usize, name: &'static str) -> Source<'static> {
    let ends = move |start: i64, length: usize, end: i64| end.min(start + i64::try_from(length).unwrap());
    Source::parts((0..rows).step_by(a_part).map(move |part| {
        let end = ends(part, a_part, rows);
        move || {
            let chunks = (part..end).step_by(a_chunk);
            chunks.map(move |chunk| Ok::<_, Error>(people(chunk..ends(chunk, a_chunk, end), name)))
        }
    }))
}

#[test]
fn a_source_in_parts_is_planned_like_the_same_rows_in_one_piece_whatever_the_threads() {
    let store = known(&people(0..60_000, "Ada"));
    for (rows, a_part, a_chunk) in [(0, 10, 10), (300, 70, 30), (50_000, 7_000, 999), (50_000, 30_000, 9_000)]
    {
        for (name, threads) in [("Ada", 1), ("Ada", 3), ("Bob", 2)] {
            for store in [&MemoryStore::default(), &store] {
                let options = PlanOptions::default().threads(threads);
                let of = |source: Source<'_>| {
                    let plan = block_on(plan(source, &mapping(), store, &options)).unwrap();
                    let mut rows: Vec<Option<u64>> =
                        plan.changes().map(|change| change.unwrap().row()).collect();
                    // A state that is not there yet gets another secret each time, and so another order.
                    rows.sort_unstable();
                    (plan.counts().clone(), rows)
                };
                assert!(of(in_parts(rows, a_part, a_chunk, name)) == of((&people(0..rows, name)).into()));
            }
        }
    }
}

#[test]
fn as_many_parts_are_read_at_once_as_there_are_threads() {
    let opened = Arc::new(AtomicUsize::new(0));
    let parts = (0..4_usize).map(|part| {
        let opened = Arc::clone(&opened);
        move || {
            // Two parts wait for each other; whoever is alone gives up at some time.
            let (nth, since) = (opened.fetch_add(1, Ordering::SeqCst), Instant::now());
            while opened.load(Ordering::SeqCst) < nth / 2 * 2 + 2 {
                assert!(since.elapsed() < Duration::from_secs(20), "part {part} is read alone");
                std::thread::yield_now();
            }
            let id = i64::try_from(part).unwrap();
            [Ok::<_, Error>(people(id..id + 1, "Ada"))]
        }
    });
    // Whoever looks for rows that are gone reads the state first, and then all parts in threads.
    let (store, options) = (known(&people(0..4, "Ada")), PlanOptions::default().remove_absent().threads(2));
    let planned = block_on(plan(Source::parts(parts), &mapping(), &store, &options)).unwrap();
    assert_eq!(planned.counts().unchanged, 4);
}

#[test]
fn a_part_that_cannot_be_read_or_panics_fails_the_plan() {
    let store = known(&people(0..20_000, "Ada"));
    for rows in [10, 20_000] {
        let parts = |last: fn() -> Result<Vec<Record>>| {
            let part = move |is_last: bool| {
                move || [Ok(people(0..rows, "Ada")), if is_last { last() } else { Ok(vec![]) }]
            };
            block_on(plan(
                Source::parts([false, true, false].map(part)),
                &mapping(),
                &store,
                &PlanOptions::default().threads(2),
            ))
        };
        let error = parts(|| Err(Error::new(ErrorKind::Io, "the disk is gone"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let panicked = catch_unwind(AssertUnwindSafe(|| parts(|| panic!("this part is broken"))));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "this part is broken");
    }
}
