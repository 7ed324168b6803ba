//! A row that is unchanged costs no memory of its own: twice as many need hardly more allocations.

use std::sync::Arc;

use allocation_counter::measure;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use futures::executor::block_on;
use reverse_etl::{Limits, Mapping, MemoryStore, Outcome, PlanOptions, Record, Rows, Value, plan};

const ROWS: i64 = 20_000;

fn mapping() -> Mapping {
    Mapping::new("id").map("name", "name").map("score", "score").map("note", "note")
}

/// Notes longer than a value that is stored in place, and some that are missing.
fn note(id: i64) -> Option<String> {
    (id % 7 > 0).then(|| format!("a note of some length for person {id}"))
}

#[expect(clippy::cast_precision_loss, reason = "these are small")]
fn score(id: i64) -> f64 {
    id as f64 / 4.0
}

fn records(rows: i64) -> Vec<Record> {
    (0..rows)
        .map(|id| {
            let name = Value::from(format!("Person {id}"));
            Record::new().with("id", id).with("name", name).with("score", score(id)).with("note", note(id))
        })
        .collect()
}

fn batch(rows: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new((0..rows).collect::<Int64Array>())),
        ("name", Arc::new((0..rows).map(|id| Some(format!("Person {id}"))).collect::<StringArray>())),
        ("score", Arc::new((0..rows).map(score).collect::<Float64Array>())),
        ("note", Arc::new((0..rows).map(note).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// How often memory is asked for to plan rows that are all as the state says.
fn allocations(rows: &(impl Rows + 'static), store: &MemoryStore) -> u64 {
    // Of threads other than this one nothing would be counted.
    let options = PlanOptions::default().threads(1);
    let mut unchanged = 0;
    let counted = measure(|| {
        let plan = block_on(plan(rows, &mapping(), store, &options)).unwrap();
        unchanged = plan.counts().unchanged;
    });
    assert_eq!(unchanged, rows.len() as u64);
    counted.count_total
}

#[test]
fn an_unchanged_row_allocates_nothing() {
    let store = MemoryStore::default();
    block_on(async {
        let plan = plan(&records(2 * ROWS), &mapping(), &store, &PlanOptions::default()).await?;
        let mut run = plan.start(&store, Limits::rows(5_000)).await?;
        while let Some(batch) = run.next_batch().await {
            let outcomes = batch.all(&Outcome::applied());
            batch.settle(outcomes);
        }
        run.finish().await
    })
    .unwrap();
    let (few, many) = (records(ROWS), records(2 * ROWS));
    let of_records = allocations(&many, &store).saturating_sub(allocations(&few, &store));
    let (few, many) = (batch(ROWS), batch(2 * ROWS));
    let of_arrow = allocations(&many, &store).saturating_sub(allocations(&few, &store));
    // Each block of rows has a few that all of them share.
    assert!(of_records < 500 && of_arrow < 500, "{of_records} of records, {of_arrow} of Arrow rows");
}
