//! What is sent, what is sent again, and what an error says about it.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use futures::future::{FutureExt, join_all};
use reqwest::header::AUTHORIZATION;
use serde_json::json;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;
use crate::{
    emarsys::{
        Contact, Credentials, FieldId, Limiter, Polling, RetryPolicy, Root, RowResult,
        settings::ReadSettings,
        transport::fake::{Answer as Reply, PausedHost, START, Script, date, serve},
    },
    host::{Deadline, Host},
};

const DONE: &str = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001"]}}"#;

fn ok(data: &Value) -> Reply {
    Reply::reply(200, json!({"replyCode": 0, "replyText": "OK", "data": data}).to_string())
}

fn refused(status: u16, code: i64) -> Reply {
    let text = "No contact found with the external id: 3 - ada@shop.test";
    Reply::reply(status, json!({"replyCode": code, "replyText": text, "data": ""}).to_string())
}

fn token() -> Reply {
    Reply::reply(200, r#"{"access_token":"the-token","token_type":"Bearer","expires_in":3600}"#)
}

struct Bench {
    client: Client,
    host: Arc<dyn Host>,
    script: Arc<Script>,
}

/// A WSSE client, which needs no token, and what it is answered.
fn wsse(answers: impl IntoIterator<Item = Reply>) -> Bench {
    with(Credentials::wsse("acme001", "the-secret"), PausedHost::shared(), RetryPolicy::default(), answers)
}

fn oauth(answers: impl IntoIterator<Item = Reply>) -> Bench {
    let credentials = Credentials::oauth2("the-client", "the-secret");
    with(credentials, PausedHost::shared(), RetryPolicy::default(), answers)
}

fn with(
    credentials: Credentials,
    host: Arc<dyn Host>,
    retry: RetryPolicy,
    answers: impl IntoIterator<Item = Reply>,
) -> Bench {
    let script = Script::new(host.clone(), answers);
    let client = Client::builder(credentials)
        .host(host.clone())
        .retry(retry)
        .transport(script.clone())
        .build()
        .unwrap();
    Bench { client, host, script }
}

impl Bench {
    async fn update(&self) -> Result<Vec<RowResult>> {
        update(&self.client).await
    }
}

async fn update(client: &Client) -> Result<Vec<RowResult>> {
    let contacts = [Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada")];
    client.at_most_once().contacts().update(FieldId::EMAIL, &contacts).await
}

/// The same write by a client that may repeat it.
async fn repeat(client: &Client) -> Result<Vec<RowResult>> {
    let contacts = [Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada")];
    client.contacts().update(FieldId::EMAIL, &contacts).await
}

fn assert_done(results: &[RowResult]) {
    assert!(matches!(results, [RowResult::Done]), "{results:?}");
}

/// Everything that somebody might print of an error.
fn printed(error: &Error) -> String {
    let mut text = format!("{error:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        text = format!("{text}\n{error}");
        cause = error.source();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn request_goes_to_the_third_version_with_a_token() {
    let bench = oauth([token(), Reply::reply(200, DONE)]);
    assert_done(&bench.update().await.unwrap());
    let sent = bench.script.sent();
    assert_eq!(sent[0].url, "https://auth.emarsys.net/oauth2/token");
    assert_eq!(sent[1].method, "PUT");
    assert_eq!(sent[1].url, "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=0");
    assert_eq!(sent[1].headers[AUTHORIZATION], "Bearer the-token");
    assert!(sent[1].headers[AUTHORIZATION].is_sensitive());
    assert_eq!(sent[1].headers[CONTENT_TYPE], "application/json");
    assert_eq!(sent[1].body, r#"{"key_id":"3","contacts":[{"3":"ada@shop.test","1":"Ada"}]}"#);
}

#[tokio::test(start_paused = true)]
async fn request_goes_to_the_second_version_with_a_signature() {
    let bench = wsse([Reply::reply(200, DONE)]);
    assert_done(&bench.update().await.unwrap());
    let sent = bench.script.sent();
    assert!(sent[0].url.starts_with("https://api.emarsys.net/api/v2/contact/"));
    let header = &sent[0].headers["x-wsse"];
    assert!(header.is_sensitive());
    let created = chrono::DateTime::from_timestamp(START.cast_signed(), 0).unwrap();
    let created = created.format("Created=\"%Y-%m-%dT%H:%M:%SZ\"").to_string();
    assert!(header.to_str().unwrap().ends_with(&created), "{header:?}");
    assert!(!sent[0].headers.contains_key(AUTHORIZATION));
}

#[tokio::test(start_paused = true)]
async fn base_url_moves_the_token_along_unless_it_has_its_own() {
    let urls = async |token_url: Option<&str>| {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [token(), Reply::reply(200, DONE)]);
        let mut builder = Client::builder(Credentials::oauth2("id", "secret"))
            .base_url("http://127.0.0.1:1234/emarsys/")
            .host(host)
            .transport(script.clone());
        if let Some(url) = token_url {
            builder = builder.token_url(url);
        }
        assert_done(&update(&builder.build().unwrap()).await.unwrap());
        script.sent().into_iter().map(|sent| sent.url).collect::<Vec<_>>()
    };
    let api = "http://127.0.0.1:1234/emarsys/api/v3/contact/?create_if_not_exists=0";
    assert_eq!(urls(None).await, ["http://127.0.0.1:1234/emarsys/oauth2/token", api]);
    assert_eq!(urls(Some("https://login.example/t")).await, ["https://login.example/t", api]);
}

#[test]
fn settings_that_cannot_be_used_are_refused_when_the_client_is_built() {
    let builder = || Client::builder(Credentials::oauth2("id", "secret"));
    for url in [
        "http://api.emarsys.net",
        "http://localhost.example",
        "ftp://127.0.0.1",
        "https://user@api.emarsys.net",
        "https://api.emarsys.net/?x=1",
        "api.emarsys.net",
        "",
    ] {
        let error = builder().base_url(url).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(builder().token_url(url).build().is_err(), "{url}");
    }
    for url in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "https://suite5.emarsys.net"] {
        assert!(builder().base_url(url).build().is_ok(), "{url}");
    }
    assert!(builder().timeout(Duration::ZERO).build().is_err());
    assert!(builder().retry(RetryPolicy::default().attempts_max(0)).build().is_err());
    assert!(Client::builder(Credentials::wsse("", "")).build().is_err());
    for url in ["https://api.emarsys.net/api/v3/", "https://api.emarsys.net/api"] {
        let error = builder().base_url(url).build().unwrap_err();
        assert!(error.to_string().contains("before `/api`"), "{error}");
    }
    for credentials in [Credentials::oauth2("id", "secret\n"), Credentials::wsse("acme001", " secret")] {
        let error = Client::builder(credentials).build().unwrap_err();
        assert!(error.to_string().contains("trim it"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn write_without_an_answer_is_not_repeated() {
    let answers = [
        Reply::Lost,
        Reply::TooLong,
        Reply::reply(500, r#"{"replyCode":2011,"replyText":"Database connection error","data":""}"#),
        Reply::reply(502, "<html>"),
        Reply::reply(503, r#"{"message":"overloaded"}"#),
        Reply::reply(504, ""),
        Reply::reply(200, r#"{"replyCode":0,"data":{"ids":["7"#),
        Reply::reply(200, r#"{"replyCode":0,"data":{"ids":[{}]}}"#),
        Reply::reply(200, r#"{"message":"hello"}"#),
    ];
    for answer in answers {
        let bench = wsse([answer.clone()]);
        let error = bench.update().await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::Unknown, "{answer:?}");
        assert!(error.to_string().starts_with("PUT contact: "), "{error}");
        assert_eq!(bench.script.sent().len(), 1, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idempotent_write_without_an_answer_is_repeated() {
    for answer in [Reply::Lost, Reply::reply(503, "overloaded"), Reply::reply(200, "<html>")] {
        let bench = wsse([answer.clone(), Reply::reply(200, DONE)]);
        assert_done(&repeat(&bench.client).await.unwrap());
        let sent = bench.script.sent();
        assert_eq!(sent.len(), 2, "{answer:?}");
        assert_eq!(sent[0].body, sent[1].body);
    }
}

#[tokio::test(start_paused = true)]
async fn write_stays_unknown_when_its_repetition_fails() {
    let bench = wsse([Reply::Lost, refused(400, 2006)]);
    let error = repeat(&bench.client).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Unknown));
    let bench = wsse([Reply::Lost]);
    let deadline = Deadline::after(&*bench.host, Duration::from_millis(100));
    let error = repeat(&bench.client.until(deadline)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Expired, Delivery::Unknown));
}

#[tokio::test(start_paused = true)]
async fn creation_without_an_answer_is_not_repeated() {
    let bench = wsse([Reply::Lost]);
    let contacts = [Contact::new(FieldId::EMAIL, "ada@shop.test")];
    let error = bench.client.contacts().create(FieldId::EMAIL, &contacts, None).await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_computed_is_asked_for_until_it_is_there() {
    let waiting = || refused(202, 10_001);
    let bench = wsse([waiting(), waiting(), ok(&json!({"id": 5120}))]);
    let polling = Polling::default().first(Duration::from_secs(10));
    let settings = bench.client.poll(&ReadSettings {}, polling).await.unwrap();
    assert_eq!((settings.id, bench.host.monotonic()), (Some(5120), Duration::from_secs(25)));
    let bench = wsse([waiting(), waiting()]);
    let error =
        bench.client.poll(&ReadSettings {}, polling.time_max(Duration::from_secs(20))).await.unwrap_err();
    assert!(error.cause::<Refusal>().unwrap().is_not_ready(), "{error}");
    assert_eq!(bench.script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn write_that_is_answered_with_202_is_not_sent_again() {
    #[derive(serde::Serialize)]
    struct Begin {}

    impl Request for Begin {
        type Reply = Value;
        const METHOD: Method = Method::Post;
        const ENDPOINT: &'static str = "source/create";
        const EFFECT: Effect = Effect::Write;
    }

    let bench = wsse([refused(202, 10_001)]);
    let error = bench.client.poll(&Begin {}, Polling::default()).await.unwrap_err();
    assert_eq!((error.delivery(), bench.script.sent().len()), (Delivery::Unknown, 1));
    let bench = wsse([refused(423, 10_003), Reply::reply(200, r#"{"replyCode":0,"data":{}}"#)]);
    bench.client.poll(&Begin {}, Polling::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn polling_ends_with_the_deadline_and_says_what_was_answered_last() {
    let bench = wsse([refused(202, 10_001), refused(202, 10_001)]);
    let deadline = Deadline::after(&*bench.host, Duration::from_secs(9));
    let polling = Polling::default().first(Duration::from_secs(8));
    let error = bench.client.until(deadline).poll(&ReadSettings {}, polling).await.unwrap_err();
    assert!(error.cause::<Refusal>().unwrap().is_not_ready(), "{error}");
    assert_eq!((bench.script.sent().len(), bench.host.monotonic()), (2, Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn write_that_surely_had_no_effect_is_repeated() {
    for answer in
        [Reply::NotConnected, refused(423, 10003), refused(429, 7003), Reply::reply(429, "slow down")]
    {
        let bench = wsse([answer.clone(), Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let sent = bench.script.sent();
        assert_eq!(sent.len(), 2, "{answer:?}");
        assert_eq!(sent[0].body, sent[1].body);
        assert_ne!(sent[0].headers["x-wsse"], sent[1].headers["x-wsse"]);
    }
}

#[tokio::test(start_paused = true)]
async fn read_is_repeated_with_growing_pauses_a_bounded_number_of_times() {
    let answers = [
        Reply::Lost,
        Reply::NotConnected,
        Reply::reply(503, "overloaded"),
        Reply::reply(200, "<html>"),
        Reply::reply(500, r#"{"replyCode":1,"data":""}"#),
    ];
    let bench = wsse(answers);
    let error = bench.client.settings().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::NotSent));
    let at: Vec<_> = bench.script.sent().iter().map(|sent| sent.at).collect();
    let pauses: Vec<_> = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert_eq!(pauses.len(), 4);
    for (pause, longest) in pauses.iter().zip([500, 1000, 2000, 4000]) {
        let longest = Duration::from_millis(longest);
        assert!(*pause >= longest / 2 && *pause <= longest + Duration::from_millis(2), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reply_that_is_too_long_is_not_asked_for_again() {
    let bench = wsse([Reply::TooLong]);
    let error = bench.client.settings().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::NotSent));
    assert!(error.to_string().contains("64 MiB"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn full_limit_is_waited_for_on_the_clock_of_the_server() {
    // This machine's clock is an hour ahead.
    let host = PausedHost::ahead_by(Duration::from_secs(3600));
    let full = refused(429, 7003).header("x-ratelimit-reset", START + 42).header("date", date(0));
    let answers = [full, Reply::reply(200, DONE)];
    let bench = with(Credentials::wsse("acme001", "s"), host, RetryPolicy::default(), answers);
    assert_done(&bench.update().await.unwrap());
    let waited = bench.script.sent()[1].at.as_secs_f64();
    assert!((42.0..45.0).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn full_limit_without_a_hint_is_waited_for_a_minute() {
    let bench = wsse([Reply::reply(429, "Too many requests."), Reply::reply(200, DONE)]);
    assert_done(&bench.update().await.unwrap());
    let waited = bench.script.sent()[1].at.as_secs_f64();
    assert!((60.0..63.0).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn limit_that_opens_too_late_is_an_error_at_once() {
    let retry = RetryPolicy::default().time_max(Duration::from_secs(30));
    let bench = with(Credentials::wsse("acme001", "s"), PausedHost::shared(), retry, [refused(429, 7003)]);
    let error = bench.update().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::RateLimited, Delivery::NotSent));
    assert_eq!(error.cause::<Refusal>().unwrap().code, Some(7003));
    assert_eq!(bench.host.monotonic(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline() {
    let bench = wsse([]);
    let deadline = Deadline::after(&*bench.host, Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let error = update(&bench.client.until(deadline)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Expired, Delivery::NotSent));
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_a_wait_for_the_limit_and_its_cause_is_kept() {
    let bench = wsse([refused(429, 7003)]);
    let deadline = Deadline::after(&*bench.host, Duration::from_secs(20));
    let error = update(&bench.client.until(deadline)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Expired, Delivery::NotSent));
    assert_eq!(error.cause::<Error>().unwrap().kind(), ErrorKind::RateLimited);
    assert_eq!(bench.host.monotonic(), Duration::from_secs(20));
    assert_eq!(bench.script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn deadline_holds_for_a_request_that_waits_for_the_first_reply() {
    let bench = wsse([]);
    let scout = bench.client.shared.limiter.admit(&*bench.host, None).await;
    let deadline = Deadline::after(&*bench.host, Duration::from_secs(5));
    let error = update(&bench.client.until(deadline)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired);
    drop(scout);
}

#[tokio::test(start_paused = true)]
async fn refused_token_is_renewed_once() {
    let bench = oauth([token(), Reply::reply(401, "expired"), token(), Reply::reply(200, DONE)]);
    assert_done(&bench.update().await.unwrap());
    let bench = oauth([token(), Reply::reply(401, ""), token(), refused(401, 1)]);
    let error = bench.update().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unauthorized, Delivery::Refused));
    assert_eq!(error.cause::<Refusal>().unwrap().status, 401);
    assert_eq!(bench.script.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn refused_signature_tells_how_wrong_the_clock_is() {
    let host = PausedHost::ahead_by(Duration::from_secs(400));
    let answer = refused(401, 1).header("date", date(0));
    let bench = with(Credentials::wsse("acme001", "s"), host, RetryPolicy::default(), [answer]);
    let error = bench.update().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("400 s ahead"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn token_server_that_cannot_be_reached_is_tried_again() {
    let bench = oauth([Reply::NotConnected, Reply::reply(503, ""), token(), Reply::reply(200, DONE)]);
    assert_done(&bench.update().await.unwrap());
    let bench = oauth([Reply::reply(401, "")]);
    let error = bench.update().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unauthorized, Delivery::NotSent));
}

#[tokio::test(start_paused = true)]
async fn missing_permission_is_named() {
    for answer in [Reply::reply(403, "Forbidden"), refused(403, 1)] {
        let bench = wsse([answer]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Forbidden, Delivery::Refused));
        assert!(error.to_string().contains("a permission (contact.update)"), "{error}");
        assert!(!error.to_string().contains("not understood"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_forgot_its_path_is_not_sent() {
    #[derive(serde::Serialize)]
    struct Forgetful;

    impl Request for Forgetful {
        type Reply = Value;
        const METHOD: Method = Method::Get;
        const ENDPOINT: &'static str = "contactlist/{id}/count";
        const EFFECT: Effect = Effect::Read;
    }

    let bench = wsse([]);
    let error = bench.client.send(&Forgetful).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
    assert!(error.to_string().starts_with("GET contactlist/{id}/count: its path has more names"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn request_that_says_nothing_has_an_empty_object_for_a_body() {
    #[derive(serde::Serialize)]
    struct Nothing;

    impl Request for Nothing {
        type Reply = Value;
        const METHOD: Method = Method::Post;
        const ENDPOINT: &'static str = "contact/query";
        const EFFECT: Effect = Effect::Read;
    }

    let bench = wsse([Reply::reply(200, r#"{"replyCode":0,"data":""}"#)]);
    bench.client.send(&Nothing).await.unwrap();
    assert_eq!(bench.script.sent()[0].body, "{}");
}

#[tokio::test(start_paused = true)]
async fn refusal_carries_endpoint_status_and_code() {
    for status in [200, 400] {
        let bench = wsse([refused(status, 2006)]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
        let refusal = error.cause::<Refusal>().unwrap();
        assert_eq!((refusal.endpoint.as_str(), refusal.status), ("PUT contact", status));
        assert_eq!(refusal.code, Some(2006));
    }
    let bench = wsse([Reply::reply(413, r#"{"message":"Request size limit exceeded"}"#)]);
    let error = bench.update().await.unwrap_err();
    assert_eq!((error.kind(), error.cause::<Refusal>().unwrap().code), (ErrorKind::Refused, None));
    assert!(error.to_string().contains("too large"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn later_part_of_a_split_call_fails_alone() {
    let contacts: Vec<_> =
        (0..2001).map(|row| Contact::new(FieldId::EMAIL, format!("{row}@shop.test"))).collect();
    let ids: Vec<_> = (0..1000).collect();
    let bench = wsse([ok(&json!({"ids": ids})), refused(400, 2006)]);
    let results = bench.client.contacts().update(FieldId::EMAIL, &contacts).await.unwrap();
    assert_eq!(results.len(), 2001);
    assert!(results[..1000].iter().all(|result| matches!(result, RowResult::Done)));
    let delivery = |row: usize| match &results[row] {
        RowResult::Failed(error) => error.delivery(),
        other => panic!("{other:?}"),
    };
    assert_eq!((delivery(1000), delivery(1999)), (Delivery::Refused, Delivery::Refused));
    assert_eq!(delivery(2000), Delivery::NotSent);
    assert_eq!(bench.script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_key_value_or_secret_is_in_an_error_or_a_debug() {
    let answers = [
        refused(400, 2008),
        refused(500, 1),
        refused(200, 2007),
        Reply::reply(200, r#"{"replyCode":0,"data":{"ids":"ada@shop.test"}}"#),
        Reply::reply(200, r#"{"replyCode":0,"data":{"ids":[],"errors":{"ada@shop.test":"Ada"}}}"#),
        Reply::reply(200, r#"{"replyCode":0,"data":{"ids":["ada@shop.test"]}}"#),
        Reply::reply(400, "ada@shop.test"),
        Reply::reply(200, "ada@shop.test"),
        Reply::Lost,
    ];
    for answer in answers {
        let bench = oauth([token(), answer.clone()]);
        let text = match bench.update().await {
            Ok(results) => format!("{results:?}"),
            Err(error) => printed(&error),
        };
        for secret in ["ada", "Ada", "the-secret", "the-token"] {
            assert!(!text.contains(secret), "{answer:?}: {text}");
        }
        let debug = format!("{:?} {:?}", bench.client, bench.client.contacts());
        assert!(!debug.contains("the-"), "{debug}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_fetched_once_for_requests_at_the_same_time() {
    let account = || ok(&json!({"id": 5120}));
    let bench = oauth([token(), account(), account(), account()]);
    let settings = join_all((0..3).map(|_| bench.client.settings())).await;
    assert!(settings.into_iter().all(|settings| settings.unwrap().id == Some(5120)));
    assert_eq!(bench.script.sent().len(), 4);
}

#[test]
fn calls_can_be_spawned() {
    fn assert_send<T: Send>(_: T) {}
    let client = Client::builder(Credentials::wsse("acme001", "s")).build().unwrap();
    let contacts = [Contact::new(FieldId::EMAIL, "a")];
    assert_send(client.contacts().update(FieldId::EMAIL, &contacts));
    assert_send(client.contacts().create(FieldId::EMAIL, &contacts, None));
    assert_send(client.contacts().check_ids(FieldId::EMAIL, &["a"]));
    assert_send(client.contacts().get_data(FieldId::EMAIL, &["a"], &[]));
    assert_send(client.lists().add(super::super::ListId::new(1), FieldId::EMAIL, &["a"]));
    assert_send(client.fields().list());
}

#[test]
fn path_stays_below_the_base_url() {
    let client = Client::builder(Credentials::wsse("acme001", "s")).build().unwrap();
    let url = |path: &str| client.shared.url(Root::Core, path).map(|url| url.to_string());
    assert_eq!(url("/field").unwrap(), "https://api.emarsys.net/api/v2/field");
    assert_eq!(
        url("contactlist/7/contactIds?$top=10").unwrap(),
        "https://api.emarsys.net/api/v2/contactlist/7/contactIds?$top=10"
    );
    assert!(url("../../../elsewhere").is_err());
}

/// Keeps every event as text.
#[derive(Default)]
struct Log(Mutex<String>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Writer<'a>(&'a mut String);

        impl Visit for Writer<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }

        let mut log = self.0.lock().unwrap();
        log.push('\n');
        event.record(&mut Writer(&mut log));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn every_attempt_is_logged_without_key_value_and_secret() {
    // As long as there is one subscriber alone, tracing asks whichever thread comes first whether anybody listens,
    // and another test's thread would answer no for all.
    let _second = tracing::Dispatch::new(Arc::new(Log::default()));
    let log = Arc::new(Log::default());
    tracing::subscriber::with_default(log.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let data = json!({"ids": [], "errors": {"ada@shop.test": {"2007": "Ada field id: 1"}}});
            let bench = oauth([token(), refused(429, 7003), ok(&data)]);
            assert!(bench.update().await.is_ok());
        });
    });
    let log = log.0.lock().unwrap();
    for expected in
        ["PUT contact", "status=429", "reply_code=7003", "attempt=2", "duration_ms", "reply_code=0"]
    {
        assert!(log.contains(expected), "{expected} in {log}");
    }
    for secret in ["ada", "Ada", "the-secret", "the-token", "the-client"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_with_one_limiter_wait_for_each_other() {
    let limiter = Limiter::new();
    let bench = wsse([]);
    let other = Client::builder(Credentials::wsse("acme001", "s"))
        .host(bench.host.clone())
        .limiter(limiter.clone())
        .transport(bench.script.clone())
        .build()
        .unwrap();
    let _scout = limiter.admit(&*bench.host, None).await.unwrap();
    assert!(update(&other).now_or_never().is_none());
    assert!(bench.script.sent().is_empty());
}

#[tokio::test]
async fn client_as_it_is_built_talks_to_a_server() {
    let body = r#"{"replyCode":0,"replyText":"OK","data":{"id":5120}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let client = Client::builder(Credentials::wsse("acme001", "s"))
        .base_url(serve(answer.into_bytes()))
        .build()
        .unwrap();
    assert_eq!(client.settings().await.unwrap().id, Some(5120));
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let client =
        Client::builder(Credentials::wsse("acme001", "s")).base_url(serve(answer.to_vec())).build().unwrap();
    let error = update(&client).await.unwrap_err();
    assert_eq!(error.cause::<Refusal>().unwrap().status, 307);
    assert!(error.to_string().contains("base URL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn dropped_call_gives_its_place_back() {
    let bench = wsse([Reply::reply(200, DONE)]);
    let scout = bench.client.shared.limiter.admit(&*bench.host, None).await.unwrap();
    assert!(bench.update().now_or_never().is_none());
    drop(scout);
    assert_done(&bench.update().await.unwrap());
}
