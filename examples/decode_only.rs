//! Plans every column of a Parquet file against a state, and says how fast that was.
//!
//! ```sh
//! cargo run --release --features arrow --example make_parquet -- --rows 1000000 target/people
//! plan="cargo run --release --features arrow --example plan_parquet -- --state target/people/state --key email"
//! $plan --parquet target/people/prior.parquet --commit
//! $plan --parquet target/people/current.parquet
//! ```
//!
//! The file may be compressed with zstd or with snappy, or not at all. It is taken for a complete model: what it does not have is removed. `--commit` delivers the plan to a destination
//! that acknowledges everything, and so fills the state.

use std::{
    fs::File,
    iter,
    num::NonZero,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Instant,
};

use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use clap::Parser;
use mimalloc::MiMalloc;
use parquet::{
    arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        RowSelection,
    },
    file::{metadata::PageIndexPolicy, page_index::offset_index::OffsetIndexMetaData},
};
use reverse_etl::{Limits, Mapping, Outcome, Plan, PlanOptions, RedbStore, Report, Source, plan};

/// The fewest rows in a part, unless a group of the file has fewer.
const ROWS_A_PART: usize = 100_000;

/// The most rows in a batch: so few that they are still near when they are compared.
const ROWS_A_BATCH: usize = 2048;

/// Bytes of a plan that stay in memory; what is more goes to a temporary file.
const PLAN_IN_MEMORY: usize = 16 << 20;

/// Rows that cannot be planned, of which so many are named.
const PROBLEMS_SHOWN: usize = 10;

/// What one thread has found another one drops, and here neither waits for the other.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Plans every column of a Parquet file against a state.
#[derive(Parser)]
struct Arguments {
    /// The file of the state; made by `--commit` if it is missing.
    #[arg(long)]
    state: PathBuf,
    /// The rows.
    #[arg(long)]
    parquet: PathBuf,
    /// The column that links a row to a record; all others are attributes.
    #[arg(long)]
    key: String,
    /// Delivers the plan, and so remembers it.
    #[arg(long)]
    commit: bool,
    /// Rows in a batch.
    #[arg(long, default_value_t = 5_000)]
    batch: usize,
    /// Threads that decode and compare; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Leaves alone what the file does not have. A state of which all runs do so keeps no sealed keys.
    #[arg(long)]
    leave_absent: bool,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let threads =
        arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get)).max(1);
    // These read the state. If there were more than cores, they would take the nearest cache from each other.
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(threads).enable_all().build()?;
    runtime.block_on(run(arguments, threads))
}

async fn run(arguments: Arguments, threads: usize) -> Result<(), Error> {
    let started = Instant::now();
    let options = ArrowReaderOptions::default().with_offset_index_policy(PageIndexPolicy::Optional);
    let unreadable = |error: Error| format!("{} cannot be read: {error}", arguments.parquet.display());
    let file = File::open(&arguments.parquet).map_err(|error| unreadable(error.into()))?;
    let metadata =
        ArrowReaderMetadata::load(&file, options.clone()).map_err(|error| unreadable(error.into()))?;
    let options = options.with_schema(as_views(metadata.schema()));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
        .map_err(|error| unreadable(error.into()))?;
    let columns = metadata.schema().fields().iter().map(|field| field.name().clone());
    let mut mapping = Mapping::new(arguments.key.as_str());
    for column in columns.filter(|column| *column != arguments.key) {
        mapping = mapping.map(column.clone(), column);
    }
    let store = RedbStore::open(&arguments.state)?;
    let mut options = PlanOptions::default().threads(threads).memory_max(PLAN_IN_MEMORY);
    if !arguments.leave_absent {
        options = options.remove_absent();
    }
    if std::env::var("DEC").is_ok() {
        let parts = std::sync::Mutex::new(parts(&metadata).into_iter());
        let (path, metadata, parts) = (&arguments.parquet, &metadata, &parts);
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(move || {
                    loop {
                        let Some(part) = ({ parts.lock().unwrap().next() }) else { break };
                        for batch in part.open(path, metadata.clone()).unwrap() {
                            std::hint::black_box(batch.unwrap().num_rows());
                        }
                    }
                });
            }
        });
        println!("decoded in {:.2} s", started.elapsed().as_secs_f64());
        return Ok(());
    }
    let plan = plan(source(arguments.parquet, metadata), &mapping, &store, &options).await?;

    let planned = started.elapsed();
    let counts = plan.counts().clone();
    let to_send = counts.planned();
    println!("rows          {:>12}", counts.rows);
    println!("added rows    {:>12}", counts.added);
    println!("changed rows  {:>12}", counts.changed);
    println!("changed cells {:>12}", counts.fields - counts.added * mapping.fields().len() as u64);
    println!("removed rows  {:>12}", counts.removed);
    for (what, rows) in [
        ("invalid rows", counts.invalid),
        ("duplicates", counts.duplicate),
        ("held back", counts.held),
        ("unremovable", counts.unremovable),
    ] {
        if rows > 0 {
            println!("{what:<13} {rows:>12}");
        }
    }
    for problem in plan.problems().iter().take(PROBLEMS_SHOWN) {
        println!("{problem}");
    }
    println!(
        "planned in    {:>12.2} s, {:.0} rows/s",
        planned.as_secs_f64(),
        per(counts.rows, planned.as_secs_f64())
    );
    if arguments.commit {
        let started = Instant::now();
        let report = deliver(plan, &store, arguments.batch).await?;
        let taken = started.elapsed().as_secs_f64();
        println!(
            "delivered in  {taken:>12.2} s, {:.0} rows/s, {} batches",
            per(to_send, taken),
            report.batches
        );
    }
    if let Ok(state) = std::fs::metadata(&arguments.state) {
        println!("state         {:>12.1} bytes a row", per(state.len(), per(counts.rows, 1.0)));
    }
    if let Some(megabytes) = peak_memory() {
        println!("peak memory   {megabytes:>12} MB");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "nobody reads as many digits")]
fn per(count: u64, of: f64) -> f64 {
    count as f64 / of
}

/// Delivers a plan to somebody who takes everything. While one batch is with them, the next one is announced to the state.
async fn deliver(plan: Plan, store: &RedbStore, rows: usize) -> reverse_etl::Result<Report> {
    let mut run = plan.start(store, Limits::rows(rows).in_flight(2)).await?;
    while let Some(batch) = run.next_batch().await {
        let outcomes = batch.all(&Outcome::applied());
        batch.settle(outcomes);
    }
    run.finish().await
}

/// The most memory that this process had so far, in megabytes, where the system says so.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// The schema with a view for each text, which says where it lies in its page: so it is not copied from there.
fn as_views(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The rows of the file, part by part; some parts are read at once.
fn source(path: PathBuf, metadata: ArrowReaderMetadata) -> Source<'static> {
    Source::parts(parts(&metadata).into_iter().map(move |part| {
        let (path, metadata) = (path.clone(), metadata.clone());
        move || {
            let (batches, error) = match part.open(&path, metadata) {
                Ok(batches) => (Some(batches), None),
                Err(error) => (None, Some(Err(error))),
            };
            batches.into_iter().flatten().map(|batch| Ok::<_, Error>(batch?)).chain(error)
        }
    }))
}

/// Rows of one group of a file.
struct Part {
    group: usize,
    rows: Range<usize>,
    rows_of_group: usize,
}

/// The file in parts: a group each, or several pages of it, if the group is big and the file says where its pages begin.
fn parts(metadata: &ArrowReaderMetadata) -> Vec<Part> {
    let metadata = metadata.metadata();
    let mut parts = Vec::new();
    for (group, of) in metadata.row_groups().iter().enumerate() {
        let rows_of_group = usize::try_from(of.num_rows()).unwrap_or(0);
        let pages = metadata.page_index_for_row_group(group);
        // Most columns are likely to have their pages where the one with the most has them.
        let pages = (0..of.num_columns())
            .filter_map(|column| pages.offset_index(column))
            .map(OffsetIndexMetaData::page_locations);
        let pages = pages.max_by_key(|pages| pages.len()).into_iter().flatten();
        let starts = pages.filter_map(|page| usize::try_from(page.first_row_index).ok());
        let mut starts: Vec<usize> = iter::once(0).chain(starts).collect();
        starts
            .dedup_by(|start, before| *start < *before + ROWS_A_PART || rows_of_group < *start + ROWS_A_PART);
        let ends = starts.iter().skip(1).copied().chain([rows_of_group]);
        let ranges = starts.iter().zip(ends).map(|(start, end)| *start..end);
        parts.extend(ranges.map(|rows| Part { group, rows, rows_of_group }));
    }
    parts
}

impl Part {
    fn open(self, path: &Path, metadata: ArrowReaderMetadata) -> Result<ParquetRecordBatchReader, Error> {
        // Each has a file of its own, since a reader moves its place in it.
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(path)?, metadata)
            .with_row_groups(vec![self.group])
            .with_batch_size(ROWS_A_BATCH);
        let is_whole = self.rows.len() == self.rows_of_group;
        let rows = || RowSelection::from_consecutive_ranges([self.rows].into_iter(), self.rows_of_group);
        let reader = if is_whole { reader } else { reader.with_row_selection(rows()) };
        Ok(reader.build()?)
    }
}
