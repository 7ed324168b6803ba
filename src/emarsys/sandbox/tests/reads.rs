use super::*;

#[test]
fn settings_name_the_account() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let data = caller.get("settings");
    assert_eq!((&data["timezone"], &data["totalContacts"]), (&json!("Europe/Vienna"), &json!("1")));
    assert!(data["id"].as_u64().is_some_and(|id| id > 0));
}

#[test]
fn checkids_answers_a_map_and_errors_or_empty_lists() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let check =
        |ids: Value| caller.data("POST", "contact/checkids", &json!({"key_id": "3", "external_ids": ids}));
    assert_eq!(
        check(json!(["Ada@shop.test", "zoe@shop.test"])),
        json!({
            "ids": {"Ada@shop.test": "700001"},
            "errors": {"zoe@shop.test": {"2008": "No contact found with the external id: 3"}},
        })
    );
    assert_eq!(check(json!(["ada@shop.test"]))["errors"], json!([]));
    assert_eq!(check(json!(["zoe@shop.test"]))["ids"], json!([]));
}

#[test]
fn checkids_names_all_ids_of_an_ambiguous_value_if_asked() {
    let caller = Caller::new();
    caller.person("dup@shop.test");
    caller.person("dup@shop.test");
    let body = |all: Value| json!({"key_id": 3, "external_ids": ["dup@shop.test"], "get_multiple_ids": all});
    let data = caller.data("POST", "contact/checkids", &body(json!(false)));
    assert!(data["errors"]["dup@shop.test"]["2010"].is_string());
    for all in [json!(true), json!(1)] {
        let data = caller.data("POST", "contact/checkids", &body(all));
        assert_eq!(data, json!({"ids": {"dup@shop.test": ["700001", "700002"]}, "errors": []}));
    }
}

#[test]
fn checkids_puts_those_found_into_a_list_if_asked() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let list = caller.sandbox.add_list("Customers");
    let body = json!({"external_ids": ["ada@shop.test", "zoe@shop.test"], "contact_list_id": list});
    caller.data("POST", "contact/checkids", &body);
    assert!(caller.sandbox.lists()[0].members().iter().eq([&ada]));
    // It has written, unlike one that names no list.
    caller.data("POST", "contact/checkids", &json!({"external_ids": ["ada@shop.test"]}));
    assert_eq!((caller.sandbox.write_requests(), caller.sandbox.journal().len()), (1, 1));
    caller.sandbox.clear_requests();
    assert_eq!(caller.sandbox.write_requests(), 0);
}

#[test]
fn checkids_refuses_what_is_no_list_or_too_long() {
    let caller = Caller::new();
    for (ids, code) in [(json!("ada"), 2003), (json!(vec!["a"; 1_001]), 2002)] {
        let body = json!({"key_id": "3", "external_ids": ids});
        assert_eq!(caller.refusal("POST", "contact/checkids", &body), (400, code));
    }
    let body = json!({"key_id": "999", "external_ids": ["a"]});
    assert_eq!(caller.refusal("POST", "contact/checkids", &body), (400, 2004));
}

#[test]
fn getdata_answers_found_rows_and_a_list_of_errors() {
    let caller = Caller::new();
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    let values =
        [(FieldId::EMAIL, json!("ada@shop.test")), (FieldId::OPT_IN, json!(1)), (sports, json!([2, 5]))];
    let ada = caller.sandbox.add_contact(values);
    let body = json!({
        "keyId": "3",
        "keyValues": ["zoe@shop.test", "Ada@shop.test"],
        "fields": ["1", 31, sports.to_string(), "3", "uid"],
    });
    for path in ["contact/getdata", "contact/getdata/"] {
        let data = caller.data("POST", path, &body);
        let error = json!({"key": "zoe@shop.test", "errorCode": 2008, "errorMsg": "No contact found with the external id: 3"});
        assert_eq!(data["errors"], json!([error]));
        let uid = data["result"][0]["uid"].as_str().unwrap();
        assert_eq!(uid.len(), 10);
        let row = json!({
            "id": ada.to_string(), "uid": uid, "1": null, "31": "1", "3": "ada@shop.test", sports.to_string(): [2, 5],
        });
        assert_eq!(data["result"], json!([row]));
    }
}

#[test]
fn getdata_result_is_false_when_nobody_is_found() {
    let caller = Caller::new();
    let body = json!({"keyId": 3, "keyValues": ["zoe@shop.test"], "fields": ["1"]});
    let data = caller.data("POST", "contact/getdata", &body);
    assert_eq!((&data["result"], &data["errors"][0]["errorCode"]), (&json!(false), &json!(2008)));
    let caller = Caller::switched(Switches::default().getdata_codes_as_text(true));
    assert_eq!(caller.data("POST", "contact/getdata", &body)["errors"][0]["errorCode"], "2008");
}

#[test]
fn getdata_may_have_no_result_when_nobody_is_found() {
    let caller = Caller::switched(Switches::default().getdata_result_left_out(true));
    let ask = |key: &str| caller.data("POST", "contact/getdata", &json!({"keyId": "3", "keyValues": [key]}));
    assert_eq!(ask("zoe@shop.test").get("result"), None);
    caller.person("ada@shop.test");
    assert!(ask("ada@shop.test")["result"].is_array());
}

#[test]
fn getdata_may_answer_in_another_order() {
    for in_order in [true, false] {
        let caller = Caller::switched(Switches::default().getdata_rows_in_order(in_order));
        let mut expected = ["bob@shop.test", "ada@shop.test"];
        for email in expected {
            caller.person(email);
        }
        let body = json!({"keyId": "3", "keyValues": expected, "fields": ["3"]});
        let data = caller.data("POST", "contact/getdata", &body);
        if !in_order {
            expected.reverse();
        }
        let read: Vec<_> = data["result"].as_array().unwrap().iter().map(|row| row["3"].clone()).collect();
        assert_eq!(read, expected);
    }
}

#[test]
fn found_id_may_be_a_number() {
    let caller = Caller::switched(Switches::default().found_id_as_number(true));
    let ada = caller.person("ada@shop.test");
    assert_eq!(caller.get("contact/?3=ada@shop.test"), json!({"id": ada}));
}

#[test]
fn getdata_names_fields_by_string_id_if_asked() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let body = json!({"keyId": "3", "keyValues": ["ada@shop.test"], "fields": ["1", "3", "3294"]});
    for path in ["contact/getdata/stringids=1", "contact/getdata/?stringids=1", "contact/getdata?stringids=1"]
    {
        let row = caller.data("POST", path, &body)["result"][0].clone();
        let names: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        // 3294 is a field without a string id.
        assert_eq!(names, ["3294", "email", "first_name", "id", "uid"], "{path}");
        assert_eq!(row["email"], "ada@shop.test");
    }
}

#[test]
fn getdata_finds_by_internal_id_and_uid_and_reads_all_fields_by_default() {
    let caller = Caller::new();
    let ada = caller.person("ada@shop.test");
    let read = |key: &str, value: &str| {
        let data = caller.data("POST", "contact/getdata", &json!({"keyId": key, "keyValues": [value]}));
        data["result"][0].clone()
    };
    let by_id = read("id", &ada.to_string());
    assert_eq!(by_id["3"], "ada@shop.test");
    assert!(by_id.as_object().unwrap().contains_key("48"));
    assert_eq!(read("uid", by_id["uid"].as_str().unwrap()), by_id);
}

#[test]
fn getdata_refuses_bad_parameters() {
    let caller = Caller::new();
    for (body, code) in [
        (json!({"keyId": "3"}), 10_001),
        (json!({"keyId": "3", "keyValues": "a"}), 2003),
        (json!({"keyId": "3", "keyValues": vec!["a"; 1_001]}), 2002),
        (json!({"keyId": "3", "keyValues": ["a"], "fields": "1"}), 10_001),
        (json!({"keyId": "3", "keyValues": ["a"], "fields": ["999"]}), 2006),
        (json!({"keyId": "first_name", "keyValues": ["a"]}), 2004),
    ] {
        assert_eq!(caller.refusal("POST", "contact/getdata", &body), (400, code), "{body}");
    }
}

#[test]
fn missing_key_may_mean_the_internal_id_in_reads() {
    let caller = Caller::switched(Switches::default().missing_key_is_internal_id(true));
    let ada = caller.person("ada@shop.test").to_string();
    let data = caller.data("POST", "contact/checkids", &json!({"external_ids": [&ada]}));
    assert_eq!(data["ids"][&ada], json!(ada));
}

#[test]
fn internal_id_is_looked_up_by_any_field() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    for path in ["contact/?3=ada@shop.test", "contact/3=ada@shop.test", "contact?3=ADA%40shop.test"] {
        assert_eq!(caller.get(path), json!({"id": "700001"}), "{path}");
    }
    assert_eq!(caller.refusal("GET", "contact/?3=zoe@shop.test", &Value::Null), (400, 2008));
    assert_eq!(caller.refusal("GET", "contact/?999=x", &Value::Null), (400, 2004));
    assert_eq!(caller.refusal("GET", "contact/?3=", &Value::Null), (400, 2005));
}

#[test]
fn new_things_show_up_late_when_switched() {
    let caller = Caller::switched(Switches::default().read_delay(Duration::from_secs(5)));
    caller.data("POST", "contact", &json!({"3": "ada@shop.test"}));
    let list = caller.data("POST", "contactlist", &json!({"name": "New", "external_ids": ["ada@shop.test"]}));
    let list = list["id"].as_u64().unwrap();
    let seen = || {
        let ids = caller.data("POST", "contact/checkids", &json!({"external_ids": ["ada@shop.test"]}));
        let lists = caller.get("contactlist").as_array().unwrap().len();
        (ids["ids"]["ada@shop.test"].is_string(), lists, caller.get(&format!("contactlist/{list}/count")))
    };
    assert_eq!(seen(), (false, 0, json!(0)));
    caller.clock.advance(Duration::from_secs(5));
    assert_eq!(seen(), (true, 1, json!(1)));
}

#[test]
fn wrong_verbs_and_addresses_are_refused() {
    let caller = Caller::new();
    for (method, path, status, code) in [
        ("DELETE", "contact", 400, 1009),
        ("GET", "contact/getdata", 400, 1009),
        ("POST", "contactlist/wrong-id/add", 400, 1),
        ("POST", "contactlist/4711/remove", 400, 1),
        ("GET", "segment", 400, 1),
        ("POST", "email/getresponses", 400, 1),
    ] {
        assert_eq!(caller.refusal(method, path, &Value::Null), (status, code), "{method} {path}");
    }
    let (_, reply) = caller.call("POST", "contactlist/wrong-id/add", &Value::Null);
    assert_eq!(reply["replyText"], "Action Wrong-id is invalid.");
    assert_eq!(whole(caller.sandbox.handle(&Request::new("GET", "/healthcheck"))).status(), 200);
}

#[test]
fn path_that_is_not_served_is_named_without_ids() {
    let caller = Caller::new();
    let text = |method: &str, path: &str| caller.call(method, path, &Value::Null).1["replyText"].clone();
    for (method, path, told) in [
        (
            "POST",
            "contact/last_change",
            "Action Last_change is invalid: the sandbox does not serve POST contact/last_change",
        ),
        (
            "GET",
            "email/77/launch/?x=y",
            "Action Launch is invalid: the sandbox does not serve GET email/{id}/launch",
        ),
        (
            "POST",
            "contactlist/7/remove",
            "Action Remove is invalid: the sandbox does not serve POST contactlist/{id}/remove",
        ),
        ("GET", "filter/7/a/b", "Action B is invalid: the sandbox does not serve GET filter/{id}/a/b"),
        (
            "GET",
            "export/7/ada@shop.test/b",
            "Action B is invalid: the sandbox does not serve GET export/{id}/{id}/b",
        ),
    ] {
        assert_eq!(text(method, path), told);
    }
    for (path, told) in [
        ("/", "GET /"),
        ("/api/v4/contact/7", "GET /api/{id}/contact/{id}"),
        ("/api/rds/v1/connections", "GET connections"),
    ] {
        let mut request = caller.request("GET", "", &Value::Null);
        path.clone_into(&mut request.target);
        let response = whole(caller.sandbox.handle(&request));
        let reply: Value = serde_json::from_str(response.body()).unwrap();
        let expected = json!({"replyText": format!("the sandbox does not serve {told}"), "data": ""});
        assert_eq!((response.status(), reply), (404, expected), "{path}");
    }
}
