use super::*;

const UPSERT: &str = "contact/?create_if_not_exists=1";

fn ada() -> Value {
    json!({"contacts": [{"3": "ada@shop.test"}]})
}

fn put(caller: &Caller) -> Reaction {
    caller.react("PUT", UPSERT, &ada())
}

#[test]
fn refused_request_takes_no_effect() {
    let caller = Caller::new();
    for (fault, status, text) in [
        (Fault::status(503), 503, "The system is overloaded"),
        (Fault::status(403), 403, "Forbidden"),
        (Fault::refuse(500, 2011, "Database connection error"), 500, "2011"),
        (Fault::answer(200, "<html>maintenance</html>"), 200, "<html>"),
    ] {
        caller.sandbox.fail(fault.on(Endpoint::UpdateContacts));
        let response = whole(put(&caller));
        assert_eq!(response.status(), status);
        assert!(response.body().contains(text), "{}", response.body());
    }
    assert_eq!(caller.sandbox.contacts(), []);
    assert_eq!(whole(put(&caller)).status(), 200);
}

#[test]
fn lost_request_leaves_no_trace_but_in_the_counts() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::lose_request());
    assert!(matches!(put(&caller).answer, Answer::Lost));
    assert_eq!(caller.sandbox.contacts(), []);
    assert_eq!(caller.sandbox.write_requests(), 1);
    assert_eq!(caller.sandbox.journal()[0].status(), None);
}

#[test]
fn lost_answer_was_applied() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::lose_answer());
    assert!(matches!(put(&caller).answer, Answer::Lost));
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn late_request_takes_effect_when_its_time_has_come() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::apply_late(Duration::from_secs(30)));
    assert!(matches!(put(&caller).answer, Answer::Lost));
    caller.clock.advance(Duration::from_secs(29));
    assert_eq!(caller.sandbox.contacts(), []);
    caller.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn late_requests_take_effect_before_the_request_that_comes_after_their_time() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let name = |name: &str| caller.react("PUT", "contact", &json!({"3": "ada@shop.test", "1": name}));
    caller.sandbox.fail(Fault::apply_late(Duration::from_secs(20)));
    caller.sandbox.fail(Fault::apply_late(Duration::from_secs(10)));
    name("second");
    name("first");
    caller.clock.advance(Duration::from_secs(10));
    caller.get("settings");
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "first");
    caller.clock.advance(Duration::from_secs(60));
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "second");
    name("third");
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "third");
}

#[test]
fn time_that_never_comes_is_no_overflow() {
    let caller = Caller::with(Sandbox::builder().token_lifetime(Duration::MAX));
    caller.sandbox.fail(Fault::apply_late(Duration::MAX));
    assert!(matches!(put(&caller).answer, Answer::Lost));
    caller.clock.advance(Duration::from_secs(1 << 35));
    assert_eq!(caller.get("settings")["totalContacts"], "0");
}

#[test]
fn late_request_without_credentials_never_takes_effect() {
    let caller = Caller::new();
    caller.sandbox.expire_tokens();
    caller.sandbox.fail(Fault::apply_late(Duration::from_secs(1)));
    put(&caller);
    caller.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.sandbox.contacts(), []);
}

#[test]
fn slow_answer_was_applied_at_once() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::delay(Duration::from_secs(40)));
    let reaction = put(&caller);
    assert_eq!(reaction.delay, Duration::from_secs(40));
    assert_eq!(whole(reaction).status(), 200);
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn cut_and_disguised_answers_were_applied() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::cut_body());
    assert!(matches!(put(&caller).answer, Answer::Cut(response) if response.status() == 200));
    assert_eq!(caller.sandbox.contacts().len(), 1);
    caller.sandbox.fail(Fault::answer_applied(504, "Gateway Timeout"));
    let body = json!({"3": "ada@shop.test", "1": "Ada"});
    assert_eq!(caller.response("PUT", "contact", &body).status(), 504);
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "Ada");
}

#[test]
fn race_says_that_somebody_exists_who_does_not() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::race().times(2));
    for (method, path) in [("PUT", UPSERT), ("POST", "contact")] {
        let data = caller.data(method, path, &ada());
        assert!(data["errors"]["ada@shop.test"]["2009"].is_string(), "{data}");
    }
    assert_eq!(caller.sandbox.contacts(), []);
}

#[test]
fn overtaken_creation_meets_a_contact_that_exists() {
    let caller = Caller::new();
    let body = json!({"contacts": [{"3": "ada@shop.test", "1": "Ada"}]});
    caller.sandbox.fail(Fault::overtake());
    let data = caller.data("POST", "contact", &body);
    assert!(data["errors"]["ada@shop.test"]["2009"].is_string(), "{data}");
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), &Value::Null);
    caller.sandbox.delete_contact(ContactId::new(700_001));
    caller.sandbox.fail(Fault::overtake());
    assert_eq!(caller.data("PUT", UPSERT, &body), json!({"ids": ["700002"]}));
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "Ada");
}

#[test]
fn contact_can_vanish_before_its_update() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    caller.sandbox.fail(Fault::vanish().on(Endpoint::UpdateContacts));
    let data = caller.data("PUT", "contact", &ada());
    assert!(data["errors"]["ada@shop.test"]["2008"].is_string(), "{data}");
    assert_eq!(caller.sandbox.contacts(), []);
}

#[test]
fn half_of_a_batch_can_take_effect() {
    let caller = Caller::new();
    let emails: Vec<String> = (0..4).map(|number| format!("{number}@shop.test")).collect();
    let rows: Vec<Value> = emails.iter().map(|email| json!({"3": email})).collect();
    caller.sandbox.fail(Fault::apply_half().times(2));
    assert!(matches!(caller.react("PUT", UPSERT, &json!({"contacts": rows})).answer, Answer::Lost));
    assert_eq!(caller.sandbox.contacts().len(), 2);
    let list = caller.sandbox.add_list("Customers");
    let body = json!({"external_ids": &emails[..2]});
    assert!(matches!(caller.react("POST", &format!("contactlist/{list}/add"), &body).answer, Answer::Lost));
    assert_eq!(caller.sandbox.lists()[0].members().len(), 1);
}

#[test]
fn created_contact_can_miss_its_list() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    caller.sandbox.fail(Fault::skip_list());
    let body = json!({"contact_list_id": list, "contacts": [{"3": "ada@shop.test"}]});
    assert_eq!(caller.data("POST", "contact", &body), json!({"ids": [700_001]}));
    assert!(caller.sandbox.contacts()[0].lists().is_empty());
}

#[test]
fn limit_and_tokens_can_end_at_a_request() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::exhaust_limit().on(Endpoint::UpdateContacts));
    caller.get("settings");
    assert_eq!(whole(put(&caller)).status(), 429);
    assert_eq!(caller.response("GET", "settings", &Value::Null).status(), 429);
    caller.clock.advance(Duration::from_secs(60));
    caller.get("settings");
    caller.sandbox.fail(Fault::expire_tokens());
    assert_eq!(whole(put(&caller)).status(), 401);
}

#[test]
fn limit_can_end_at_a_request_for_a_token() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::exhaust_limit().on(Endpoint::Token));
    assert_eq!(whole(caller.sandbox.handle(&token_request())).status(), 200);
    assert_eq!(caller.response("GET", "settings", &Value::Null).status(), 429);
}

#[test]
fn token_request_can_fail_too() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::status(503).on(Endpoint::Token));
    caller.get("settings");
    assert_eq!(whole(caller.sandbox.handle(&token_request())).status(), 503);
}

#[test]
fn faults_can_be_taken_back() {
    let caller = Caller::new();
    caller.sandbox.fail(Fault::status(503).always());
    assert_eq!(whole(put(&caller)).status(), 503);
    caller.sandbox.clear_faults();
    assert_eq!(whole(put(&caller)).status(), 200);
}

#[test]
fn requests_are_counted_and_writes_kept_as_sent() {
    let caller = Caller::new();
    put(&caller);
    caller.get("field");
    caller.data("POST", "contact/checkids", &json!({"external_ids": ["ada@shop.test"]}));
    let counts: Vec<(String, u64)> = caller
        .sandbox
        .requests()
        .into_iter()
        .map(|(endpoint, count)| (endpoint.to_string(), count))
        .collect();
    let expected =
        [("POST oauth2/token", 1), ("GET field", 1), ("PUT contact", 1), ("POST contact/checkids", 1)];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(
        (caller.sandbox.write_requests(), caller.sandbox.requests_to(Endpoint::UpdateContacts)),
        (1, 1)
    );
    let journal = caller.sandbox.journal();
    assert_eq!(journal.len(), 1);
    assert_eq!((journal[0].endpoint(), journal[0].status()), (Endpoint::UpdateContacts, Some(200)));
    assert_eq!((journal[0].target(), journal[0].json()), ("/api/v3/contact/?create_if_not_exists=1", ada()));
    caller.sandbox.clear_requests();
    assert_eq!((caller.sandbox.requests().len(), caller.sandbox.journal().len()), (0, 0));
}

#[test]
fn counts_go_on_without_a_journal() {
    let caller = Caller::with(Sandbox::builder().without_journal());
    put(&caller);
    assert_eq!((caller.sandbox.write_requests(), caller.sandbox.journal().len()), (1, 0));
}
