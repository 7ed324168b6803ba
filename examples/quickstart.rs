//! A sync from beginning to end: no arguments, no network, no set-up.
//!
//! `cargo run --example quickstart`
//!
//! It starts an Emarsys on this machine (the sandbox) that knows some of the customers in `data/customers.csv`, and syncs
//! that file to it four times: everybody, nobody because nothing has changed, three cells that have, and once more with
//! insert mode off. The file is as files are: a few of its rows cannot be sent, and the reports name them.

use std::{error::Error, path::Path};

use reverse_etl::{
    Activation, Column, FieldKind, Guards, Mapping, Plan, RedbStore, Report, Share, Source,
    emarsys::{
        Client, ContactsDestination, Credentials, FieldId,
        sandbox::{Endpoint, Sandbox},
    },
};
use serde_json::{Value, json};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut customers =
        Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/customers.csv"))?;
    let folder = tempfile::tempdir()?;

    heading("1. Everybody: known customers are updated, the others are created in the list `Customers`");
    let emarsys = account(&customers).await?;
    let contacts = ContactsDestination::new(client(&emarsys)?).insert_into("Customers");
    let sync = activation(contacts, &folder.path().join("insert.state"))?;
    let before = emarsys.contacts().len();
    let plan = sync.plan(customers.source()).await?;
    println!("{plan}");
    let report = sync.apply(plan).await?;
    println!("{report}");
    println!("Emarsys had {before} contacts and has {} now.", emarsys.contacts().len());
    let members = emarsys.lists().iter().map(|list| list.members().len()).sum::<usize>();
    check(members as u64 == report.created, "everybody who was created is in the list, and nobody else")?;

    heading("2. The same file again: nothing has changed, so nothing is sent");
    let report = run(&sync, &customers, &emarsys).await?;
    check(emarsys.write_requests() == 0 && report.counts.unchanged > 0, "no write request was sent")?;

    heading("3. Three cells have changed: three cells are sent");
    let changes = [(0, "Points", "4711"), (1, "City", "Graz"), (1, "Loyalty level", "platinum")];
    for (row, column, value) in changes {
        customers.set(row, column, value)?;
    }
    run(&sync, &customers, &emarsys).await?;
    let sent = cells_sent(&emarsys);
    println!("Cells on the wire, as field id and value: {}", sent.join(", "));
    let planned = changes.map(|(_, _, value)| format!("{value:?}"));
    let is_exact =
        sent.len() == 3 && planned.iter().all(|value| sent.iter().any(|cell| cell.ends_with(value)));
    check(is_exact, "exactly the changed cells were sent")?;

    heading("4. Insert mode off, in a new account: only customers who exist there are updated");
    let emarsys = account(&customers).await?;
    let sync = activation(ContactsDestination::new(client(&emarsys)?), &folder.path().join("update.state"))?;
    let before = emarsys.contacts().len();
    let report = run(&sync, &customers, &emarsys).await?;
    check(emarsys.contacts().len() == before, "no contact was created")?;
    println!(
        "{} customers are not in Emarsys: remembered, and asked for at the next run.",
        report.outcomes.no_match
    );
    emarsys.clear_requests();
    run(&sync, &customers, &emarsys).await?;
    check(emarsys.write_requests() == 0, "the run after that sent no write request")
}

/// Which column goes into which field.
fn mapping() -> Mapping {
    let points = Column::new("Points", "Loyalty points").create(FieldKind::Number { digits_max: 24 });
    let note = Column::new("Note", "Customer note").create(FieldKind::Text { chars_max: 255 });
    Mapping::new("E-mail") // links a row to a contact
        .map("First name", FieldId::FIRST_NAME) // into a field that every account has
        .map("Last name", FieldId::LAST_NAME)
        .map("Birth date", FieldId::BIRTH_DATE)
        .map("City", FieldId::CITY)
        .map("Country", FieldId::COUNTRY) // a choice: `Austria` is sent as `10`
        .map("Gender", FieldId::GENDER)
        .custom("Loyalty level") // into a field of the same name, created if it is missing
        .column(points) // into a field of another name and kind, created if it is missing
        .column(note)
        .column(Column::new("Newsletter", FieldId::OPT_IN).on_create()) // only for contacts that are created
}

fn activation(contacts: ContactsDestination, state: &Path) -> Result<Activation> {
    let guards = Guards::default().rows_min(1_000).changed_max(Share::Percent(20.0));
    Ok(Activation::new(mapping(), contacts, RedbStore::open(state)?).guards(guards))
}

/// Plans and applies, and prints both.
async fn run(sync: &Activation, customers: &Table, emarsys: &Sandbox) -> Result<Report> {
    emarsys.clear_requests();
    let plan: Plan = sync.plan(customers.source()).await?;
    println!("{plan}");
    let report = sync.apply(plan).await?;
    println!("{report}");
    println!("Write requests: {}", emarsys.write_requests());
    Ok(report)
}

/// An Emarsys with an empty list, every fourth of the customers, and two people who are not in the file.
async fn account(customers: &Table) -> Result<Sandbox> {
    let emarsys = Sandbox::start().await?;
    emarsys.add_list("Customers");
    let column = customers.column("E-mail")?;
    for row in customers.rows.iter().step_by(4) {
        let email = row[column].trim().to_lowercase();
        if email.contains('@') && emarsys.contacts_with(FieldId::EMAIL, &email).is_empty() {
            emarsys
                .add_contact([(FieldId::EMAIL, json!(email)), (FieldId::FIRST_NAME, json!("from before"))]);
        }
    }
    for other in ["mia@elsewhere.example", "noah@elsewhere.example"] {
        emarsys.add_contact([(FieldId::EMAIL, json!(other))]);
    }
    Ok(emarsys)
}

fn client(emarsys: &Sandbox) -> Result<Client> {
    let credentials = Credentials::oauth2(emarsys.client_id(), emarsys.client_secret());
    Ok(Client::builder(credentials).base_url(emarsys.url()).build()?)
}

/// Field id and value of every cell of the updates that came in, the key left out.
fn cells_sent(emarsys: &Sandbox) -> Vec<String> {
    let updates =
        emarsys.journal().into_iter().filter(|request| request.endpoint() == Endpoint::UpdateContacts);
    let bodies: Vec<Value> = updates.map(|request| request.json()).collect();
    let contacts = bodies.iter().filter_map(|body| body["contacts"].as_array()).flatten();
    let cells = contacts.filter_map(Value::as_object).flatten().filter(|(field, _)| *field != "3");
    cells.map(|(field, value)| format!("{field}: {value}")).collect()
}

/// A CSV file in memory, so that cells of it can be changed.
struct Table {
    header: csv::StringRecord,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let mut file = csv::Reader::from_path(path)?;
        let header = file.headers()?.clone();
        let row = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        let rows = file.records().map(|record| record.map(row)).collect::<Result<_, _>>()?;
        Ok(Self { header, rows })
    }

    /// The rows as text cells. A program that does not change them hands its CSV reader to `Source::text` instead.
    fn source(&self) -> Source<'_> {
        let rows = self.rows.iter().map(|row| Ok::<_, csv::Error>(csv::StringRecord::from(row.clone())));
        Source::text(&self.header, rows)
    }

    fn column(&self, name: &str) -> Result<usize> {
        let found = self.header.iter().position(|known| known == name);
        found.ok_or_else(|| format!("the file has no column {name:?}").into())
    }

    fn set(&mut self, row: usize, column: &str, value: &str) -> Result<()> {
        let column = self.column(column)?;
        value.clone_into(&mut self.rows[row][column]);
        Ok(())
    }
}

fn heading(text: &str) {
    println!("\n{text}\n{}\n", "-".repeat(text.chars().count()));
}

/// What this program claims, it checks.
fn check(is_so: bool, claim: &str) -> Result<()> {
    if !is_so {
        return Err(format!("this should hold and does not: {claim}").into());
    }
    println!("Checked: {claim}.");
    Ok(())
}
