//! What planning asks of a state and of a source, and that it checks what it is given.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::{
    executor::block_on,
    stream::{self, BoxStream},
};
use reverse_etl::{
    Error, ErrorKind, FieldName, Header, KeyHash, Mapping, MemoryStore, PlanOptions, PriorState, Record,
    Result, RowFingerprint, RowState, Rows, Source, ValueRef, plan,
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

    fn scan(&self) -> BoxStream<'_, Result<Vec<(KeyHash, RowFingerprint)>>> {
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

#[test]
fn few_rows_are_looked_up_one_by_one() {
    assert_eq!(asked(500, 100), (500, 0));
}

#[test]
fn a_chunk_of_many_rows_is_compared_with_a_scan_and_none_of_them_is_loaded() {
    assert_eq!(asked(3_000, 3_000), (0, 1));
}

#[test]
fn once_many_rows_have_come_in_small_chunks_the_state_is_scanned_once() {
    let (loaded, scans) = asked(3_000, 100);
    assert!(scans == 1 && loaded % 100 == 0 && (500..2_000).contains(&loaded), "{loaded} loaded");
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
    let people = people(0..100, "Ada");
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
