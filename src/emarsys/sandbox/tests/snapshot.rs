use super::*;

fn filled() -> Caller {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let list = caller.sandbox.add_list("Customers");
    caller.sandbox.add_to_list(list, ada);
    caller.sandbox.add_field("Points", "numeric");
    caller.sandbox.add_source("crm");
    caller.sandbox.add_table("shop", "orders", ["id"]);
    caller
}

#[test]
fn snapshot_holds_the_whole_account() {
    let snapshot = filled().sandbox.snapshot();
    assert_eq!(snapshot.contacts()[0].value(FieldId::EMAIL), "ada@shop.test");
    assert!(snapshot.lists()[0].members().contains(&snapshot.contacts()[0].id()));
    assert!(snapshot.fields().iter().any(|field| field.name() == "Points"));
    assert_eq!(snapshot.sources()[0].name(), "crm");
    assert_eq!((snapshot.tables()[0].connection(), snapshot.tables()[0].name()), ("shop", "orders"));
}

#[test]
fn snapshots_are_equal_until_something_changes() {
    let before = filled().sandbox.snapshot();
    assert_eq!(filled().sandbox.snapshot(), before);
    let changes: [fn(&Sandbox); 6] = [
        |sandbox| assert!(sandbox.set_value(ContactId::new(700_001), FieldId::FIRST_NAME, &json!("Ada"))),
        |sandbox| assert!(sandbox.remove_from_list(ListId::new(4_711), ContactId::new(700_001))),
        |sandbox| assert!(sandbox.delete_list(ListId::new(4_711))),
        |sandbox| assert!(sandbox.delete_field(FieldId::new(10_601))),
        |sandbox| _ = sandbox.add_source("shop"),
        |sandbox| {
            let record = serde_json::Map::from_iter([("id".to_owned(), json!(1))]);
            assert!(sandbox.add_record("shop", "orders", record));
        },
    ];
    for change in changes {
        let caller = filled();
        change(&caller.sandbox);
        assert_ne!(caller.sandbox.snapshot(), before);
    }
}

#[test]
fn reads_and_requests_that_are_refused_leave_the_snapshot_alone() {
    let caller = filled();
    let before = caller.sandbox.snapshot();
    caller.get("contact/query/?return=3");
    caller.get("field");
    caller.refusal("POST", "contact/delete", &json!({"key_id": "3", "3": "zoe@shop.test"}));
    assert_eq!(caller.sandbox.snapshot(), before);
}
