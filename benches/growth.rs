//! How a state on disk grows with its rows and with its runs, and what few rows cost beside many.
//!
//! `cargo bench --features arrow --bench growth`; with `-- --rows 10000000 --runs 20`. One size a process, since the most
//! memory that a process had cannot be taken back. Everything is complete and real: a first run in batches of 1,000, then
//! runs of 1 % changes; nothing is ever compacted. Then 1,000 rows that have not changed are planned. With `--removes` the
//! state keeps the keys of the rows, sealed, so that what leaves the source can be removed.
//!
//! With `-- --rows 10000000 --rounds 5` it is seen whether time and memory grow in proportion: each round has ten runs of a
//! tenth of the rows, five before the one of all rows and five after it, since a shared machine is not as fast in one
//! minute as in another. Memory of a virtual machine is kept from its host meanwhile.

use std::{
    cmp::Ordering,
    convert::Infallible,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use mimalloc::MiMalloc;
use redb::{Database, ReadableDatabase, TableDefinition};
use reverse_etl::{Limits, Mapping, Outcome, PlanOptions, PriorState, RedbStore, Report, Source, plan};
use tempfile::TempDir;

#[path = "data/mod.rs"]
mod data;

use data::{Rows, mix};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What one thread has made another one drops, as in the example that plans a file.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ROWS_A_PART: usize = 65_536;
const ROWS_A_BATCH: usize = 2_048;
const FEW: u64 = 1_000;
const MEGABYTE: u64 = 1 << 20;
/// What a first run uses at most, for its own and for pages of files.
const BYTES_A_ROW: u64 = 900;
/// What somebody would look up who keeps a record a key in a table of redb.
const BARE: TableDefinition<'_, u128, &[u8; 96]> = TableDefinition::new("bare");

fn main() -> Result<()> {
    // Run as a test it only has to work.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rows, mut runs) = if is_test { (2_000, 2) } else { (1_000_000, 20) };
    let (mut removes, mut is_brief, mut rounds) = (false, false, 0);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--removes" => removes = true,
            "--brief" => is_brief = true,
            "--rows" => rows = arguments.next().ok_or("a value is missing")?.parse()?,
            "--runs" => runs = arguments.next().ok_or("a value is missing")?.parse()?,
            "--rounds" => rounds = arguments.next().ok_or("a value is missing")?.parse()?,
            other => {
                let known = "--rows N, --runs N, --rounds N, --removes, --brief";
                return Err(format!("{other} is unknown: {known}").into());
            }
        }
    }
    if rounds > 0 {
        let is_asked = !removes && !is_brief;
        return if is_asked { compare(rows, rounds) } else { Err("--rounds goes with --rows alone".into()) };
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    let sync = Sync {
        runtime: tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(4)
            .enable_all()
            .build()?,
        removes,
    };
    if is_brief {
        return sync.brief(&RedbStore::open(&path)?, rows);
    }
    println!("{rows} rows{}", if removes { ", keys kept for removals" } else { "" });
    println!(
        "{:<12} {:>9} {:>9} {:>12} {:>12} {:>10}",
        "run", "planned", "delivered", "file", "on disk", "memory"
    );
    let mut store = RedbStore::open(&path)?;
    for run in 0..=runs {
        let taken = sync.run(&store, people(Rows::After(run), rows))?;
        if run < 2 || run == runs {
            let (file, on_disk) = size(&path)?;
            println!(
                "{:<12} {:>7.2} s {:>7.2} s {:>8.1} B/row {:>8.1} B/row {:>7} MB",
                format!("{run}: {}", taken.sent),
                taken.planned.as_secs_f64(),
                taken.delivered.as_secs_f64(),
                per(file, rows),
                per(on_disk, rows),
                peak_memory().unwrap_or(0)
            );
        }
    }
    drop(store);

    bare(&folder.path().join("bare"), rows)?;
    let (mut loads, mut looks, mut opens) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..7 {
        let people: Vec<u64> = (0..FEW).map(|number| mix(number + FEW * round) % rows).collect();
        let started = Instant::now();
        store = RedbStore::open(&path)?;
        sync.runtime.block_on(store.header())?;
        opens.push(started.elapsed());
        let batch = data::batch(Rows::After(runs), people.iter().copied());
        let few = Source::chunks(futures::stream::iter([Ok::<_, Infallible>(batch)]));
        let started = Instant::now();
        let plan = sync.runtime.block_on(plan(few, &mapping(), &store, &PlanOptions::default()))?;
        loads.push(started.elapsed());
        assert_eq!(plan.counts().unchanged + plan.counts().duplicate, FEW);
        looks.push(look_up(&folder.path().join("bare"), &people)?);
    }
    let (load, look) = (median(loads), median(looks));
    println!("to open the state        {:>9.2?}", median(opens));
    println!("to plan {FEW} rows        {load:>9.2?}");
    println!(
        "bare look-ups of as many {look:>9.2?}, {:.2} times as fast",
        load.as_secs_f64() / look.as_secs_f64()
    );
    Ok(())
}

struct Sync {
    runtime: tokio::runtime::Runtime,
    removes: bool,
}

struct Taken {
    planned: Duration,
    delivered: Duration,
    sent: u64,
}

impl Sync {
    /// Plans and delivers to somebody who takes everything.
    fn run(&self, store: &RedbStore, source: Source<'static>) -> Result<Taken> {
        let options = PlanOptions::default();
        let options = if self.removes { options.remove_absent() } else { options };
        let started = Instant::now();
        let plan = self.runtime.block_on(plan(source, &mapping(), store, &options))?;
        let (planned, sent) = (started.elapsed(), plan.counts().planned());
        let started = Instant::now();
        let delivered: reverse_etl::Result<Report> = self.runtime.block_on(async {
            let mut run = plan.start(store, Limits::rows(1_000)).await?;
            while let Some(batch) = run.next_batch().await {
                let outcomes = batch.all(&Outcome::applied());
                batch.settle(outcomes);
            }
            run.finish().await
        });
        delivered?;
        Ok(Taken { planned, delivered: started.elapsed(), sent })
    }

    /// Says in one line what a first run and each of some after it take, in the order of [`FIGURES`].
    fn brief(&self, store: &RedbStore, rows: u64) -> Result<()> {
        let first = self.run(store, people(Rows::After(0), rows))?;
        let (mut next, runs) = (Duration::ZERO, 5);
        for run in 1..=runs {
            next += self.run(store, people(Rows::After(run), rows))?.planned;
        }
        let next = next / u32::try_from(runs)?;
        let seconds = [first.planned, first.delivered, next].map(|time| time.as_secs_f64());
        println!("{} {} {} {}", seconds[0], seconds[1], seconds[2], peak_memory().unwrap_or(0));
        Ok(())
    }
}

const FIGURES: [&str; 4] = ["planned", "delivered", "1 % planned", "memory"];

/// Says how many times as much so many rows take as a tenth of them.
fn compare(rows: u64, rounds: usize) -> Result<()> {
    let held = hold_memory(rows * BYTES_A_ROW);
    if let Err(error) = &held {
        println!("Free memory is not kept from a host: {error}");
    }
    println!("{rows} rows, and a tenth of them: seconds, megabytes, and how many times as much");
    println!("{:<8} {:>26} {:>26} {:>26} {:>26}", "round", FIGURES[0], FIGURES[1], FIGURES[2], FIGURES[3]);
    let (mut few, mut all, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut tenths = Vec::new();
        let some = |tenths: &mut Vec<_>| {
            (0..5).try_for_each(|_| in_a_process(rows / 10).map(|taken| tenths.push(taken)))
        };
        some(&mut tenths)?;
        let whole = in_a_process(rows)?;
        some(&mut tenths)?;
        let tenth: [f64; 4] = std::array::from_fn(|figure| mean(tenths.iter().map(|taken| taken[figure])));
        let ratios = std::array::from_fn(|figure| whole[figure] / tenth[figure]);
        show(&round.to_string(), &tenth, &whole, &ratios);
        few.push(tenth);
        all.push(whole);
        times.push(ratios);
    }
    let median = |taken: &[[f64; 4]]| -> [f64; 4] {
        std::array::from_fn(|figure| median(taken.iter().map(|taken| taken[figure]).collect()))
    };
    // What one round says of the machine's speed holds for its own runs alone.
    show("median", &median(&few), &median(&all), &median(&times));
    Ok(())
}

fn show(round: &str, tenth: &[f64; 4], whole: &[f64; 4], times: &[f64; 4]) {
    print!("{round:<8}");
    for ((tenth, whole), times) in tenth.iter().zip(whole).zip(times) {
        print!(" {:>26}", format!("{tenth:.2} -> {whole:.2} {times:>5.2} x"));
    }
    println!();
}

/// What so many rows take in a process of their own.
fn in_a_process(rows: u64) -> Result<[f64; 4]> {
    let mut process = Command::new(std::env::current_exe()?);
    let output = process.args(["--bench", "--brief", "--rows", &rows.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let said = String::from_utf8(output.stdout)?;
    let figures: std::result::Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
    figures?.try_into().map_err(|_| format!("{said:?} are not four figures").into())
}

/// Keeps free memory from the host of a virtual machine, as long as the folder is there.
///
/// A host takes back what is free in large pieces. To ask for it again costs eight times as much as to fill it, and only a run
/// of many rows would have to. So one page of each megabyte stays in use, in a file that is nowhere but in memory.
fn hold_memory(bytes: u64) -> Result<TempDir> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let free =
        in_kilobytes("/proc/meminfo", "MemAvailable:").ok_or("nobody knows how much memory is free")?;
    let files = bytes.min(free * 1024 / 2) / MEGABYTE;
    let path = |file: u64| folder.path().join(file.to_string());
    let piece = [0; 16_384];
    for number in 0..files {
        let mut file = File::create(path(number))?;
        (0..MEGABYTE / 16_384).try_for_each(|_| file.write_all(&piece))?;
    }
    // All of them have their memory before the first one gives its own back.
    (0..files).try_for_each(|number| OpenOptions::new().write(true).open(path(number))?.set_len(4_096))?;
    Ok(folder)
}

#[expect(clippy::cast_precision_loss, reason = "they are ten")]
fn mean(figures: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = figures.len() as f64;
    figures.sum::<f64>() / count
}

fn mapping() -> Mapping {
    let names = data::names();
    names[1..].iter().fold(Mapping::new("email"), |mapping, name| mapping.map(name.clone(), name.clone()))
}

/// All people, made by the threads that compare them.
fn people(rows: Rows, people: u64) -> Source<'static> {
    let starts = |from: u64, to: u64, step: usize| (from..to).step_by(step);
    Source::parts(starts(0, people, ROWS_A_PART).map(move |start| {
        let end = people.min(start + ROWS_A_PART as u64);
        let batch = move |start| data::batch(rows, start..end.min(start + ROWS_A_BATCH as u64));
        move || starts(start, end, ROWS_A_BATCH).map(move |start| Ok::<RecordBatch, Infallible>(batch(start)))
    }))
}

/// A table with as many rows of as many bytes, written in the order of its keys.
fn bare(path: &Path, rows: u64) -> Result<()> {
    let mut keys: Vec<u128> = (0..rows).map(key).collect();
    keys.sort_unstable();
    let database = Database::create(path)?;
    for keys in keys.chunks(1_000_000) {
        let transaction = database.begin_write()?;
        let mut table = transaction.open_table(BARE)?;
        keys.iter().try_for_each(|key| table.insert(key, &[7; 96]).map(drop))?;
        drop(table);
        transaction.commit()?;
    }
    Ok(())
}

fn look_up(path: &Path, people: &[u64]) -> Result<Duration> {
    let database = Database::builder().set_cache_size(16 << 20).open(path)?;
    let started = Instant::now();
    let table = database.begin_read()?.open_table(BARE)?;
    for person in people {
        assert!(table.get(key(*person))?.is_some());
    }
    Ok(started.elapsed())
}

fn key(person: u64) -> u128 {
    u128::from(mix(person)) << 64 | u128::from(mix(!person))
}

fn median<T: PartialOrd + Copy>(mut figures: Vec<T>) -> T {
    figures.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    figures[figures.len() / 2]
}

/// How long a file is, and how much of the disk it has.
fn size(path: &Path) -> Result<(u64, u64)> {
    let metadata = File::open(path)?.metadata()?;
    #[cfg(unix)]
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    #[cfg(not(unix))]
    let on_disk = metadata.len();
    Ok((metadata.len(), on_disk))
}

#[expect(clippy::cast_precision_loss, reason = "nobody reads as many digits")]
fn per(bytes: u64, rows: u64) -> f64 {
    bytes as f64 / rows as f64
}

/// The most memory that this process had so far, in megabytes, where the system says so.
fn peak_memory() -> Option<u64> {
    in_kilobytes("/proc/self/status", "VmHWM:").map(|memory| memory / 1024)
}

fn in_kilobytes(file: &str, name: &str) -> Option<u64> {
    let figures = std::fs::read_to_string(file).ok()?;
    let line = figures.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
