//! Syncs a CSV file to the contacts of an Emarsys account.
//!
//! ```text
//! export EMARSYS_CLIENT_ID=… EMARSYS_CLIENT_SECRET=…
//! cargo run --example sync_csv -- --csv customers.csv --key E-mail \
//!     --map "First name=1" --map "City=City" --custom "Loyalty level" --list Customers --insert \
//!     --state customers.state --rejects rejects.csv
//! ```
//!
//! Exit status: 0 all is well, 1 some rows need looking after or the run ended early, 2 nothing could be done.

use std::{
    error::Error as StdError,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use reverse_etl::{
    Activation, Event, FieldName, Mapping, Problem, RedbStore, Source,
    emarsys::{Client, ContactsDestination, Credentials, ListId, ListRef},
};

type Result<T, E = Box<dyn StdError>> = std::result::Result<T, E>;

/// Sync a CSV file to Emarsys contacts: only what changed since the last run.
///
/// Credentials come from the environment: EMARSYS_CLIENT_ID and EMARSYS_CLIENT_SECRET (API v3), or EMARSYS_USERNAME and
/// EMARSYS_SECRET (API v2).
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
    /// Contact list for contacts that are created; a number is an id
    #[arg(long, value_name = "NAME|ID", requires = "insert")]
    list: Option<String>,
    /// Create contacts that do not exist, in the list
    #[arg(long, requires = "list")]
    insert: bool,
    /// File that remembers what Emarsys has confirmed
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// File for the rows that were not synced, with row number, code and reason
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Address of the API
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Address for OAuth tokens; default: /oauth2/token below the base URL, if one is given
    #[arg(long, value_name = "URL")]
    token_url: Option<String>,
    /// How long a request without an answer may still take effect; such rows wait as long. A value below the default of
    /// 120 also shortens the time in which a batch has to be sent
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

/// An error and its causes, each once.
fn sentence(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

async fn sync(options: Options) -> Result<ExitCode> {
    let mut csv = csv::Reader::from_path(&options.csv)
        .map_err(|error| format!("{} cannot be read ({error}): check the path", options.csv.display()))?;
    let header = csv.headers()?.clone();
    let bar = Arc::new(ProgressBar::no_length());
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} rows {msg}")?);
    let rejects = Arc::new(Rejects::create(options.rejects.as_deref())?);
    let sync = Activation::new(mapping(&options), contacts(&options)?, RedbStore::open(&options.state)?)
        .observe(observer(Arc::clone(&bar), Arc::clone(&rejects)));

    let plan = sync.plan(Source::text(&header, csv.into_records())).await?;
    println!("{plan}");
    let counts = plan.counts();
    let has_unsent_rows = counts.invalid + counts.withheld > 0;
    if options.dry_run {
        rejects.finish()?;
        let status = if plan.refusals().is_empty() { u8::from(has_unsent_rows) } else { 2 };
        return Ok(ExitCode::from(status));
    }
    bar.set_length(counts.planned());
    let stop = async {
        // Where signals cannot be listened to, the run simply goes on to its end.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let result = sync.apply_until(plan, stop).await;
    bar.finish_and_clear();
    rejects.finish()?;
    match result {
        Ok(report) => {
            println!("{report}");
            Ok(ExitCode::from(u8::from(!report.is_clean())))
        }
        Err(error) => {
            let sent = error.report().map_or(0, |report| report.batches);
            error.report().iter().for_each(|report| println!("{report}"));
            eprintln!("error: {}", sentence(&error));
            Ok(ExitCode::from(if sent > 0 { 1 } else { 2 }))
        }
    }
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
fn observer(bar: Arc<ProgressBar>, rejects: Arc<Rejects>) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    move |event| match event {
        Event::Problem(problem) => rejects.add(problem),
        Event::Progress { done, .. } => bar.set_position(*done),
        Event::Waiting { rows, until } => {
            let left =
                until.elapsed().map_or_else(|early| early.duration(), |_| Duration::ZERO).as_secs() + 1;
            bar.set_message(format!("({rows} wait {left} s for late effects of an earlier run)"));
        }
        _ => {}
    }
}

/// The file of rows that were not synced. What it says is about people, so only its owner may read it.
struct Rejects(Option<Mutex<csv::Writer<File>>>);

impl Rejects {
    fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path);
        let file = file.map_err(|error| format!("{} cannot be written ({error})", path.display()))?;
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
