use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use super::*;

const NONCE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn wsse(digest: &str, created: &str) -> Request {
    Request::new("GET", "/api/v2/settings").header("X-WSSE", header(digest, created))
}

fn header(digest: &str, created: &str) -> String {
    format!(
        r#"UsernameToken Username="sandbox001", PasswordDigest="{digest}", Nonce="{NONCE}",Created="{created}""#
    )
}

fn hash(created: &str) -> [u8; 20] {
    Sha1::digest(format!("{NONCE}{created}sandbox-wsse-secret")).into()
}

fn signed(created: &str) -> Request {
    wsse(&digest(created), created)
}

fn digest(created: &str) -> String {
    STANDARD.encode(hex::encode(hash(created)))
}

/// The same request as the user of v2 sends it when the clock has not been moved yet.
pub(super) fn on_v2(method: &str, path: &str) -> Request {
    let created = "2026-03-01T19:00:00Z";
    Request::new(method, format!("/api/v2/{path}")).header("X-WSSE", header(&digest(created), created))
}

fn outcome(sandbox: &Sandbox, request: &Request) -> (u16, String) {
    let response = whole(sandbox.handle(request));
    let reply: Value = serde_json::from_str(response.body()).unwrap();
    (response.status(), reply["replyText"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn wsse_passes_within_five_minutes_of_the_server_time() {
    let sandbox = Caller::new().sandbox;
    for (created, text) in [
        ("2026-03-01T19:00:00Z", "OK"),
        ("2026-03-01T19:05:00.000Z", "OK"),
        ("2026-03-01T18:55:00+0000", "OK"),
        ("2026-03-01T20:00:00", "OK"),
        ("2026-03-01T19:05:01Z", "Unauthorized Time frame is invalid"),
        ("2026-03-01T18:54:59Z", "Unauthorized Time frame is invalid"),
        ("2026-03-01T19:00:00", "Unauthorized Time frame is invalid"),
        ("now", "Unauthorized Time frame is invalid"),
    ] {
        let status = if text == "OK" { 200 } else { 401 };
        assert_eq!(outcome(&sandbox, &signed(created)), (status, text.to_owned()), "{created}");
    }
}

#[test]
fn wsse_digest_of_the_raw_bytes_is_refused() {
    let sandbox = Caller::new().sandbox;
    let created = "2026-03-01T19:00:00Z";
    let refused = (401, "Unauthorized".to_owned());
    assert_eq!(outcome(&sandbox, &wsse(&STANDARD.encode(hash(created)), created)), refused);
    assert_eq!(outcome(&sandbox, &Request::new("GET", "/api/v2/settings")), refused);
    let stranger = Request::new("GET", "/api/v2/settings").header("X-WSSE", "UsernameToken Username=\"eve\"");
    assert_eq!(outcome(&sandbox, &stranger), refused);
}

#[test]
fn wsse_header_passes_twice_unless_switched() {
    let request = signed("2026-03-01T19:00:00Z");
    let lenient = Caller::new().sandbox;
    assert_eq!([outcome(&lenient, &request).0, outcome(&lenient, &request).0], [200, 200]);
    let strict = Caller::switched(Switches::default().replays_refused(true)).sandbox;
    assert_eq!([outcome(&strict, &request).0, outcome(&strict, &request).0], [200, 401]);
}

#[test]
fn token_reply_is_what_oauth_asks_for() {
    let response = whole(Caller::new().sandbox.handle(&token_request()));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("X-Ratelimit-Limit"), None);
    let reply: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!((&reply["token_type"], &reply["expires_in"]), (&json!("Bearer"), &json!(3_600)));
}

#[test]
fn token_needs_the_secret_and_the_grant_type() {
    let sandbox = Caller::new().sandbox;
    for (request, status, error) in [
        (Request::new("POST", "/oauth2/token").body("grant_type=client_credentials"), 401, "invalid_client"),
        (
            token_request().header("x", "y").body("grant_type=password&username=a"),
            400,
            "unsupported_grant_type",
        ),
        (token_request().body(""), 400, "invalid_request"),
        (
            Request::new("POST", "/oauth2/token")
                .header("Authorization", format!("Basic {}", STANDARD.encode("sandbox-client:wrong")))
                .body("grant_type=client_credentials"),
            401,
            "invalid_client",
        ),
    ] {
        let response = whole(sandbox.handle(&request));
        let reply: Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!((response.status(), &reply["error"]), (status, &json!(error)));
    }
}

#[test]
fn token_expires() {
    let mut caller = Caller::with(Sandbox::builder().token_lifetime(Duration::from_secs(90)));
    caller.clock.advance(Duration::from_secs(89));
    caller.get("settings");
    caller.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.refusal("GET", "settings", &Value::Null), (401, 1));
    caller.log_in();
    caller.get("settings");
    caller.sandbox.expire_tokens();
    assert_eq!(caller.refusal("GET", "settings", &Value::Null), (401, 1));
}

#[test]
fn credentials_of_one_version_do_not_open_the_other() {
    let caller = Caller::new();
    let bearer =
        Request::new("GET", "/api/v2/settings").header("Authorization", format!("Bearer {}", caller.token));
    assert_eq!(outcome(&caller.sandbox, &bearer).0, 401);
    let mut on_v3 = signed("2026-03-01T19:00:00Z");
    on_v3.target = "/api/v3/settings".to_owned();
    assert_eq!(outcome(&caller.sandbox, &on_v3).0, 401);
}

#[test]
fn both_versions_see_the_same_account() {
    let caller = Caller::new();
    caller.data("POST", "contact", &json!({"3": "ada@shop.test"}));
    let response = whole(caller.sandbox.handle(&signed("2026-03-01T19:00:00Z")));
    let reply: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(reply["data"]["totalContacts"], "1");
    assert_eq!(reply, caller.call("GET", "settings/", &Value::Null).1);
}

#[test]
fn secrets_and_bodies_stay_out_of_debug() {
    let caller = Caller::new();
    let request = caller.request("PUT", "contact/3=ada@shop.test", &json!({"1": "Ada"}));
    let response = caller.response("GET", "settings", &Value::Null);
    caller.data("POST", "contact", &json!({"3": "ada@shop.test"}));
    let shown = format!("{request:?} {response:?} {:?} {:?}", caller.sandbox, caller.sandbox.journal());
    for hidden in ["ada", "Ada", "sandbox-token", "Vienna"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}
