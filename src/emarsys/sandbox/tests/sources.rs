use super::*;

#[test]
fn sources_are_created_listed_and_deleted() {
    let caller = Caller::new();
    assert_eq!(caller.get("source"), json!([]));
    let crm = caller.sandbox.add_source("crm");
    caller.data("POST", "source/create", &json!({"name": "shop"}));
    let listed =
        json!([{"id": crm.to_string(), "name": "crm"}, {"id": (crm.get() + 1).to_string(), "name": "shop"}]);
    assert_eq!(caller.get("source/"), listed);
    let path = format!("source/{crm}");
    assert_eq!(caller.data("DELETE", &path, &Value::Null), "");
    assert_eq!(caller.refusal("DELETE", &path, &Value::Null), (400, 7002));
    assert_eq!(caller.sandbox.sources().len(), 1);
    assert_eq!(caller.sandbox.sources()[0].name(), "shop");
}

#[test]
fn source_needs_a_name_that_is_free() {
    let caller = Caller::new();
    caller.sandbox.add_source("crm");
    for (body, code) in [(json!({"name": "CRM"}), 7001), (json!({"name": " "}), 1001), (json!({}), 1001)] {
        assert_eq!(caller.refusal("POST", "source/create", &body), (400, code));
    }
    assert_eq!(caller.refusal("GET", "source/77", &Value::Null), (400, 1009));
}

#[test]
fn contacts_come_from_sources_that_exist() {
    let caller = Caller::new();
    let crm = caller.sandbox.add_source("crm");
    for (source, good) in [
        (json!(crm), true),
        (json!(crm.to_string()), true),
        (Value::Null, true),
        (json!(crm.get() + 1), false),
        (json!("crm"), false),
    ] {
        let body = json!({"contacts": [{"3": "ada@shop.test", "source_id": source}]});
        let data = caller.data("PUT", "contact/?create_if_not_exists=1", &body);
        assert_eq!(data["errors"]["ada@shop.test"]["2013"].is_string(), !good, "{source}");
    }
    let single = json!({"3": "bob@shop.test", "source_id": crm.get() + 1});
    assert_eq!(caller.refusal("POST", "contact", &single), (400, 2013));
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn contact_without_a_known_source_fails_alone_or_takes_the_request_along() {
    let body = json!({"contacts": [{"3": "ada@shop.test"}, {"3": "bob@shop.test", "source_id": "9"}]});
    for (method, path) in [("POST", "contact"), ("PUT", "contact/?create_if_not_exists=1")] {
        let caller = Caller::new();
        let data = caller.data(method, path, &body);
        assert_eq!(data["errors"], json!({"bob@shop.test": {"2013": "Invalid source id: 9"}}));
        assert_eq!(caller.sandbox.contacts().len(), 1);
        let caller = Caller::switched(Switches::default().invalid_source(Scope::Request));
        assert_eq!(caller.refusal(method, path, &body), (400, 2013));
        assert_eq!(caller.sandbox.contacts(), []);
    }
}
