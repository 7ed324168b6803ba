//! What each part of a sync costs: fingerprints, plans of several kinds, and a batch as JSON.
//!
//! `cargo bench --features arrow --bench plan`, with part of a name for some of them only. A figure of one run says little by
//! itself, so compare several of one run with each other, or with a baseline (`-- --save-baseline before`,
//! `-- --baseline before`) on the same machine. Run as a test, it does everything once with few rows.

use std::hint::black_box;

use arrow_array::RecordBatch;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use futures::stream;
use reverse_etl::{
    Batch, Limits, Mapping, MemoryStore, Outcome, Plan, PlanOptions, PriorState, Record, RedbStore, Secret,
    Source, StateStore, ValueRef,
    fingerprint::{Fingerprinter, Pairs},
    plan,
};
use tokio::runtime::Runtime;

#[path = "data/mod.rs"]
mod data;

use data::Rows;

const ROWS_A_BATCH: u64 = 65_536;

/// Two sizes when times are taken, else a small one.
fn sizes() -> &'static [u64] {
    if std::env::args().any(|argument| argument == "--bench") { &[100_000, 1_000_000] } else { &[1_000] }
}

fn mapping() -> Mapping {
    let attributes = data::names().into_iter().skip(1);
    attributes.fold(Mapping::new("email"), |mapping, name| mapping.map(name.clone(), name))
}

/// The same rows in two forms.
struct People {
    batches: Vec<RecordBatch>,
    records: Vec<Record>,
}

impl People {
    fn new(rows: Rows, count: u64) -> Self {
        let starts = (0..count).step_by(usize::try_from(ROWS_A_BATCH).unwrap_or(1));
        let batch = |start: u64| data::batch(rows, start..count.min(start + ROWS_A_BATCH));
        Self { batches: starts.map(batch).collect(), records: data::records(rows, 0..count) }
    }

    fn arrow(&self) -> Source<'static> {
        let batches: Vec<_> = self.batches.iter().cloned().map(Ok::<_, std::io::Error>).collect();
        Source::chunks(stream::iter(batches))
    }
}

fn planned(runtime: &Runtime, source: Source<'_>, state: &dyn PriorState) -> Plan {
    let (mapping, options) = (mapping(), PlanOptions::default());
    runtime.block_on(plan(source, &mapping, state, &options)).expect("invented people can be planned")
}

/// Has `store` remember these people.
fn sync(runtime: &Runtime, people: &People, store: &dyn StateStore) {
    let plan = runtime.block_on(plan(&people.records, &mapping(), store, &PlanOptions::default()));
    let delivered = runtime.block_on(async {
        let mut run = plan?.start(store, Limits::rows(10_000)).await?;
        while let Some(batch) = run.next_batch().await {
            let outcomes = batch.all(&Outcome::applied());
            batch.settle(outcomes);
        }
        run.finish().await
    });
    delivered.expect("the state can be written");
}

/// A key and ten short texts: what is done for every row, changed or not.
fn fingerprints(criterion: &mut Criterion) {
    let people = data::records(Rows::Prior, 0..1024);
    let names = data::names();
    let prints = Fingerprinter::new(&Secret::new([7; 32])).expect("a secret has the right length");
    let mut group = criterion.benchmark_group("fingerprint");
    group.throughput(Throughput::Elements(people.len() as u64));
    group.bench_function("key and row of 10 texts", |bencher| {
        let mut pairs = Pairs::new();
        bencher.iter(|| {
            for person in &people {
                pairs.clear();
                for (slot, name) in (0..).zip(&names[1..]) {
                    pairs.push(slot, &person.get(name).map_or(ValueRef::Null, |value| value.as_ref()));
                }
                let key = person.get(&names[0]).map(|key| key.as_ref());
                let Some(ValueRef::Text(key)) = key else { continue };
                black_box((prints.key(&key), prints.row(&pairs)));
            }
        });
    });
    group.finish();
}

fn plans(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("the machine has a thread to give");
    let folder = tempfile::tempdir().expect("the machine has a folder for temporary files");
    for &size in sizes() {
        let prior = People::new(Rows::Prior, size);
        let edited = People::new(Rows::After(1), size);
        let others = People { records: Vec::new(), batches: (prior.batches.iter()).map(shifted).collect() };
        let (empty, memory) = (MemoryStore::default(), MemoryStore::default());
        sync(&runtime, &prior, &memory);
        let redb = RedbStore::open(folder.path().join(size.to_string())).expect("the folder is there");
        sync(&runtime, &prior, &redb);

        let mut group = criterion.benchmark_group(format!("plan {size} rows"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(size));
        let mut measure = Measure { group, runtime: &runtime };
        measure.plan("no change, records, memory", || (&prior.records).into(), &memory);
        measure.plan("no change, Arrow, memory", || prior.arrow(), &memory);
        measure.plan("no change, Arrow, redb", || prior.arrow(), &redb);
        measure.plan("1 % changed, records, memory", || (&edited.records).into(), &memory);
        measure.plan("1 % changed, Arrow, memory", || edited.arrow(), &memory);
        measure.plan("1 % changed, Arrow, redb", || edited.arrow(), &redb);
        measure.plan("all changed, Arrow, memory", || others.arrow(), &memory);
        measure.plan("all changed, Arrow, redb", || others.arrow(), &redb);
        measure.plan("all new, records, memory", || (&prior.records).into(), &empty);
        measure.plan("all new, Arrow, memory", || prior.arrow(), &empty);
        measure.group.finish();
    }
}

/// Plans of one number of rows.
struct Measure<'c> {
    group: BenchmarkGroup<'c, WallTime>,
    runtime: &'c Runtime,
}

impl Measure<'_> {
    fn plan<'p>(&mut self, name: &str, source: impl Fn() -> Source<'p>, state: &dyn PriorState) {
        self.group.bench_function(name, |bencher| {
            let plan = |source| black_box(planned(self.runtime, source, state));
            bencher.iter_batched(&source, plan, BatchSize::PerIteration);
        });
    }
}

/// The same people, each attribute with the values of the one before it.
fn shifted(batch: &RecordBatch) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[1..].rotate_left(1);
    RecordBatch::try_new(batch.schema(), columns).expect("all attributes are texts")
}

/// A batch as a destination might send it.
fn json(criterion: &mut Criterion) {
    let people = data::records(Rows::Prior, 0..1_000);
    let batch = futures::executor::block_on(async {
        let store = MemoryStore::default();
        let plan = plan(&people, &mapping(), &store, &PlanOptions::default()).await?;
        let mut run = plan.start(&store, Limits::rows(1_000)).await?;
        Ok::<_, reverse_etl::Error>(run.next_batch().await)
    });
    let batch: Batch = batch.ok().flatten().expect("a thousand rows are a batch");
    let mut group = criterion.benchmark_group("JSON");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("batch of 1000 rows of 10 texts", |bencher| {
        bencher.iter(|| {
            let rows = batch.changes().iter().map(|change| (change.key().as_str(), change.fields()));
            black_box(serde_json::to_vec(&rows.collect::<Vec<_>>()).expect("texts can be written"))
        });
    });
    group.finish();
}

criterion_group!(benches, fingerprints, plans, json);
criterion_main!(benches);
