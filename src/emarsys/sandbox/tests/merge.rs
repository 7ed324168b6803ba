use super::*;

fn two(caller: &Caller) -> [ContactId; 2] {
    [
        caller.sandbox.add_contact([
            (FieldId::EMAIL, json!("old@shop.test")),
            (FieldId::FIRST_NAME, json!("Ada")),
            (FieldId::LAST_NAME, json!("Lovelace")),
            (FieldId::GENDER, json!("2")),
        ]),
        caller.sandbox.add_contact([
            (FieldId::EMAIL, json!("new@shop.test")),
            (FieldId::FIRST_NAME, json!("A.")),
            (FieldId::BIRTH_DATE, json!("1815-12-10")),
        ]),
    ]
}

fn body(rules: &Value) -> Value {
    json!({
        "key_id": "3",
        "source_key_value": "old@shop.test",
        "target_key_value": "new@shop.test",
        "merge_rules": rules,
        "delete_source": false,
    })
}

#[test]
fn merge_copies_the_fields_with_a_rule_and_keeps_the_others() {
    let caller = Caller::new();
    let [source, target] = two(&caller);
    let before = caller.sandbox.contact(source);
    let list = caller.sandbox.add_list("Merged");
    let mut body = body(&json!({"1": "overwrite", "4": "overwrite"}));
    body["contact_list_id"] = json!(list);
    assert_eq!(caller.data("POST", "contact/merge", &body), "");
    let merged = caller.sandbox.contact(target).unwrap();
    assert_eq!(
        (merged.value(FieldId::FIRST_NAME), merged.value(FieldId::EMAIL)),
        (&json!("Ada"), &json!("new@shop.test"))
    );
    assert_eq!(merged.value(FieldId::LAST_NAME), &Value::Null, "without a rule nothing is copied");
    assert_eq!(merged.value(FieldId::BIRTH_DATE), &Value::Null, "an empty value is copied, too");
    assert!(merged.lists().contains(&list));
    assert_eq!(caller.sandbox.contact(source), before);
}

#[test]
fn merge_deletes_the_source_if_asked() {
    for yes in [json!(true), json!(1)] {
        let caller = Caller::new();
        let [source, target] = two(&caller);
        let mut body = body(&json!({}));
        body["delete_source"] = yes;
        caller.data("POST", "contact/merge", &body);
        assert!(caller.sandbox.contact(source).is_none() && caller.sandbox.contact(target).is_some());
    }
}

#[test]
fn merge_that_is_refused_changes_nothing() {
    let caller = Caller::new();
    two(&caller);
    caller.person("dup@shop.test");
    caller.person("dup@shop.test");
    let before = caller.sandbox.snapshot();
    let with = |member: &str, value: Value| {
        let mut body = body(&json!({"1": "overwrite"}));
        body[member] = value;
        body["delete_source"] = json!(true);
        body
    };
    for (body, code) in [
        (with("key_id", json!("999")), 2004),
        (with("source_key_value", json!("zoe@shop.test")), 2008),
        (with("target_key_value", json!("dup@shop.test")), 2010),
        (with("target_key_value", Value::Null), 2005),
        (with("target_key_value", json!("old@shop.test")), 10_001),
        (with("merge_rules", json!({"999": "overwrite"})), 2006),
        (with("merge_rules", json!({"1": "some other rule"})), 10_001),
        (with("merge_rules", json!("overwrite")), 10_001),
        (with("contact_list_id", json!(99)), 2020),
    ] {
        assert_eq!(caller.refusal("POST", "contact/merge", &body), (400, code), "{body}");
    }
    assert_eq!(caller.sandbox.snapshot(), before);
}
