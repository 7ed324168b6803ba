//! A walk through an Emarsys account: each kind of thing that is in it, and what can be done with it.
//!
//! `cargo run --example emarsys_tour`
//!
//! walks through a sandbox on this machine, and changes things there. With credentials in the environment it walks
//! through a real account instead and **only reads**: it leaves out everything that creates, changes, deletes or
//! starts something. The variables are those of `sync_csv`: `EMARSYS_CLIENT_ID` and `EMARSYS_CLIENT_SECRET`, or
//! `EMARSYS_USERNAME` and `EMARSYS_SECRET`, and `EMARSYS_URL` if it is not the usual address.
//!
//! No key and no value of a person is printed.

use std::{
    error::Error,
    fmt::Display,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Days, Utc};
use futures::{StreamExt, TryStreamExt};
use reverse_etl::{
    ErrorKind,
    emarsys::{
        ApplicationType, Client, CombinedDefinition, Contact, ContactId, Credentials, Criteria, EmailId,
        EventId, FieldId, Lookup, Merge, MergeRule, NewExport, NewField, NewSegment, Operator, Polling,
        QueriedContact, Refusal, SegmentId, SegmentSet, SourceId, TimeRange, Trigger, Unsubscription,
        sandbox::Sandbox,
    },
};
use serde_json::{Value, json};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What is looked at of long lists.
const FEW: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match tour().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn tour() -> Result<()> {
    if let Some(credentials) = credentials()? {
        let mut builder = Client::builder(credentials);
        if let Some(url) = variable("EMARSYS_URL") {
            builder = builder.base_url(url);
        }
        let client = builder.build()?;
        println!("Credentials in the environment: nothing will be changed.");
        return read(&client).await;
    }
    if variable("EMARSYS_URL").is_some() {
        return Err("EMARSYS_URL is set, and no credentials are: set them, or neither".into());
    }
    let sandbox = account().await?;
    let client = Client::builder(Credentials::oauth2(sandbox.client_id(), sandbox.client_secret()))
        .base_url(sandbox.url())
        .build()?;
    println!("No credentials in the environment, so this is a sandbox at {}.", sandbox.url());
    read(&client).await?;
    change(&client, sandbox.add_event("order_shipped")).await
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn credentials() -> Result<Option<Credentials>> {
    let pair = |name: &str, secret: &str| match (variable(name), variable(secret)) {
        (Some(name), Some(secret)) => Ok(Some((name, secret))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("{name} is set, and {secret} is not")),
        (None, Some(_)) => Err(format!("{secret} is set, and {name} is not")),
    };
    if let Some((id, secret)) = pair("EMARSYS_CLIENT_ID", "EMARSYS_CLIENT_SECRET")? {
        return Ok(Some(Credentials::oauth2(id, secret)));
    }
    let wsse = pair("EMARSYS_USERNAME", "EMARSYS_SECRET")?;
    Ok(wsse.map(|(user, secret)| Credentials::wsse(user, secret)))
}

/// A sandbox with something to see.
async fn account() -> Result<Sandbox> {
    let sandbox = Sandbox::start().await?;
    let list = sandbox.add_list("Newsletter");
    for (number, city) in ["Vienna", "Graz", "Vienna", "Linz", "Berlin", "Vienna"].into_iter().enumerate() {
        let email = format!("customer{number}@shop.test");
        let contact = sandbox.add_contact([
            (FieldId::EMAIL, json!(email)),
            (FieldId::CITY, json!(city)),
            (FieldId::OPT_IN, json!(1)),
        ]);
        sandbox.add_to_list(list, contact);
    }
    let viennese = json!({"type": "criteria", "field": "city", "operator": "equals", "value": "Vienna"});
    sandbox.add_segment("Viennese", &viennese);
    sandbox.add_source("shop");
    sandbox.add_table("shop", "orders", ["id"]);
    Ok(sandbox)
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn say(what: &str, found: impl Display) {
    println!("  {what:<34} {found}");
}

/// What was found; of an account, parts may be closed to the API user, and of a table, nobody knows the name.
fn look<T>(
    what: &str,
    found: reverse_etl::Result<T>,
    describe: impl FnOnce(&T) -> String,
) -> Result<Option<T>> {
    match found {
        Ok(found) => {
            say(what, describe(&found));
            Ok(Some(found))
        }
        Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Refused) => {
            say(what, error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn read(client: &Client) -> Result<()> {
    heading("The account");
    look("settings", client.settings().await, |settings| {
        let contacts = settings.contacts.map_or("?".to_owned(), |contacts| contacts.to_string());
        format!("{}, {contacts} contacts", settings.name.as_deref().unwrap_or("without a name"))
    })?;

    heading("Fields");
    let fields = client.fields();
    let known = look("fields", fields.list().await, |all| {
        let own = all.iter().filter(|field| field.id.system().is_none()).count();
        format!("{}, of which {own} are not in every account", all.len())
    })?;
    look("in German", fields.list_in("de").await, |all| format!("{}", all.len()))?;
    look("choices of Country", fields.choices(FieldId::COUNTRY).await, |all| format!("{}", all.len()))?;
    look("choices of Title in German", fields.choices_in(FieldId::TITLE, "de").await, |all| {
        format!("{}", all.len())
    })?;
    let choosing: Vec<FieldId> = known
        .iter()
        .flatten()
        .filter(|field| field.application_type == ApplicationType::SingleChoice)
        .map(|field| field.id)
        .take(FEW)
        .collect();
    look("choices of several fields", fields.choices_of(&choosing, None).await, |all| {
        format!("{} fields, {} choices", all.len(), all.values().map(Vec::len).sum::<usize>())
    })?;

    heading("Contacts");
    let contacts = client.contacts();
    let some: reverse_etl::Result<Vec<_>> =
        contacts.query(FieldId::EMAIL).exclude_empty().page(FEW).stream().take(FEW).try_collect().await;
    let some =
        look("with an e-mail", some, |found| format!("the first {}", found.len()))?.unwrap_or_default();
    let emails: Vec<&str> = some.iter().filter_map(|contact| contact.value()?.as_str()).collect();
    look("their numbers by e-mail", contacts.check_ids(FieldId::EMAIL, &emails).await, |found| {
        format!("{} of {}", found.iter().filter_map(Lookup::found).count(), found.len())
    })?;
    look("with all who share one", contacts.check_all_ids(FieldId::EMAIL, &emails).await, |found| {
        format!("{}", found.iter().filter_map(Lookup::found).map(Vec::len).sum::<usize>())
    })?;
    if let Some(email) = emails.first() {
        look("one of them alone", contacts.find(FieldId::EMAIL, email).await, |id| {
            format!("{}", id.is_some())
        })?;
    }
    let data = contacts.get_data(FieldId::EMAIL, &emails, &[FieldId::CITY, FieldId::OPT_IN]).await;
    look("their city and consent", data, |data| format!("{} contacts", data.len()))?;
    let ids: Vec<ContactId> = some.iter().map(QueriedContact::id).collect();
    let today = DateTime::<Utc>::from(SystemTime::now()).date_naive();
    let history = contacts.history(&ids, today - Days::new(30), today).await;
    look("e-mails of the last 30 days", history, |mailings| format!("{}", mailings.len()))?;

    heading("Contact lists");
    let lists = client.lists();
    let all = look("lists", lists.list().await, |all| format!("{}", all.len()))?.unwrap_or_default();
    if let Some(list) = all.first() {
        look("members of the newest", lists.count(list.id).await, |count| format!("{count}"))?;
        let members: reverse_etl::Result<Vec<_>> = lists.members(list.id).take(FEW).try_collect().await;
        let members = look("the first of them", members, |members| format!("{}", members.len()))?;
        if let Some(member) = members.iter().flatten().next() {
            look("whether one is in it", lists.contains(list.id, *member).await, |is_in| format!("{is_in}"))?;
        }
    }

    heading("Segments");
    // Segments are known to take hours: a tour does not wait for that.
    let polling = Polling::default().time_max(Duration::from_secs(20));
    let segments = client.segments();
    let all = look("segments", segments.list().await, |all| format!("{}", all.len()))?.unwrap_or_default();
    if let Some(segment) = all.first() {
        look("the first one alone", segments.get(segment.id).await, |segment| {
            segment.segment_type.as_ref().map_or("type unknown".to_owned(), ToString::to_string)
        })?;
        look("its criteria", segments.contact_criteria(segment.id).await, |criteria| {
            if criteria.is_some() { "some".to_owned() } else { "none".to_owned() }
        })?;
        match segments.count(segment.id, polling).await {
            Err(error) if error.cause::<Refusal>().is_some_and(Refusal::is_not_ready) => {
                say("its members", "still being computed");
            }
            counted => {
                look("its members", counted, |count| format!("{count}"))?;
                let members = segments.members(segment.id, polling).take(FEW).try_collect::<Vec<_>>().await;
                let members = look("the first of them", members, |members| format!("{}", members.len()))?;
                if let Some(member) = members.iter().flatten().next() {
                    let is_in = segments.contains(segment.id, *member, polling).await;
                    look("whether one is in it", is_in, |is_in| format!("{is_in}"))?;
                }
            }
        }
    }
    let combined = client.combined_segments();
    let all = look("combined segments", combined.list().await, |all| format!("{}", all.len()))?;
    if let Some(one) = all.iter().flatten().next() {
        look("the first one alone", combined.get(one.id).await, |one| format!("number {}", one.id))?;
    }

    heading("Contact sources");
    look("sources", client.sources().list().await, |all| format!("{}", all.len()))?;
    Ok(())
}

async fn change(client: &Client, event: EventId) -> Result<()> {
    heading("Changes: fields and contacts");
    let (contacts, lists) = (client.contacts(), client.lists());
    let points = client.fields().create(&NewField::new("Points", ApplicationType::Numeric)).await?;
    say("new field", points);
    client.sources().create("tour").await?;
    let source = client.sources().list().await?.into_iter().find(|source| source.name == "tour");
    let source = source.ok_or("the new source is not there")?;
    let list = lists.create("Tour", Some("of this example")).await?;
    let people: Vec<Contact> = (0..2_500)
        .map(|number| {
            Contact::new(FieldId::EMAIL, format!("customer{number}@shop.test")).with(points, number)
        })
        .map(|contact| contact.from_source(source.id))
        .collect();
    let upserted = contacts.upsert(FieldId::EMAIL, &people, Some(list)).await?;
    say(
        "2500 contacts upserted, 3 requests",
        format!("{} created, {} updated", upserted.created.len(), upserted.updated.len()),
    );
    let one = Contact::new(FieldId::EMAIL, "one@shop.test");
    say("one contact created", contacts.create_one(FieldId::EMAIL, &one, None).await?);
    say("and updated", contacts.update_one(FieldId::EMAIL, &one.with(points, 7)).await?);
    let missing = Contact::new(FieldId::EMAIL, "nobody@shop.test").with(points, 1);
    for result in contacts.update(FieldId::EMAIL, &[missing]).await? {
        say("an update of nobody", result);
    }

    heading("Changes: lists");
    let keys = ["customer1@shop.test", "customer2@shop.test", "nobody@shop.test"];
    let created = lists.create_with("Tour guides", None, FieldId::EMAIL, &keys).await?;
    say("list with two of three", lists.count(created.id).await?);
    lists.add(created.id, FieldId::EMAIL, &["customer3@shop.test"]).await?;
    lists.remove(created.id, FieldId::EMAIL, &["customer1@shop.test"]).await?;
    say("one added, one removed", lists.count(created.id).await?);
    lists.replace(created.id, FieldId::EMAIL, &["customer4@shop.test"]).await?;
    say("replaced by one", lists.count(created.id).await?);
    lists.rename(created.id, "Tour leaders").await?;
    lists.delete(created.id).await?;
    let members: Vec<ContactId> = lists.members(list).try_collect().await?;
    say("members of the other, as a stream", members.len());

    heading("Changes: segments");
    let segments = client.segments();
    let criteria = Criteria::compare("city", Operator::Equals, "Graz");
    let segment = segments.create(&NewSegment::new("From Graz", criteria)).await?;
    segments.set_contact_criteria(segment, &Criteria::not_empty("city")).await?;
    let run = segments.run(segment).await?;
    let result = segments.wait_for_run(&run.id, Polling::default()).await?;
    say("members by a run", format!("{}, in list {}", result.contacts, result.list));
    let run = segments.run_for_contact(segment, members[0]).await?;
    say("one contact by a run", segments.wait_for_contact_run(&run.id, Polling::default()).await?);
    let both = CombinedDefinition::new(SegmentSet::any([segment]));
    let combined = client.combined_segments().create("Combined", &both).await?;
    say("combined segment", combined.id);

    heading("Changes: exports");
    let export = NewExport::segment(SegmentId::new(0), &[FieldId::EMAIL, points]);
    let rows: Vec<_> = client.exports().fetch(&export, Polling::default()).await?.try_collect().await?;
    say("rows of a segment of everybody", rows.len());
    let today = DateTime::<Utc>::from(SystemTime::now()).date_naive();
    let range = TimeRange::days(today - Days::new(1), today + Days::new(1));
    let started = client.exports().start(&NewExport::changes(range, &[points])).await?;
    client.exports().wait(started.id(), Polling::default()).await?;
    let changed: Vec<_> = client.exports().download(&started).try_collect().await?;
    say("rows of the changes of today", format!("{} (to be created is no change here)", changed.len()));

    heading("Changes: events, relational data");
    let trigger = Trigger::new("customer1@shop.test").data(json!({"order": "4711"}));
    client.events().trigger_one(event, FieldId::EMAIL, &trigger).await?;
    let many = [trigger, Trigger::new("nobody@shop.test")];
    for (who, result) in
        ["somebody", "nobody"].iter().zip(client.events().trigger(event, FieldId::EMAIL, &many).await?)
    {
        say(&format!("event of {who}"), result);
    }
    let orders = client.relational_data().table("shop", "orders");
    orders.insert(&[json!({"id": "1", "sum": "12.50"}), json!({"id": "2", "sum": "7"})]).await?;
    orders.upsert(&[json!({"id": "2", "sum": "8"}), json!({"id": "3", "sum": "9"})]).await?;
    orders.patch(&[json!({"id": "1", "sum": "13"})]).await?;
    orders.remove(&[json!({"id": "3"})]).await?;
    say("orders", orders.query::<Value>(&[]).await?.len());
    orders.replace(&[json!({"id": "9", "sum": "1"})]).await?;
    say("orders after they were replaced", orders.query::<Value>(&[]).await?.len());
    end(client, points, segment, source.id).await
}

async fn end(client: &Client, points: FieldId, segment: SegmentId, source: SourceId) -> Result<()> {
    let (contacts, segments) = (client.contacts(), client.segments());
    heading("The end of it");
    let merge = Merge::new(FieldId::EMAIL, "customer1@shop.test", "customer2@shop.test")
        .rule(points, MergeRule::Overwrite)
        .delete_source();
    contacts.merge(&merge).await?;
    let data = contacts.get_data(FieldId::EMAIL, &["customer2@shop.test"], &[]).await?;
    if let [Lookup::Found(contact)] = &data[..]
        && let Some(uid) = contact.uid()
    {
        contacts.unsubscribe(&Unsubscription::new(1, EmailId::new(1), uid)).await?;
        say("one merged, one unsubscribed", contact.id());
    }
    let results = contacts.delete(FieldId::EMAIL, &["customer1@shop.test", "customer2@shop.test"]).await?;
    for (who, result) in ["the one merged away", "the other"].iter().zip(results) {
        say(&format!("deleting {who}"), result);
    }
    segments.delete(segment).await.unwrap_or_else(|error| say("a segment that is in use stays", error));
    client.sources().delete(source).await?;
    client.fields().delete(points).await?;
    Ok(())
}
