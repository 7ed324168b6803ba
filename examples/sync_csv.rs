//! Syncs a CSV file to the contacts of an Emarsys account.
//!
//! ```text
//! export EMARSYS_CLIENT_ID=… EMARSYS_CLIENT_SECRET=…
//! cargo run --example sync_csv -- --csv customers.csv --key E-mail \
//!     --map "First name=1" --map "City=City" --custom "Loyalty level" --list Customers --insert \
//!     --state customers.state --rejects rejects.csv
//! ```
//!
//! Exit status: 0 all is well, 1 some rows need looking after or the run ended early, 2 nothing was done.
//!
//! Ctrl-C lets the requests under way finish, and the next run does the rest. So it does if the program is killed.

use std::{
    error::Error as StdError,
    fmt::Display,
    fs::{self, File},
    future,
    io::{self, Write as _},
    path::{self, Path, PathBuf},
    process::{self, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use reverse_etl::{
    Activation, Event, FieldName, Mapping, Problem, ProblemKind, RedbStore, Source,
    emarsys::{Client, ContactsDestination, Credentials, ListId, ListRef},
};

type Result<T, E = Box<dyn StdError>> = std::result::Result<T, E>;

/// Sync a CSV file to Emarsys contacts: only what changed since the last run.
///
/// Credentials come from the environment: EMARSYS_CLIENT_ID and EMARSYS_CLIENT_SECRET (API v3), else EMARSYS_USERNAME
/// and EMARSYS_SECRET (API v2).
///
/// Exit status: 0 all is well, 1 some rows need looking after or the run ended early, 2 nothing was done.
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
#[expect(clippy::doc_markdown, reason = "it is the text of --help")]
struct Options {
    /// File to sync; its first line names the columns
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// Column with the e-mail, which links a row to a contact
    #[arg(long, value_name = "COLUMN")]
    key: String,
    /// Column into an existing field, given by its id or name
    #[arg(long = "map", value_name = "COLUMN=FIELD", value_parser = pair)]
    maps: Vec<(String, String)>,
    /// Column into a text field of the same name, created if it is missing
    #[arg(long = "custom", value_name = "COLUMN")]
    customs: Vec<String>,
    /// Create contacts that do not exist, in the list
    #[arg(long, requires = "list")]
    insert: bool,
    /// Contact list for contacts that are created; it must exist. A number is an id
    #[arg(long, value_name = "NAME|ID", requires = "insert")]
    list: Option<String>,
    /// File that remembers what Emarsys has confirmed
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// File for the rows that were not synced or need a look: row number, kind, code, column, field and reason. It is
    /// written anew by every run
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Address of the API
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Address for OAuth tokens; default: /oauth2/token below the base URL, if one is given
    #[arg(long, value_name = "URL")]
    token_url: Option<String>,
    /// How long a request without an answer may still take effect: before, its rows are not sent again [default: 120].
    /// Less than 90 also shortens the time in which a batch has to be sent
    #[arg(long, value_name = "SECONDS")]
    late: Option<u64>,
    /// Show what would be done, and write nothing but the rejects
    #[arg(long)]
    dry_run: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((column, field)) if !column.is_empty() && !field.is_empty() => Ok((column.into(), field.into())),
        _ => Err("give it as COLUMN=FIELD, with the field's id or name".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match sync(Options::parse()).await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {}", sentence(&*error));
            ExitCode::from(2)
        }
    }
}

/// What is wrong and what to do, and in brackets the causes, each once.
fn sentence(error: &(dyn StdError + 'static)) -> String {
    let text = error.to_string();
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) && !causes.contains(&cause_text) {
            let colon = if causes.is_empty() { "" } else { ": " };
            causes = format!("{causes}{colon}{cause_text}");
        }
        source = cause.source();
    }
    if causes.is_empty() { text } else { format!("{text} ({causes})") }
}

async fn sync(options: Options) -> Result<ExitCode> {
    let unreadable =
        |error| format!("{} cannot be read ({error}): check the path and the file", options.csv.display());
    let mut csv = csv::Reader::from_path(&options.csv).map_err(unreadable)?;
    let header = csv.headers().map_err(unreadable)?.clone();
    if header.is_empty() {
        return Err(
            format!("{} is empty: its first line has to name the columns", options.csv.display()).into()
        );
    }
    let (contacts, store) = (contacts(&options)?, RedbStore::open(&options.state)?);
    let rejects = Arc::new(Rejects::create(&options)?);
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} rows")?);
    let sync = Activation::new(mapping(&options), contacts, store)
        .observe(observer(bar.clone(), Arc::clone(&rejects)));

    let plan = sync.plan(Source::text(&header, csv.into_records())).await?;
    print(&plan);
    if options.dry_run {
        rejects.finish()?;
        if !plan.refusals().is_empty() {
            return Err(plan.refusals().join("; ").into());
        }
        let counts = plan.counts();
        return Ok(ExitCode::from(u8::from(counts.invalid + counts.withheld > 0)));
    }
    bar.set_length(plan.counts().planned());
    let result = sync.apply_until(plan, stop()).await;
    bar.finish_and_clear();
    let (report, failure) = match result {
        Ok(report) => (report, None),
        Err(error) => match error.report() {
            Some(report) => (report.clone(), Some(error.into())),
            None => return Err(error.into()),
        },
    };
    print(&report);
    let failure = failure.or_else(|| rejects.finish().err());
    if let Some(error) = &failure {
        eprintln!("error: {}", sentence(&**error));
    }
    Ok(ExitCode::from(u8::from(failure.is_some() || !report.is_clean())))
}

/// A reader who went away, as at the end of a pipe, does not stop the sync.
fn print(text: &impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Ready at the first Ctrl-C. A second one ends the program at once, and the next run sends again what got no answer.
async fn stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Where signals cannot be listened to, the run simply goes on to its end.
        return future::pending().await;
    }
    eprintln!("stopping: requests under way are waited for; Ctrl-C once more ends the program at once");
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            process::exit(1);
        }
    });
}

fn mapping(options: &Options) -> Mapping {
    let mut mapping = Mapping::new(options.key.as_str());
    for (column, field) in &options.maps {
        mapping = mapping.map(column.as_str(), field.as_str());
    }
    for column in &options.customs {
        mapping = mapping.custom(column.as_str());
    }
    mapping
}

fn contacts(options: &Options) -> Result<ContactsDestination> {
    let mut client = Client::builder(credentials()?);
    if let Some(url) = &options.base_url {
        client = client.base_url(url);
    }
    if let Some(url) = &options.token_url {
        client = client.token_url(url);
    }
    let mut limits = ContactsDestination::default_limits();
    if let Some(seconds) = options.late {
        let late = Duration::from_secs(seconds);
        let send_within = late.clamp(Duration::from_secs(2), Duration::from_secs(90));
        limits = limits.late(late).send_within(send_within).clock_margin(late.min(Duration::from_secs(30)));
    }
    let contacts = ContactsDestination::new(client.build()?).limits(limits);
    Ok(match &options.list {
        Some(list) => contacts.insert_into(match list.parse() {
            Ok(id) => ListRef::from(ListId::new(id)),
            Err(_) => ListRef::from(list.as_str()),
        }),
        None => contacts,
    })
}

/// The library reads no environment variable; a program may.
fn credentials() -> Result<Credentials> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(id), Some(secret)) = (variable("EMARSYS_CLIENT_ID"), variable("EMARSYS_CLIENT_SECRET")) {
        return Ok(Credentials::oauth2(id, secret));
    }
    if let (Some(user), Some(secret)) = (variable("EMARSYS_USERNAME"), variable("EMARSYS_SECRET")) {
        return Ok(Credentials::wsse(user, secret));
    }
    Err("no credentials: set EMARSYS_CLIENT_ID and EMARSYS_CLIENT_SECRET, or EMARSYS_USERNAME and EMARSYS_SECRET".into())
}

/// Moves the bar, and keeps the rows that were not synced.
fn observer(bar: ProgressBar, rejects: Arc<Rejects>) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    move |event| match event {
        // That Emarsys does not know somebody is well where nobody is created; the report counts them.
        Event::Problem(problem) if problem.kind() == ProblemKind::NoMatch => {}
        Event::Problem(problem) => rejects.add(problem),
        Event::Progress { done, .. } => bar.set_position(*done),
        Event::Waiting { rows, until } => {
            let left =
                until.elapsed().map_or_else(|early| early.duration(), |_| Duration::ZERO).as_secs() + 1;
            let note =
                format!("{rows} rows wait for {left} s: what an earlier run sent may still take effect");
            bar.suspend(|| eprintln!("{note}"));
        }
        _ => {}
    }
}

/// The file of rows that were not synced. What it says is about people, so only its owner may read it.
struct Rejects(Option<Mutex<csv::Writer<File>>>);

impl Rejects {
    fn create(options: &Options) -> Result<Self> {
        let Some(path) = &options.rejects else { return Ok(Self(None)) };
        if [&options.csv, &options.state].into_iter().any(|other| is_same(path, other)) {
            return Err(format!("{} is no file for rejects: name one of their own", path.display()).into());
        }
        let file = private(path)
            .map_err(|error| format!("{} cannot be written ({error}): check the path", path.display()))?;
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(["row", "kind", "code", "column", "field", "reason"])?;
        Ok(Self(Some(Mutex::new(writer))))
    }

    fn add(&self, problem: &Problem) {
        let Some(writer) = &self.0 else { return };
        let row = problem.row().map(|row| row.to_string()).unwrap_or_default();
        let kind = problem.kind().to_string();
        let name = |name: Option<&FieldName>| name.map(ToString::to_string).unwrap_or_default();
        let (column, field) = (name(problem.column()), name(problem.field()));
        let record = [&row, &kind, problem.code().unwrap_or_default(), &column, &field, problem.reason()];
        // A full disk shows when the file is finished.
        let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).write_record(record);
    }

    fn finish(&self) -> Result<()> {
        match &self.0 {
            Some(writer) => Ok(writer.lock().unwrap_or_else(PoisonError::into_inner).flush()?),
            None => Ok(()),
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).or_else(|_| path::absolute(path));
    matches!((real(one), real(other)), (Ok(one), Ok(other)) if one == other)
}

/// An empty file that only its owner may read, on Unix.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

        let file = options.mode(0o600).open(path)?;
        if file.metadata()?.is_file() {
            // It may have been there before.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}
