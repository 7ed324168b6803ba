use super::*;

fn everybody_with_email(caller: &Caller) -> SegmentId {
    let tree =
        json!({"type": "criteria", "field": "email", "operator": "not_empty", "value": "is_not_empty"});
    caller.sandbox.add_segment("With e-mail", &tree)
}

/// Starts a run and returns its id.
fn start(caller: &Caller, path: &str) -> String {
    let data = caller.data("POST", path, &Value::Null);
    assert_eq!(data["status"], "waiting");
    data["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn run_makes_a_list_and_counts() {
    let caller = Caller::new();
    let segment = everybody_with_email(&caller);
    let ada =
        caller.sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (FieldId::OPT_IN, json!("1"))]);
    let bob =
        caller.sandbox.add_contact([(FieldId::EMAIL, json!("bob@shop.test")), (FieldId::OPT_IN, json!("2"))]);
    caller.sandbox.add_contact([(FieldId::FIRST_NAME, json!("Zoe"))]);
    let run = start(&caller, &format!("filter/{segment}/runs"));
    let list = caller.sandbox.lists()[0].id();
    let result = json!({"contact_list_id": list, "user_count": 2, "opt_in_count": 1, "duration": 0});
    let expected = json!({"run_id": run, "status": "done", "result": result});
    assert_eq!(caller.get(&format!("filter/runs/{run}")), expected);
    assert_eq!(caller.get(&format!("filter/{segment}/runs/{run}/")), expected);
    assert_eq!(caller.get(&format!("contactlist/{list}/contactIds"))["value"], json!([ada, bob]));
    assert_eq!(caller.sandbox.write_requests(), 0);
}

#[test]
fn run_waits_until_the_evaluation_is_done_and_is_the_only_one() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(60)));
    let segment = everybody_with_email(&caller);
    let other = everybody_with_email(&caller);
    caller.person("ada@shop.test");
    let (path, second) = (format!("filter/{segment}/runs"), format!("filter/{other}/runs?renew=true"));
    let run = start(&caller, &path);
    let read = format!("filter/runs/{run}");
    caller.clock.advance(Duration::from_secs(59));
    assert_eq!(caller.get(&read), json!({"run_id": run, "status": "waiting"}));
    assert_eq!(caller.refusal("POST", &path, &Value::Null), (423, 10_003));
    assert_eq!(caller.refusal("POST", &second, &Value::Null), (423, 10_003));
    assert_eq!(caller.refusal("GET", &format!("filter/{other}/contacts/count"), &Value::Null), (423, 10_003));
    assert_eq!(
        caller.refusal("GET", &format!("filter/{segment}/contacts/count"), &Value::Null),
        (202, 10_001)
    );
    assert_eq!(caller.sandbox.lists(), []);
    caller.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.sandbox.lists().len(), 1);
    let done = caller.get(&read);
    assert_eq!((&done["status"], &done["result"]["duration"]), (&json!("done"), &json!(60_000)));
    start(&caller, &second);
}

#[test]
fn run_is_done_at_once_after_an_evaluation_unless_it_is_renewed() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(60)));
    let segment = everybody_with_email(&caller);
    start(&caller, &format!("filter/{segment}/runs"));
    caller.clock.advance(Duration::from_secs(60));
    let status = |run: &str| caller.get(&format!("filter/runs/{run}"))["status"].clone();
    assert_eq!(status(&start(&caller, &format!("filter/{segment}/runs"))), "done");
    assert_eq!(status(&start(&caller, &format!("filter/{segment}/runs?renew=true"))), "waiting");
}

#[test]
fn run_of_a_segment_that_is_deleted_meanwhile_fails() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(60)));
    let segment = everybody_with_email(&caller);
    let run = start(&caller, &format!("filter/{segment}/runs"));
    let single = start(&caller, &format!("filter/{segment}/single_runs?contact_id=1"));
    caller.get(&format!("filter/{segment}/delete"));
    caller.clock.advance(Duration::from_secs(60));
    assert_eq!(caller.get(&format!("filter/runs/{run}")), json!({"run_id": run, "status": "error"}));
    assert_eq!(caller.get(&format!("filter/single_runs/{single}"))["status"], "error");
    assert_eq!(caller.sandbox.lists(), []);
}

#[test]
fn one_contact_is_asked_for_in_a_run() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(1)));
    let (segment, ada) = (everybody_with_email(&caller), caller.person("ada@shop.test"));
    let zoe = caller.sandbox.add_contact([(FieldId::FIRST_NAME, json!("Zoe"))]);
    let runs = [ada, zoe]
        .map(|contact| start(&caller, &format!("filter/{segment}/single_runs?contact_id={contact}")));
    let read = |run: &String| caller.get(&format!("filter/single_runs/{run}"));
    assert_eq!(read(&runs[0]), json!({"run_id": runs[0], "status": "waiting"}));
    caller.clock.advance(Duration::from_secs(1));
    for (run, inside) in runs.iter().zip([true, false]) {
        let result = json!({"is_in_segment": inside});
        assert_eq!(read(run), json!({"run_id": run, "status": "done", "result": result}));
    }
    let nobody = format!("filter/{segment}/single_runs");
    assert_eq!(caller.refusal("POST", &nobody, &Value::Null), (400, 10_009));
    assert_eq!(caller.refusal("GET", &format!("filter/runs/{}", runs[0]), &Value::Null), (404, 10_008));
}

#[test]
fn everybody_can_be_run_and_what_is_unknown_cannot() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let run = start(&caller, "filter/0/runs");
    assert_eq!(caller.get(&format!("filter/runs/{run}"))["result"]["user_count"], 1);
    assert_eq!(caller.refusal("POST", "filter/99/runs", &Value::Null), (404, 10_002));
    assert_eq!(caller.refusal("POST", "filter/99/single_runs?contact_id=1", &Value::Null), (404, 10_002));
    assert_eq!(caller.refusal("GET", "filter/runs/none", &Value::Null), (404, 10_008));
    assert_eq!(caller.refusal("GET", "filter/single_runs/none", &Value::Null), (404, 10_008));
}

#[test]
fn users_of_both_versions_run_beside_each_other() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(60)));
    let segment = everybody_with_email(&caller);
    let path = format!("filter/{segment}/runs");
    start(&caller, &path);
    let statuses = [200, 423].map(|_| whole(caller.sandbox.handle(&auth::on_v2("POST", &path))).status());
    assert_eq!(statuses, [200, 423]);
    assert_eq!(caller.sandbox.requests_to(Endpoint::RunSegment), 3);
}
