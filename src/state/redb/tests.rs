use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::Range,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Instant, SystemTime},
};

use futures::{TryStreamExt, executor::block_on};
use proptest::{collection::vec, prelude::*};
use redb::ReadableTableMetadata;
use tempfile::TempDir;

use super::*;
use crate::{
    Limits, Mapping, MemoryStore, Outcome, Plan, PlanOptions, Record, Secret, plan,
    state::checks::{
        KEY, header, hold, lease, row, rows as state_rows, run, scanned, store_checks, version, write,
    },
    state::record::RowRecord,
};

store_checks!({
    let folder = TempDir::new().unwrap();
    (RedbStore::open(folder.path().join("state")).unwrap(), folder)
});

/// The same of a store that puts every row into a block as soon as it can.
mod packed {
    use super::*;

    store_checks!({
        let folder = TempDir::new().unwrap();
        (RedbStore::open(folder.path().join("state")).unwrap().with_recent_min(0), folder)
    });
}

/// The same of a store that moves rows on as late as it can.
mod journaled {
    use super::*;

    store_checks!({
        let folder = TempDir::new().unwrap();
        (RedbStore::open(folder.path().join("state")).unwrap().with_long_journal(), folder)
    });
}

/// A directory for one state.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn open(&self) -> RedbStore {
        RedbStore::open(self.path()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// The names in the directory.
    fn names(&self) -> BTreeSet<String> {
        let names =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// A state that was closed in good order: `count` rows of one run, without a lease.
    fn with_rows(count: u64) -> Self {
        let place = Self::new();
        block_on(place.open().commit(&Commit::new(
            run(),
            0,
            header(None),
            state_rows((0..count).map(|n| n + 2)),
        )))
        .unwrap();
        place
    }

    /// The file as a process leaves it that dies while it holds the lease.
    fn abandoned() -> (Self, RunId) {
        let (place, live, holder) = (Self::new(), Self::new(), run());
        let store = live.open();
        block_on(store.commit(&hold(holder, 0))).unwrap();
        fs::copy(live.path(), place.path()).unwrap();
        (place, holder)
    }
}

/// Every read, then a commit on top of whatever version there is; the errors of both.
fn use_all(store: &RedbStore) -> Vec<Error> {
    let keys: Vec<_> = (0..2_000).step_by(7).map(KeyHash::from_u128).collect();
    let header = block_on(store.header());
    let planned = header.as_ref().ok().and_then(|header| header.as_ref().map(Header::version));
    let results = [
        header.map(drop),
        block_on(store.load(&keys)).map(drop),
        block_on(store.scan().try_collect::<Vec<_>>()).map(drop),
        block_on(store.commit(&write(run(), planned.unwrap_or(0)))),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::StateDamaged && error.to_string().contains("state")
}

#[test]
fn opening_and_reading_make_no_file() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(version(&store), 0);
    assert_eq!(block_on(store.load(&[KEY])).unwrap(), [None]);
    assert_eq!(scanned(&store), []);
    drop(store);
    assert!(place.names().is_empty());
}

#[test]
fn reading_leaves_the_file_as_it_is() {
    let place = Place::with_rows(2_000);
    let before = place.bytes();
    let store = place.open();
    assert_eq!(version(&store), 1);
    assert_eq!(block_on(store.load(&[KEY])).unwrap(), [Some(row(3))]);
    assert_eq!(scanned(&store).len(), 2_000);
    drop(store);
    assert!(place.bytes() == before);
    assert_eq!(place.names(), BTreeSet::from(["state".to_owned()]));
}

#[test]
fn a_first_commit_that_is_refused_makes_no_file() {
    let place = Place::new();
    let error = block_on(place.open().commit(&write(run(), 5))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
    assert!(place.names().is_empty());
}

#[cfg(unix)]
#[test]
fn a_new_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::with_rows(1);
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(place.names(), BTreeSet::from(["state".to_owned()]));
}

#[test]
fn a_path_that_cannot_be_a_file_is_refused_with_its_name() {
    let place = Place::with_rows(1);
    let nowhere = place.0.path().join("nowhere/state");
    for path in [place.0.path(), &nowhere, &place.path().join("state")] {
        let error = RedbStore::open(path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Io), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_directory_that_is_gone_is_not_an_empty_state() {
    let place = Place::with_rows(1);
    let store = place.open();
    fs::remove_dir_all(&place.0).unwrap();
    assert_eq!(block_on(store.header()).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(block_on(store.commit(&write(run(), 0))).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_file_that_was_put_in_the_place_of_another_is_what_the_next_plan_sees() {
    let (place, other) = (Place::with_rows(1), Place::with_rows(3));
    let store = place.open();
    assert_eq!(scanned(&store).len(), 1);
    fs::rename(other.path(), place.path()).unwrap();
    assert_eq!(version(&store), 1);
    assert_eq!(scanned(&store).len(), 3);
}

#[test]
fn debug_shows_the_path_and_no_more() {
    let place = Place::with_rows(1);
    assert_eq!(format!("{:?}", place.open()), format!("RedbStore {{ path: {:?}, .. }}", place.path()));
}

#[test]
fn a_reader_works_beside_a_writer() {
    let place = Place::new();
    let (writer, reader, run) = (place.open(), place.open(), run());
    assert_eq!(version(&reader), 0);
    for commits in 1..=3 {
        block_on(writer.commit(&hold(run, 0))).unwrap();
        assert_eq!((version(&writer), version(&reader)), (commits, commits));
        assert_eq!(block_on(reader.load(&[KEY])).unwrap(), [Some(row(7))]);
        assert_eq!(scanned(&reader), scanned(&writer));
    }
}

#[test]
fn a_scan_sees_one_state_and_survives_the_end_of_the_run() {
    let place = Place::new();
    let (store, run) = (place.open().with_chunk(1_000), run());
    let spread = |key: u128| KeyHash::from_u128(key << 111);
    let header = |rows| Header { rows, ..header(Some(lease(run, Duration::from_secs(60)))) };
    let all = (0..100_000).map(|key| (spread(key), Some(row(7)))).collect();
    block_on(store.commit(&Commit::new(run, 0, header(100_000), all))).unwrap();
    let mut scan = store.scan();
    let mut sizes = vec![block_on(scan.next()).unwrap().unwrap().len()];
    let gone = (0..100_000).map(|key| (spread(key), None)).collect();
    block_on(store.commit(&Commit::new(run, 0, header(0), gone))).unwrap();
    block_on(store.commit(&Commit::new(run, 0, self::header(None), Vec::new()))).unwrap();
    while let Some(chunk) = block_on(scan.next()) {
        sizes.push(chunk.unwrap().len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 100_000);
    assert!(sizes.len() > 2 * CHUNKS_AT_ONCE, "most chunks are read after the commits");
    drop(scan);
    assert_eq!(scanned(&store), []);
}

#[test]
fn a_second_handle_is_told_who_holds_the_state_until_the_lease_is_given_back() {
    let place = Place::new();
    let (first, second, holder) = (place.open(), place.open(), run());
    block_on(first.commit(&hold(holder, 0))).unwrap();
    for _ in 0..2 {
        let error = block_on(second.commit(&write(run(), 1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        for part in ["host 7, process 1", "for 9 s", place.path().to_str().unwrap()] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    block_on(first.commit(&write(holder, 0))).unwrap();
    block_on(second.commit(&write(run(), 2))).unwrap();
    assert_eq!((version(&first), version(&second)), (3, 3));
}

#[test]
fn a_handle_that_is_dropped_with_its_clones_frees_the_state_at_once() {
    let place = Place::new();
    let (first, second) = (place.open(), place.open());
    block_on(first.commit(&hold(run(), 0))).unwrap();
    let clone = first.clone();
    drop(first);
    assert_eq!(block_on(second.commit(&write(run(), 1))).unwrap_err().kind(), ErrorKind::Busy);
    drop(clone);
    block_on(second.commit(&write(run(), 1))).unwrap();
}

#[test]
fn a_clone_does_not_take_the_lease_of_another_run() {
    let place = Place::new();
    let (store, holder) = (place.open(), run());
    let clone = store.clone();
    block_on(store.commit(&hold(holder, 0))).unwrap();
    assert_eq!(block_on(clone.commit(&write(run(), 1))).unwrap_err().kind(), ErrorKind::Busy);
    // Not even after the handle was lost, as it is when the disk fails.
    store.inner.release();
    assert_eq!(block_on(clone.commit(&write(run(), 1))).unwrap_err().kind(), ErrorKind::Busy);
    block_on(store.commit(&hold(holder, 0))).unwrap();
    assert_eq!(version(&clone), 2);
}

#[test]
fn a_commit_that_is_refused_leaves_the_state_to_others() {
    let place = Place::with_rows(1);
    let (first, second) = (place.open(), place.open());
    assert_eq!(block_on(first.commit(&write(run(), 0))).unwrap_err().kind(), ErrorKind::StateMoved);
    block_on(second.commit(&hold(run(), 1))).unwrap();
}

#[test]
fn leases_run_on_the_clock_of_the_host() {
    #[derive(Debug)]
    struct Clock(Mutex<SystemTime>);

    #[async_trait]
    impl Host for Clock {
        fn wall(&self) -> SystemTime {
            *self.0.lock().unwrap()
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        async fn sleep(&self, _: Duration) {}

        fn random(&self, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
    }

    let place = Place::new();
    let clock = Arc::new(Clock(Mutex::new(SystemTime::now())));
    let store = RedbStore::with_host(place.path(), clock.clone()).unwrap();
    block_on(store.commit(&hold(run(), 0))).unwrap();
    assert_eq!(block_on(store.commit(&write(run(), 1))).unwrap_err().kind(), ErrorKind::Busy);
    *clock.0.lock().unwrap() += Duration::from_secs(61);
    block_on(store.commit(&write(run(), 1))).unwrap();
}

#[tokio::test]
async fn the_runtime_is_not_blocked_and_a_dropped_commit_is_whole() {
    let place = Place::new();
    let (store, run) = (place.open(), run());
    store.commit(&write(run, 0)).await.unwrap();
    // Polled once, then dropped: it is stored all the same, since it was begun.
    assert!(futures::FutureExt::now_or_never(store.commit(&write(run, 0))).is_none());
    let until = Instant::now() + Duration::from_secs(30);
    while store.header().await.unwrap().unwrap().version() < 2 {
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_file_that_was_abandoned_is_read_and_written_at_once() {
    let (place, _) = Place::abandoned();
    let store = place.open();
    let found = block_on(store.header()).unwrap().unwrap();
    assert!(found.lease.is_some());
    assert_eq!(block_on(store.load(&[KEY])).unwrap(), [Some(row(7))]);
    assert_eq!(scanned(&store).len(), 1);
    block_on(store.commit(&write(run(), 1))).unwrap();

    let (place, holder) = Place::abandoned();
    let store = place.open();
    block_on(store.commit(&write(run(), 1))).unwrap();
    assert_eq!(block_on(store.commit(&hold(holder, 0))).unwrap_err().kind(), ErrorKind::StateMoved);
}

#[test]
fn readers_that_meet_at_an_abandoned_file_all_get_in() {
    let (place, _) = Place::abandoned();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(|| version(&place.open()))).collect();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() == 1));
    });
}

#[test]
fn clones_read_on_while_the_handle_opens_and_closes() {
    let place = Place::with_rows(1_000);
    let (store, run) = (place.open(), run());
    thread::scope(|scope| {
        for _ in 0..3 {
            let reader = store.clone();
            scope.spawn(move || {
                while version(&reader) < 60 {
                    assert_eq!(block_on(reader.load(&[KEY])).unwrap().len(), 1);
                    assert_eq!(scanned(&reader).len(), 1_000);
                }
            });
        }
        let mut planned = 1;
        for _ in 0..20 {
            for commit in [hold(run, planned), hold(run, planned), write(run, planned)] {
                block_on(store.commit(&commit)).unwrap();
            }
            planned = version(&store);
        }
    });
}

#[test]
fn a_file_that_is_no_state_is_damage_and_stays_as_it_is() {
    let foreign = Place::new();
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    let database = Database::create(foreign.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let place = Place::new();
    for bytes in [vec![], b"key,city\nada,Linz\n".to_vec(), vec![0; 10_000], foreign.bytes()] {
        fs::write(place.path(), &bytes).unwrap();
        let errors = use_all(&place.open());
        assert!(errors.len() == 4 && errors.iter().all(is_damage), "{} bytes: {errors:?}", bytes.len());
        assert!(errors[0].to_string().contains(place.path().to_str().unwrap()), "{}", errors[0]);
        assert_eq!(place.names().len(), 1);
        assert!(place.bytes() == bytes);
    }
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_says_so() {
    let place = Place::with_rows(3);
    for (number, part) in [(FORMAT_NUMBER + 1, "newer version"), (0, "never was a state")] {
        let database = engine(CACHE).open(place.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(FORMAT, &number.to_le_bytes()[..]).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let errors = use_all(&place.open());
        assert_eq!(errors.len(), 4);
        for error in errors {
            assert!(is_damage(&error) && error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn a_row_without_its_record_is_damage() {
    type Break<'b> = &'b dyn Fn(&redb::WriteTransaction);
    let last = 999;
    let journal: Break<'_> = &|state| {
        state.open_table(rows::JOURNAL).unwrap().insert(0, &b"?"[..]).unwrap();
    };
    let recent: Break<'_> = &|state| {
        state.open_table(rows::RECENT).unwrap().insert(last, &b"?"[..]).unwrap();
    };
    let cut: Break<'_> = &|state| {
        state.open_table(rows::RECENT).unwrap().insert(last, &[9_u8; 8][..]).unwrap();
    };
    let no_cold: Break<'_> = &|state| {
        state.open_table(rows::COLD).unwrap().pop_last().unwrap();
    };
    let bad_cold: Break<'_> = &|state| {
        let mut cold = state.open_table(rows::COLD).unwrap();
        let first = cold.last().unwrap().unwrap().0.value();
        cold.insert(first, &b"?"[..]).unwrap();
    };
    let bad_hot: Break<'_> = &|state| {
        let mut hot = state.open_table(rows::HOT).unwrap();
        let lower = hot.last().unwrap().unwrap().0.value();
        hot.insert(lower, &b"?"[..]).unwrap();
    };
    // The block that is damaged, and a key hash that belongs into no such block.
    for (name, damage, other) in [
        ("journal", journal, None),
        ("recent", recent, Some(last + 1)),
        ("cut", cut, Some(last + 1)),
        ("no cold", no_cold, Some(0)),
        ("bad cold", bad_cold, Some(0)),
        ("bad hot", bad_hot, Some(0)),
    ] {
        let place = Place::new();
        let store = place.open().with_recent_min(0);
        for version in 0..2 {
            let commit = Commit::new(run(), version, header(None), state_rows((0..1000).map(|n| n + 2)));
            block_on(store.commit(&commit)).unwrap();
        }
        drop(store);
        let database = engine(CACHE).open(place.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        damage(&transaction);
        transaction.commit().unwrap();
        drop(database);
        let store = place.open();
        assert!(is_damage(&block_on(store.load(&[KeyHash::from_u128(last)])).unwrap_err()), "{name}");
        if let Some(other) = other {
            assert!(block_on(store.load(&[KeyHash::from_u128(other)])).is_ok(), "{name}");
        }
        if ["journal", "recent", "cut", "bad hot"].contains(&name) {
            let scanned: Result<Vec<_>> = block_on(store.scan().try_collect());
            assert!(is_damage(&scanned.unwrap_err()), "{name}");
        }
        if name != "bad hot" {
            let row = (KeyHash::from_u128(last), RowFingerprint::from_u64(0));
            assert!(is_damage(&block_on(store.load_scanned(&[row])).unwrap_err()), "{name}");
        }
    }
}

/// A commit of some of `all` rows, whose key hashes are spread evenly and in the order of their numbers.
fn spread(planned: u64, numbers: Range<usize>, all: usize) -> Commit {
    let header = Header { rows: all as u64, ..header(None) };
    let rows = numbers.map(|number| (spread_key(number, all), Some(row(number as u64 + 2))));
    Commit::new(run(), planned, header, rows.collect())
}

fn spread_key(number: usize, all: usize) -> KeyHash {
    KeyHash::from_u128(number as u128 * (u128::MAX / all as u128))
}

#[test]
fn blocks_that_come_together_fill_the_inner_pages_of_the_file() {
    let place = Place::new();
    let store = place.open();
    let (all, batch) = (160_000, 16_000);
    for (version, first) in (0..).zip((0..all).step_by(batch)) {
        block_on(store.commit(&spread(version, first..first + batch, all))).unwrap();
    }
    let stats = store.inner.read(Look::Anew, |state| Ok(state.open_table(rows::COLD)?.stats()?));
    let stats = stats.ok().flatten().unwrap();
    // One has room for a hundred blocks; inserted one by one they would leave it half empty.
    assert!(stats.leaf_pages() > 75 * stats.branch_pages(), "{stats:?}");
}

#[test]
fn a_block_that_reaches_into_the_next_is_damage_and_a_commit_there_changes_nothing() {
    let (place, all) = (Place::new(), 2_000);
    let open = || place.open().with_recent_min(0);
    block_on(open().commit(&spread(0, 0..all, all))).unwrap();
    let database = engine(CACHE).open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut hot = transaction.open_table(rows::HOT).unwrap();
        assert!(hot.len().unwrap() > 1);
        let first = hot.first().unwrap().unwrap();
        let (upper, block) = (first.0.value(), first.1.value().to_vec());
        drop(first);
        let hots = blocks::HotBlock::new(&block).unwrap().iter();
        let mut block: Vec<_> = hots.map(|(key, hot)| blocks::Row { key, hot, record: &[] }).collect();
        block.last_mut().unwrap().key = u128::MAX - 1;
        hot.insert(upper, &*blocks::hot_block(&block)).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let store = open();
    let error = block_on(store.commit(&spread(1, 0..64, all))).unwrap_err();
    assert!(is_damage(&error), "{error}");
    assert_eq!(version(&store), 1);
    assert!(block_on(store.load(&[spread_key(all - 1, all)])).unwrap()[0] == Some(row(all as u64 + 1)));
}

/// What a plan sends, and for whom.
async fn planned(people: &[Record], store: &dyn StateStore) -> (Plan, Vec<String>) {
    let options = PlanOptions::default().secret(Secret::new([7; 32])).remove_absent();
    let plan = plan(people, &Mapping::new("id").map("a", "a").map("b", "b"), store, &options).await.unwrap();
    let changes = plan.changes().map(|change| {
        let change = change.unwrap();
        format!("{:?} {} {}", change.kind(), change.key().as_str(), serde_json::json!(change.fields()))
    });
    let changes = changes.collect();
    (plan, changes)
}

#[tokio::test]
async fn a_plan_over_blocks_is_that_over_a_state_in_memory() {
    let person = |number: u32, run: u32| {
        let changed = if number.is_multiple_of(7) { run } else { 0 };
        Record::new().with("id", number).with("a", changed).with("b", format!("text {number}"))
    };
    let place = Place::new();
    let (blocks, memory) = (place.open().with_recent_min(0), MemoryStore::default());
    let other = Place::new();
    let journal = other.open().with_recent_min(0).with_long_journal();
    let stores: [&dyn StateStore; 3] = [&blocks, &journal, &memory];
    for run in 0..4 {
        // Some change, some leave, and some come.
        let numbers = (100 * run..2_000 + 100 * run).filter(|number| number % 11 != run);
        let people: Vec<Record> = numbers.map(|number| person(number, run)).collect();
        let mut plans = Vec::new();
        for store in stores {
            let (plan, changes) = planned(&people, store).await;
            plans.push((plan.counts().clone(), changes));
            let mut run = plan.start(store, Limits::rows(300)).await.unwrap();
            while let Some(batch) = run.next_batch().await {
                let outcomes = batch.all(&Outcome::applied());
                batch.settle(outcomes);
            }
            run.finish().await.unwrap();
        }
        assert!(run == 0 || plans[0].0.changed > 0 && plans[0].0.removed > 0);
        assert!(plans[0] == plans[2] && plans[1] == plans[2], "run {run}");
    }
}

/// A row of which something is under way.
fn open_row(number: u64) -> RowState {
    let mut record = RowRecord::default();
    record.set_sealed_key(Some(number.to_le_bytes().to_vec()));
    RowState::new(&record)
}

#[test]
fn rows_that_are_settled_close_together_leave_the_journal_to_those_that_are_under_way() {
    const ALL: usize = 100_000;
    let place = Place::new();
    let (store, writer) = (place.open(), run());
    let journaled_after = |rows: Vec<(KeyHash, Option<RowState>)>| {
        let lease = Some(lease(writer, Duration::from_secs(60)));
        let header = Header { rows: ALL as u64, ..header(lease) };
        block_on(store.commit(&Commit::new(writer, 0, header, rows))).unwrap();
        let (recent, journaled) =
            store.inner.read(Look::Anew, |state| Ok(counted(state))).ok().flatten().unwrap();
        assert_eq!(recent, 0);
        journaled
    };
    let open = |numbers: Range<usize>| numbers.map(|number| (spread_key(number, ALL), Some(open_row(1))));
    let settled = |numbers: Range<usize>| numbers.map(|number| (spread_key(number, ALL), Some(row(7))));

    assert_eq!(journaled_after(open(0..1_000).collect()), 1_000);
    assert_eq!(journaled_after(settled(0..1_000).chain(open(1_000..2_000)).collect()), 1_000);
    assert_eq!(journaled_after(settled(1_300..1_600).collect()), 700);
    // Alone it would have its neighbours written anew.
    assert_eq!(journaled_after(settled(1_000..1_001).collect()), 701);

    let keys: Vec<_> = (0..2_000).map(|number| spread_key(number, ALL)).collect();
    let loaded = block_on(store.load(&keys)).unwrap();
    let settled = loaded.iter().flatten().filter(|row| row.fingerprint().is_settled()).count();
    assert_eq!((loaded.iter().flatten().count(), settled), (2_000, 1_301));
}

#[test]
fn rows_that_are_settled_close_together_leave_no_more_recent_ones_than_others_do() {
    let place = Place::new();
    let (store, writer) = (place.open().with_recent_min(0), run());
    let recent_after = |rows: Vec<(KeyHash, Option<RowState>)>| {
        let lease = Some(lease(writer, Duration::from_secs(60)));
        let header = Header { rows: 3_200, ..header(lease) };
        block_on(store.commit(&Commit::new(writer, 0, header, rows))).unwrap();
        store.inner.read(Look::Anew, |state| Ok(counted(state))).ok().flatten().unwrap().0
    };
    // One in sixteen, far from each other, and two of them in a block.
    let mut long = RowRecord::default();
    long.set_sealed_key(Some(vec![7; 3_000]));
    let long = RowState::new(&long);
    assert_eq!(recent_after((0..200).map(|n| (spread_key(n, 200), Some(long.clone()))).collect()), 200);
    // Two times twenty, a block of recent ones between them.
    let near = |number| {
        (1..=20).map(move |n| (KeyHash::from_u128(spread_key(number, 200).to_u128() - n), Some(row(7))))
    };
    assert_eq!(recent_after(near(101).chain(near(105)).collect()), 200);
}

/// How many rows are recent and how many are in the journal, which the state has to know.
fn counted(state: &ReadTransaction) -> (u64, u64) {
    let rows = |block: &[u8]| {
        blocks::WholeBlock::new(block).unwrap().iter().flatten().collect::<Vec<_>>().len() as u64
    };
    let (mut recent, mut journaled) = (0, 0);
    for block in state.open_table(rows::RECENT).unwrap().range(0..).unwrap() {
        let (last, block) = block.unwrap();
        let last_row = blocks::WholeBlock::new(block.value()).unwrap().iter().flatten().last();
        assert_eq!(last_row.map(|row| row.key), Some(last.value()));
        recent += rows(block.value());
    }
    for block in state.open_table(rows::JOURNAL).unwrap().range(0..).unwrap() {
        journaled += rows(block.unwrap().1.value());
    }
    let known = recent_rows(&state.open_table(META).unwrap()).ok().unwrap();
    assert_eq!((known.count, known.journaled), (recent, journaled));
    (recent, journaled)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Rows come, change and go, near each other and far apart, few at a time and many, settled and not; in between all are
    /// scanned, and the state is held, or is not.
    #[test]
    fn rows_are_what_was_written_whether_they_are_in_blocks_or_not(
        commits in vec(
            (any::<(bool, bool)>(), prop_oneof![Just(0_u8), 1_u8..10, Just(10)], vec((0_u128..2_000, 0_u8..10, 0_u8..10), 0..400)),
            1..20,
        ),
        recent_min in 0_u64..600,
        has_long_journal in any::<bool>(),
        chunk in prop_oneof![Just(CHUNK), 1..500_usize],
    ) {
        let place = Place::new();
        let store = place.open().with_recent_min(recent_min).with_chunk(chunk);
        let store = if has_long_journal { store.with_long_journal() } else { store };
        let mut expected: BTreeMap<KeyHash, RowState> = BTreeMap::new();
        let writer = run();
        let mut recent_before = 0;
        let keys: Vec<_> = (0..2_000).flat_map(|number| [number, number << 116]).map(KeyHash::from_u128).collect();
        for (version, ((is_scanned, is_held), spread, commit)) in (0..).zip(commits) {
            let mut rows = BTreeMap::new();
            for (number, chance, action) in commit {
                let key = if chance < spread { number << 116 } else { number };
                let value = match action {
                    0 => None,
                    1..=3 => Some(open_row(u64::from(action) + version)),
                    _ => Some(row(u64::from(action) + version)),
                };
                rows.insert(KeyHash::from_u128(key), value);
            }
            for (key, row) in &rows {
                match row {
                    Some(row) => expected.insert(*key, row.clone()),
                    None => expected.remove(key),
                };
            }
            let lease = is_held.then(|| lease(writer, Duration::from_secs(60)));
            let header = Header { rows: expected.len() as u64, ..header(lease) };
            let recent_max = recent_min.max(expected.len() as u64 / 16) + recent_min;
            block_on(store.commit(&Commit::new(writer, 0, header, rows.into_iter().collect()))).unwrap();
            let counted = store.inner.read(Look::Anew, |state| Ok(counted(state)));
            let (recent, journaled) = counted.ok().flatten().unwrap();
            prop_assert!(recent <= recent_max.max(recent_before));
            prop_assert!(is_held || journaled == 0);
            recent_before = recent;
            // The first time it cannot be known where recent rows are, or that was known of the state before.
            for _ in 0..if is_scanned { 2 } else { 1 } {
                let loaded = block_on(store.load(&keys)).unwrap();
                let prints = block_on(store.load_fingerprints(&keys)).unwrap();
                for ((key, row), print) in keys.iter().zip(loaded).zip(prints) {
                    prop_assert!(row.as_ref() == expected.get(key));
                    prop_assert!(print == expected.get(key).map(RowState::fingerprint));
                }
                if is_scanned {
                    let all: Vec<_> = expected.iter().map(|(key, row)| (*key, row.fingerprint())).collect();
                    prop_assert!(scanned(&store) == all);
                    // Of the rows that are far apart every tag is the same, of the others none.
                    let loaded = block_on(store.load_scanned(&all)).unwrap();
                    prop_assert!(loaded.iter().flatten().eq(expected.values()));
                }
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_length_is_damage_and_never_a_panic() {
    let closed = Place::with_rows(2_000).bytes();
    let abandoned = {
        let (place, copy, run) = (Place::with_rows(2_000), Place::new(), run());
        let store = place.open();
        block_on(store.commit(&hold(run, 1))).unwrap();
        fs::copy(place.path(), copy.path()).unwrap();
        copy.bytes()
    };
    let place = Place::new();
    for (name, whole) in [("closed", &closed), ("abandoned", &abandoned)] {
        let lengths = [1, 8, 9, 63, 64, 191, 319, 320, 4_095, 4_096, 8_192, whole.len() / 2, whole.len() - 1];
        let pages = (4_096..whole.len()).step_by(whole.len() / 60);
        for length in lengths.into_iter().chain(pages) {
            fs::write(place.path(), &whole[..length]).unwrap();
            let errors = use_all(&place.open());
            // Reads of what is still there may succeed; a commit, and so any run, does not.
            assert!(
                !errors.is_empty() && errors.iter().all(is_damage),
                "{name}, {length} of {}: {errors:?}",
                whole.len()
            );
        }
    }
}

#[test]
fn a_file_with_altered_bytes_never_panics() {
    let whole = Place::with_rows(2_000).bytes();
    let place = Place::new();
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let used = whole.chunks(4_096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
    let used: Vec<_> = used.map(|(page, _)| page).collect();
    for round in 0..150 {
        let mut bytes = whole.clone();
        let page = used[next(used.len())] * 4_096;
        match round % 3 {
            0 => bytes[page + next(64)] ^= 1 << next(8),
            1 => bytes[page..page + 4_096].fill(0),
            _ => (0..200).for_each(|_| bytes[page + next(4_096)] = u8::try_from(next(256)).unwrap()),
        }
        fs::write(place.path(), &bytes).unwrap();
        // Every row that is written goes into its block, so that those are written anew, too.
        let store = place.open().with_recent_min(0);
        let mut errors = use_all(&store);
        errors.extend(block_on(store.commit(&Commit::new(run(), 2, header(None), state_rows(2..302)))).err());
        for error in errors {
            assert!(
                matches!(error.kind(), ErrorKind::StateDamaged | ErrorKind::StateMoved | ErrorKind::Io),
                "round {round}: {error:?}"
            );
        }
    }
}

/// The fingerprint of all rows after a commit to this version.
fn print_at(version: u64) -> u64 {
    version + 2
}

const CHILD_ROWS: usize = 200;

/// A process that commits in a loop, holding the lease, until it is killed.
struct Writing(Child);

impl Writing {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(place: &Place) -> Writing {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--ignored", "state::redb::tests::a_child_process_commits_until_it_is_killed"])
        .env("STATE_OF_THE_CHILD", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Writing(child.unwrap())
}

#[test]
#[ignore = "run as a process of its own by the tests that kill it"]
fn a_child_process_commits_until_it_is_killed() {
    let Some(path) = env::var_os("STATE_OF_THE_CHILD") else { return };
    let (store, run) = (RedbStore::open(path).unwrap(), run());
    let planned = version(&store);
    let until = Instant::now() + Duration::from_secs(60);
    for version in planned + 1.. {
        assert!(Instant::now() < until, "nobody killed this process");
        let held = header(Some(lease(run, Duration::from_secs(60))));
        let rows = state_rows([print_at(version)].repeat(CHILD_ROWS));
        block_on(store.commit(&Commit::new(run, planned, held, rows))).unwrap();
    }
}

fn wait_for_version(store: &RedbStore, at_least: u64) -> u64 {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let version = version(store);
        if version >= at_least {
            return version;
        }
        assert!(Instant::now() < until, "the child does not commit");
        thread::sleep(Duration::from_millis(1));
    }
}

/// All rows of one read stem from the same commit, which it gives.
fn whole_commit(prints: impl IntoIterator<Item = RowFingerprint>) -> u64 {
    let prints: Vec<_> = prints.into_iter().collect();
    assert_eq!(prints.len(), CHILD_ROWS);
    assert!(prints.iter().all(|print| *print == prints[0]));
    prints[0].to_u64() - 2
}

#[test]
fn a_process_killed_in_a_commit_leaves_the_state_before_or_after_it() {
    let place = Place::new();
    let mut reached = 0;
    for round in 0..6 {
        let mut child = child(&place);
        wait_for_version(&place.open(), reached + 3);
        thread::sleep(Duration::from_millis(round * 3));
        child.kill();

        let store = place.open();
        reached = version(&store);
        let keys: Vec<_> = (0..CHILD_ROWS).map(|key| KeyHash::from_u128(key as u128)).collect();
        let loaded = block_on(store.load(&keys)).unwrap();
        assert_eq!(whole_commit(loaded.into_iter().map(|row| row.unwrap().fingerprint())), reached);
        assert_eq!(whole_commit(scanned(&store).into_iter().map(|(_, print)| print)), reached);
        // The next child gets in although the lease of this one has most of its minute left.
    }
}

#[test]
fn another_process_reads_beside_the_writer_and_is_told_who_holds_the_state() {
    let place = Place::new();
    let mut child = child(&place);
    let store = place.open();
    let mut last = wait_for_version(&store, 1);
    for _ in 0..50 {
        let before = version(&store);
        let read = whole_commit(scanned(&store).into_iter().map(|(_, print)| print));
        assert!(last <= before && before <= read, "{last} {before} {read}");
        last = read;
    }
    let error = block_on(store.commit(&write(run(), last))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("host 7, process 1"), "{error}");
    assert!(wait_for_version(&store, last + 1) > last);
    child.kill();
    let error = block_on(store.commit(&write(run(), 0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
    block_on(store.commit(&write(run(), version(&store)))).unwrap();
}
