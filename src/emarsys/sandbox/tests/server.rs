//! Over real sockets, with a client that knows nothing of the sandbox.

use reqwest::{Client, StatusCode};

use super::*;

async fn token(sandbox: &Sandbox) -> String {
    let response = Client::new()
        .post(format!("{}/oauth2/token", sandbox.url()))
        .basic_auth(sandbox.client_id(), Some(sandbox.client_secret()))
        .body("grant_type=client_credentials")
        .send()
        .await
        .unwrap();
    let reply: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    reply["access_token"].as_str().unwrap().to_owned()
}

async fn upsert(sandbox: &Sandbox, token: &str) -> reqwest::Result<reqwest::Response> {
    Client::new()
        .put(format!("{}/api/v3/contact/?create_if_not_exists=1", sandbox.url()))
        .bearer_auth(token)
        .body(json!({"contacts": [{"3": "ada@shop.test", "1": "Ada"}]}).to_string())
        .send()
        .await
}

#[tokio::test]
async fn server_answers_on_a_free_port() {
    let sandbox = Sandbox::start().await.unwrap();
    let response = upsert(&sandbox, &token(&sandbox).await).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(response.headers()["x-ratelimit-remaining"], "999");
    assert_eq!(response.headers().get_all("date").iter().count(), 1);
    let reply: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(reply, json!({"replyCode": 0, "replyText": "OK", "data": {"ids": [700_001]}}));
    assert_eq!(sandbox.contacts_with(FieldId::EMAIL, "ADA@shop.test")[0].value(FieldId::FIRST_NAME), "Ada");
}

#[tokio::test]
async fn every_verb_passes() {
    let sandbox = Sandbox::start().await.unwrap();
    let token = token(&sandbox).await;
    sandbox.add_table("shop", "orders", ["id"]);
    sandbox.add_record("shop", "orders", serde_json::Map::from_iter([("id".to_owned(), json!(1))]));
    let source = sandbox.add_source("crm");
    let client = Client::new();
    let patch = client.patch(format!("{}/api/rds/v1/connections/shop/tables/orders/records", sandbox.url()));
    let delete = client.delete(format!("{}/api/v3/source/{source}", sandbox.url()));
    for request in [patch.body(json!([{"id": 1, "sum": 5}]).to_string()), delete] {
        assert_eq!(request.bearer_auth(&token).send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(json!(sandbox.table("shop", "orders")), json!([{"id": 1, "sum": 5}]));
    assert_eq!(sandbox.sources(), []);
}

#[tokio::test]
async fn lost_answers_break_the_connection() {
    let sandbox = Sandbox::start().await.unwrap();
    let token = token(&sandbox).await;
    sandbox.fail(Fault::lose_request());
    assert!(upsert(&sandbox, &token).await.is_err());
    assert_eq!(sandbox.contacts(), []);
    sandbox.fail(Fault::lose_answer());
    assert!(upsert(&sandbox, &token).await.is_err());
    assert_eq!(sandbox.contacts().len(), 1);
}

#[tokio::test]
async fn cut_body_arrives_in_part() {
    let sandbox = Sandbox::start().await.unwrap();
    let token = token(&sandbox).await;
    sandbox.fail(Fault::cut_body());
    let mut response = upsert(&sandbox, &token).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.chunk().await.unwrap().is_some_and(|begin| begin.starts_with(b"{")));
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn delay_is_waited_for_on_the_clock_of_the_host() {
    let clock = TestHost::shared();
    let sandbox = Sandbox::builder().host(clock.clone()).start().await.unwrap();
    let token = token(&sandbox).await;
    sandbox.fail(Fault::delay(Duration::from_secs(3_000)));
    upsert(&sandbox, &token).await.unwrap();
    assert_eq!(clock.monotonic(), Duration::from_secs(3_000));
}

#[tokio::test]
async fn too_many_bytes_get_an_answer() {
    let sandbox = Sandbox::start().await.unwrap();
    let token = token(&sandbox).await;
    let response = Client::new()
        .put(format!("{}/api/v3/contact", sandbox.url()))
        .bearer_auth(token)
        .body(vec![b' '; 12_000_000])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn server_stops_with_its_last_handle() {
    let sandbox = Sandbox::start().await.unwrap();
    let clone = sandbox.clone();
    let url = format!("{}/healthcheck", sandbox.url());
    drop(sandbox);
    let client = Client::new();
    assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "OK");
    drop(clone);
    tokio::task::yield_now().await;
    assert!(client.get(&url).send().await.is_err());
}

#[tokio::test]
async fn taken_port_is_an_error() {
    let sandbox = Sandbox::start().await.unwrap();
    let port = sandbox.url().rsplit(':').next().unwrap().parse().unwrap();
    let error = Sandbox::builder().port(port).start().await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Io);
}

#[test]
fn no_runtime_is_an_error() {
    let error = futures::executor::block_on(Sandbox::start()).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handle_is_shared_by_threads() {
    let sandbox = Sandbox::start().await.unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let sandbox = sandbox.clone();
            std::thread::spawn(move || {
                sandbox.add_contact([(FieldId::EMAIL, json!(format!("{thread}@shop.test")))])
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(sandbox.contacts().len(), 4);
}
