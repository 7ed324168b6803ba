use super::*;

fn headers(response: &Response) -> [u64; 3] {
    ["X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"]
        .map(|name| response.header(name).unwrap().parse().unwrap())
}

#[test]
fn every_reply_has_the_headers_of_the_real_one() {
    let caller = Caller::new();
    let response = caller.response("GET", "settings", &Value::Null);
    assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("Date"), Some("Sun, 01 Mar 2026 19:00:00 GMT"));
    assert!(response.header("X-Suite-Response-Time").unwrap().parse::<u64>().is_ok());
    let (uuid, digits) = response.header("X-Emarsys-Request-Id").unwrap().split_once('#').unwrap();
    assert_eq!((uuid.len(), digits.parse::<u64>().is_ok()), (36, true));
    assert_eq!(headers(&response), [1_000, 999, START + 60]);
    assert!(
        response.body().starts_with(r#"{"replyCode":0,"replyText":"OK","data":{"#),
        "{}",
        response.body()
    );
}

#[test]
fn window_begins_with_its_first_request_and_lasts_a_minute() {
    let caller = Caller::with(Sandbox::builder().rate_limit(2));
    caller.clock.advance(Duration::from_millis(500));
    let ask = || caller.response("GET", "settings", &Value::Null);
    assert_eq!(headers(&ask()), [2, 1, START + 60]);
    caller.clock.advance(Duration::from_secs(59));
    assert_eq!(headers(&ask()), [2, 0, START + 60]);
    let refused = ask();
    assert_eq!((refused.status(), headers(&refused)), (429, [2, 0, START + 60]));
    let reply: Value = serde_json::from_str(refused.body()).unwrap();
    assert_eq!(reply["replyCode"], 7003);
    // The reset is a full second: from then on a request passes.
    caller.clock.advance(Duration::from_millis(500));
    let fresh = ask();
    assert_eq!((fresh.status(), headers(&fresh)), (200, [2, 1, START + 120]));
}

#[test]
fn request_over_the_limit_changes_nothing() {
    let caller = Caller::with(Sandbox::builder().rate_limit(1));
    caller.get("settings");
    assert_eq!(caller.refusal("POST", "contact", &json!({"3": "ada@shop.test"})), (429, 7003));
    assert_eq!(caller.sandbox.contacts(), []);
}

#[test]
fn every_api_user_has_a_limit_of_its_own_and_tokens_cost_nothing() {
    let mut caller = Caller::with(Sandbox::builder().rate_limit(1));
    caller.get("settings");
    caller.log_in();
    assert_eq!(caller.response("GET", "settings", &Value::Null).status(), 429);
    let other =
        Request::new("GET", "/api/v2/settings").header("X-WSSE", "UsernameToken Username=\"sandbox001\"");
    assert_eq!(whole(caller.sandbox.handle(&other)).status(), 401);
}

#[test]
fn refused_token_counts_against_its_user() {
    let caller = Caller::with(Sandbox::builder().rate_limit(5));
    caller.sandbox.expire_tokens();
    let response = caller.response("GET", "settings", &Value::Null);
    assert_eq!((response.status(), headers(&response)), (401, [5, 4, START + 60]));
}

#[test]
fn limit_headers_can_be_missing() {
    let caller = Caller::switched(Switches::default().limit_headers(false));
    assert_eq!(caller.response("GET", "settings", &Value::Null).header("X-Ratelimit-Limit"), None);
}

#[test]
fn too_many_bytes_are_413_and_change_nothing() {
    for (body, plain) in [(ErrorBody::Plain, true), (ErrorBody::Message, false), (ErrorBody::Envelope, false)]
    {
        let caller = Caller::switched(Switches::default().too_large_body(body));
        let text = |bytes: usize| json!({"3": "ada@shop.test", "8817": "x".repeat(bytes)});
        let response = caller.response("PUT", "contact/?create_if_not_exists=1", &text(8_000_000));
        assert_eq!(response.status(), 413);
        assert_eq!(serde_json::from_str::<Value>(response.body()).is_err(), plain);
        assert_eq!(caller.sandbox.contacts(), []);
        // A create may be larger.
        caller.data("POST", "contact", &text(8_000_000));
    }
}

#[test]
fn gateway_errors_come_in_three_shapes() {
    for (body, expected) in [
        (ErrorBody::Envelope, r#""replyCode":7003"#),
        (ErrorBody::Plain, "Too many requests"),
        (ErrorBody::Message, r#"{"message":"Too many requests"#),
    ] {
        let caller = Caller::switched(Switches::default().error_body(body));
        caller.sandbox.exhaust_limit();
        let response = caller.response("GET", "settings", &Value::Null);
        assert_eq!(response.status(), 429);
        assert!(response.body().contains(expected), "{}", response.body());
    }
}

#[test]
fn bad_token_is_refused_in_three_shapes() {
    for (body, expected) in [
        (ErrorBody::Envelope, r#"{"replyCode":1,"replyText":"Unauthorized","data":""}"#),
        (ErrorBody::Plain, "Unauthorized"),
        (ErrorBody::Message, r#"{"message":"Unauthorized"}"#),
    ] {
        let caller = Caller::switched(Switches::default().bearer_error_body(body));
        caller.sandbox.expire_tokens();
        let response = caller.response("GET", "settings", &Value::Null);
        assert_eq!((response.status(), response.body()), (401, expected));
    }
}
