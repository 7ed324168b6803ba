use super::*;

fn members(caller: &Caller, list: ListId) -> Vec<ContactId> {
    let lists = caller.sandbox.lists();
    lists.iter().find(|known| known.id() == list).unwrap().members().iter().copied().collect()
}

#[test]
fn lists_are_shown_newest_first_in_local_time() {
    let caller = Caller::new();
    caller.data("POST", "contactlist", &json!({"name": "First"}));
    caller.clock.advance(Duration::from_secs(61));
    caller.data("POST", "contactlist", &json!({"name": "Second"}));
    assert_eq!(
        caller.get("contactlist"),
        json!([
            {"id": "4712", "name": "Second", "created": "2026-03-01 20:01:01", "type": 0},
            {"id": "4711", "name": "First", "created": "2026-03-01 20:00:00", "type": 0},
        ])
    );
}

#[test]
fn list_creation_shows_errors_only_if_members_were_sent() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let create = |body: Value| caller.data("POST", "contactlist", &body);
    assert_eq!(create(json!({"name": "A", "description": "d", "key_id": "email"})), json!({"id": 4_711}));
    assert_eq!(
        create(json!({"name": "B", "external_ids": ["ada@shop.test"]})),
        json!({"id": 4_712, "errors": []})
    );
    let error = json!({"2008": "No contact found with the external id: 3 - zoe@shop.test"});
    assert_eq!(
        create(json!({"name": "C", "key_id": 3, "external_ids": ["ada@shop.test", "zoe@shop.test"]})),
        json!({"id": 4_713, "errors": {"zoe@shop.test": error}})
    );
    assert_eq!(members(&caller, ListId::new(4_713)), [ContactId::new(700_001)]);
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn list_creation_follows_the_rules() {
    for status in [400, 500] {
        let caller = Caller::switched(Switches::default().creation_error_status(status));
        caller.sandbox.add_list("Customers");
        for (body, code) in [
            (json!({}), 3001),
            (json!({"name": " "}), 3001),
            (json!({"name": "x", "external_ids": vec![1; 10_001]}), 3002),
            (json!({"name": "x", "external_ids": "a"}), 3003),
            (json!({"name": "x\u{7}"}), 3004),
            (json!({"name": "customers "}), 3005),
        ] {
            assert_eq!(caller.refusal("POST", "contactlist", &body), (status, code));
        }
        let body = json!({"name": "x", "key_id": "999", "external_ids": ["a"]});
        assert_eq!(caller.refusal("POST", "contactlist", &body), (400, 2004));
    }
}

#[test]
fn members_are_added_removed_and_replaced() {
    let caller = Caller::new();
    let (ada, bob) = (caller.person("ada@shop.test"), caller.person("bob@shop.test"));
    let list = caller.sandbox.add_list("Customers");
    let edit = |action: &str, ids: Value| {
        caller.data(
            "POST",
            &format!("contactlist/{list}/{action}"),
            &json!({"key_id": "3", "external_ids": ids}),
        )
    };
    let all = edit("add", json!(["ada@shop.test", "bob@shop.test"]));
    assert_eq!(all, json!({"inserted_contacts": 2, "errors": []}));
    let error = json!({"2008": "No contact found with the external id: 3 - zoe@shop.test"});
    assert_eq!(
        edit("delete", json!(["ada@shop.test", "zoe@shop.test"])),
        json!({"deleted_contacts": 1, "errors": {"zoe@shop.test": error}})
    );
    assert_eq!(members(&caller, list), [bob]);
    assert_eq!(edit("replace", json!(["ada@shop.test"])), json!({"inserted_contacts": 1, "errors": []}));
    assert_eq!(members(&caller, list), [ada]);
    assert_eq!(edit("add", json!(["zoe@shop.test"]))["inserted_contacts"], 0);
    assert_eq!(caller.sandbox.contacts().len(), 2);
}

#[test]
fn members_can_be_named_by_internal_id() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let list = caller.sandbox.add_list("Customers");
    let body = json!({"key_id": "id", "external_ids": [ada, "1"]});
    let data = caller.data("POST", &format!("contactlist/{list}/add"), &body);
    assert_eq!((&data["inserted_contacts"], data["errors"]["1"]["2008"].is_string()), (&json!(1), true));
}

#[test]
fn who_is_a_member_already_counts_unless_switched() {
    for (counted, expected) in [(true, 1), (false, 0)] {
        let caller = Caller::switched(Switches::default().existing_members_counted(counted));
        let ada = caller.person("ada@shop.test");
        let list = caller.sandbox.add_list("Customers");
        caller.sandbox.add_to_list(list, ada);
        let body = json!({"external_ids": ["ada@shop.test"]});
        let data = caller.data("POST", &format!("contactlist/{list}/add"), &body);
        assert_eq!(data["inserted_contacts"], expected);
    }
}

#[test]
fn edits_are_refused_as_a_whole() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    for (list, body, code) in [
        (ListId::new(99), json!({"external_ids": []}), 3004),
        (list, json!({}), 3003),
        (list, json!({"external_ids": vec![1; 10_001]}), 3002),
        (list, json!({"key_id": "999", "external_ids": ["a"]}), 2004),
    ] {
        for action in ["add", "delete", "replace"] {
            let path = format!("contactlist/{list}/{action}");
            assert_eq!(caller.refusal("POST", &path, &body), (400, code));
        }
    }
}

#[test]
fn lists_are_counted_renamed_and_deleted() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Old");
    caller.sandbox.add_list("Taken");
    caller.sandbox.add_to_list(list, caller.person("ada@shop.test"));
    assert_eq!(caller.get(&format!("contactlist/{list}/count")), 1);
    let rename = format!("contactlist/{list}/rename");
    assert_eq!(caller.data("POST", &rename, &json!({"name": "New"})), json!({"id": list, "name": "New"}));
    assert_eq!(caller.refusal("POST", &rename, &json!({})), (400, 3004));
    assert_eq!(caller.refusal("POST", &rename, &json!({"name": "x\u{7}"})), (400, 3004));
    assert_eq!(caller.refusal("POST", &rename, &json!({"name": "taken"})), (400, 3005));
    let delete = format!("contactlist/{list}/deletelist");
    assert_eq!(caller.data("POST", &delete, &Value::Null), json!({}));
    assert_eq!(caller.refusal("POST", &delete, &Value::Null), (404, 3006));
    assert_eq!(caller.refusal("GET", &format!("contactlist/{list}/count"), &Value::Null), (404, 3006));
    assert_eq!(caller.sandbox.contacts().len(), 1);
}

#[test]
fn member_ids_come_in_pages_as_numbers() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    let contacts: Vec<_> = (0..5).map(|number| caller.person(&format!("{number}@shop.test"))).collect();
    for contact in &contacts {
        caller.sandbox.add_to_list(list, *contact);
    }
    let (mut path, mut read, mut pages) = (format!("contactlist/{list}/contactIds?$top=2"), Vec::new(), 0);
    loop {
        let page = caller.get(&path);
        read.extend(page["value"].as_array().unwrap().iter().map(|id| ContactId::new(id.as_u64().unwrap())));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = next.strip_prefix('/').unwrap().to_owned();
    }
    assert_eq!((read, pages), (contacts, 3));
    let empty = caller.sandbox.add_list("Empty");
    let page = caller.get(&format!("contactlist/{empty}/contactIds"));
    assert_eq!(page, json!({"value": [], "next": null}));
    let bad =
        |query: &str| caller.refusal("GET", &format!("contactlist/{list}/contactIds?{query}"), &Value::Null);
    assert_eq!([bad("$top=x"), bad("$top=100001"), bad("$skiptoken=x")], [(400, 10_001); 3]);
    assert_eq!(caller.refusal("GET", "contactlist/99/contactIds", &Value::Null), (404, 3006));
}

#[test]
fn member_ids_may_come_without_the_envelope() {
    let caller = Caller::switched(Switches::default().contact_ids_bare(true));
    let list = caller.sandbox.add_list("Customers");
    let (_, body) = caller.call("GET", &format!("contactlist/{list}/contactIds"), &Value::Null);
    assert_eq!(body, json!({"value": [], "next": null}));
}

#[test]
fn deprecated_read_answers_texts_until_it_is_switched_off() {
    for alive in [true, false] {
        let caller = Caller::switched(Switches::default().deprecated_reads(alive));
        let list = caller.sandbox.add_list("Customers");
        for number in 0..3 {
            caller.sandbox.add_to_list(list, caller.person(&format!("{number}@shop.test")));
        }
        let path = format!("contactlist/{list}/contacts/limit=1&offset=1");
        if alive {
            assert_eq!(caller.get(&path), json!(["700002"]));
            assert_eq!(caller.get(&format!("contactlist/{list}/")), json!(["700001", "700002", "700003"]));
        } else {
            assert_eq!(caller.refusal("GET", &path, &Value::Null), (404, 3006));
        }
    }
}

#[test]
fn one_contact_or_several_are_looked_up_among_the_members() {
    let caller = Caller::new();
    let (ada, bob) = (caller.person("ada@shop.test"), caller.person("bob@shop.test"));
    let list = caller.sandbox.add_list("Customers");
    caller.sandbox.add_to_list(list, ada);
    assert_eq!(caller.get(&format!("contactlist/{list}/contacts/{ada}")), true);
    assert_eq!(caller.get(&format!("contactlist/{list}/contacts/{bob}/")), false);
    let path = format!("contactlist/{list}/contacts/");
    assert_eq!(caller.data("GET", &path, &json!([bob, ada.to_string(), 1])), json!([false, true, false]));
    assert_eq!(caller.refusal("GET", &format!("contactlist/99/contacts/{ada}"), &Value::Null), (404, 3006));
    assert_eq!(caller.refusal("GET", &format!("contactlist/{list}/contacts/ada"), &Value::Null), (400, 1));
}

#[test]
fn deprecated_read_with_values_names_the_fields_as_asked() {
    for alive in [true, false] {
        let caller = Caller::switched(Switches::default().deprecated_reads(alive));
        let list = caller.sandbox.add_list("Customers");
        let path = |query: &str| format!("contactlist/{list}/contacts/data?{query}");
        if !alive {
            assert_eq!(caller.refusal("GET", &path("fields=3"), &Value::Null), (404, 3006));
            continue;
        }
        assert_eq!(caller.get(&path("fields=3")), json!([]));
        for name in ["ada", "bob"] {
            let contact = caller.person(&format!("{name}@shop.test"));
            caller.sandbox.add_to_list(list, contact);
        }
        let data = caller.get(&path("fields=email,1&limit=1&offset=1"));
        let uid = &data["700002"]["fields"]["uid"];
        let fields = json!({"email": "bob@shop.test", "1": null, "id": "700002", "uid": uid});
        assert_eq!((data.clone(), uid.is_string()), (json!({"700002": {"fields": fields}}), true));
        for (query, code) in
            [("limit=1", 3007), ("fields=", 3007), ("fields=999", 2006), ("fields=3&limit=x", 10_001)]
        {
            assert_eq!(caller.refusal("GET", &path(query), &Value::Null), (400, code), "{query}");
        }
        assert_eq!(caller.refusal("GET", "contactlist/99/contacts/data?fields=3", &Value::Null), (404, 3006));
    }
}

#[test]
fn deprecated_reads_have_a_limit() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    for read in ["contacts?", "contacts/data?fields=3&", "?"] {
        let path = format!("contactlist/{list}/{read}limit=1000001");
        assert_eq!(caller.refusal("GET", &path, &Value::Null), (400, 10_001), "{path}");
    }
}
