//! A destination of one's own: a CRM that this crate knows nothing about.
//!
//! `cargo run --example own_destination`
//!
//! The trait has two methods that must be there: what the destination is, and how a batch reaches it.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use reverse_etl::{
    Activation, Batch, Destination, FieldKind, FieldSpec, Limits, Mapping, MemoryStore, Operation, Outcome,
    Outcomes, PlanOptions, Record, Result, Source, Target,
};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let api = Api::default();
    let crm = Crm { account: "acme".to_owned(), api: api.clone() };
    // The source is complete: who is no longer in it is removed, if this sync added them.
    let options = PlanOptions::default().remove_absent();
    let mapping = Mapping::new("email").custom("name").custom("points");
    let sync = Activation::new(mapping, crm, MemoryStore::new()).options(options);

    let person = |email: &str, name: &str, points: i64| {
        Record::new().with("email", email).with("name", name).with("points", points)
    };
    println!(
        "{}",
        sync.run(Source::iter([person("ada@shop.test", "Ada", 120), person("bob@shop.test", "Bob", 7)]))
            .await?
    );
    println!("{}", sync.run(Source::iter([person("Ada@Shop.test", "Ada", 130)])).await?);
    api.show();
    Ok(())
}

/// People of a CRM, by e-mail.
#[derive(Debug)]
struct Crm {
    account: String,
    api: Api,
}

#[async_trait]
impl Destination for Crm {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        let existing = self.api.call("GET", "/fields", Value::Null).await?;
        let limits = Limits::rows(100).in_flight(4);
        let mut target = Target::new(format!("crm/{}/people", self.account), FieldKind::Email, limits)
            .offers([Operation::Upsert, Operation::Remove]);
        for spec in wanted {
            target = if existing[spec.name().as_str()].is_null() {
                target.creates(spec)
            } else {
                target.field(spec, FieldKind::Text { chars_max: 255 }, None)
            };
        }
        Ok(target)
    }

    async fn prepare(&self, mut target: Target) -> Result<Target> {
        for spec in target.missing().to_vec() {
            self.api.call("PUT", "/fields", json!(spec.name())).await?;
            target = target.field(&spec, FieldKind::Text { chars_max: 255 }, None);
        }
        Ok(target)
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        let rows: Vec<Value> = batch
            .changes()
            .iter()
            .map(|change| json!({ "email": change.key(), "set": change.fields() }))
            .collect();
        let verb = if batch.operation() == Operation::Remove { "DELETE" } else { "PUT" };
        // An error here means that nothing is known of any row; a row speaks through its outcome.
        let reply = self.api.call(verb, "/people", json!(rows)).await?;
        Ok(batch.outcomes(|index, _| match reply[index]["status"].as_u64() {
            Some(200) => Outcome::applied(),
            Some(201) => Outcome::created(),
            Some(404) => Outcome::NoMatch,
            Some(code) => Outcome::rejected(code.to_string(), reply[index]["why"].to_string()),
            None => Outcome::Unknown,
        }))
    }
}

/// What stands in for the CRM's HTTP API here. A real one fails, and says what may have been applied:
/// `Error::no_answer` if a request was sent and no answer came, `Error::refused` if it was refused as a whole.
#[derive(Clone, Debug, Default)]
struct Api(Arc<Mutex<Data>>);

#[derive(Debug, Default)]
struct Data {
    fields: BTreeMap<String, Value>,
    people: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Api {
    #[expect(clippy::unused_async, reason = "a real API is waited for")]
    async fn call(&self, verb: &str, path: &str, body: Value) -> Result<Value> {
        println!("> {verb} {path} {body}");
        let mut data = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = body.as_array().cloned().unwrap_or_default();
        Ok(match (verb, path) {
            ("GET", "/fields") => json!(data.fields),
            ("PUT", "/fields") => {
                data.fields.insert(body.as_str().unwrap_or_default().to_owned(), json!({ "type": "text" }));
                Value::Null
            }
            ("PUT", _) => rows.iter().map(|row| data.put(row)).collect(),
            _ => rows.iter().map(|row| data.delete(row)).collect(),
        })
    }

    fn show(&self) {
        let data = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!("The CRM holds {}", json!(data.people));
    }
}

impl Data {
    fn put(&mut self, row: &Value) -> Value {
        let email = row["email"].as_str().unwrap_or_default().to_owned();
        let status = if self.people.contains_key(&email) { 200 } else { 201 };
        let fields = row["set"].as_object().cloned().unwrap_or_default();
        self.people.entry(email).or_default().extend(fields);
        json!({ "status": status })
    }

    fn delete(&mut self, row: &Value) -> Value {
        let is_gone = self.people.remove(row["email"].as_str().unwrap_or_default()).is_some();
        json!({ "status": if is_gone { 200 } else { 404 } })
    }
}
