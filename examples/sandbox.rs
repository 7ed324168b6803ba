//! An Emarsys to try things out on, until Ctrl-C.
//!
//! `cargo run --features sandbox --example sandbox -- --port 8080 --contacts people.csv`
//!
//! The header of the file names fields by name, id or string id; every further line becomes a contact.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use reverse_etl::emarsys::sandbox::{Sandbox, StoredField};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(about = "A stateful Emarsys on 127.0.0.1")]
struct Options {
    /// Port; 0 is any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// CSV file whose rows become contacts
    #[arg(long, value_name = "FILE")]
    contacts: Option<PathBuf>,
    /// Contact list to begin with; may be given several times
    #[arg(long = "list", value_name = "NAME")]
    lists: Vec<String>,
    /// Requests a minute for each API user
    #[arg(long, default_value_t = 1_000)]
    rate_limit: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::builder().port(options.port).rate_limit(options.rate_limit).start().await?;
    if let Some(file) = &options.contacts {
        let loaded =
            load(&sandbox, file).map_err(|error| format!("{} cannot be loaded: {error}", file.display()))?;
        println!("# {loaded} contacts from {}", file.display());
    }
    for name in &options.lists {
        println!("# list {name}: id {}", sandbox.add_list(name));
    }
    // In this order Ctrl-C is listened to before anybody reads that it is.
    tokio::try_join!(tokio::signal::ctrl_c(), async { print_access(&sandbox) })?;
    Ok(())
}

/// Lines for a shell: comments, exports, and a request to begin with.
fn print_access(sandbox: &Sandbox) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "export EMARSYS_URL={}", sandbox.url())?;
    writeln!(out, "# OAuth 2, for $EMARSYS_URL/api/v3; tokens from $EMARSYS_URL/oauth2/token")?;
    writeln!(out, "export EMARSYS_CLIENT_ID={}", sandbox.client_id())?;
    writeln!(out, "export EMARSYS_CLIENT_SECRET={}", sandbox.client_secret())?;
    writeln!(out, "# WSSE, for $EMARSYS_URL/api/v2")?;
    writeln!(out, "export EMARSYS_USERNAME={}", sandbox.username())?;
    writeln!(out, "export EMARSYS_SECRET={}", sandbox.wsse_secret())?;
    writeln!(
        out,
        r#"
# Try:
TOKEN=$(curl -s -u "$EMARSYS_CLIENT_ID:$EMARSYS_CLIENT_SECRET" -d grant_type=client_credentials \
  "$EMARSYS_URL/oauth2/token" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s -X PUT "$EMARSYS_URL/api/v3/contact/?create_if_not_exists=1" -H "Authorization: Bearer $TOKEN" \
  -H 'Content-Type: application/json' -d '{{"contacts":[{{"3":"ada@shop.test","1":"Ada"}}]}}'

# Running until Ctrl-C"#
    )?;
    // Whoever reads this through a pipe waits for it.
    out.flush()
}

/// Fills the account from a file and returns the number of contacts.
fn load(sandbox: &Sandbox, file: &Path) -> Result<usize, Box<dyn Error>> {
    let fields = sandbox.fields();
    let names: HashMap<String, &StoredField> = fields
        .iter()
        .flat_map(|field| {
            [field.name().to_lowercase(), field.id().to_string(), field.string_id().to_owned()]
                .map(|name| (name, field))
        })
        .collect();
    let mut rows = csv::Reader::from_path(file)?;
    let columns = rows
        .headers()?
        .iter()
        .map(|name| {
            let field = names.get(&name.trim().to_lowercase()).filter(|_| !name.trim().is_empty());
            field
                .copied()
                .ok_or_else(|| format!("column {name:?} is not the name, id or string id of a field"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut count = 0;
    for row in rows.records() {
        let row = row?;
        let cells = columns.iter().zip(&row).filter(|(_, cell)| !cell.is_empty());
        sandbox.add_contact(cells.map(|(field, cell)| (field.id(), value(field, cell))));
        count += 1;
    }
    Ok(count)
}

/// A cell as its field keeps it; several choices are separated by blanks or semicolons.
fn value(field: &StoredField, cell: &str) -> Value {
    match field.application_type() {
        "multichoice" | "interests" => cell.split([' ', ';']).filter(|choice| !choice.is_empty()).collect(),
        _ => json!(cell),
    }
}
