//! How fast rows get from a plan into Emarsys and into the remembered state, and what bounds it.
//!
//! `cargo bench --features arrow,sandbox --bench delivery`; with `-- --rows 100000 --rounds 5`. The sandbox is a process of
//! its own, without its request limit. On Linux each side has one core.
//!
//! Three ways: over HTTP into a state on disk, which is what a sync does; over HTTP into a state in memory, which leaves out
//! what commits cost; and into a state on disk from somebody who acknowledges everything, which leaves out client, JSON and HTTP.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use futures::stream;
use reverse_etl::{
    Activation, Limits, Mapping, MemoryStore, Outcome, Plan, PlanOptions, RedbStore, Source, StateStore,
    emarsys::{Client, ContactsDestination, Credentials, sandbox::Sandbox},
    plan,
};

#[path = "data/mod.rs"]
mod data;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = BoxError> = std::result::Result<T, E>;

const ROWS_AT_ONCE: u64 = 16_384;
const LIST: &str = "Customers";

fn main() -> Result<()> {
    // Run as a test it only has to work.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rows, mut rounds) = if is_test { (500, 1) } else { (100_000, 5) };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--serve" => return serve(),
            "--rows" => rows = arguments.next().ok_or("a value is missing")?.parse()?,
            "--rounds" => rounds = arguments.next().ok_or("a value is missing")?.parse()?,
            other => return Err(format!("{other} is unknown: --rows N, --rounds N").into()),
        }
    }
    take_core(0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
    let mut taken: [Vec<Taken>; 6] = Default::default();
    for _ in 0..rounds {
        let folder = tempfile::tempdir()?;
        let of_round = runtime.block_on(async {
            let on_disk = over_http(RedbStore::open(folder.path().join("state"))?, rows).await?;
            let in_memory = over_http(MemoryStore::default(), rows).await?;
            let alone = alone(&RedbStore::open(folder.path().join("alone"))?, rows).await?;
            Ok::<_, BoxError>([on_disk, in_memory, alone])
        })?;
        for (all, taken) in taken.iter_mut().zip(of_round.into_iter().flatten()) {
            all.push(taken);
        }
    }
    println!("{rows} rows, medians of {rounds}; CPU in microseconds a row\n");
    println!("{:<24} {:<7} {:>9} {:>9} {:>9}", "", "", "rows/s", "CPU", "sandbox's");
    let ways = ["HTTP, state on disk", "HTTP, state in memory", "no HTTP, state on disk"];
    let names = ways.iter().flat_map(|way| ["insert", "update"].map(|operation| (way, operation)));
    for ((way, operation), mut taken) in names.zip(taken) {
        taken.sort_by_key(|taken| taken.time);
        println!("{way:<24} {operation:<7} {}", taken[taken.len() / 2]);
    }
    Ok(())
}

/// What the delivery of a plan took.
struct Taken {
    rows: u64,
    time: Duration,
    ours: Duration,
    sandbox: Duration,
}

impl fmt::Display for Taken {
    #[expect(clippy::cast_precision_loss, reason = "nobody reads as many digits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows as f64;
        let a_row = |time: Duration| time.as_secs_f64() * 1e6 / rows;
        write!(
            f,
            "{:>9.0} {:>9.2} {:>9.2}",
            rows / self.time.as_secs_f64(),
            a_row(self.ours),
            a_row(self.sandbox)
        )
    }
}

/// Everybody is new, and after that one attribute of everybody changes: a sync of contacts into an account of its own.
async fn over_http(store: impl StateStore + 'static, rows: u64) -> Result<[Taken; 2]> {
    let mut account = Account::start()?;
    let credentials = Credentials::oauth2(&account.id, account.secret.clone());
    let client = Client::builder(credentials).base_url(&account.url).build()?;
    let contacts = ContactsDestination::new(client).insert_into(LIST);
    let columns = &data::names()[1..];
    let mapping = columns.iter().fold(Mapping::new("email"), |mapping, name| mapping.custom(name.clone()));
    let sync = Activation::new(mapping, contacts, store);
    let mut taken = Vec::new();
    for is_changed in [false, true] {
        let plan = sync.plan(source(rows, is_changed)).await?;
        let planned = plan.counts().planned();
        let (started, ours, sandbox) = (Instant::now(), cpu_time(), account.cpu_time()?);
        let report = sync.apply(plan).await?;
        taken.push(Taken {
            rows: planned,
            time: started.elapsed(),
            ours: cpu_time().saturating_sub(ours),
            sandbox: account.cpu_time()?.saturating_sub(sandbox),
        });
        if report.outcomes.applied != planned {
            return Err(format!("not everything was taken:\n{report}").into());
        }
    }
    taken.try_into().map_err(|_| "there are two runs".into())
}

/// The same rows, sent to nobody.
async fn alone(store: &RedbStore, rows: u64) -> Result<[Taken; 2]> {
    let columns = &data::names()[1..];
    let mapping =
        columns.iter().fold(Mapping::new("email"), |mapping, name| mapping.map(name.clone(), name.clone()));
    let mut taken = Vec::new();
    for is_changed in [false, true] {
        let plan = plan(source(rows, is_changed), &mapping, store, &PlanOptions::default()).await?;
        let planned = plan.counts().planned();
        let (started, ours) = (Instant::now(), cpu_time());
        acknowledge(plan, store).await?;
        let (time, ours) = (started.elapsed(), cpu_time().saturating_sub(ours));
        taken.push(Taken { rows: planned, time, ours, sandbox: Duration::ZERO });
    }
    taken.try_into().map_err(|_| "there are two runs".into())
}

async fn acknowledge(plan: Plan, store: &RedbStore) -> reverse_etl::Result<()> {
    let mut run = plan.start(store, Limits::rows(1_000).in_flight(4)).await?;
    while let Some(batch) = run.next_batch().await {
        let outcomes = batch.all(&Outcome::applied());
        batch.settle(outcomes);
    }
    run.finish().await.map(drop)
}

/// All people, made as they are asked for; of those who have changed, the first attribute is what the second one is.
fn source(people: u64, is_changed: bool) -> Source<'static> {
    let starts = (0..people).step_by(usize::try_from(ROWS_AT_ONCE).unwrap_or(1));
    Source::chunks(stream::iter(starts.map(move |start| {
        let batch = data::batch(data::Rows::Prior, start..people.min(start + ROWS_AT_ONCE));
        if !is_changed {
            return Ok(batch);
        }
        let mut columns = batch.columns().to_vec();
        columns[1] = columns[2].clone();
        RecordBatch::try_new(batch.schema(), columns)
    })))
}

/// A sandbox in a process of its own.
struct Account {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
    id: String,
    secret: String,
}

impl Account {
    fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = process.stdin.take().ok_or("the sandbox cannot be asked")?;
        let answers = BufReader::new(process.stdout.take().ok_or("the sandbox cannot answer")?);
        let mut account =
            Self { process, ask, answers, url: String::new(), id: String::new(), secret: String::new() };
        account.url = account.line()?;
        account.id = account.line()?;
        account.secret = account.line()?;
        Ok(account)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn cpu_time(&mut self) -> Result<Duration> {
        writeln!(self.ask)?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the sandbox until nobody is left who could ask it how much time it has used.
fn serve() -> Result<()> {
    take_core(1);
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let sandbox = Sandbox::builder().rate_limit(u64::MAX / 2).start().await?;
        sandbox.add_list(LIST);
        println!("{}\n{}\n{}", sandbox.url(), sandbox.client_id(), sandbox.client_secret());
        tokio::task::spawn_blocking(|| {
            for line in std::io::stdin().lines() {
                line?;
                println!("{}", cpu_time().as_nanos());
            }
            Ok(())
        })
        .await?
    })
}

/// What all threads of this process have used.
#[cfg(target_os = "linux")]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

/// Stays on this core, with all threads that are begun later.
#[cfg(target_os = "linux")]
fn take_core(number: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(number);
    // Where there is no such core, both sides share what there is.
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}

#[cfg(not(target_os = "linux"))]
fn take_core(_: usize) {}
