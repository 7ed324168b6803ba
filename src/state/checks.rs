//! What holds for every store: one named check per rule, run by [`store_checks`] on each of them.

use std::time::{Duration, SystemTime};

use futures::{TryStreamExt, executor::block_on};

use crate::{
    Commit, ErrorKind, Header, KeyHash, Operation, PriorState, RowFingerprint, RowState, ScannedRows, Secret,
    StateStore,
    host::SystemHost,
    state::{
        header::{Lease, RunId},
        record::{RowRecord, Sending},
    },
};

/// The checks as tests of one store; `$store` makes an empty one and whatever has to outlive it.
macro_rules! store_checks {
    ($store:expr) => {
        $crate::state::checks::store_checks!($store;
            a_state_that_nothing_was_written_to_is_empty
            a_commit_is_read_back_by_load_and_scan
            rows_are_loaded_in_the_order_asked
            a_scan_gives_every_row_once
            rows_that_were_scanned_are_loaded_and_others_are_no_error
            a_row_is_written_whole
            a_deleted_row_is_gone
            a_commit_planned_against_an_older_version_changes_nothing
            a_run_goes_on_after_its_own_commits_until_another_one_writes
            a_commit_stored_twice_is_as_good_as_once
            a_second_writer_is_told_who_holds_the_state_and_since_when
            a_lease_that_was_given_back_holds_nobody
            a_lease_that_has_run_out_holds_nobody
            a_state_of_another_sync_is_refused
        );
    };
    ($store:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                let (store, _kept) = $store;
                $crate::state::checks::$check(&store);
            }
        )*
    };
}
pub(super) use store_checks;

pub(super) const KEY: KeyHash = KeyHash::from_u128(1);

pub(super) fn run() -> RunId {
    RunId::generate(&*SystemHost::shared()).unwrap()
}

pub(super) fn header(lease: Option<Lease>) -> Header {
    Header { lease, ..Header::new("crm/people".into(), &Secret::new([1; 32]), false).unwrap() }
}

/// A lease that was taken nine seconds ago.
pub(super) fn lease(run: RunId, left: Duration) -> Lease {
    let now = SystemTime::now();
    Lease { run, holder: "host 7, process 1".into(), since: now - Duration::from_secs(9), until: now + left }
}

/// A settled row with one field.
pub(super) fn row(fingerprint: u64) -> RowState {
    let mut record = RowRecord::default();
    let (fields, row) = ([(0, fingerprint)], RowFingerprint::from_u64(fingerprint));
    record.applied(&Sending {
        operation: Operation::Update,
        fields: &fields,
        wanted: &fields,
        row,
        sent: fingerprint,
    });
    RowState::new(&record)
}

/// Rows 0, 1, .. with these fingerprints.
pub(super) fn rows(fingerprints: impl IntoIterator<Item = u64>) -> Vec<(KeyHash, Option<RowState>)> {
    let rows = fingerprints.into_iter().enumerate();
    rows.map(|(key, print)| (KeyHash::from_u128(key as u128), Some(row(print)))).collect()
}

/// A commit of one row, without a lease.
pub(super) fn write(run: RunId, planned: u64) -> Commit {
    Commit::new(run, planned, header(None), vec![(KEY, Some(RowState::new(&RowRecord::default())))])
}

/// A commit of one row that takes the lease for a minute.
pub(super) fn hold(run: RunId, planned: u64) -> Commit {
    Commit::new(run, planned, header(Some(lease(run, Duration::from_secs(60)))), vec![(KEY, Some(row(7)))])
}

pub(super) fn version(store: &dyn PriorState) -> u64 {
    block_on(store.header()).unwrap().map_or(0, |header| header.version())
}

pub(super) fn scanned(store: &dyn PriorState) -> Vec<(KeyHash, RowFingerprint)> {
    let chunks: Vec<ScannedRows> = block_on(store.scan().try_collect()).unwrap();
    let mut rows: Vec<_> = chunks.iter().flat_map(ScannedRows::iter).collect();
    rows.sort_by_key(|(key, _)| *key);
    rows
}

pub(super) fn a_state_that_nothing_was_written_to_is_empty(store: &dyn StateStore) {
    assert_eq!(block_on(store.header()).unwrap(), None);
    assert_eq!(block_on(store.load(&[KEY, KEY])).unwrap(), [None, None]);
    assert_eq!(scanned(store), []);
}

pub(super) fn a_commit_is_read_back_by_load_and_scan(store: &dyn StateStore) {
    block_on(store.commit(&write(run(), 0))).unwrap();
    let rows = block_on(store.load(&[KEY, KeyHash::from_u128(2)])).unwrap();
    assert_eq!(rows[0].as_ref().unwrap().record().unwrap(), RowRecord::default());
    assert_eq!(rows[1], None);
    assert_eq!(scanned(store), [(KEY, RowFingerprint::LOAD)]);
}

pub(super) fn rows_are_loaded_in_the_order_asked(store: &dyn StateStore) {
    block_on(store.commit(&Commit::new(run(), 0, header(None), rows([10, 11, 12])))).unwrap();
    let loaded = block_on(store.load(&[2, 9, 0, 2, 1].map(KeyHash::from_u128))).unwrap();
    assert_eq!(loaded, [Some(row(12)), None, Some(row(10)), Some(row(12)), Some(row(11))]);
    let prints = block_on(store.load_fingerprints(&[2, 9, 0, 2, 1].map(KeyHash::from_u128))).unwrap();
    let prints = prints.into_iter().map(|print| print.map(RowFingerprint::to_u64));
    assert!(prints.eq([Some(12), None, Some(10), Some(12), Some(11)]));
}

pub(super) fn a_scan_gives_every_row_once(store: &dyn StateStore) {
    // So many that a store may give them in several chunks, and keys at both ends of what there is.
    let mut all = rows((0..150_000).map(|number| number + 2));
    all.push((KeyHash::from_u128(u128::MAX), Some(row(2))));
    let prints: Vec<_> = all.iter().map(|(key, row)| (*key, row.as_ref().unwrap().fingerprint())).collect();
    block_on(store.commit(&Commit::new(run(), 0, header(None), all))).unwrap();
    assert!(scanned(store) == prints);
}

pub(super) fn rows_that_were_scanned_are_loaded_and_others_are_no_error(store: &dyn StateStore) {
    let run = run();
    block_on(store.commit(&Commit::new(run, 0, header(None), rows(10..200)))).unwrap();
    let before = scanned(store);
    let loaded = block_on(store.load_scanned(&before)).unwrap();
    let expected: Vec<_> = rows(10..200).into_iter().map(|(_, row)| row).collect();
    assert!(loaded == expected);
    // By now one of them is another one, and one is gone; one was never there.
    let changed = vec![(before[3].0, Some(row(99))), (before[5].0, None)];
    block_on(store.commit(&Commit::new(run, 0, header(None), changed))).unwrap();
    let mut asked = before;
    asked.push((KeyHash::from_u128(1 << 100), RowFingerprint::from_u64(7)));
    let loaded = block_on(store.load_scanned(&asked)).unwrap();
    assert_eq!(loaded.len(), asked.len());
    for at in [0, 1, 2, 4, 6, 189] {
        assert!(loaded[at] == expected[at]);
    }
}

pub(super) fn a_row_is_written_whole(store: &dyn StateStore) {
    let run = run();
    for print in [5, 6] {
        block_on(store.commit(&Commit::new(run, 0, header(None), rows([print])))).unwrap();
        assert_eq!(block_on(store.load(&[KeyHash::from_u128(0)])).unwrap(), [Some(row(print))]);
        assert_eq!(scanned(store), [(KeyHash::from_u128(0), RowFingerprint::from_u64(print))]);
    }
}

pub(super) fn a_deleted_row_is_gone(store: &dyn StateStore) {
    let run = run();
    block_on(store.commit(&write(run, 0))).unwrap();
    block_on(store.commit(&Commit::new(run, 0, header(None), vec![(KEY, None)]))).unwrap();
    assert_eq!(block_on(store.load(&[KEY])).unwrap(), [None]);
    assert_eq!(scanned(store), []);
}

pub(super) fn a_commit_planned_against_an_older_version_changes_nothing(store: &dyn StateStore) {
    block_on(store.commit(&write(run(), 0))).unwrap();
    let stale = Commit::new(run(), 0, header(None), rows([5, 6]));
    let error = block_on(store.commit(&stale)).unwrap_err();
    assert_eq!((error.kind(), version(store)), (ErrorKind::StateMoved, 1));
    assert_eq!(scanned(store), [(KEY, RowFingerprint::LOAD)]);
}

pub(super) fn a_run_goes_on_after_its_own_commits_until_another_one_writes(store: &dyn StateStore) {
    let (first, second) = (run(), run());
    block_on(store.commit(&write(first, 0))).unwrap();
    block_on(store.commit(&write(first, 0))).unwrap();
    block_on(store.commit(&write(second, 2))).unwrap();
    let error = block_on(store.commit(&write(first, 0))).unwrap_err();
    assert_eq!((error.kind(), version(store)), (ErrorKind::StateMoved, 3));
}

pub(super) fn a_commit_stored_twice_is_as_good_as_once(store: &dyn StateStore) {
    let commit = hold(run(), 0);
    block_on(store.commit(&commit)).unwrap();
    block_on(store.commit(&commit)).unwrap();
    assert_eq!(block_on(store.load(&[KEY])).unwrap(), [Some(row(7))]);
}

pub(super) fn a_second_writer_is_told_who_holds_the_state_and_since_when(store: &dyn StateStore) {
    block_on(store.commit(&hold(run(), 0))).unwrap();
    let error = block_on(store.commit(&write(run(), 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error.to_string().contains("host 7, process 1") && error.to_string().contains("for 9 s"),
        "{error}"
    );
    assert_eq!(version(store), 1);
}

pub(super) fn a_lease_that_was_given_back_holds_nobody(store: &dyn StateStore) {
    let holder = run();
    block_on(store.commit(&hold(holder, 0))).unwrap();
    block_on(store.commit(&write(holder, 0))).unwrap();
    block_on(store.commit(&write(run(), 2))).unwrap();
    assert_eq!(version(store), 3);
}

pub(super) fn a_lease_that_has_run_out_holds_nobody(store: &dyn StateStore) {
    let holder = run();
    let held = header(Some(lease(holder, Duration::ZERO)));
    block_on(store.commit(&Commit::new(holder, 0, held, vec![]))).unwrap();
    block_on(store.commit(&write(run(), 1))).unwrap();
    assert_eq!(version(store), 2);
}

pub(super) fn a_state_of_another_sync_is_refused(store: &dyn StateStore) {
    block_on(store.commit(&write(run(), 0))).unwrap();
    let other = Header { identity: "crm/others".into(), ..header(None) };
    let error = block_on(store.commit(&Commit::new(run(), 1, other, vec![]))).unwrap_err();
    assert_eq!((error.kind(), version(store)), (ErrorKind::StateDamaged, 1));
}
