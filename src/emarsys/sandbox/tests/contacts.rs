use super::*;

const UPSERT: &str = "contact/?create_if_not_exists=1";

fn row(email: &str) -> Value {
    json!({ "3": email })
}

#[test]
fn single_create_answers_with_a_number() {
    let caller = Caller::new();
    let data = caller.data("POST", "contact", &json!({"key_id": "3", "3": "ada@shop.test", "1": "Ada"}));
    assert_eq!(data, json!({"id": 700_001}));
    assert_eq!(caller.sandbox.contact(ContactId::new(700_001)).unwrap().value(FieldId::FIRST_NAME), "Ada");
}

#[test]
fn single_create_of_somebody_who_exists_is_2009() {
    let body = json!({"3": "ada@shop.test"});
    let caller = Caller::new();
    caller.person("ADA@shop.test");
    let (status, reply) = caller.call("POST", "contact", &body);
    assert_eq!(status, 400);
    assert_eq!(
        reply,
        json!({"replyCode": 2009, "replyText": "Contact with the external id already exists: 3", "data": ""})
    );
    let caller = Caller::switched(Switches::default().exists_code(2006).request_error_status(200));
    caller.person("ada@shop.test");
    assert_eq!(caller.refusal("POST", "contact", &body), (200, 2006));
}

#[test]
fn batch_create_leaves_out_errors_when_there_are_none() {
    let caller = Caller::new();
    let body = json!({"key_id": "3", "contacts": [row("ada@shop.test"), row("bob@shop.test")]});
    assert_eq!(caller.data("POST", "contact", &body), json!({"ids": [700_001, 700_002]}));
}

#[test]
fn batch_create_names_those_who_exist_by_the_key_as_sent() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let body = json!({"contacts": [row("Ada@Shop.test"), row("bob@shop.test")]});
    assert_eq!(
        caller.data("POST", "contact", &body),
        json!({
            "ids": [700_002],
            "errors": {"Ada@Shop.test": {"2009": "Contact with the external id already exists: 3"}},
        })
    );
    assert_eq!(caller.data("POST", "contact", &body)["ids"], json!([]));
}

#[test]
fn create_puts_those_who_exist_into_the_list_too_unless_switched() {
    for (switches, joins) in
        [(Switches::default(), true), (Switches::default().existing_joins_list(false), false)]
    {
        let caller = Caller::switched(switches);
        let ada = caller.person("ada@shop.test");
        for _ in 0..2 {
            caller.person("dup@shop.test");
        }
        let list = caller.sandbox.add_list("Customers");
        let rows = json!([row("ada@shop.test"), row("dup@shop.test"), row("bob@shop.test")]);
        let data = caller.data("POST", "contact", &json!({"contact_list_id": list, "contacts": rows}));
        let bob = ContactId::new(data["ids"][0].as_u64().unwrap());
        assert!(data["errors"]["ada@shop.test"]["2009"].is_string());
        let members: Vec<_> = caller.sandbox.lists()[0].members().iter().copied().collect();
        assert_eq!(members, if joins { vec![ada, bob] } else { vec![bob] });
        assert!(caller.sandbox.contact(bob).unwrap().lists().contains(&list));
    }
}

#[test]
fn update_puts_whom_it_finds_into_the_list_whatever_a_create_does() {
    for joins in [true, false] {
        let caller = Caller::switched(Switches::default().existing_joins_list(joins));
        let ada = caller.person("ada@shop.test");
        let list = caller.sandbox.add_list("Customers");
        let rows = json!([row("ada@shop.test"), row("zoe@shop.test")]);
        caller.data("PUT", "contact", &json!({"contact_list_id": list, "contacts": rows}));
        assert_eq!(caller.sandbox.lists()[0].members().iter().copied().collect::<Vec<_>>(), [ada]);
    }
}

#[test]
fn unknown_list_is_2020_and_changes_nothing() {
    let caller = Caller::new();
    for body in [
        json!({"contact_list_id": 99, "contacts": [row("ada@shop.test")]}),
        json!({"contact_list_id": "x", "3": "ada@shop.test"}),
    ] {
        assert_eq!(caller.refusal("POST", "contact", &body), (400, 2020));
        assert_eq!(caller.refusal("PUT", UPSERT, &body), (400, 2020));
    }
    assert_eq!(caller.sandbox.contacts(), []);
    let caller = Caller::switched(Switches::default().unknown_list_status(404));
    assert_eq!(caller.refusal("POST", "contact", &json!({"contact_list_id": 9, "3": "a@b.c"})), (404, 2020));
}

#[test]
fn upsert_tells_the_existing_from_the_new_by_the_type_of_the_id() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let body = json!({"key_id": "3", "contacts": [row("ada@shop.test"), row("bob@shop.test")]});
    for path in [UPSERT, "contact?create_if_not_exists=1", "contact/create_if_not_exists=1"] {
        let caller = Caller::new();
        caller.person("ada@shop.test");
        assert_eq!(caller.data("PUT", path, &body), json!({"ids": ["700001", 700_002]}), "{path}");
    }
    assert_eq!(caller.data("PUT", UPSERT, &json!({"3": "ada@shop.test"})), json!({"id": "700001"}));
    assert_eq!(caller.data("PUT", UPSERT, &json!({"3": "bob@shop.test"})), json!({"id": 700_002}));
}

#[test]
fn update_creates_nobody() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let body = json!({"contacts": [row("zoe@shop.test"), {"3": "ada@shop.test", "1": "Ada"}]});
    for path in ["contact", "contact/", "contact/?create_if_not_exists=0"] {
        assert_eq!(
            caller.data("PUT", path, &body),
            json!({
                "ids": ["700001"],
                "errors": {"zoe@shop.test": {"2008": "No contact found with the external id: 3 - zoe@shop.test"}},
            })
        );
    }
    assert_eq!(caller.refusal("PUT", "contact", &row("zoe@shop.test")), (400, 2008));
    assert_eq!(caller.sandbox.contacts().len(), 1);
    assert_eq!(caller.sandbox.contact(ContactId::new(700_001)).unwrap().value(FieldId::FIRST_NAME), "Ada");
}

#[test]
fn ambiguous_key_is_2010() {
    let caller = Caller::new();
    caller.person("dup@shop.test");
    caller.person("DUP@shop.test");
    let error = json!({"2010": "More contacts found with the external id: 3 - dup@shop.test"});
    let data = caller.data("PUT", UPSERT, &json!({"contacts": [row("dup@shop.test")]}));
    assert_eq!(data, json!({"ids": [], "errors": {"dup@shop.test": error}}));
    assert_eq!(caller.refusal("PUT", "contact", &row("dup@shop.test")), (400, 2010));
}

#[test]
fn bad_row_fails_alone_and_as_a_whole() {
    let caller = Caller::new();
    let ada = caller
        .sandbox
        .add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (FieldId::FIRST_NAME, json!("Ada"))]);
    let body = json!({"contacts": [{"3": "ada@shop.test", "1": "Eve", "14": "999"}, row("bob@shop.test")]});
    assert_eq!(
        caller.data("PUT", UPSERT, &body),
        json!({
            "ids": [700_002],
            "errors": {"ada@shop.test": {"2007": "Invalid choice id for field id: 14"}},
        })
    );
    assert_eq!(caller.sandbox.contact(ada).unwrap().value(FieldId::FIRST_NAME), "Ada");
    assert_eq!(caller.refusal("PUT", "contact", &json!({"3": "ada@shop.test", "14": "999"})), (400, 2007));
}

#[test]
fn row_without_a_key_is_2005() {
    let caller = Caller::new();
    for bad in [json!({"1": "Ada"}), json!({"3": null}), json!({"3": ""}), json!({"3": ["a"]})] {
        let data = caller.data("PUT", UPSERT, &json!({"contacts": [bad]}));
        assert_eq!(data["ids"], json!([]));
        assert!(data["errors"][""]["2005"].is_string(), "{data}");
        assert_eq!(caller.refusal("PUT", UPSERT, &bad), (400, 2005));
    }
}

#[test]
fn invalid_key_field_speaks_for_the_whole_batch() {
    let body = json!({"key_id": 999, "contacts": [row("ada@shop.test")]});
    let caller = Caller::new();
    assert_eq!(
        caller.data("PUT", UPSERT, &body),
        json!({"ids": [], "errors": {"<NO_KEY_ID>": {"2004": "Invalid key field id: 999"}}})
    );
    assert_eq!(caller.refusal("PUT", UPSERT, &json!({"key_id": "email", "3": "ada@shop.test"})), (400, 2004));
    let caller = Caller::switched(Switches::default().invalid_key(Scope::Request));
    assert_eq!(caller.refusal("PUT", UPSERT, &body), (400, 2004));
    let caller = Caller::switched(Switches::default().key_names(true));
    caller.data("PUT", UPSERT, &json!({"key_id": "email", "3": "ada@shop.test"}));
}

#[test]
fn misspelt_key_id_is_ignored() {
    let caller = Caller::new();
    caller.data("PUT", UPSERT, &json!({"keyId": "1", "contacts": [{"3": "ada@shop.test", "uid": "x"}]}));
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::EMAIL), "ada@shop.test");
}

#[test]
fn internal_id_and_uid_are_keys_of_updates_only() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let body = json!({"key_id": "id", "contacts": [{"id": ada, "1": "Ada"}, {"id": "5", "1": "Eve"}]});
    let data = caller.data("PUT", "contact", &body);
    assert_eq!((&data["ids"], &data["errors"]["5"]["2008"].is_string()), (&json!(["700001"]), &true));
    let data = caller.data("PUT", UPSERT, &body);
    assert!(data["errors"]["5"]["2004"].is_string(), "{data}");
    assert_eq!(caller.refusal("POST", "contact", &json!({"key_id": "id", "id": "5"})), (400, 2004));
    assert_eq!(caller.refusal("POST", "contact", &json!({"3": "eve@shop.test", "id": "5"})), (400, 2007));
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn unknown_field_fails_the_row_or_the_request() {
    let body = json!({"contacts": [row("ada@shop.test"), {"3": "bob@shop.test", "9999": "x"}]});
    let caller = Caller::new();
    let data = caller.data("PUT", UPSERT, &body);
    assert_eq!(data["errors"], json!({"bob@shop.test": {"2007": "Invalid field id: 9999"}}));
    let caller = Caller::switched(Switches::default().unknown_field(Scope::Request));
    assert_eq!(caller.refusal("PUT", UPSERT, &body), (400, 2006));
    assert_eq!(caller.sandbox.contacts(), []);
}

#[test]
fn read_only_field_is_ignored_or_refused() {
    let body = json!({"contacts": [{"3": "ada@shop.test", "27": "5"}]});
    let caller = Caller::new();
    caller.data("PUT", UPSERT, &body);
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::VISIT_DURATION), &Value::Null);
    let caller = Caller::switched(Switches::default().read_only_refused(true));
    assert!(caller.data("PUT", UPSERT, &body)["errors"]["ada@shop.test"]["2007"].is_string());
}

#[test]
fn omitted_field_stays_and_null_or_empty_text_clears() {
    let caller = Caller::new();
    let values = [
        (FieldId::EMAIL, json!("ada@shop.test")),
        (FieldId::FIRST_NAME, json!("Ada")),
        (FieldId::LAST_NAME, json!("King")),
        (FieldId::OPT_IN, json!("1")),
    ];
    let ada = caller.sandbox.add_contact(values);
    caller.data("PUT", "contact", &json!({"3": "ada@shop.test", "2": "", "31": null}));
    let contact = caller.sandbox.contact(ada).unwrap();
    assert_eq!(
        [
            contact.value(FieldId::FIRST_NAME),
            contact.value(FieldId::LAST_NAME),
            contact.value(FieldId::OPT_IN)
        ],
        [&json!("Ada"), &Value::Null, &Value::Null]
    );
}

#[test]
fn repeated_key_in_a_batch_counts_once_unless_switched() {
    let body =
        json!({"contacts": [{"3": "ada@shop.test", "1": "first"}, {"3": "ADA@shop.test", "1": "last"}]});
    let caller = Caller::new();
    let data = caller.data("PUT", UPSERT, &body);
    assert_eq!(data["ids"], json!([700_001]));
    assert!(data["errors"]["ADA@shop.test"]["2010"].is_string());
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "first");
    let caller = Caller::switched(Switches::default().duplicates(Duplicates::LastWins));
    assert_eq!(caller.data("PUT", UPSERT, &body), json!({"ids": [700_001, "700001"]}));
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::FIRST_NAME), "last");
}

#[test]
fn emails_are_compared_as_switched_and_kept_as_sent() {
    for (email_match, same_case, same_blanks) in [
        (EmailMatch::IgnoreCase, true, false),
        (EmailMatch::IgnoreCaseAndBlanks, true, true),
        (EmailMatch::Exact, false, false),
    ] {
        let caller = Caller::switched(Switches::default().email_match(email_match));
        caller.person("Ada@Shop.test");
        let found = |email| caller.call("PUT", "contact", &row(email)).0 == 200;
        assert_eq!(
            (found("ada@shop.test"), found(" Ada@Shop.test")),
            (same_case, same_blanks),
            "{email_match:?}"
        );
        assert_eq!(caller.sandbox.contacts()[0].value(FieldId::EMAIL), "Ada@Shop.test");
    }
}

#[test]
fn email_is_unique_on_creation_by_another_key() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let number = caller.sandbox.add_field("Customer number", "shorttext").to_string();
    let body = json!({"key_id": number, "contacts": [
        {&number: "C-1", "3": "ada@shop.test"},
        {&number: "C-2", "3": "bob@shop.test"},
        {&number: 5678, "3": "bob@shop.test"},
        {&number: "C-4"},
    ]});
    assert_eq!(
        caller.data("PUT", UPSERT, &body),
        json!({
            "ids": [700_002, 700_003],
            "errors": {
                "C-1": {"2009": "Contact with the external id already exists: 3"},
                "5678": {"2010": "Contacts with the external id already exist: 3"},
            },
        })
    );
    let caller = Caller::switched(Switches::default().email_unique_on_create(false));
    caller.person("ada@shop.test");
    let number = caller.sandbox.add_field("Customer number", "shorttext").to_string();
    let body = json!({"key_id": number, "contacts": [{&number: "C-1", "3": "ada@shop.test"}]});
    assert_eq!(caller.data("PUT", UPSERT, &body), json!({"ids": [700_002]}));
}

#[test]
fn numeric_keys_are_compared_as_numbers() {
    let caller = Caller::new();
    let number = caller.sandbox.add_field("Number", "numeric").to_string();
    caller.data("POST", "contact", &json!({"key_id": &number, &number: "007"}));
    assert_eq!(
        caller.data("PUT", "contact", &json!({"key_id": &number, &number: 7})),
        json!({"id": "700001"})
    );
}

#[test]
fn changed_email_is_found_under_the_new_one_only() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    caller.data("PUT", "contact", &json!({"key_id": "id", "id": ada, "3": "countess@shop.test"}));
    assert_eq!(caller.refusal("PUT", "contact", &row("ada@shop.test")), (400, 2008));
    assert_eq!(caller.data("PUT", "contact", &row("countess@shop.test")), json!({"id": ada.to_string()}));
}

#[test]
fn batch_without_failures_may_show_empty_errors() {
    let caller = Caller::switched(Switches::default().empty_errors_shown(true));
    let data = caller.data("PUT", UPSERT, &json!({"contacts": [row("ada@shop.test")]}));
    assert_eq!(data, json!({"ids": [700_001], "errors": []}));
}

#[test]
fn more_than_a_thousand_contacts_are_too_many() {
    let caller = Caller::new();
    let body = |count: usize| json!({"contacts": vec![row("ada@shop.test"); count]});
    assert_eq!(caller.call("PUT", UPSERT, &body(1_000)).0, 200);
    for (method, path) in [("PUT", UPSERT), ("POST", "contact")] {
        assert_eq!(caller.refusal(method, path, &body(1_001)), (400, 1000));
    }
    let many = json!({"3": vec!["ada@shop.test"; 1_001]});
    assert_eq!(caller.refusal("POST", "contact/delete", &many), (400, 1000));
}

#[test]
fn ids_can_come_in_another_order() {
    let caller = Caller::switched(Switches::default().ids_in_order(false));
    let data = caller.data("PUT", UPSERT, &json!({"contacts": [row("a@shop.test"), row("b@shop.test")]}));
    assert_eq!(data, json!({"ids": [700_002, 700_001]}));
}

#[test]
fn body_has_to_be_an_object_of_the_right_shape() {
    let caller = Caller::new();
    let request = |body: &str| caller.request("PUT", "contact", &Value::Null).body(body);
    for (body, code) in
        [("", 1010), ("{", 1010), ("[]", 1010), (r#"{"contacts":1}"#, 1001), (r#"{"contacts":[1]}"#, 1001)]
    {
        let response = whole(caller.sandbox.handle(&request(body)));
        let reply: Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!((response.status(), &reply["replyCode"]), (400, &json!(code)), "{body}");
    }
    assert_eq!(caller.data("PUT", "contact", &json!({"contacts": []})), json!({"ids": []}));
}

#[test]
fn deleted_contacts_are_gone_from_everywhere() {
    let caller = Caller::new();
    let (ada, bob) = (caller.person("ada@shop.test"), caller.person("bob@shop.test"));
    let list = caller.sandbox.add_list("Customers");
    caller.sandbox.add_to_list(list, ada);
    let one = json!({"key_id": "3", "3": "ada@shop.test"});
    assert_eq!(caller.data("POST", "contact/delete", &one), json!({"errors": [], "deleted_contacts": 1}));
    assert_eq!(caller.refusal("POST", "contact/delete", &one), (404, 2008));
    assert!(caller.sandbox.lists()[0].members().is_empty());
    let both = json!({"3": ["ada@shop.test", "bob@shop.test"]});
    let data = caller.data("POST", "contact/delete", &both);
    assert_eq!(data["deleted_contacts"], 1);
    assert!(data["errors"]["ada@shop.test"]["2008"].is_string());
    assert!(caller.sandbox.contact(bob).is_none());
}

#[test]
fn delete_answers_in_other_shapes_when_switched() {
    let switches = Switches::default().deleted_counted(false).delete_missing_status(200);
    let caller = Caller::switched(switches);
    caller.person("ada@shop.test");
    let one = json!({"3": "ada@shop.test"});
    assert_eq!(caller.data("POST", "contact/delete", &one), json!({}));
    assert_eq!(caller.refusal("POST", "contact/delete", &one), (200, 2008));
}
