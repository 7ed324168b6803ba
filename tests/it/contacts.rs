//! The contacts destination against the sandbox, over HTTP.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use reverse_etl::{
    Activation, Batch, Column, Destination, ErrorKind, FieldKind, FieldName, FieldSpec, Key, Limits, Mapping,
    MemoryStore, Operation, Outcomes, PlanOptions, ProblemKind, Record, RejectedPolicy, Report, Result,
    Target, Value,
    emarsys::{
        Client, ContactsDestination, Credentials, FieldId, ListId,
        sandbox::{
            Duplicates, EmailMatch, Endpoint, ErrorBody, Fault, Sandbox, Scope, StoredContact, Switches,
            WriteRequest,
        },
    },
    plan,
};
use serde_json::{Value as Json, json};

const LIST: &str = "Customers";

fn client(sandbox: &Sandbox) -> Client {
    let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
    Client::builder(credentials).base_url(sandbox.url()).build().unwrap()
}

fn wsse_client(sandbox: &Sandbox) -> Client {
    let credentials = Credentials::wsse(sandbox.username(), sandbox.wsse_secret());
    Client::builder(credentials).base_url(sandbox.url()).build().unwrap()
}

/// Contacts in insert mode.
fn inserting(sandbox: &Sandbox) -> ContactsDestination {
    ContactsDestination::new(client(sandbox)).insert_into(LIST)
}

/// Contacts that are never created.
fn updating(sandbox: &Sandbox) -> ContactsDestination {
    ContactsDestination::new(client(sandbox))
}

/// Limits under which a lost answer is over soon.
fn short() -> Limits {
    ContactsDestination::default_limits()
        .send_within(Duration::from_millis(800))
        .late(Duration::from_millis(50))
        .clock_margin(Duration::ZERO)
}

fn names() -> Mapping {
    Mapping::new("email").map("first_name", FieldId::FIRST_NAME)
}

fn person(email: &str, first_name: &str) -> Record {
    Record::new().with("email", email).with("first_name", first_name)
}

/// Somebody who exists, and two who do not.
fn three() -> Vec<Record> {
    vec![person("ada@shop.test", "Ada"), person("bob@shop.test", "Bob"), person("cleo@shop.test", "Cleo")]
}

/// A sandbox with the list and Ada, who is in no list.
async fn sandbox() -> (Sandbox, ListId) {
    furnished(Sandbox::start().await.unwrap())
}

async fn sandbox_with(switches: Switches) -> (Sandbox, ListId) {
    crate::watch::install();
    furnished(Sandbox::builder().switches(switches).start().await.unwrap())
}

fn furnished(sandbox: Sandbox) -> (Sandbox, ListId) {
    let list = sandbox.add_list(LIST);
    sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test"))]);
    (sandbox, list)
}

fn contact(sandbox: &Sandbox, email: &str) -> StoredContact {
    let mut found = sandbox.contacts_with(FieldId::EMAIL, email);
    assert_eq!(found.len(), 1, "contacts with this e-mail");
    found.remove(0)
}

/// The e-mails of a list's members.
fn members(sandbox: &Sandbox, list: ListId) -> BTreeSet<String> {
    let is_member = |contact: &StoredContact| contact.lists().contains(&list);
    let email = |contact: StoredContact| contact.value(FieldId::EMAIL).as_str().unwrap().to_owned();
    sandbox.contacts().into_iter().filter(is_member).map(email).collect()
}

fn set(emails: &[&str]) -> BTreeSet<String> {
    emails.iter().map(|email| (*email).to_owned()).collect()
}

fn writes(sandbox: &Sandbox) -> Vec<Endpoint> {
    sandbox.journal().iter().map(WriteRequest::endpoint).collect()
}

/// Bodies of the requests to one endpoint.
fn bodies(sandbox: &Sandbox, endpoint: Endpoint) -> Vec<Json> {
    sandbox.journal().iter().filter(|write| write.endpoint() == endpoint).map(WriteRequest::json).collect()
}

/// (applied, no match, rejected, unknown, not attempted)
fn tally(report: &Report) -> [u64; 5] {
    let outcomes = &report.outcomes;
    assert_eq!(outcomes.total(), report.counts.planned(), "the counts add up");
    [outcomes.applied, outcomes.no_match, outcomes.rejected, outcomes.unknown, outcomes.not_attempted]
}

async fn assert_settled(sync: &Activation, people: &Vec<Record>, sandbox: &Sandbox) {
    sandbox.clear_requests();
    let report = sync.run(people).await.unwrap();
    assert_eq!(report.counts.planned(), 0, "{report}");
    assert_eq!(sandbox.write_requests(), 0);
}

async fn refusal(sandbox: &Sandbox, contacts: ContactsDestination, mapping: Mapping) -> String {
    let sync = Activation::new(mapping, contacts, MemoryStore::default());
    let error = sync.run(&three()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(sandbox.write_requests(), 0);
    error.to_string()
}

#[tokio::test]
async fn insert_mode_creates_unknown_contacts_in_the_list_and_leaves_existing_ones_out_of_it() {
    let (sandbox, list) = sandbox().await;
    let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [3, 0, 0, 0, 0]);
    assert_eq!(report.created, 2);
    assert!(report.is_clean(), "{report}");
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    assert_eq!(contact(&sandbox, "ada@shop.test").value(FieldId::FIRST_NAME), "Ada");
    assert_eq!(contact(&sandbox, "bob@shop.test").value(FieldId::FIRST_NAME), "Bob");
    assert_eq!(writes(&sandbox), [Endpoint::UpdateContacts, Endpoint::CreateContacts]);
    assert_settled(&sync, &three(), &sandbox).await;
}

#[tokio::test]
async fn update_only_creates_nothing() {
    let (sandbox, _) = sandbox().await;
    let sync = Activation::new(names(), updating(&sandbox), MemoryStore::default());
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [1, 2, 0, 0, 0]);
    assert_eq!(sandbox.contacts().len(), 1);
    assert_eq!(writes(&sandbox), [Endpoint::UpdateContacts]);
    assert!(sandbox.journal()[0].target().ends_with("create_if_not_exists=0"));
    assert_settled(&sync, &three(), &sandbox).await;

    // Who exists by now is found by a read.
    sandbox.add_contact([(FieldId::EMAIL, json!("Bob@shop.test"))]);
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [1, 0, 0, 0, 0]);
    assert_eq!(contact(&sandbox, "bob@shop.test").value(FieldId::FIRST_NAME), "Bob");
}

#[tokio::test]
async fn insert_mode_that_is_turned_on_creates_those_who_were_missing() {
    let (sandbox, list) = sandbox().await;
    let store = MemoryStore::default();
    Activation::new(names(), updating(&sandbox), store.clone()).run(&three()).await.unwrap();
    let sync = Activation::new(names(), inserting(&sandbox), store);
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    assert_settled(&sync, &three(), &sandbox).await;
}

#[tokio::test]
async fn contact_that_somebody_deleted_is_created_by_the_next_run_with_all_its_fields() {
    let (sandbox, list) = sandbox().await;
    let mapping = names().map("last_name", FieldId::LAST_NAME);
    let sync = Activation::new(mapping, inserting(&sandbox), MemoryStore::default());
    let row = |first_name| vec![person("bob@shop.test", first_name).with("last_name", "Low")];
    sync.run(&row("Bob")).await.unwrap();
    sandbox.delete_contact(contact(&sandbox, "bob@shop.test").id());
    assert_eq!(tally(&sync.run(&row("Rob")).await.unwrap()), [0, 1, 0, 0, 0]);
    assert_eq!(tally(&sync.run(&row("Rob")).await.unwrap()), [1, 0, 0, 0, 0]);
    let bob = contact(&sandbox, "bob@shop.test");
    assert_eq!(
        (bob.value(FieldId::FIRST_NAME), bob.value(FieldId::LAST_NAME)),
        (&json!("Rob"), &json!("Low"))
    );
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test"]));
}

#[tokio::test]
async fn only_the_changed_cell_is_sent() {
    let (sandbox, _) = sandbox().await;
    let mapping = names().custom("points");
    let sync = Activation::new(mapping, inserting(&sandbox), MemoryStore::default());
    let mut people: Vec<_> = three().into_iter().map(|person| person.with("points", 1)).collect();
    sync.run(&people).await.unwrap();
    sandbox.clear_requests();
    people[1] = person("bob@shop.test", "Bob").with("points", 2);
    let report = sync.run(&people).await.unwrap();
    assert_eq!((report.counts.changed, report.counts.fields), (1, 1));
    let points = sandbox.field("points").unwrap().id().to_string();
    assert_eq!(
        bodies(&sandbox, Endpoint::UpdateContacts),
        [json!({ "key_id": "3", "contacts": [{ "3": "bob@shop.test", points: "2" }] })]
    );
    assert_eq!(sandbox.write_requests(), 1);
}

#[tokio::test]
async fn field_that_is_mapped_later_is_sent_alone() {
    let (sandbox, _) = sandbox().await;
    let store = MemoryStore::default();
    let people: Vec<_> = three().into_iter().map(|person| person.with("city", "Wien")).collect();
    Activation::new(names(), inserting(&sandbox), store.clone()).run(&people).await.unwrap();
    sandbox.clear_requests();
    let sync = Activation::new(names().map("city", "City"), inserting(&sandbox), store);
    sync.run(&people).await.unwrap();
    let sent = &bodies(&sandbox, Endpoint::UpdateContacts)[0]["contacts"];
    let keys = |row: &Json| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(sent.as_array().unwrap().iter().all(|row| keys(row) == ["11", "3"]), "{sent}");
}

#[tokio::test]
async fn custom_field_is_created_once_under_its_own_name() {
    let (sandbox, _) = sandbox().await;
    let mapping = || {
        let points = Column::new("Points", "Points").create(FieldKind::Number { digits_max: 24 });
        names().custom("Loyalty level").column(points)
    };
    let people = vec![person("ada@shop.test", "Ada").with("Loyalty level", "gold").with("Points", "007")];
    let sync = Activation::new(mapping(), updating(&sandbox), MemoryStore::default());
    let plan = sync.plan(&people).await.unwrap();
    assert_eq!(plan.creates(), ["field `Loyalty level`", "field `Points`"]);
    assert_eq!(sandbox.write_requests(), 0, "a plan writes nothing");
    sync.apply(plan).await.unwrap();
    let (level, points) = (sandbox.field("Loyalty level").unwrap(), sandbox.field("Points").unwrap());
    assert_eq!((level.name(), level.application_type()), ("Loyalty level", "shorttext"));
    assert_eq!((points.name(), points.application_type()), ("Points", "numeric"));
    let ada = contact(&sandbox, "ada@shop.test");
    assert_eq!((ada.value(level.id()), ada.value(points.id())), (&json!("gold"), &json!("7")));
    assert_settled(&sync, &people, &sandbox).await;

    // A sync of its own finds them, too.
    let other = Activation::new(mapping(), updating(&sandbox), MemoryStore::default());
    other.run(&people).await.unwrap();
    assert_eq!(sandbox.requests_to(Endpoint::CreateField), 0);
}

#[tokio::test]
async fn two_runs_at_once_create_a_field_once() {
    let (sandbox, _) = sandbox().await;
    let people = vec![person("ada@shop.test", "Ada").with("level", "gold")];
    // Both plan before either creates anything.
    let syncs: Vec<_> = (0..2)
        .map(|_| Activation::new(names().custom("level"), updating(&sandbox), MemoryStore::default()))
        .collect();
    let plans = [syncs[0].plan(&people).await.unwrap(), syncs[1].plan(&people).await.unwrap()];
    sandbox.fail(Fault::delay(Duration::from_millis(100)).on(Endpoint::CreateField));
    let [first, second] = plans;
    let (first, second) = tokio::join!(syncs[0].apply(first), syncs[1].apply(second));
    assert!(first.unwrap().is_clean() && second.unwrap().is_clean());
    let fields = sandbox.fields();
    assert_eq!(fields.iter().filter(|field| field.name() == "level").count(), 1);
}

/// A plan that asked for the fields before another run created one, and looked at the state after it.
async fn assert_outdated_plan_costs_nothing(sandbox: &Sandbox, happens: impl AsyncFnOnce(&Activation)) {
    let people = vec![person("ada@shop.test", "Ada").with("level", "gold")];
    let (mapping, store) = (names().custom("level"), MemoryStore::default());
    let sync = Activation::new(mapping.clone(), updating(sandbox), store.clone());
    let outdated = updating(sandbox).describe(mapping.fields()).await.unwrap();
    happens(&sync).await;
    sync.run(&people).await.unwrap();
    let plan =
        plan(&people, &mapping.bind(&outdated).unwrap(), &store, &PlanOptions::default()).await.unwrap();
    assert_eq!(plan.counts().fields, 1, "it takes the field for another one");
    let error = sync.apply(plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
    assert!(error.to_string().contains("`level`"), "{error}");
    assert_settled(&sync, &people, sandbox).await;
}

#[tokio::test]
async fn field_that_another_run_has_created_is_not_sent_once_more_for_every_row() {
    let (sandbox, _) = sandbox().await;
    assert_outdated_plan_costs_nothing(&sandbox, async |_| {}).await;
}

#[tokio::test]
async fn field_that_another_run_has_made_anew_is_not_sent_once_more_for_every_row() {
    let (sandbox, _) = sandbox().await;
    let old = sandbox.add_field("level", "shorttext");
    assert_outdated_plan_costs_nothing(&sandbox, async |sync| {
        sync.run(&three()).await.unwrap();
        sandbox.delete_field(old);
    })
    .await;
}

#[tokio::test]
async fn field_whose_creation_got_no_answer_is_found() {
    for fault in [Fault::lose_answer(), Fault::cut_body(), Fault::answer_applied(502, "Bad Gateway")] {
        let (sandbox, _) = sandbox().await;
        let people = vec![person("ada@shop.test", "Ada").with("level", "gold")];
        let sync = Activation::new(names().custom("level"), updating(&sandbox), MemoryStore::default());
        sandbox.fail(fault.on(Endpoint::CreateField));
        sync.run(&people).await.unwrap();
        assert_eq!(sandbox.requests_to(Endpoint::CreateField), 1);
        assert_settled(&sync, &people, &sandbox).await;
    }
}

#[tokio::test]
async fn field_that_cannot_be_created_is_named_and_nothing_else_is_written() {
    for status in [400, 500] {
        let switches = Switches::default().creation_error_status(status);
        let sandbox = Sandbox::builder().switches(switches).field_slots(0).start().await.unwrap();
        let sync = Activation::new(names().custom("level"), updating(&sandbox), MemoryStore::default());
        let error = sync.run(&three()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`level`") && text.contains("no slot left"), "{text}");
        assert_eq!(writes(&sandbox), [Endpoint::CreateField]);
        assert_eq!(error.report().unwrap().outcomes.not_attempted, 3);
    }
}

#[tokio::test]
async fn type_of_a_field_that_exists_wins() {
    let (sandbox, _) = sandbox().await;
    let id = sandbox.add_field("Level", "singlechoice");
    sandbox.add_choice(id, 7, "Gold");
    let people = vec![
        person("ada@shop.test", "Ada").with("level", "gold"),
        person("bob@shop.test", "Bob").with("level", "lead"),
    ];
    let sync = Activation::new(names().custom("level"), updating(&sandbox), MemoryStore::default());
    let report = sync.run(&people).await.unwrap();
    assert_eq!(contact(&sandbox, "ada@shop.test").value(id), "7");
    assert_eq!(report.counts.invalid, 1);
    let problem = &report.problems[0];
    assert_eq!((problem.row(), problem.field().unwrap().as_str()), (Some(2), "level"));
}

#[tokio::test]
async fn field_that_somebody_makes_at_the_same_time_is_taken_if_its_type_fits() {
    for (application_type, is_fitting) in [("longtext", true), ("numeric", false), ("singlechoice", false)] {
        let (sandbox, _) = sandbox().await;
        let people = vec![person("ada@shop.test", "Ada").with("level", "gold")];
        let other = sandbox.clone();
        let contacts = Meddled::new(updating(&sandbox), Step::Prepare, move || {
            other.add_field("Level", application_type);
        });
        let sync = Activation::new(names().custom("level"), contacts, MemoryStore::default());
        match sync.run(&people).await {
            Ok(report) => assert!(is_fitting && report.is_clean(), "{application_type}: {report}"),
            Err(error) => {
                assert!(!is_fitting && error.to_string().contains("`level`"), "{application_type}: {error}");
                assert_eq!(error.kind(), ErrorKind::StateMoved);
                assert_eq!(sandbox.write_requests(), 0);
            }
        }
        // The next plan goes by the type that the field has.
        let report = sync.run(&people).await.unwrap();
        assert_eq!(report.counts.invalid, u64::from(!is_fitting));
    }
}

#[tokio::test]
async fn list_is_found_by_name_or_by_id() {
    let (sandbox, list) = sandbox().await;
    for (number, contacts) in [
        updating(&sandbox).insert_into(" customers "),
        updating(&sandbox).insert_into(LIST.to_owned()),
        updating(&sandbox).insert_into(list),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("new{number}@shop.test");
        let sync = Activation::new(names(), contacts, MemoryStore::default());
        sync.run(&vec![person(&email, "New")]).await.unwrap();
        assert!(members(&sandbox, list).contains(&email));
    }
}

#[tokio::test]
async fn list_that_does_not_exist_or_is_not_one_is_refused_before_anything_is_written() {
    let (sandbox, _) = sandbox().await;
    sandbox.add_list("Twins");
    sandbox.add_list("Twins");
    for (contacts, expected) in [
        (updating(&sandbox).insert_into("Costumers"), "no contact list `Costumers`"),
        (updating(&sandbox).insert_into(ListId::new(1)), "the id 1"),
        (updating(&sandbox).insert_into("Twins"), "several contact lists are called `Twins`"),
    ] {
        let text = refusal(&sandbox, contacts, names()).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn field_that_cannot_be_written_is_refused_with_its_name() {
    let (sandbox, _) = sandbox().await;
    sandbox.add_field("Coupon", "voucher");
    sandbox.add_field("Twin", "shorttext");
    sandbox.add_field("twin", "shorttext");
    for (field, expected) in [
        ("User status", "`User status` (id 32) is read-only"),
        ("30", "`30` (id 30) is read-only"),
        ("interests", "`interests` (id 0) is read-only"),
        ("Coupon", "`Coupon`"),
        ("Frist Name", "`First Name`"),
        ("Shoe size", "no field `Shoe size`"),
        ("E-Mail", "no field `E-Mail`"),
        ("Email", "`Email` (id 3) is the e-mail"),
        ("3", "`3` (id 3) is the e-mail"),
        ("Twin", "several fields of the account are called `Twin`"),
    ] {
        let text =
            refusal(&sandbox, updating(&sandbox), Mapping::new("email").map("first_name", field)).await;
        assert!(text.contains(expected), "{text}");
    }
    let text = refusal(&sandbox, updating(&sandbox), names().custom("coupon")).await;
    assert!(text.contains("`coupon`"), "{text}");
    let choices = Column::new("level", "level").create(FieldKind::Choice(reverse_etl::Choices::default()));
    let text = refusal(&sandbox, updating(&sandbox), names().column(choices)).await;
    assert!(text.contains("`level` cannot be created"), "{text}");
    let text = refusal(&sandbox, updating(&sandbox), names().custom("level").custom("Level ")).await;
    assert!(text.contains("mapped twice"), "{text}");
    let text = refusal(&sandbox, updating(&sandbox), names().map("last_name", "First Name")).await;
    assert!(text.contains("mapped twice"), "{text}");
}

#[tokio::test]
async fn system_field_is_found_by_the_name_of_a_custom_attribute() {
    let (sandbox, _) = sandbox().await;
    let sync = Activation::new(
        Mapping::new("email").custom("first_name").custom("Last Name"),
        updating(&sandbox),
        MemoryStore::default(),
    );
    sync.run(&vec![person("ada@shop.test", "Ada").with("Last Name", "Byron")]).await.unwrap();
    assert_eq!(sandbox.requests_to(Endpoint::CreateField), 0);
    let ada = contact(&sandbox, "ada@shop.test");
    assert_eq!(
        (ada.value(FieldId::FIRST_NAME), ada.value(FieldId::LAST_NAME)),
        (&json!("Ada"), &json!("Byron"))
    );
}

#[tokio::test]
async fn values_are_sent_in_the_form_that_their_fields_take() {
    let (sandbox, _) = sandbox().await;
    let topics = sandbox.add_field("Topics", "multichoice");
    sandbox.add_choice(topics, 5, "Maths");
    sandbox.add_choice(topics, 12, "Poetry");
    let points = sandbox.add_field("Points", "numeric");
    let mapping = Mapping::new("email")
        .map("gender", FieldId::GENDER)
        .map("country", "Country or region")
        .map("born", FieldId::BIRTH_DATE)
        .map("topics", "Topics")
        .map("points", "points")
        .map("consent", FieldId::OPT_IN)
        .map("city", "city");
    let row = |email: &str| Record::new().with("email", email);
    let people = vec![
        row("ada@shop.test")
            .with("gender", "female")
            .with("country", "united kingdom")
            .with("born", "1815-12-10T00:00:00Z")
            .with("topics", "poetry; Maths")
            .with("points", 120.0)
            .with("consent", true)
            .with("city", "London"),
        row("bob@shop.test")
            .with("gender", Value::Null)
            .with("topics", vec!["5"])
            .with("points", "-0.50")
            .with("consent", "no"),
        row("cleo@shop.test").with("consent", Value::Null).with("city", "🏛"),
        row("dora@shop.test").with("gender", "Prefer"),
        row("emil@shop.test").with("consent", 0),
        row("fay@shop.test").with("born", "31.12.1999"),
        row("not an address").with("points", 1),
    ];
    let sync = Activation::new(mapping, inserting(&sandbox), MemoryStore::default());
    let report = sync.run(&people).await.unwrap();
    assert_eq!((report.counts.invalid, tally(&report)), (5, [2, 0, 0, 0, 0]), "{report}");
    let ada = contact(&sandbox, "ada@shop.test");
    for (field, expected) in [
        (FieldId::GENDER, json!("2")),
        (FieldId::COUNTRY, json!("184")),
        (FieldId::BIRTH_DATE, json!("1815-12-10")),
        (topics, json!([5, 12])),
        (points, json!("120")),
        (FieldId::OPT_IN, json!("1")),
        (FieldId::CITY, json!("London")),
    ] {
        assert_eq!(*ada.value(field), expected, "field {field}");
    }
    let bob = contact(&sandbox, "bob@shop.test");
    assert_eq!(
        (bob.value(FieldId::OPT_IN), bob.value(topics), bob.value(FieldId::GENDER)),
        (&json!("2"), &json!([5]), &Json::Null)
    );
    assert_settled(&sync, &people, &sandbox).await;
}

#[tokio::test]
async fn only_the_choices_of_mapped_fields_are_read() {
    let (sandbox, _) = sandbox().await;
    let mapping = names().map("gender", FieldId::GENDER);
    let sync = Activation::new(mapping, updating(&sandbox), MemoryStore::default());
    let plan = sync.plan(&three()).await.unwrap();
    assert_eq!(plan.counts().added, 3);
    assert_eq!(sandbox.requests_to(Endpoint::ListChoices), 1);
    assert_eq!(sandbox.requests_to(Endpoint::ListLists), 0);
}

#[tokio::test]
async fn values_for_creation_are_sent_with_an_insert_alone() {
    let (sandbox, _) = sandbox().await;
    let mapping = || names().on_create(FieldId::OPT_IN, true);
    let sync = Activation::new(mapping(), inserting(&sandbox), MemoryStore::default());
    sync.run(&three()).await.unwrap();
    assert_eq!(*contact(&sandbox, "ada@shop.test").value(FieldId::OPT_IN), Json::Null);
    let bob = contact(&sandbox, "bob@shop.test");
    assert_eq!(bob.value(FieldId::OPT_IN), "1");
    assert!(!bodies(&sandbox, Endpoint::UpdateContacts)[0].to_string().contains("\"31\""));

    // A consent that was taken back later stays so.
    sandbox.set_value(bob.id(), FieldId::OPT_IN, &json!("2"));
    let mut people = three();
    people[1] = person("bob@shop.test", "Rob");
    sync.run(&people).await.unwrap();
    let bob = contact(&sandbox, "bob@shop.test");
    assert_eq!((bob.value(FieldId::FIRST_NAME), bob.value(FieldId::OPT_IN)), (&json!("Rob"), &json!("2")));
    assert_settled(&sync, &people, &sandbox).await;
}

#[tokio::test]
async fn error_of_a_row_is_pinned_to_that_row_by_its_key() {
    for switches in [
        Switches::default(),
        Switches::default().email_match(EmailMatch::IgnoreCaseAndBlanks),
        Switches::default().ids_in_order(false),
    ] {
        let (sandbox, list) = sandbox_with(switches).await;
        for _ in 0..2 {
            sandbox.add_contact([(FieldId::EMAIL, json!("Dup@shop.test"))]);
        }
        let people = vec![
            person("  Cleo@Shop.test", "Cleo"),
            person("DUP@shop.test ", "Dup"),
            person("Ada@SHOP.test", "Ada"),
        ];
        let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
        let report = sync.run(&people).await.unwrap();
        assert_eq!(tally(&report), [2, 0, 1, 0, 0], "{report}");
        let problem = &report.problems[0];
        assert_eq!((problem.row(), problem.code()), (Some(2), Some("2010")));
        assert!(problem.reason().contains("merge or delete the duplicates"), "{problem}");
        assert_eq!(contact(&sandbox, "ada@shop.test").value(FieldId::FIRST_NAME), "Ada");
        assert_eq!(contact(&sandbox, "cleo@shop.test").value(FieldId::EMAIL), "cleo@shop.test");
        assert_eq!(members(&sandbox, list), set(&["cleo@shop.test"]));
        // It is left alone until its back-off ends.
        sandbox.clear_requests();
        let report = sync.run(&people).await.unwrap();
        assert_eq!((report.counts.held, sandbox.write_requests()), (1, 0));
    }
}

/// Does something to the sandbox at the last moment before a step of the destination.
struct Meddled {
    inner: ContactsDestination,
    step: Step,
    before: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(PartialEq)]
enum Step {
    Prepare,
    Apply,
}

impl Meddled {
    fn new(inner: ContactsDestination, step: Step, before: impl FnOnce() + Send + 'static) -> Self {
        Self { inner, step, before: Mutex::new(Some(Box::new(before))) }
    }

    fn meddle(&self, step: &Step) {
        if self.step == *step
            && let Some(before) = self.before.lock().unwrap().take()
        {
            before();
        }
    }
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Destination for Meddled {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        self.inner.describe(wanted).await
    }

    async fn prepare(&self, target: Target) -> Result<Target> {
        self.meddle(&Step::Prepare);
        self.inner.prepare(target).await
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        self.meddle(&Step::Apply);
        self.inner.apply(batch).await
    }

    async fn find(&self, keys: &[Key], fields: &[FieldName]) -> Result<Vec<Option<Record>>> {
        self.inner.find(keys, fields).await
    }
}

#[tokio::test]
async fn batch_that_is_refused_as_a_whole_is_halved_until_the_guilty_row_is_alone() {
    for switches in [
        Switches::default(),
        Switches::default().unknown_field(Scope::Request),
        Switches::default().unknown_field(Scope::Request).request_error_status(200),
    ] {
        let (sandbox, _) = sandbox_with(switches).await;
        let level = sandbox.add_field("Level", "shorttext");
        let mapping = || names().map("level", "Level");
        let row = |number: u32, first_name: &str, level: &str| {
            sandbox.add_contact([(FieldId::EMAIL, json!(format!("p{number}@shop.test")))]);
            person(&format!("p{number}@shop.test"), first_name).with("level", level)
        };
        let before: Vec<_> = (0..9).map(|number| row(number, "before", "gold")).collect();
        let store = MemoryStore::default();
        Activation::new(mapping(), updating(&sandbox), store.clone()).run(&before).await.unwrap();
        // Only row 6 changes its level, whose field somebody deletes just then.
        let after: Vec<_> = (0..9)
            .map(|number| {
                let (first_name, level) = if number == 5 { ("before", "lead") } else { ("after", "gold") };
                person(&format!("p{number}@shop.test"), first_name).with("level", level)
            })
            .collect();
        let other = sandbox.clone();
        let contacts = Meddled::new(updating(&sandbox), Step::Apply, move || _ = other.delete_field(level));
        let report = Activation::new(mapping(), contacts, store).run(&after).await.unwrap();
        assert_eq!(tally(&report), [8, 0, 1, 0, 0], "{report}");
        assert_eq!(report.problems[0].row(), Some(6));
        assert!(sandbox.contacts_with(FieldId::FIRST_NAME, "after").len() == 8);
    }
}

#[tokio::test]
async fn error_of_a_row_names_the_field_that_emarsys_names() {
    let (sandbox, _) = sandbox().await;
    let level = sandbox.add_field("Level", "shorttext");
    let other = sandbox.clone();
    let contacts = Meddled::new(updating(&sandbox), Step::Apply, move || _ = other.delete_field(level));
    let people = vec![person("ada@shop.test", "Ada").with("level", "gold")];
    let sync = Activation::new(names().map("level", "Level"), contacts, MemoryStore::default());
    let report = sync.run(&people).await.unwrap();
    let problem = &report.problems[0];
    assert_eq!((problem.kind(), problem.code()), (ProblemKind::Rejected, Some("2007")));
    assert_eq!(problem.field().unwrap().as_str(), "Level");
}

#[tokio::test]
async fn reason_that_concerns_every_row_is_the_error_of_the_run() {
    let (sandbox, _) = sandbox().await;
    sandbox.fail(Fault::refuse(400, 2006, "Invalid field id: 1").on(Endpoint::UpdateContacts).always());
    let sync = Activation::new(names(), updating(&sandbox), MemoryStore::default());
    let error = sync.run(&three()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(tally(error.report().unwrap()), [0, 0, 0, 0, 3]);
    sandbox.clear_faults();
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [1, 2, 0, 0, 0]);
}

#[tokio::test]
async fn request_that_is_too_large_is_halved() {
    let (sandbox, _) = sandbox().await;
    sandbox.fail(Fault::status(413).on(Endpoint::UpdateContacts));
    let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [3, 0, 0, 0, 0]);
}

#[tokio::test]
async fn single_row_that_is_refused_as_a_request_is_missing_or_exists() {
    let (sandbox, list) = sandbox().await;
    sandbox.fail(Fault::refuse(400, 2008, "No contact found").on(Endpoint::UpdateContacts));
    sandbox.fail(Fault::refuse(400, 2009, "exists").on(Endpoint::CreateContacts));
    let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
    let people = vec![person("ada@shop.test", "Ada")];
    assert_eq!(tally(&sync.run(&people).await.unwrap()), [1, 0, 0, 0, 0]);
    assert_eq!(members(&sandbox, list), set(&[]));
}

#[tokio::test]
async fn contact_that_somebody_else_creates_first_is_updated_and_in_the_list_only_if_the_create_put_it_there()
{
    for joins in [true, false] {
        let (sandbox, list) = sandbox_with(Switches::default().existing_joins_list(joins)).await;
        sandbox.fail(Fault::overtake().on(Endpoint::CreateContacts));
        let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [3, 0, 0, 0, 0]);
        let (put, post) = (Endpoint::UpdateContacts, Endpoint::CreateContacts);
        assert_eq!(writes(&sandbox), [put, post, put]);
        assert_eq!(contact(&sandbox, "bob@shop.test").value(FieldId::FIRST_NAME), "Bob");
        // Ada, whom the first update found, is in no list in either case.
        let overtaken = if joins { set(&["bob@shop.test", "cleo@shop.test"]) } else { set(&[]) };
        assert_eq!(members(&sandbox, list), overtaken);
        assert_settled(&sync, &three(), &sandbox).await;
    }
}

#[tokio::test]
async fn contradiction_is_a_rejection_and_not_a_loop() {
    let (sandbox, list) = sandbox().await;
    sandbox.fail(Fault::race().on(Endpoint::CreateContacts));
    let options = || PlanOptions::default().rejected(RejectedPolicy::EveryRun);
    let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default()).options(options());
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [1, 0, 2, 0, 0]);
    assert_eq!(sandbox.write_requests(), 3);
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(report.outcomes.applied, report.counts.planned());
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
}

#[tokio::test]
async fn lost_answer_of_an_insert_leaves_the_rows_unknown_and_the_next_run_puts_them_into_the_list_once() {
    for is_inserting in [true, false] {
        let (sandbox, list) = sandbox().await;
        let store = MemoryStore::default();
        sandbox.fail(Fault::lose_answer().on(Endpoint::CreateContacts));
        let contacts = inserting(&sandbox).limits(short());
        let report = Activation::new(names(), contacts, store.clone()).run(&three()).await.unwrap();
        assert_eq!(tally(&report), [1, 0, 0, 2, 0]);
        assert_eq!(sandbox.requests_to(Endpoint::CreateContacts), 1);
        // Whether they got into the list, nobody knows.
        sandbox.remove_from_list(list, contact(&sandbox, "bob@shop.test").id());

        sandbox.clear_requests();
        let contacts = if is_inserting { inserting(&sandbox) } else { updating(&sandbox) };
        let sync = Activation::new(names(), contacts.limits(short()), store);
        let report = sync.run(&three()).await.unwrap();
        assert_eq!(tally(&report), [2, 0, 0, 0, 0], "{report}");
        assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
        assert_eq!(writes(&sandbox), [Endpoint::UpdateContacts, Endpoint::AddToList]);
        assert_settled(&sync, &three(), &sandbox).await;
    }
}

#[tokio::test]
async fn insert_that_was_never_carried_out_is_sent_again() {
    for fault in [Fault::lose_request(), Fault::apply_half(), Fault::status(503), Fault::cut_body()] {
        let (sandbox, list) = sandbox().await;
        sandbox.fail(fault.on(Endpoint::CreateContacts));
        let contacts = inserting(&sandbox).limits(short());
        let sync = Activation::new(names(), contacts, MemoryStore::default());
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [1, 0, 0, 2, 0]);
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
        assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
        assert_eq!(sandbox.contacts().len(), 3);
        assert_settled(&sync, &three(), &sandbox).await;
    }
}

#[tokio::test]
async fn insert_that_takes_effect_late_creates_nobody_twice() {
    let (sandbox, list) = sandbox().await;
    sandbox.fail(Fault::apply_late(Duration::from_millis(600)).on(Endpoint::CreateContacts));
    let contacts = inserting(&sandbox).limits(short());
    let sync = Activation::new(names(), contacts, MemoryStore::default());
    sync.run(&three()).await.unwrap();
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
    assert_eq!(sandbox.requests_to(Endpoint::CreateContacts), 1);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    assert_eq!(sandbox.contacts().len(), 3);
}

#[tokio::test]
async fn lost_answer_of_an_update_is_sent_again_and_does_not_touch_the_list() {
    let (sandbox, list) = sandbox().await;
    sandbox.fail(Fault::lose_answer().on(Endpoint::UpdateContacts));
    let people = vec![person("ada@shop.test", "Ada")];
    let sync = Activation::new(names(), inserting(&sandbox).limits(short()), MemoryStore::default());
    assert_eq!(tally(&sync.run(&people).await.unwrap()), [0, 0, 0, 1, 0]);
    assert_eq!(tally(&sync.run(&people).await.unwrap()), [1, 0, 0, 0, 0]);
    assert_eq!(members(&sandbox, list), set(&[]));
    assert_eq!(sandbox.requests_to(Endpoint::AddToList), 0);
}

/// A store in which Bob and Cleo are in doubt, and their sync.
async fn in_doubt(sandbox: &Sandbox) -> MemoryStore {
    let store = MemoryStore::default();
    sandbox.fail(Fault::lose_answer().on(Endpoint::CreateContacts));
    let contacts = inserting(sandbox).limits(short());
    let report = Activation::new(names(), contacts, store.clone()).run(&three()).await.unwrap();
    assert_eq!(report.outcomes.unknown, 2);
    sandbox.clear_requests();
    store
}

#[tokio::test]
async fn place_that_is_gone_ends_the_doubt_with_a_note() {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    sandbox.delete_list(list);
    let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [2, 0, 0, 0, 0]);
    assert_eq!(report.problems.len(), 2);
    for problem in &report.problems {
        assert_eq!(problem.kind(), ProblemKind::Note);
        assert!(problem.reason().contains(&format!("list {list}")), "{problem}");
        assert!(problem.reason().contains("no longer exists"), "{problem}");
    }
    assert_settled(&sync, &three(), &sandbox).await;
}

#[tokio::test]
async fn list_that_is_said_to_be_gone_and_is_not_keeps_the_doubt() {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    sandbox.fail(Fault::refuse(400, 1, "Action Add is invalid.").on(Endpoint::AddToList));
    let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
    let error = sync.run(&three()).await.unwrap_err();
    assert_eq!(tally(error.report().unwrap()), [0, 0, 0, 2, 0]);
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
}

/// Two rows in doubt, of contacts that are in no list, and a list call that meets a fault.
async fn doubtful_list_call(fault: Fault) -> (Sandbox, ListId, MemoryStore) {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    for email in ["bob@shop.test", "cleo@shop.test"] {
        sandbox.remove_from_list(list, contact(&sandbox, email).id());
    }
    sandbox.fail(fault.on(Endpoint::AddToList));
    (sandbox, list, store)
}

#[tokio::test]
async fn list_call_that_fails_keeps_the_doubt() {
    for fault in [Fault::lose_request(), Fault::status(503), Fault::apply_half(), Fault::cut_body()] {
        let (sandbox, list, store) = doubtful_list_call(fault.always()).await;
        let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [0, 0, 0, 2, 0]);
        sandbox.clear_faults();
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
        assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
        assert_settled(&sync, &three(), &sandbox).await;
    }
}

#[tokio::test]
async fn list_call_without_an_answer_is_repeated_since_twice_in_a_list_is_once_in_it() {
    for fault in [Fault::lose_request(), Fault::lose_answer(), Fault::apply_half()] {
        let (sandbox, list, store) = doubtful_list_call(fault).await;
        let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
        assert_eq!(tally(&sync.run(&three()).await.unwrap()), [2, 0, 0, 0, 0]);
        assert_eq!(sandbox.requests_to(Endpoint::AddToList), 2);
        assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    }
}

#[tokio::test]
async fn contact_that_is_gone_before_it_is_in_the_list_stays_in_doubt() {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    let missing = r#"{"replyCode":0,"replyText":"OK","data":{"inserted_contacts":1,"errors":
        {"bob@shop.test":{"2008":"No contact found with the external id: 3 - bob@shop.test"}}}}"#;
    sandbox.fail(Fault::answer(200, missing).on(Endpoint::AddToList));
    let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [1, 0, 0, 1, 0], "{report}");
    assert_eq!(tally(&sync.run(&three()).await.unwrap()), [1, 0, 0, 0, 0]);
    assert!(members(&sandbox, list).contains("bob@shop.test"));
}

#[tokio::test]
async fn row_in_doubt_that_left_the_source_is_put_into_the_list_all_the_same() {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    sandbox.remove_from_list(list, contact(&sandbox, "bob@shop.test").id());
    let sync = Activation::new(names(), updating(&sandbox).limits(short()), store);
    let report = sync.run(&vec![person("ada@shop.test", "Ada")]).await.unwrap();
    assert_eq!(report.resolved.applied, 2);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    let sent = &bodies(&sandbox, Endpoint::UpdateContacts)[0]["contacts"];
    assert!(sent.as_array().unwrap().iter().all(|row| row.as_object().unwrap().len() == 1), "the key alone");
}

#[tokio::test]
async fn list_that_is_deleted_during_a_run_stops_it() {
    for status in [400, 200] {
        let (sandbox, list) = sandbox_with(Switches::default().unknown_list_status(status)).await;
        let other = sandbox.clone();
        let contacts = Meddled::new(inserting(&sandbox), Step::Apply, move || _ = other.delete_list(list));
        let error =
            Activation::new(names(), contacts, MemoryStore::default()).run(&three()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(&format!("contact list {list}")), "{error}");
        assert_eq!(tally(error.report().unwrap()), [1, 0, 0, 0, 2]);
        assert_eq!(sandbox.contacts().len(), 1);
    }
}

#[tokio::test]
async fn refused_credentials_and_missing_permissions_stop_the_run_and_lose_nothing() {
    for (fault, kind, expected) in [
        (Fault::status(401).on(Endpoint::UpdateContacts).times(2), ErrorKind::Unauthorized, [0, 0, 0, 0, 3]),
        (Fault::status(403).on(Endpoint::UpdateContacts), ErrorKind::Forbidden, [0, 0, 0, 0, 3]),
        (Fault::status(403).on(Endpoint::CreateContacts), ErrorKind::Forbidden, [1, 0, 0, 0, 2]),
    ] {
        for body in [ErrorBody::Envelope, ErrorBody::Plain, ErrorBody::Message] {
            let (sandbox, list) = sandbox_with(Switches::default().error_body(body)).await;
            sandbox.fail(fault.clone());
            let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
            let error = sync.run(&three()).await.unwrap_err();
            assert_eq!((error.kind(), tally(error.report().unwrap())), (kind, expected), "{error}");
            let report = sync.run(&three()).await.unwrap();
            assert_eq!(report.outcomes.applied, report.counts.planned());
            assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
            assert_settled(&sync, &three(), &sandbox).await;
        }
    }
}

#[tokio::test]
async fn token_that_expires_during_a_run_is_renewed() {
    let (sandbox, _) = sandbox().await;
    sandbox.fail(Fault::expire_tokens().on(Endpoint::CreateContacts));
    let sync = Activation::new(names(), inserting(&sandbox), MemoryStore::default());
    assert!(sync.run(&three()).await.unwrap().is_clean());
}

#[tokio::test]
async fn exhausted_limit_is_waited_for_and_met_once() {
    let (sandbox, _) = sandbox().await;
    sandbox.fail(Fault::exhaust_limit().on(Endpoint::UpdateContacts));
    let limits = short().send_within(Duration::from_millis(200));
    let sync = Activation::new(names(), inserting(&sandbox).limits(limits), MemoryStore::default());
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [0, 0, 0, 0, 3], "{report}");
    assert!(report.stopped);
    // The window is longer than the rows may wait, and nobody knocks at a closed door.
    assert_eq!(sandbox.requests_to(Endpoint::UpdateContacts), 1);
    assert_eq!(sandbox.contacts().len(), 1);
}

#[tokio::test]
async fn every_batch_is_within_the_limits() {
    let (sandbox, list) = sandbox().await;
    let people: Vec<_> = (0..7).map(|number| person(&format!("p{number}@shop.test"), "P")).collect();
    let contacts = inserting(&sandbox).limits(Limits::rows(3).in_flight(2));
    let sync = Activation::new(names(), contacts, MemoryStore::default());
    assert!(sync.run(&people).await.unwrap().is_clean());
    for endpoint in [Endpoint::UpdateContacts, Endpoint::CreateContacts] {
        let sizes: Vec<_> = bodies(&sandbox, endpoint)
            .iter()
            .map(|body| body["contacts"].as_array().unwrap().len())
            .collect();
        assert_eq!(sizes.iter().sum::<usize>(), 7);
        assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
    }
    assert_eq!(members(&sandbox, list).len(), 7);
}

#[tokio::test]
async fn batch_is_sent_by_a_process_that_did_not_describe() {
    let (sandbox, list) = sandbox().await;
    let store = MemoryStore::default();
    let sync = Activation::new(names(), inserting(&sandbox), store.clone());
    let mut file = Vec::new();
    sync.plan(&three()).await.unwrap().write_to(&mut file).unwrap();
    sandbox.clear_requests();
    let plan = reverse_etl::Plan::read_from(file.as_slice()).unwrap();
    let contacts = updating(&sandbox);
    let mut run = plan.start(&store, Limits::rows(10)).await.unwrap();
    let mut operations = Vec::new();
    while let Some(batch) = run.next_batch().await {
        operations.push(batch.operation());
        batch.deliver(&contacts).await;
    }
    assert!(run.finish().await.unwrap().is_clean());
    assert_eq!(operations, [Operation::Update, Operation::Insert]);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    let requests: u64 = sandbox.requests().values().sum();
    assert_eq!(requests, 3, "a token and two writes");
}

#[tokio::test]
async fn contacts_are_found_with_the_values_that_they_have() {
    let (sandbox, _) = sandbox().await;
    let topics = sandbox.add_field("Topics", "multichoice");
    let bob = sandbox.add_contact([
        (FieldId::EMAIL, json!("Bob@shop.test")),
        (FieldId::FIRST_NAME, json!("Bob")),
        (FieldId::GENDER, json!("1")),
    ]);
    sandbox.set_value(bob, topics, &json!([5, 12]));
    for _ in 0..2 {
        sandbox.add_contact([(FieldId::EMAIL, json!("dup@shop.test"))]);
    }
    let keys = ["zoe@shop.test", "bob@shop.test", "dup@shop.test", "ada@shop.test"].map(Key::new);
    let contacts = updating(&sandbox);
    let found = contacts.find(&keys, &[]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);

    let fields = ["First Name", "topics", "5", "Last Name"].map(FieldName::from);
    let found = contacts.find(&keys, &fields).await.unwrap();
    assert!(found[0].is_none());
    let expected = Record::new().with("First Name", "Bob").with("topics", vec!["12", "5"]).with("5", "1");
    assert!(found[1] == Some(expected));
    assert!(found[3] == Some(Record::new()), "empty fields have no value");
    let error = contacts.find(&keys, &["Shoe size".into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(sandbox.write_requests(), 0);

    sandbox.fail(Fault::status(403).on(Endpoint::CheckIds));
    assert_eq!(contacts.find(&keys, &[]).await.unwrap_err().kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn plan_tells_who_exists() {
    let (sandbox, _) = sandbox().await;
    let contacts = inserting(&sandbox);
    let sync = Activation::new(names(), contacts.clone(), MemoryStore::default());
    let plan = sync.plan(&three()).await.unwrap().resolve(&contacts).await.unwrap();
    assert_eq!((plan.counts().added, plan.counts().existing), (3, Some(1)));
    assert_eq!(sandbox.write_requests(), 0);
}

/// Everything that an error, its causes and its report show.
fn shown(result: &Result<Report>) -> String {
    let report =
        |report: &Report| format!("{report}\n{report:?}\n{}", serde_json::to_string(report).unwrap());
    match result {
        Ok(done) => report(done),
        Err(error) => {
            let mut text = format!("{error}\n{error:?}\n");
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                writeln!(text, "{inner}\n{inner:?}").unwrap();
                cause = inner.source();
            }
            text + &error.report().map(report).unwrap_or_default()
        }
    }
}

#[tokio::test]
async fn no_key_and_no_value_is_in_an_error_a_report_or_a_debug() {
    let told =
        r#"{"replyCode":0,"data":{"ids":[],"errors":{"zelda@shop.test":{"2007":"Zelda of Villach"}}}}"#;
    let odd = r#"{"replyCode":0,"data":{"ids":["zelda@shop.test"],"errors":"zelda@shop.test"}}"#;
    let faults = [
        Fault::refuse(400, 2005, "Invalid key field value: zelda@shop.test"),
        Fault::refuse(400, 2007, "Zelda"),
        Fault::refuse(400, 2004, "zelda@shop.test"),
        Fault::refuse(400, 2020, "zelda@shop.test"),
        Fault::refuse(500, 1, "zelda@shop.test"),
        Fault::answer(200, told),
        Fault::answer(200, odd),
        Fault::answer(200, "zelda@shop.test lives in Villach"),
        Fault::answer(400, "<p>zelda@shop.test lives in Villach</p>"),
        Fault::status(401).times(2),
        Fault::status(403),
        Fault::status(503),
        Fault::lose_answer(),
        Fault::cut_body(),
        Fault::vanish(),
        Fault::race(),
    ];
    let people = vec![
        person("zelda@shop.test", "Zelda").with("city", "Villach"),
        person("zelda.invalid", "Zelda").with("city", "Villach"),
        person("zeno@shop.test", "Zelda").with("city", "Villach 🏛"),
    ];
    for endpoint in [Endpoint::UpdateContacts, Endpoint::CreateContacts] {
        for fault in &faults {
            let (sandbox, _) = sandbox().await;
            sandbox.fail(fault.clone().on(endpoint));
            let events = Arc::new(Mutex::new(String::new()));
            let log = Arc::clone(&events);
            let contacts = inserting(&sandbox).limits(short());
            let sync = Activation::new(names().map("city", "City"), contacts, MemoryStore::default())
                .observe(move |event| writeln!(log.lock().unwrap(), "{event:?}").unwrap());
            let result = sync.run(&people).await;
            let text = format!("{}\n{}\n{sync:?}", shown(&result), events.lock().unwrap());
            let lower = text.to_lowercase();
            for secret in ["zelda", "zeno", "villach", sandbox.client_secret()] {
                assert!(!lower.contains(secret), "{fault:?} on {endpoint}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn key_field_that_is_refused_is_the_error_of_the_run() {
    let (sandbox, _) = sandbox().await;
    let reply =
        r#"{"replyCode":0,"data":{"ids":[],"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 3"}}}}"#;
    sandbox.fail(Fault::answer(200, reply).on(Endpoint::UpdateContacts));
    let sync = Activation::new(names(), updating(&sandbox), MemoryStore::default());
    let error = sync.run(&three()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(tally(error.report().unwrap()), [0, 0, 0, 0, 3]);
}

#[tokio::test]
async fn rows_that_a_reply_does_not_account_for_are_unknown() {
    let (sandbox, _) = sandbox().await;
    let reply = r#"{"replyCode":0,"data":{"ids":["700001"],"errors":{"ada@shop.test":{"2010":"More"}}}}"#;
    sandbox.fail(Fault::answer(200, reply).on(Endpoint::UpdateContacts));
    let sync = Activation::new(names(), updating(&sandbox).limits(short()), MemoryStore::default());
    let report = sync.run(&three()).await.unwrap();
    assert_eq!(tally(&report), [0, 0, 1, 2, 0]);
}

/// Each switch away from its default, one at a time.
fn every_switch() -> Vec<Switches> {
    let default = Switches::default;
    vec![
        default(),
        default().request_error_status(200),
        default().unknown_list_status(200),
        default().creation_error_status(500),
        default().delete_missing_status(200),
        default().exists_code(2006),
        default().invalid_key(Scope::Request),
        default().unknown_field(Scope::Request),
        default().invalid_source(Scope::Request),
        default().duplicates(Duplicates::LastWins),
        default().email_match(EmailMatch::IgnoreCaseAndBlanks),
        default().email_match(EmailMatch::Exact),
        default().error_body(ErrorBody::Plain),
        default().error_body(ErrorBody::Message),
        default().too_large_body(ErrorBody::Envelope),
        default().read_delay(Duration::from_secs(3600)),
        default().deleted_counted(false),
        default().ids_in_order(false),
        default().empty_text_kept(true),
        default().key_names(true),
        default().missing_key_is_internal_id(true),
        default().email_unique_on_create(false),
        default().texts_checked(true),
        default().read_only_refused(true),
        default().dates_with_time(true),
        default().existing_members_counted(false),
        default().existing_joins_list(false),
        default().contact_ids_bare(true),
        default().deprecated_reads(false),
        default().limit_headers(false),
        default().string_id_nine_digits(true),
        default().replays_refused(true),
        default().getdata_codes_as_text(true),
        default().getdata_result_left_out(true),
        default().getdata_rows_in_order(false),
        default().empty_errors_shown(true),
        default().empty_objects_as_arrays(true),
        default().empty_arrays_as_objects(true),
        default().empty_arrays_as_objects(true).empty_errors_shown(true),
        default().found_id_as_number(true),
        default().long_texts_cut(true),
        default().bearer_error_body(ErrorBody::Plain),
        default().bearer_error_body(ErrorBody::Message),
        default().query_without_return(true),
    ]
}

#[tokio::test]
async fn sync_converges_whatever_the_answers_to_the_open_questions_are() {
    let row = |email: &str, first_name: &str, gender: &str, topics: Value, born: &str, points: i32| {
        person(email, first_name)
            .with("gender", gender)
            .with("topics", topics)
            .with("born", born)
            .with("points", points)
            .with("consent", true)
    };
    let first = vec![
        row("Ada@shop.test", "Ada", "female", vec!["1", "2"].into(), "1815-12-10", 1),
        row("bob@shop.test", "", "male", Value::Null, "", 2),
        row("cleo@shop.test", "Cleo", "", "two".into(), "2000-02-29", 3),
    ];
    let mut second = first.clone();
    second[0] = row("ada@shop.test", "", "", Value::Null, "1815-12-11", 1);
    second[2] = row("cleo@shop.test", "Cleo", "", "one".into(), "2000-02-29", -4);
    second.push(row("dora@shop.test", "Dora", "2", "1;2".into(), "1999-01-01", 5));
    for (number, switches) in every_switch().into_iter().enumerate() {
        for is_wsse in [false, true] {
            let (sandbox, list) = sandbox_with(switches.clone()).await;
            let topics = sandbox.add_field("Topics", "multichoice");
            sandbox.add_choice(topics, 1, "One");
            sandbox.add_choice(topics, 2, "Two");
            let mapping = names()
                .map("gender", FieldId::GENDER)
                .map("topics", "Topics")
                .map("born", FieldId::BIRTH_DATE)
                .map("consent", FieldId::OPT_IN)
                .column(Column::new("points", "Points").create(FieldKind::Number { digits_max: 24 }));
            let client = if is_wsse { wsse_client(&sandbox) } else { client(&sandbox) };
            let contacts = ContactsDestination::new(client).insert_into(LIST);
            let sync = Activation::new(mapping, contacts, MemoryStore::default());
            let told = |report: &Report| format!("switch {number}, wsse {is_wsse}: {report}");
            let report = sync.run(&first).await.unwrap();
            assert_eq!(tally(&report), [3, 0, 0, 0, 0], "{}", told(&report));
            assert_settled(&sync, &first, &sandbox).await;
            let report = sync.run(&second).await.unwrap();
            assert_eq!(tally(&report), [3, 0, 0, 0, 0], "{}", told(&report));
            assert_settled(&sync, &second, &sandbox).await;

            let points = sandbox.field("Points").unwrap().id();
            let ada = contact(&sandbox, "ada@shop.test");
            let none = |value: &Json| value.is_null() || *value == "";
            assert!(
                none(ada.value(FieldId::FIRST_NAME))
                    && none(ada.value(FieldId::GENDER))
                    && none(ada.value(topics)),
                "switch {number}"
            );
            assert_eq!(
                (ada.value(FieldId::BIRTH_DATE), ada.value(points)),
                (&json!("1815-12-11"), &json!("1"))
            );
            let cleo = contact(&sandbox, "cleo@shop.test");
            assert_eq!((cleo.value(topics), cleo.value(points)), (&json!([1]), &json!("-4")));
            let dora = contact(&sandbox, "dora@shop.test");
            assert_eq!(
                (dora.value(FieldId::GENDER), dora.value(FieldId::OPT_IN)),
                (&json!("2"), &json!("1"))
            );
            let expected = set(&["bob@shop.test", "cleo@shop.test", "dora@shop.test"]);
            assert_eq!(members(&sandbox, list), expected, "switch {number}");
        }
    }
}

#[tokio::test]
async fn run_that_is_stopped_loses_nothing() {
    let (sandbox, list) = sandbox().await;
    let people: Vec<_> = (0..10).map(|number| person(&format!("p{number}@shop.test"), "P")).collect();
    let contacts = inserting(&sandbox).limits(Limits::rows(2));
    let sync = Activation::new(names(), contacts, MemoryStore::default());
    let plan = sync.plan(&people).await.unwrap();
    let report = sync.apply_until(plan, std::future::ready(())).await.unwrap();
    assert!(report.stopped);
    assert!(sync.run(&people).await.unwrap().is_clean());
    assert_eq!(members(&sandbox, list).len(), 10);
    assert_settled(&sync, &people, &sandbox).await;
}

#[tokio::test]
async fn list_that_is_chosen_anew_is_not_for_those_in_doubt() {
    let (sandbox, list) = sandbox().await;
    let store = in_doubt(&sandbox).await;
    sandbox.remove_from_list(list, contact(&sandbox, "bob@shop.test").id());
    let other = sandbox.add_list("Others");
    let contacts = updating(&sandbox).insert_into("Others").limits(short());
    let mut people = three();
    people.push(person("dora@shop.test", "Dora"));
    let sync = Activation::new(names(), contacts, store);
    assert_eq!(tally(&sync.run(&people).await.unwrap()), [3, 0, 0, 0, 0]);
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]));
    assert_eq!(members(&sandbox, other), set(&["dora@shop.test"]));
    assert_settled(&sync, &people, &sandbox).await;
}

/// One fault at one request; then runs until one has nothing to do.
async fn one_fault(fault: Fault, endpoint: Endpoint, nth: u64) {
    let told = format!("{fault:?} at request {nth} of {endpoint}");
    let (sandbox, list) = sandbox().await;
    let mapping = || names().custom("level").on_create(FieldId::OPT_IN, true);
    let people: Vec<_> = three().into_iter().map(|person| person.with("level", "gold")).collect();
    let options = PlanOptions::default().rejected(RejectedPolicy::EveryRun);
    let contacts = inserting(&sandbox).limits(short());
    let sync = Activation::new(mapping(), contacts, MemoryStore::default()).options(options);
    // A first insert is lost, so that there is a call about the list, too.
    sandbox.fail(Fault::lose_answer().on(Endpoint::CreateContacts));
    sandbox.fail(fault.on(endpoint).nth(nth));
    let mut settled = false;
    for _ in 0..6 {
        let writes = sandbox.write_requests();
        if let Ok(report) = sync.run(&people).await {
            settled = report.counts.planned() == 0;
            assert!(!settled || sandbox.write_requests() == writes, "{told}: a write for nothing");
        }
        if settled {
            break;
        }
    }
    assert!(settled, "{told}: not settled");
    assert_eq!(sandbox.contacts().len(), 3, "{told}");
    assert_eq!(members(&sandbox, list), set(&["bob@shop.test", "cleo@shop.test"]), "{told}");
    let level = sandbox.field("level").unwrap().id();
    assert_eq!(sandbox.fields().iter().filter(|field| field.name() == "level").count(), 1, "{told}");
    for (email, first_name, opt_in) in [
        ("ada@shop.test", "Ada", Json::Null),
        ("bob@shop.test", "Bob", json!("1")),
        ("cleo@shop.test", "Cleo", json!("1")),
    ] {
        let contact = contact(&sandbox, email);
        let values =
            [contact.value(FieldId::FIRST_NAME), contact.value(level), contact.value(FieldId::OPT_IN)];
        assert_eq!(values, [&json!(first_name), &json!("gold"), &opt_in], "{told}");
    }
}

#[tokio::test]
async fn sync_converges_after_any_one_fault_at_any_request() {
    let faults = [
        Fault::lose_request(),
        Fault::lose_answer(),
        Fault::cut_body(),
        Fault::apply_half(),
        Fault::apply_late(Duration::from_millis(300)),
        Fault::answer_applied(502, "Bad Gateway"),
        Fault::answer(200, "no envelope"),
        Fault::status(401).times(2),
        Fault::status(403),
        Fault::status(503),
        Fault::refuse(400, 2005, "Invalid key field value"),
    ];
    let places = [
        (Endpoint::Settings, 1),
        (Endpoint::ListFields, 2),
        (Endpoint::CreateField, 1),
        (Endpoint::ListLists, 2),
        (Endpoint::UpdateContacts, 1),
        (Endpoint::UpdateContacts, 2),
        (Endpoint::AddToList, 1),
    ];
    let all = faults.iter().flat_map(|fault| places.map(|(endpoint, nth)| (fault.clone(), endpoint, nth)));
    futures::future::join_all(all.map(|(fault, endpoint, nth)| one_fault(fault, endpoint, nth))).await;
}
