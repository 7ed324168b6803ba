//! Planning 100,000 rows of ten columns over a state in memory: nothing changed, 1 % changed, everything new.
//!
//! `cargo bench --bench plan`; a figure of one run says little by itself, so compare the three with each other, or
//! with a baseline (`-- --save-baseline before`, `-- --baseline before`) on the same machine.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use reverse_etl::{Limits, Mapping, MemoryStore, Outcome, Plan, PlanOptions, Record, plan};

const ROWS: u32 = 100_000;
const COLUMNS: [&str; 10] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];

fn person(id: u32, edit: bool) -> Record {
    let mut record = Record::new().with("email", format!("person.{id}@shop.test"));
    for (column, name) in (0..).zip(COLUMNS) {
        let value = id.wrapping_mul(2_654_435_761).rotate_left(column);
        record = record.with(name, format!("value {value}"));
    }
    if edit { record.with("c3", "another value") } else { record }
}

/// Everybody, with an edit for one in so many; 0 for none.
fn people(one_in: u32) -> Vec<Record> {
    (0..ROWS).map(|id| person(id, one_in > 0 && id % one_in == 0)).collect()
}

fn mapping() -> Mapping {
    COLUMNS.into_iter().fold(Mapping::new("email"), |mapping, column| mapping.map(column, column))
}

fn planned(people: &Vec<Record>, store: &MemoryStore) -> Plan {
    block_on(plan(people, &mapping(), store, &PlanOptions::default())).expect("records can be planned")
}

/// A state in which everybody is acknowledged.
fn synced(people: &Vec<Record>) -> MemoryStore {
    let store = MemoryStore::default();
    let plan = planned(people, &store);
    block_on(async {
        let mut run = plan.start(&store, Limits::rows(1_000)).await?;
        while let Some(batch) = run.next_batch().await {
            let outcomes = batch.all(&Outcome::applied());
            batch.settle(outcomes);
        }
        run.finish().await
    })
    .expect("a state in memory can be written");
    store
}

fn plans(criterion: &mut Criterion) {
    let (same, edited) = (people(0), people(100));
    let store = synced(&same);
    let mut group = criterion.benchmark_group("plan 100k rows");
    group.sample_size(10).throughput(Throughput::Elements(ROWS.into()));
    for (name, people, store, changes) in [
        ("nothing changed", &same, &store, 0),
        ("1 % changed", &edited, &store, ROWS / 100),
        ("all new", &same, &MemoryStore::default(), ROWS),
    ] {
        assert_eq!(planned(people, store).counts().planned(), u64::from(changes), "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| (), |()| black_box(planned(people, store)), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
