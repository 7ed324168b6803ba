//! A plan does not depend on how its source is read: however many threads, wherever a chunk begins, in place or not.

use std::collections::BTreeMap;

use futures::{executor::block_on, stream};
use proptest::{collection::vec, option, prelude::*};
use reverse_etl::{
    ChangeKind, DuplicatePolicy, Limits, Mapping, MemoryStore, Outcome, Plan, PlanOptions, Record, Result,
    Source, plan,
};
use serde_json::{Value as Json, json};

/// A row: its key, and per column a number, a null (`Some(None)`) or nothing.
type Row = (u16, [Option<Option<u8>>; 4]);

const COLUMNS: [&str; 4] = ["a", "b", "c", "d"];

fn record((key, values): &Row) -> Record {
    let record = Record::new().with("id", i64::from(*key));
    let present = COLUMNS.iter().zip(values).filter_map(|(column, value)| Some((*column, (*value)?)));
    present.fold(record, |record, (column, value)| record.with(column, value.map(i64::from)))
}

fn mapping(columns: &[usize]) -> Mapping {
    columns.iter().fold(Mapping::new("id"), |mapping, column| mapping.map(COLUMNS[*column], COLUMNS[*column]))
}

/// All that a plan says.
pub(crate) fn told(plan: &Plan) -> Result<(String, Vec<Json>)> {
    let changes = plan.changes().map(|change| {
        let change = change?;
        Ok(json!([change.key(), change.kind(), change.row(), change.fields()]))
    });
    Ok((format!("{:?} {:?}", plan.counts(), plan.problems()), changes.collect::<Result<_>>()?))
}

/// Plans records and has all of it acknowledged.
pub(crate) fn deliver(records: &Vec<Record>, mapping: &Mapping, store: &MemoryStore, options: &PlanOptions) {
    block_on(async {
        let plan = plan(records, mapping, store, options).await?;
        let mut run = plan.start(store, Limits::rows(5_000)).await?;
        while let Some(batch) = run.next_batch().await {
            let outcomes = batch.all(&Outcome::applied());
            batch.settle(outcomes);
        }
        run.finish().await
    })
    .unwrap();
}

/// Whether what the source does not have is removed.
fn options(policy: DuplicatePolicy, removes: bool) -> PlanOptions {
    let options = PlanOptions::default().duplicates(policy);
    if removes { options.remove_absent() } else { options }
}

fn sync(rows: &[Row], mapping: &Mapping, store: &MemoryStore, removes: bool) {
    let options = options(DuplicatePolicy::Last, removes);
    deliver(&rows.iter().map(record).collect(), mapping, store, &options);
}

/// What a plan should say, worked out from the values themselves: rows by what they are, and what is sent for each key.
fn expected(
    prior: &[Row],
    prior_columns: &[usize],
    rows: &[Row],
    columns: &[usize],
    policy: DuplicatePolicy,
    removes: bool,
) -> ([u64; 5], BTreeMap<String, (ChangeKind, Json)>) {
    let mapped = |(_, values): &Row, columns: &[usize]| -> BTreeMap<&str, Option<u8>> {
        columns.iter().filter_map(|column| Some((COLUMNS[*column], values[*column]?))).collect()
    };
    let mut acknowledged: BTreeMap<u16, BTreeMap<&str, Option<u8>>> = BTreeMap::new();
    for row in prior {
        acknowledged.insert(row.0, mapped(row, prior_columns));
    }
    let mut groups: BTreeMap<u16, Vec<BTreeMap<&str, Option<u8>>>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.0).or_default().push(mapped(row, columns));
    }
    let ([mut unchanged, mut added, mut changed, mut duplicate], mut sent) = ([0; 4], BTreeMap::new());
    let absent = acknowledged.keys().filter(|key| removes && !groups.contains_key(key));
    let absent: BTreeMap<_, _> =
        absent.map(|key| (key.to_string(), (ChangeKind::Removed, json!({})))).collect();
    for (key, group) in groups {
        let differ = group.iter().any(|row| *row != group[0]);
        let row = match policy {
            DuplicatePolicy::Withhold if differ => None,
            DuplicatePolicy::Last => group.last(),
            _ => group.first(),
        };
        duplicate += group.len() as u64 - u64::from(row.is_some());
        let Some(row) = row else { continue };
        let (kind, fields) = match acknowledged.get(&key) {
            None => (ChangeKind::Added, json!(row)),
            Some(known) => {
                let differing: BTreeMap<_, _> =
                    row.iter().filter(|(name, value)| known.get(*name) != Some(value)).collect();
                if differing.is_empty() {
                    unchanged += 1;
                    continue;
                }
                (ChangeKind::Changed, json!(differing))
            }
        };
        if kind == ChangeKind::Added {
            added += 1;
        } else {
            changed += 1;
        }
        sent.insert(key.to_string(), (kind, fields));
    }
    let gone = absent.len() as u64;
    sent.extend(absent);
    ([unchanged, added, changed, gone, duplicate], sent)
}

/// In place the whole state is read first, in small chunks the first rows are looked up one by one.
#[test]
fn a_problem_with_rows_of_one_key_reads_the_same_however_the_state_is_asked() {
    let rows: Vec<Row> = (0..3_000).map(|key| (key, [Some(Some(1)); 4])).collect();
    let mut twice = rows.clone();
    twice.insert(10, (3, [Some(Some(2)); 4]));
    check(&rows, &twice, &[0, 1, 2], &[0, 1, 2], (DuplicatePolicy::Withhold, false), &[100]).unwrap();
}

fn rows(keys: u16, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Row>> {
    let value = option::weighted(0.9, option::weighted(0.9, 0..3_u8));
    vec((0..keys, [value.clone(), value.clone(), value.clone(), value]), count)
}

fn policies() -> impl Strategy<Value = DuplicatePolicy> {
    prop_oneof![Just(DuplicatePolicy::Withhold), Just(DuplicatePolicy::First), Just(DuplicatePolicy::Last)]
}

fn check(
    prior: &[Row],
    rows: &[Row],
    prior_columns: &[usize],
    columns: &[usize],
    (policy, removes): (DuplicatePolicy, bool),
    sizes: &[usize],
) -> std::result::Result<(), TestCaseError> {
    let store = MemoryStore::default();
    sync(prior, &mapping(prior_columns), &store, removes);
    let records: Vec<Record> = rows.iter().map(record).collect();
    let planned = |source: Source<'_>, threads: usize| {
        let options = options(policy, removes).threads(threads);
        block_on(plan(source, &mapping(columns), &store, &options)).unwrap()
    };
    let sequential = planned((&records).into(), 1);
    let first = told(&sequential).unwrap();

    let (counts, sent) = expected(prior, prior_columns, rows, columns, policy, removes);
    let found = sequential.counts();
    prop_assert_eq!([found.unchanged, found.added, found.changed, found.removed, found.duplicate], counts);
    let changes = sequential.changes().map(Result::unwrap);
    let changes: BTreeMap<String, (ChangeKind, Json)> = changes
        .map(|change| (change.key().as_str().to_owned(), (change.kind(), json!(change.fields()))))
        .collect();
    prop_assert!(changes == sent);

    for threads in [1, 2, 5] {
        prop_assert!(
            told(&planned((&records).into(), threads)).unwrap() == first,
            "in place, {} threads",
            threads
        );
        let (mut chunks, mut rest, mut sizes) = (Vec::new(), records.clone(), sizes.iter().cycle());
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).min(rest.len());
            let behind = rest.split_off(size);
            chunks.push(Ok::<_, std::io::Error>(std::mem::replace(&mut rest, behind)));
        }
        let chunks = Source::chunks(stream::iter(chunks));
        prop_assert!(told(&planned(chunks, threads)).unwrap() == first, "in chunks, {} threads", threads);
        prop_assert!(
            told(&planned(Source::iter(&records), threads)).unwrap() == first,
            "row by row, {} threads",
            threads
        );
        let streamed = Source::stream(stream::iter(records.clone().into_iter().map(Ok::<_, std::io::Error>)));
        prop_assert!(told(&planned(streamed, threads)).unwrap() == first, "streamed, {} threads", threads);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// With removals the state is scanned, else rows are looked up one by one.
    #[test]
    fn a_plan_of_few_rows_is_that_of_a_naive_comparison_however_they_are_read(
        prior in rows(60, 1..100),
        rows in rows(60, 0..200),
        fields_stay in any::<bool>(),
        policy in policies(),
        removes in any::<bool>(),
        sizes in vec(1..80_usize, 1..10),
    ) {
        check(&prior, &rows, &[0, 1, 2], if fields_stay { &[0, 1, 2] } else { &[3, 2, 1] }, (policy, removes), &sizes)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// So many that they take several pieces and the state is scanned.
    #[test]
    fn a_plan_of_many_rows_is_that_of_a_naive_comparison_however_they_are_read(
        prior in rows(20_000, 15_000..20_000),
        rows in rows(20_000, 18_000..25_000),
        fields_stay in any::<bool>(),
        policy in policies(),
        removes in any::<bool>(),
        sizes in vec(1..12_000_usize, 1..5),
    ) {
        check(&prior, &rows, &[0, 1, 2], if fields_stay { &[0, 1, 2] } else { &[3, 2, 1] }, (policy, removes), &sizes)?;
    }
}

/// A row as a CSV file has it, of so many cells: a key and up to four texts.
fn cells() -> impl Strategy<Value = Vec<String>> {
    let text = prop_oneof!["[a-z]{0,20}", Just(String::new()), "\\PC{0,5}"];
    ("[a-z]{1,3}", vec(text, 0..=4)).prop_map(|(key, texts)| [vec![key], texts].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// They are more than fit into one chunk.
    #[test]
    fn rows_of_text_are_planned_as_the_same_records(
        prior in vec(cells(), 1..3_000),
        rows in vec(cells(), 2_000..4_000),
    ) {
        const HEADER: [&str; 5] = ["id", "a", "b", "c", "d"];
        let record = |cells: &Vec<String>| {
            HEADER.iter().zip(cells).fold(Record::new(), |record, (name, cell)| record.with(*name, cell.as_str()))
        };
        let records = |rows: &Vec<Vec<String>>| rows.iter().map(record).collect::<Vec<Record>>();
        let text = |rows: &Vec<Vec<String>>| {
            let rows: Vec<csv::StringRecord> = rows.iter().map(|cells| cells.iter().collect()).collect();
            Source::text(HEADER, rows.into_iter().map(Ok::<_, std::io::Error>))
        };
        let (store, mapping) = (MemoryStore::default(), mapping(&[0, 1, 2]));
        let options = options(DuplicatePolicy::Last, false);
        deliver(&records(&prior), &mapping, &store, &options);
        let planned = |source: Source<'_>| told(&block_on(plan(source, &mapping, &store, &options)).unwrap()).unwrap();
        prop_assert!(planned(text(&rows)) == planned((&records(&rows)).into()));
        prop_assert!(planned(text(&prior)).1.is_empty());
    }
}
