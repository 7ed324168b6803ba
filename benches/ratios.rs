//! How far planning is from what it cannot do without, as ratios of medians in one run.
//!
//! `cargo bench --features arrow --bench ratios`; with `-- --rows 1000000 --rounds 7`, or `-- --only floor` for a profiler. Each round measures everything once, in turn, so that a
//! machine that is slower for a while is slower for all.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use arrow_array::{Array as _, RecordBatch, StringArray, cast::AsArray};
use reverse_etl::{
    FieldName, Limits, Mapping, MemoryStore, Outcome, PlanOptions, Record, Rows as _, Source, ValueRef, plan,
};
use siphasher::{sip::SipHasher13, sip128::SipHasher13 as SipHasher13x128};

#[path = "data/mod.rs"]
mod data;

use data::Rows;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Run as a test it only has to work.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rows, mut rounds, mut only) =
        (if is_test { 1_000 } else { 1_000_000_u32 }, if is_test { 1 } else { 7 }, None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("a value is missing")?;
        match argument.as_str() {
            "--rows" => rows = value.parse()?,
            "--rounds" => rounds = value.parse()?,
            "--only" => only = Some(value),
            other => return Err(format!("{other} is unknown: --rows N, --rounds N, --only NAME").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let all = 0..u64::from(rows);
    let batches: Vec<RecordBatch> = (all.clone().step_by(65_536))
        .map(|start| data::batch(Rows::Prior, start..all.end.min(start + 65_536)))
        .collect();
    let records: Vec<Record> = data::records(Rows::Prior, all);
    let names: Vec<FieldName> = data::names();
    let mapping = names[1..]
        .iter()
        .fold(Mapping::new("email"), |mapping, name| mapping.map(name.clone(), name.clone()));
    let store = synced(&runtime, &records, &mapping)?;
    let contiguous = Contiguous::of(&batches, &names)?;

    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let mut measure = |name: &'static str, work: &mut dyn FnMut()| {
            if only.as_ref().is_some_and(|only| only != name) {
                return;
            }
            let started = Instant::now();
            work();
            times.entry(name).or_default().push(started.elapsed().as_secs_f64() * 1e9 / f64::from(rows));
        };
        measure("hash", &mut || contiguous.hash());
        measure("floor", &mut || floor(&batches));
        let planned = |source: Source<'_>, threads: usize| {
            let plan =
                runtime.block_on(plan(source, &mapping, &store, &PlanOptions::default().threads(threads)));
            let plan = plan.expect("it can be planned");
            assert_eq!(plan.counts().unchanged, u64::from(rows));
        };
        let chunks = || {
            Source::chunks(futures::stream::iter(batches.clone().into_iter().map(Ok::<_, std::io::Error>)))
        };
        measure("arrow, 1 thread", &mut || planned(chunks(), 1));
        measure("arrow, 2 threads", &mut || planned(chunks(), 2));
        measure("records, 1 thread", &mut || planned((&records).into(), 1));
        measure("records, 2 threads", &mut || planned((&records).into(), 2));
    }
    let median = |name: &str| {
        let mut times = times[name].clone();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    for name in times.keys() {
        let least = times[name].iter().copied().fold(f64::INFINITY, f64::min);
        println!("{name:<20} {:>7.1} ns a row, {least:>7.1} at best", median(name));
    }
    if only.is_some() {
        return Ok(());
    }
    for (name, of, to) in [
        ("floor : hash", "floor", "hash"),
        ("arrow : floor", "arrow, 1 thread", "floor"),
        ("arrow, 1 : 2 threads", "arrow, 1 thread", "arrow, 2 threads"),
        ("records : arrow", "records, 1 thread", "arrow, 1 thread"),
        ("records, 1 : 2 threads", "records, 1 thread", "records, 2 threads"),
    ] {
        println!("{name:<24} {:>5.2}", median(of) / median(to));
    }
    Ok(())
}

/// The bytes of each row's key, and of its pairs, one behind the other.
struct Contiguous {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
    key: SipHasher13x128,
    row: SipHasher13,
}

impl Contiguous {
    fn of(batches: &[RecordBatch], names: &[FieldName]) -> reverse_etl::Result<Self> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for batch in batches {
            batch.visit(names, 0..batch.num_rows(), &mut |values| {
                bytes.extend_from_slice(text(values[0].as_ref()).as_bytes());
                let key = bytes.len();
                for (slot, value) in (0_u16..).zip(&values[1..]) {
                    let (tag, content) = match value {
                        Some(ValueRef::Null) => (0, ""),
                        value => (4, text(value.as_ref())),
                    };
                    bytes.extend_from_slice(&slot.to_le_bytes());
                    bytes.push(tag);
                    bytes.extend_from_slice(&u32::try_from(content.len()).unwrap_or(0).to_le_bytes());
                    bytes.extend_from_slice(content.as_bytes());
                }
                ends.push((key, bytes.len()));
                Ok(())
            })?;
        }
        let (key, row) = (SipHasher13x128::new_with_key(&[7; 16]), SipHasher13::new_with_key(&[8; 16]));
        Ok(Self { bytes, ends, key, row })
    }

    fn hash(&self) {
        let (mut start, mut sum) = (0, 0);
        for (key, end) in &self.ends {
            sum ^= self.key.hash(&self.bytes[start..*key]).h1 ^ self.row.hash(&self.bytes[*key..*end]);
            start = *end;
        }
        black_box(sum);
    }
}

fn text<'v>(value: Option<&'v ValueRef<'_>>) -> &'v str {
    match value {
        Some(ValueRef::Text(text)) => text,
        _ => "",
    }
}

/// What nobody can leave out: each row's bytes are put together, and its key and they are hashed.
fn floor(batches: &[RecordBatch]) {
    const HEADER: usize = 7;
    const WIDE: usize = 32;
    let (key, row) = (SipHasher13x128::new_with_key(&[7; 16]), SipHasher13::new_with_key(&[8; 16]));
    let (mut bytes, mut sum) = ([0; 1024], 0);
    for batch in batches {
        let columns: Vec<&StringArray> = batch.columns().iter().map(AsArray::as_string).collect();
        for index in 0..batch.num_rows() {
            let mut end = 0;
            for (slot, column) in (0_u64..).zip(&columns[1..]) {
                let is_text = column.is_valid(index);
                let offsets = &column.value_offsets()[index..index + 2];
                let start = usize::try_from(offsets[0]).unwrap_or(0);
                let length = if is_text { usize::try_from(offsets[1]).unwrap_or(0) - start } else { 0 };
                let header = slot | u64::from(is_text) << 18 | (length as u64) << 24;
                bytes[end..=end + HEADER].copy_from_slice(&header.to_le_bytes());
                end += HEADER;
                // No text of these is longer. What is copied too much is overwritten by the next.
                match column.value_data().get(start..start + WIDE) {
                    Some(wide) => bytes[end..end + WIDE].copy_from_slice(wide),
                    None => {
                        bytes[end..end + length].copy_from_slice(&column.value_data()[start..start + length]);
                    }
                }
                end += length;
            }
            sum ^= key.hash(columns[0].value(index).as_bytes()).h1 ^ row.hash(&bytes[..end]);
        }
    }
    black_box(sum);
}

fn synced(
    runtime: &tokio::runtime::Runtime,
    records: &Vec<Record>,
    mapping: &Mapping,
) -> reverse_etl::Result<MemoryStore> {
    let store = MemoryStore::default();
    runtime.block_on(async {
        let plan = plan(records, mapping, &store, &PlanOptions::default()).await?;
        let mut run = plan.start(&store, Limits::rows(10_000)).await?;
        while let Some(batch) = run.next_batch().await {
            let outcomes = batch.all(&Outcome::applied());
            batch.settle(outcomes);
        }
        run.finish().await
    })?;
    Ok(store)
}
