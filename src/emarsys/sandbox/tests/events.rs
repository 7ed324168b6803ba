use super::*;
use crate::emarsys::EventId;

#[test]
fn event_is_triggered_for_one_contact() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let event = caller.sandbox.add_event("Order shipped");
    let body = json!({"key_id": "3", "external_id": "ADA@shop.test", "data": {"order": 4_711}});
    assert_eq!(caller.data("POST", &format!("event/{event}/trigger"), &body), json!({}));
    let bare = json!({"key_id": "id", "external_id": ada});
    caller.data("POST", &format!("event/{event}/trigger/"), &bare);
    let triggers = caller.sandbox.triggers();
    let shown: Vec<_> = triggers.iter().map(|one| (one.event(), one.contact(), one.data().clone())).collect();
    assert_eq!(shown, [(event, ada, json!({"order": 4_711})), (event, ada, Value::Null)]);
    assert!(!format!("{triggers:?}").contains("4711"));
    assert_eq!(caller.sandbox.requests_to(Endpoint::TriggerEvent), 2);
    assert_eq!(caller.sandbox.write_requests(), 2);
}

#[test]
fn event_of_many_contacts_has_errors_by_row() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let path = format!("event/{}/trigger", caller.sandbox.add_event("Order shipped"));
    let send = |contacts: Value| caller.data("POST", &path, &json!({"key_id": 3, "contacts": contacts}));
    assert_eq!(send(json!([{"external_id": "ada@shop.test", "data": {}}])), json!({"errors": []}));
    let data = send(json!([
        {"external_id": "zoe@shop.test"},
        {"external_id": "ada@shop.test", "data": [1]},
        {},
    ]));
    assert_eq!(
        data["errors"]["zoe@shop.test"],
        json!({"2008": "No contact found with the external id: 3 - zoe@shop.test"})
    );
    assert!(data["errors"]["ada@shop.test"]["5011"].is_string());
    assert!(data["errors"][""]["2005"].is_string());
    assert_eq!(caller.sandbox.triggers().len(), 1);
}

#[test]
fn event_is_refused_with_the_code_of_what_is_wrong() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let event = caller.sandbox.add_event("Order shipped");
    let with = |member: &str, value: Value| {
        let mut body = json!({"key_id": "3", "external_id": "ada@shop.test"});
        body[member] = value;
        body
    };
    for (id, body, code) in [
        (EventId::new(99), with("data", json!({})), 5001),
        (event, with("data", json!({"x": "y".repeat(100_000)})), 5008),
        (event, with("data", json!("{")), 5009),
        (event, with("event_time", json!("soon")), 5010),
        (event, with("data", json!(["x"])), 5011),
        (event, with("key_id", json!("999")), 2004),
        (event, with("external_id", json!("zoe@shop.test")), 2008),
        (event, with("external_id", Value::Null), 2005),
        (event, with("contacts", json!("ada@shop.test")), 1001),
    ] {
        assert_eq!(caller.refusal("POST", &format!("event/{id}/trigger"), &body), (400, code));
    }
    assert_eq!(caller.sandbox.triggers(), []);
    for time in ["2026-03-01T20:00:00Z", "2026-03-01 20:00:00", "2026-03-01"] {
        caller.data("POST", &format!("event/{event}/trigger"), &with("event_time", json!(time)));
    }
}
