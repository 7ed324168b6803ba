use super::*;

const PATH: &str = "/api/rds/v1/connections/my%20shop/tables/orders/records";

/// A table of orders, and one order of Ada in it.
fn orders(caller: &Caller) {
    caller.sandbox.add_table("my shop", "orders", ["id"]);
    caller.sandbox.index_column("my shop", "orders", "customer");
    caller.sandbox.add_record("my shop", "orders", record(json!({"id": 1, "customer": "ada", "sum": 10})));
}

fn record(value: Value) -> serde_json::Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn call(caller: &Caller, method: &str, path: &str, body: &Value) -> Response {
    let mut request = caller.request(method, "", body);
    path.clone_into(&mut request.target);
    whole(caller.sandbox.handle(&request))
}

fn refusal(caller: &Caller, method: &str, path: &str, body: &Value) -> (u16, u64) {
    let response = call(caller, method, path, body);
    let reply: Value = serde_json::from_str(response.body()).unwrap();
    (response.status(), reply["replyCode"].as_u64().unwrap())
}

fn data(caller: &Caller, method: &str, path: &str, body: &Value) -> Value {
    let response = call(caller, method, path, body);
    let mut reply: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!((response.status(), &reply["replyCode"]), (200, &json!(0)), "{method} {path}: {reply}");
    reply["data"].take()
}

fn kept(caller: &Caller) -> Value {
    json!(caller.sandbox.table("my shop", "orders"))
}

#[test]
fn records_are_read_by_indexed_columns() {
    let caller = Caller::new();
    orders(&caller);
    caller.sandbox.add_record("my shop", "orders", record(json!({"id": 2, "customer": "bob & co"})));
    let ids = |query: &str| {
        let data = data(&caller, "GET", &format!("{PATH}{query}"), &Value::Null);
        data.as_array().unwrap().iter().map(|record| record["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(""), [1, 2]);
    assert_eq!(ids("?customer=ada"), [1]);
    assert_eq!(ids("/?customer=bob%20%26%20co&id=2"), [2]);
    assert_eq!(ids("?customer=ada&id=2"), [0; 0]);
    let unindexed = format!("{PATH}?sum=10");
    assert_eq!(refusal(&caller, "GET", &unindexed, &Value::Null), (400, 15_007));
}

#[test]
fn both_forms_of_the_address_and_of_the_body_lead_to_the_same_table() {
    let caller = Caller::new();
    orders(&caller);
    let old = PATH.replace("/v1", "");
    let slash = format!("{PATH}/");
    for (id, path) in [(2, PATH), (3, old.as_str()), (4, slash.as_str())] {
        data(&caller, "POST", path, &json!([{"id": id}]));
        data(&caller, "POST", path, &json!({"records": [{"id": id + 10}]}));
    }
    assert_eq!(kept(&caller).as_array().unwrap().len(), 7);
    assert_eq!(caller.sandbox.requests_to(Endpoint::InsertRecords), 6);
}

#[test]
fn insert_adds_records_or_none_if_a_key_is_taken() {
    let caller = Caller::new();
    orders(&caller);
    let before = kept(&caller);
    for records in
        [json!([{"id": 2}, {"id": "1"}]), json!([{"id": 2}, {"id": 2}]), json!([{"id": 2}, {"sum": 5}])]
    {
        assert_eq!(refusal(&caller, "POST", PATH, &records), (400, 15_001));
    }
    assert_eq!(kept(&caller), before);
    assert_eq!(data(&caller, "POST", PATH, &json!([{"id": 2}, {"id": 3}])), "");
    assert_eq!(kept(&caller).as_array().unwrap().len(), 3);
}

#[test]
fn upsert_adds_records_and_changes_or_replaces_those_that_exist() {
    for (replaces, expected) in
        [(false, json!({"id": 1, "customer": "ada", "sum": 12})), (true, json!({"id": 1, "sum": 12}))]
    {
        let caller = Caller::switched(Switches::default().relational_upsert_replaces(replaces));
        orders(&caller);
        let path = format!("{PATH}/upsert");
        data(&caller, "POST", &path, &json!([{"id": 1, "sum": 11}, {"id": 1, "sum": 12}, {"id": 2}]));
        assert_eq!(kept(&caller), json!([expected, {"id": 2}]));
    }
}

#[test]
fn patch_and_removal_concern_records_that_exist() {
    let caller = Caller::new();
    orders(&caller);
    data(&caller, "POST", PATH, &json!([{"id": 2}, {"id": 3}]));
    data(&caller, "PATCH", PATH, &json!([{"id": 2, "sum": 20}, {"id": 9, "sum": 90}]));
    data(&caller, "POST", &format!("{PATH}/remove"), &json!([{"id": 1}, {"id": 9}]));
    assert_eq!(kept(&caller), json!([{"id": 2, "sum": 20}, {"id": 3}]));
    // The places of the records that are left have moved.
    data(&caller, "PATCH", PATH, &json!([{"id": 3, "sum": 30}]));
    assert_eq!(kept(&caller)[1], json!({"id": 3, "sum": 30}));
}

#[test]
fn replacement_leaves_nothing_else_in_the_table() {
    let caller = Caller::new();
    orders(&caller);
    assert_eq!(refusal(&caller, "PUT", PATH, &json!([{"id": 5}, {"id": 5}])), (400, 15_001));
    data(&caller, "PUT", PATH, &json!([{"id": 1}, {"id": 5}]));
    assert_eq!(kept(&caller), json!([{"id": 1}, {"id": 5}]));
    data(&caller, "PUT", PATH, &json!([]));
    assert_eq!(kept(&caller), json!([]));
}

#[test]
fn table_without_keys_knows_a_record_by_all_that_it_holds() {
    let caller = Caller::new();
    caller.sandbox.add_table("shop", "visits", []);
    let path = "/api/rds/v1/connections/shop/tables/visits/records";
    data(&caller, "POST", &format!("{path}/upsert"), &json!([{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}]));
    data(&caller, "POST", &format!("{path}/remove"), &json!([{"a": 1}]));
    assert_eq!(json!(caller.sandbox.table("shop", "visits")), json!([{"a": 1, "b": 2}]));
}

#[test]
fn requests_are_refused_with_the_codes_of_relational_data() {
    let caller = Caller::new();
    orders(&caller);
    caller.sandbox.add_view("my shop", "totals", ["id"]);
    let at = |connection: &str, table: &str| {
        format!("/api/rds/v1/connections/{connection}/tables/{table}/records")
    };
    let one = json!([{"id": 7}]);
    for (method, path, body, status, code) in [
        ("GET", at("nowhere", "orders"), &Value::Null, 404, 15_010),
        ("POST", at("nowhere", "orders"), &one, 404, 15_010),
        ("GET", at("my%20shop", "nothing"), &Value::Null, 404, 15_004),
        ("PUT", at("my%20shop", "nothing"), &one, 404, 15_004),
        ("PATCH", at("my%20shop", "totals"), &one, 400, 15_009),
        ("POST", PATH.to_owned(), &json!(vec![json!({"id": 7}); 1_001]), 400, 15_002),
        ("POST", PATH.to_owned(), &json!({"id": 7}), 400, 1010),
        ("POST", PATH.to_owned(), &json!([7]), 400, 1010),
        ("POST", PATH.to_owned(), &Value::Null, 400, 1010),
        ("DELETE", PATH.to_owned(), &Value::Null, 400, 1009),
    ] {
        assert_eq!(refusal(&caller, method, &path, body), (status, code), "{method} {path}");
    }
    assert_eq!(data(&caller, "GET", &at("my%20shop", "totals"), &Value::Null), json!([]));
    assert_eq!(call(&caller, "GET", "/api/rds/v1/connections", &Value::Null).status(), 404);
    caller.sandbox.fail(Fault::status(403));
    assert_eq!(refusal(&caller, "GET", PATH, &Value::Null), (403, 15_012));
    caller.sandbox.exhaust_limit();
    assert_eq!(refusal(&caller, "GET", PATH, &Value::Null), (429, 15_011));
}

#[test]
fn success_comes_in_three_shapes() {
    let found = r#"[{"id":1}]"#;
    for (shape, written, read) in [
        (RelationalBody::Empty, String::new(), found.to_owned()),
        (RelationalBody::Object, "{}".to_owned(), found.to_owned()),
        (
            RelationalBody::Envelope,
            r#"{"replyCode":0,"replyText":"OK","data":""}"#.to_owned(),
            format!(r#"{{"replyCode":0,"replyText":"OK","data":{found}}}"#),
        ),
    ] {
        let caller = Caller::switched(Switches::default().relational_body(shape));
        caller.sandbox.add_table("my shop", "orders", ["id"]);
        let reply = call(&caller, "POST", PATH, &json!([{"id": 1}]));
        assert_eq!((reply.status(), reply.body()), (200, written.as_str()));
        assert_eq!(call(&caller, "GET", PATH, &Value::Null).body(), read);
    }
}

#[test]
fn either_kind_of_credentials_is_good() {
    let caller = Caller::new();
    orders(&caller);
    let mut request = auth::on_v2("GET", "");
    PATH.clone_into(&mut request.target);
    assert_eq!(whole(caller.sandbox.handle(&request)).status(), 200);
    assert_eq!(call(&caller, "GET", PATH, &Value::Null).status(), 200);
    assert_eq!(whole(caller.sandbox.handle(&Request::new("GET", PATH))).status(), 401);
}

#[test]
fn half_of_the_records_can_be_applied() {
    let caller = Caller::new();
    orders(&caller);
    caller.sandbox.fail(Fault::apply_half());
    let mut request = caller.request("POST", "", &json!([{"id": 2}, {"id": 3}]));
    PATH.clone_into(&mut request.target);
    assert!(matches!(caller.sandbox.handle(&request).answer, Answer::Lost));
    assert_eq!(kept(&caller).as_array().unwrap().len(), 2);
}
