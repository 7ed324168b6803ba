use super::*;

/// A caller whose token outlives the days that these tests let pass.
fn patient(switches: Switches) -> Caller {
    let builder = Sandbox::builder().switches(switches);
    Caller::with(builder.token_lifetime(Duration::from_secs(7 * 24 * 3_600)))
}

fn order(fields: &[u32], more: &Value) -> Value {
    let mut body = json!({"distribution_method": "local", "contact_fields": fields});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn place(caller: &Caller, path: &str, body: &Value) -> u64 {
    caller.data("POST", path, body)["id"].as_u64().unwrap()
}

fn download(caller: &Caller, path: &str) -> String {
    let response = caller.response("GET", path, &Value::Null);
    assert_eq!((response.status(), response.header("content-type")), (200, Some("text/csv;charset=UTF-8")));
    response.body().to_owned()
}

/// The contacts in an export of these fields, without a header.
fn exported(caller: &Caller, path: &str, more: &Value) -> Vec<u64> {
    let mut body = order(&[3], more);
    body["add_field_names_header"] = json!(0);
    let export = place(caller, path, &body);
    let csv = download(caller, &format!("export/{export}/data"));
    csv.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn list_is_exported_as_csv() {
    let caller = Caller::new();
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    caller.sandbox.add_choice(sports, 1, "Running");
    caller.sandbox.add_choice(sports, 2, "Swimming");
    let ada = caller.sandbox.add_contact([
        (FieldId::EMAIL, json!("ada@shop.test")),
        (FieldId::FIRST_NAME, json!("Ada, \"the\" first")),
        (FieldId::GENDER, json!("2")),
        (FieldId::OPT_IN, json!("1")),
        (sports, json!([1, 2])),
    ]);
    let bob =
        caller.sandbox.add_contact([(FieldId::EMAIL, json!("bob@shop.test")), (FieldId::OPT_IN, json!("2"))]);
    caller.person("zoe@shop.test");
    let list = caller.sandbox.add_list("Customers");
    for contact in [ada, bob] {
        caller.sandbox.add_to_list(list, contact);
    }
    let more = json!({"contactlist": list.to_string(), "add_field_names_header": 1, "language": "en"});
    let body = order(&[3, 1, 5, 31, sports.get()], &more);
    let export = place(&caller, "email/getcontacts", &body);
    let expected = "user_id,Email,First Name,Gender,Opt-In,Sports\n\
                    700001,ada@shop.test,\"Ada, \"\"the\"\" first\",Female,True,\"Running,Swimming\"\n\
                    700002,bob@shop.test,,,False,\n";
    assert_eq!(download(&caller, &format!("export/{export}/data")), expected);
    assert_eq!(
        caller.get(&format!("export/{export}")),
        json!({
            "id": export.to_string(),
            "created": "2026-03-01 20:00:00",
            "status": "done",
            "type": "contactlist",
            "file_name": format!("contactlist_{export}.csv"),
            "ftp_host": "",
            "ftp_dir": "",
        })
    );
    assert_eq!(caller.sandbox.write_requests(), 0);
}

#[test]
fn choices_are_exported_by_id_when_switched() {
    let caller = Caller::switched(Switches::default().export_choice_ids(true));
    let ada = caller.sandbox.add_contact([
        (FieldId::GENDER, json!("2")),
        (FieldId::OPT_IN, json!("1")),
        (FieldId::FIRST_NAME, json!("Ada, A.")),
    ]);
    let list = caller.sandbox.add_list("Customers");
    caller.sandbox.add_to_list(list, ada);
    let more = json!({"contactlist": list, "delimiter": ";", "add_field_names_header": "0"});
    let export = place(&caller, "email/getcontacts", &order(&[5, 31, 1], &more));
    assert_eq!(download(&caller, &format!("export/{export}/data")), "700001;2;1;Ada, A.\n");
}

#[test]
fn segment_is_exported_in_pages() {
    let caller = Caller::new();
    for number in 0..5 {
        caller.person(&format!("{number}@shop.test"));
    }
    let tree = json!({"type": "criteria", "field": "email", "operator": "contains", "value": "shop"});
    let segment = caller.sandbox.add_segment("Shop", &tree);
    let export = place(&caller, "export/filter", &order(&[3], &json!({"filter": segment})));
    let page = |query: &str| download(&caller, &format!("export/{export}/data{query}"));
    assert_eq!(page("?offset=0&limit=1"), "user_id,Email\n700001,0@shop.test\n");
    assert_eq!(page("/?offset=1&limit=2"), "700002,1@shop.test\n700003,2@shop.test\n");
    assert_eq!(page("/offset=4&limit=2"), "700005,4@shop.test\n");
    assert_eq!(page("?offset=5"), "");
    for query in ["?limit=0", "?limit=x", "?limit=10000001", "?offset=-1"] {
        let path = format!("export/{export}/data{query}");
        assert_eq!(caller.refusal("GET", &path, &Value::Null), (400, 10_001), "{query}");
    }
    assert_eq!(exported(&caller, "export/filter", &json!({"filter": 0})).len(), 5);
}

#[test]
fn header_counts_and_is_repeated_when_switched() {
    let switches = Switches::default().export_header_counted(true).export_header_repeated(true);
    let caller = Caller::switched(switches);
    caller.person("0@shop.test");
    caller.person("1@shop.test");
    let export = place(&caller, "export/filter", &order(&[3], &json!({"filter": 0})));
    let page = |query: &str| download(&caller, &format!("export/{export}/data?{query}"));
    assert_eq!(page("offset=0&limit=2"), "user_id,Email\n700001,0@shop.test\n");
    assert_eq!(page("offset=2&limit=2"), "user_id,Email\n700002,1@shop.test\n");
}

#[test]
fn registrations_are_exported_by_the_time_in_vienna() {
    let caller = patient(Switches::default());
    // Who is added behind the client's back has always been there.
    caller.person("old@shop.test");
    caller.data("POST", "contact", &json!({"3": "ada@shop.test"}));
    caller.clock.advance(Duration::from_secs(4 * 3_600));
    caller.data("POST", "contact", &json!({"3": "bob@shop.test"}));
    let registered = |from: &str, to: &str| {
        let more = json!({"time_range": [from, to], "origin": "all", "origin_id": 0});
        exported(&caller, "contact/getregistrations", &more)
    };
    assert_eq!(registered("2026-03-01", "2026-03-01"), [700_002]);
    assert_eq!(registered("2026-03-02", "2026-03-02"), [700_003]);
    assert_eq!(registered("2026-03-01 20:00:00", "2026-03-01 20:00:00"), [700_002]);
    assert_eq!(registered("2026-03-01 20:00:01", "2026-03-02 00:00"), [700_003]);
    assert_eq!(registered("2026-03-02 00:01", "2026-03-03"), [0; 0]);
}

#[test]
fn changes_are_exported_whoever_made_them() {
    for (only_key, expected) in [(false, vec![700_001, 700_002, 700_003]), (true, vec![700_002, 700_003])] {
        let caller = patient(Switches::default().changes_only_of_email_and_opt_in(only_key));
        for email in ["ada@shop.test", "bob@shop.test", "cem@shop.test", "dan@shop.test"] {
            caller.person(email);
        }
        let update = |row: Value| caller.data("PUT", "contact", &json!({"contacts": [row]}));
        update(json!({"3": "dan@shop.test", "1": "Dan"}));
        caller.clock.advance(Duration::from_secs(24 * 3_600));
        update(json!({"3": "ada@shop.test", "1": "Ada"}));
        update(json!({"3": "bob@shop.test", "31": 1}));
        // The same values again are no change.
        update(json!({"3": "dan@shop.test", "1": "Dan"}));
        caller.sandbox.set_value(ContactId::new(700_003), FieldId::EMAIL, &json!("cem@other.test"));
        caller.data("POST", "contact", &json!({"3": "new@shop.test"}));
        let more = json!({"time_range": ["2026-03-02", "2026-03-02"], "origin": "api", "origin_id": "0"});
        assert_eq!(exported(&caller, "contact/getchanges", &more), expected);
    }
}

#[test]
fn late_request_changes_at_its_own_time() {
    let caller = patient(Switches::default());
    caller.person("ada@shop.test");
    caller.sandbox.fail(Fault::apply_late(Duration::from_secs(60)));
    caller.react("PUT", "contact", &json!({"contacts": [{"3": "ada@shop.test", "1": "Ada"}]}));
    caller.clock.advance(Duration::from_secs(3_600));
    let more = json!({"time_range": ["2026-03-01 20:01", "2026-03-01 20:01"]});
    assert_eq!(exported(&caller, "contact/getchanges", &more), [700_001]);
}

#[test]
fn export_is_scheduled_in_progress_done_and_gone() {
    let switches =
        Switches::default().export_duration(Duration::from_secs(60)).exports_kept(Duration::from_secs(3_600));
    let caller = patient(switches);
    let body = order(&[3], &json!({"filter": 0}));
    let export = place(&caller, "export/filter", &body);
    let (read, data) = (format!("export/{export}"), format!("export/{export}/data"));
    let status = || caller.get(&read)["status"].clone();
    assert_eq!((status(), &caller.get(&read)["file_name"]), (json!("scheduled"), &Value::Null));
    assert_eq!(caller.refusal("GET", &data, &Value::Null), (404, 4005));
    assert_eq!(caller.refusal("POST", "export/filter", &body), (400, 4001));
    place(&caller, "export/filter", &order(&[1], &json!({"filter": 0})));
    caller.clock.advance(Duration::from_secs(30));
    assert_eq!(status(), "in progress");
    assert_eq!(caller.refusal("GET", &data, &Value::Null), (404, 4005));
    caller.clock.advance(Duration::from_secs(30));
    assert_eq!(status(), "done");
    assert_eq!(download(&caller, &data), "user_id,Email\n");
    place(&caller, "export/filter", &body);
    caller.clock.advance(Duration::from_secs(3_600));
    assert_eq!(status(), "done");
    assert_eq!(caller.refusal("GET", &data, &Value::Null), (410, 4003));
}

#[test]
fn export_is_ready_before_it_is_done_when_switched() {
    let minute = Duration::from_secs(60);
    let caller = patient(Switches::default().export_duration(minute).export_ready_for(minute));
    let body = order(&[3], &json!({"filter": 0}));
    let export = place(&caller, "export/filter", &body);
    let seen = || {
        let state = caller.get(&format!("export/{export}"));
        (state["status"].clone(), state["file_name"].is_string())
    };
    caller.clock.advance(minute);
    assert_eq!(seen(), (json!("ready"), true));
    assert_eq!(download(&caller, &format!("export/{export}/data")), "user_id,Email\n");
    // It is not running any more.
    place(&caller, "export/filter", &body);
    caller.clock.advance(minute);
    assert_eq!(seen(), (json!("done"), true));
}

#[test]
fn export_that_fails_has_no_file_and_can_be_asked_for_again() {
    let minute = Duration::from_secs(60);
    let caller = patient(Switches::default().export_duration(minute));
    caller.sandbox.fail(Fault::fail_export().on(Endpoint::ExportSegment));
    let body = order(&[3], &json!({"filter": 0}));
    let export = place(&caller, "export/filter", &body);
    let path = format!("export/{export}");
    assert_eq!(caller.get(&path)["status"], "scheduled");
    caller.clock.advance(minute);
    let state = caller.get(&path);
    assert_eq!((&state["status"], &state["file_name"]), (&json!("error"), &Value::Null));
    assert_eq!(caller.refusal("GET", &format!("{path}/data"), &Value::Null), (404, 4006));
    let again = place(&caller, "export/filter", &body);
    caller.clock.advance(minute);
    assert_eq!(download(&caller, &format!("export/{again}/data")), "user_id,Email\n");
}

#[test]
fn only_local_exports_can_be_downloaded() {
    let caller = Caller::new();
    for method in ["sftp", "ftp", "mail"] {
        let body = order(&[3], &json!({"filter": 0, "distribution_method": method}));
        let export = place(&caller, "export/filter", &body);
        assert_eq!(caller.get(&format!("export/{export}"))["status"], "done");
        assert_eq!(caller.refusal("GET", &format!("export/{export}/data"), &Value::Null), (404, 4004));
    }
    assert_eq!(caller.refusal("GET", "export/99", &Value::Null), (400, 10_001));
    assert_eq!(caller.refusal("GET", "export/99/data", &Value::Null), (404, 4006));
    assert_eq!(caller.refusal("GET", "export/x", &Value::Null), (400, 1));
}

#[test]
fn orders_of_exports_are_checked() {
    let caller = Caller::new();
    let range = json!(["2026-03-01", "2026-03-02"]);
    let changes = |name: &str, value: Value| {
        let mut body = order(&[3], &json!({"time_range": range}));
        body[name] = value;
        body
    };
    for (path, body, code) in [
        ("export/filter", order(&[3], &json!({})), 10_001),
        ("export/filter", order(&[3], &json!({"filter": 99})), 4000),
        ("email/getcontacts", order(&[3], &json!({})), 10_001),
        ("email/getcontacts", order(&[3], &json!({"contactlist": "99"})), 4000),
        ("contact/getchanges", changes("distribution_method", Value::Null), 10_001),
        ("contact/getchanges", changes("distribution_method", json!("pigeon")), 10_001),
        ("contact/getchanges", changes("contact_fields", Value::Null), 10_001),
        ("contact/getchanges", changes("contact_fields", json!("3")), 10_001),
        ("contact/getchanges", changes("contact_fields", json!([])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!(vec![3; 21])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!(["999"])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!([27])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!([28])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!([29])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!([32])), 10_001),
        ("contact/getchanges", changes("contact_fields", json!(["33"])), 10_001),
        ("contact/getchanges", changes("delimiter", json!("|")), 10_001),
        ("contact/getchanges", changes("add_field_names_header", json!(2)), 10_001),
        ("contact/getchanges", changes("origin", json!("elsewhere")), 10_001),
        ("contact/getchanges", changes("language", json!("xx")), 1002),
        ("contact/getchanges", changes("time_range", Value::Null), 10_001),
        ("contact/getregistrations", changes("time_range", json!("2026-03-01")), 10_001),
        ("contact/getregistrations", changes("time_range", json!(["2026-03-01"])), 10_001),
        ("contact/getregistrations", changes("time_range", json!(["2026-03-01", "soon"])), 10_001),
        ("contact/getregistrations", changes("time_range", json!(["2026-03-02", "2026-03-01"])), 10_001),
        ("contact/getregistrations", changes("time_range", json!(["-9999-01-01", "+99999-01-01"])), 10_001),
    ] {
        assert_eq!(caller.refusal("POST", path, &body), (400, code), "{path} {body}");
    }
    place(&caller, "contact/getchanges", &changes("contact_fields", json!(vec!["3"; 20])));
}

#[test]
fn exports_are_served_on_both_versions() {
    let caller = Caller::new();
    let export = place(&caller, "export/filter", &order(&[3], &json!({"filter": 0})));
    let response =
        whole(caller.sandbox.handle(&auth::on_v2("GET", &format!("export/{export}/data/limit=1"))));
    assert_eq!((response.status(), response.body()), (200, "user_id,Email\n"));
}
