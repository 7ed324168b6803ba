//! Whatever goes wrong at Emarsys is an error that says what is known, and nothing of people.

use std::{error::Error as _, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;

use reverse_etl::{
    Delivery, Error, ErrorKind,
    emarsys::{
        RetryPolicy,
        sandbox::{Endpoint, Fault},
    },
};

use super::{Call, PEOPLE, VERSIONS, World, calls};
use crate::watch;

/// Everything that somebody might print of an error.
fn printed(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}\n{error} {error:?}");
        cause = error.source();
    }
    text
}

fn assert_silent(text: &str, what: &str) {
    assert!(!watch::is_told(text), "{what}: {text}");
    for person in PEOPLE {
        assert!(!text.to_lowercase().contains(&person.to_lowercase()), "{what}: {text}");
    }
}

/// What can go wrong with a request, and the errors that may come of it.
fn faults() -> Vec<(&'static str, Fault, Vec<ErrorKind>)> {
    use ErrorKind::{Forbidden, NoAnswer, RateLimited, Refused, Server, Unauthorized, Undecodable};

    let quoting = r#"{"replyCode":2007,"replyText":"ada@shop.test: Lovelace is no value for field id: 2","data":{"ada@shop.test":"Lovelace"}}"#;
    let unfit = r#"{"replyCode":0,"replyText":"OK","data":{"ada@shop.test":{"Lovelace":"Byron"}}}"#;
    vec![
        ("500", Fault::status(500), vec![Server]),
        ("502 as text", Fault::answer(502, "Lovelace not available"), vec![Server]),
        ("503 of a gateway", Fault::answer(503, r#"{"message":"ada@shop.test"}"#), vec![Server]),
        ("403", Fault::status(403), vec![Forbidden]),
        ("401", Fault::status(401), vec![Unauthorized]),
        ("423", Fault::refuse(423, 10_003, "ada@shop.test is running a segment"), vec![Server]),
        ("429", Fault::answer(429, "slow down, ada@shop.test"), vec![RateLimited]),
        ("a refusal that quotes", Fault::answer(400, quoting), vec![Refused]),
        ("a refusal with status 200", Fault::answer(200, quoting), vec![Refused]),
        ("413", Fault::answer(413, r#"{"message":"Request size limit exceeded"}"#), vec![Refused]),
        ("a web page", Fault::answer(200, "<html>Lovelace</html>"), vec![Undecodable]),
        ("an empty body", Fault::answer(200, ""), vec![Undecodable]),
        (
            "half an envelope",
            Fault::answer(200, r#"{"replyCode":0,"data":{"ids":["ada@sh"#),
            vec![Undecodable],
        ),
        ("data of another kind", Fault::answer(200, unfit), vec![Undecodable]),
        ("a cut body", Fault::cut_body(), vec![NoAnswer]),
        ("a lost answer", Fault::lose_answer(), vec![NoAnswer]),
        ("a lost request", Fault::lose_request(), vec![NoAnswer]),
        ("a late answer", Fault::delay(Duration::from_secs(100)), vec![NoAnswer]),
    ]
}

async fn meet(
    call: &Call,
    version: reverse_etl::emarsys::Version,
    fault: &Fault,
) -> (World, Result<(), Error>) {
    let world = World::new(version, RetryPolicy::default().attempts_max(1)).await;
    prepare(&world, call).await;
    world.sandbox.clear_requests();
    // The token comes from another host.
    world.client.settings().await.unwrap();
    world.sandbox.clear_requests();
    world.sandbox.fail(fault.clone().always());
    // What a call asserts of its result is nothing that another reply has to keep.
    let outcome = AssertUnwindSafe((call.run)(&world)).catch_unwind().await;
    let outcome = outcome
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Config, "the call went well, with another result")));
    (world, outcome)
}

/// Some calls need what earlier ones made.
async fn prepare(world: &World, call: &Call) {
    if matches!(call.method, "Table::query" | "Table::patch") {
        let insert = calls::all().into_iter().find(|call| call.method == "Table::insert").unwrap();
        (insert.run)(world).await.unwrap();
    }
}

#[tokio::test]
async fn every_failure_of_every_call_is_a_typed_error_without_people() {
    let mut wrong = Vec::new();
    for version in VERSIONS {
        for call in calls::all() {
            for (name, fault, kinds) in faults() {
                let (world, outcome) = meet(&call, version, &fault).await;
                let what = format!("{} and {name} in {version:?}", call.method);
                if let Err(error) = &outcome {
                    assert_silent(&printed(error), &what);
                }
                match outcome {
                    _ if tolerates(call.method, name) => {}
                    Ok(()) => wrong.push(format!("{what}: it went well")),
                    Err(error) => {
                        if !kinds.contains(&error.kind()) {
                            wrong.push(format!("{what}: {error:?}"));
                        }
                        if !names_its_endpoint(&error, &world) {
                            wrong.push(format!("{what}: {error} does not name its endpoint"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn names_its_endpoint(error: &Error, world: &World) -> bool {
    // Where tokens are bought is an address of its own.
    if error.to_string().starts_with("POST token: ") {
        return true;
    }
    let requests = world.sandbox.requests();
    let mut paths =
        requests.keys().filter_map(|endpoint| endpoint.as_str().split_once(' ')).map(|(_, path)| path);
    paths.any(|path| error.to_string().contains(path))
}

/// Replies that some calls have to take: those whose data is not looked at or optional, or whose success has any body.
fn tolerates(method: &str, fault: &str) -> bool {
    const ANY_DATA: [&str; 18] = [
        "Client::settings",
        "Contacts::delete",
        "Contacts::merge",
        "Contacts::unsubscribe",
        "Events::trigger",
        "Events::trigger_one",
        "Fields::delete",
        "Fields::choices_of",
        "Lists::add",
        "Lists::delete",
        "Lists::remove",
        "Lists::rename",
        "Lists::replace",
        "Segments::contact_criteria",
        "Segments::delete",
        "Segments::set_contact_criteria",
        "Sources::create",
        "Sources::delete",
    ];
    match fault {
        "data of another kind" => ANY_DATA.contains(&method) || method.starts_with("Table::"),
        "an empty body" => method.starts_with("Table::"),
        _ => false,
    }
}

#[tokio::test]
async fn lost_answer_of_a_write_is_unknown_and_of_a_read_is_not() {
    for call in calls::all() {
        let (world, outcome) = meet(&call, VERSIONS[1], &Fault::lose_answer()).await;
        let error = outcome.unwrap_err();
        let requests = world.sandbox.requests();
        let writes = requests.keys().any(|endpoint| changes(*endpoint));
        let expected = if writes { Delivery::Unknown } else { Delivery::NotSent };
        assert_eq!(error.delivery(), expected, "{}", call.method);
        assert_eq!(requests.values().sum::<u64>(), 1, "{}", call.method);
    }
}

/// Whether a call may have changed something, be it only a run that was started or an event that was triggered.
fn changes(endpoint: Endpoint) -> bool {
    let name = endpoint.as_str();
    let reads = ["POST contact/checkids", "POST contact/getdata", "POST contact/getcontacthistory"];
    (!name.starts_with("GET ") && !reads.contains(&name)) || name == "GET filter/{id}/delete"
}

#[tokio::test]
async fn calls_that_may_be_repeated_survive_a_failure_and_others_say_so() {
    for call in calls::all() {
        let world = World::new(VERSIONS[0], RetryPolicy::default()).await;
        prepare(&world, &call).await;
        world.sandbox.clear_requests();
        world.sandbox.fail(Fault::lose_answer());
        let outcome = (call.run)(&world).await;
        let requests = world.sandbox.requests();
        match outcome {
            Ok(()) => assert!(requests.values().sum::<u64>() >= 2, "{}: nobody repeated it", call.method),
            Err(error) => {
                assert_eq!(error.delivery(), Delivery::Unknown, "{}", call.method);
                assert_eq!(requests.values().sum::<u64>(), 1, "{}: repeated in vain", call.method);
            }
        }
    }
}
