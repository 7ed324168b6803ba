use super::*;

/// A segment of the contacts whose e-mail has this text in it.
fn with_email(caller: &Caller, text: &str) -> SegmentId {
    let tree = json!({"type": "criteria", "field": "email", "operator": "contains", "value": text});
    caller.sandbox.add_segment(text, &tree)
}

fn part(relation: &str, segments: &[SegmentId]) -> Value {
    let ids: Vec<String> = segments.iter().map(SegmentId::to_string).collect();
    json!({"relation": relation, "segment_ids": ids})
}

fn create(caller: &Caller, name: &str, definition: &Value) -> SegmentId {
    let reply = caller.data("POST", "combinedsegments", &json!({"name": name, "definition": definition}));
    assert_eq!((&reply["name"], &reply["definition"]), (&json!(name), definition));
    SegmentId::new(reply["id"].as_u64().unwrap())
}

#[test]
fn combined_segments_include_and_exclude() {
    let caller = Caller::new();
    let people =
        ["ada@shop.test", "bob@shop.test", "ada@other.test"].map(|email| caller.person(email).to_string());
    let (ada, shop) = (with_email(&caller, "ada"), with_email(&caller, "shop"));
    let (bob, nobody) = (with_email(&caller, "bob"), with_email(&caller, "nobody"));
    for (name, definition, expected) in [
        ("both", json!({"include": part("AND", &[ada, shop])}), vec![&people[0]]),
        ("either", json!({"include": part("OR", &[ada, shop])}), people.iter().collect()),
        ("without", json!({"include": part("OR", &[shop]), "exclude": part("OR", &[bob])}), vec![&people[0]]),
        (
            "without both",
            json!({"include": part("OR", &[shop]), "exclude": part("AND", &[bob, nobody])}),
            vec![&people[0], &people[1]],
        ),
        (
            "without none",
            json!({"include": part("AND", &[bob]), "exclude": part("AND", &[])}),
            vec![&people[1]],
        ),
    ] {
        let combined = create(&caller, name, &definition);
        assert_eq!(caller.get(&format!("filter/{combined}/contacts?limit=9")), json!(expected), "{name}");
    }
}

#[test]
fn combined_segments_are_listed_read_and_changed() {
    let caller = Caller::new();
    let (ada, shop) = (with_email(&caller, "ada"), with_email(&caller, "shop"));
    let combined = create(&caller, "Both", &json!({"include": part("AND", &[ada, shop])}));
    let path = format!("combinedsegments/{combined}");
    let body = json!({
        "name": "Without",
        "definition": {"include": part("OR", &[shop]), "exclude": part("OR", &[ada])},
    });
    let shown = json!({"id": combined, "name": "Without", "definition": body["definition"]});
    assert_eq!(caller.data("POST", &path, &body), shown);
    assert_eq!(caller.get(&path), shown);
    assert_eq!(caller.get("combinedsegments"), json!([shown]));
    let listed = caller.get("filter");
    assert_eq!(
        listed[2],
        json!({
            "id": combined.to_string(),
            "name": "Without",
            "type": "combined",
            "predefinedSegmentId": "0",
            "tags": [],
        })
    );
    let criteria = format!("filter/{combined}/contact_criteria");
    assert_eq!(caller.refusal("GET", &criteria, &Value::Null), (400, 10_005));
    assert_eq!(caller.refusal("PUT", &criteria, &json!({})), (400, 10_005));
    for (method, id) in
        [("GET", SegmentId::new(99)), ("POST", SegmentId::new(99)), ("GET", ada), ("POST", ada)]
    {
        assert_eq!(caller.refusal(method, &format!("combinedsegments/{id}"), &body), (404, 13_001));
    }
}

#[test]
fn combined_segment_follows_the_rules() {
    let caller = Caller::new();
    let ada = with_email(&caller, "ada");
    let combined = create(&caller, "Taken", &json!({"include": part("OR", &[ada])}));
    let good = json!({"include": part("OR", &[ada])});
    for (body, code) in [
        (json!([]), 13_002),
        (json!({"definition": good}), 13_003),
        (json!({"name": "", "definition": good}), 13_003),
        (json!({"name": "taken", "definition": good}), 13_004),
        (json!({"name": "New"}), 13_005),
        (json!({"name": "New", "definition": {"exclude": part("OR", &[ada])}}), 13_005),
        (json!({"name": "New", "definition": {"include": part("XOR", &[ada])}}), 13_005),
        (json!({"name": "New", "definition": {"include": part("OR", &[])}}), 13_005),
        (json!({"name": "New", "definition": {"include": part("OR", &[SegmentId::new(99)])}}), 13_005),
        (json!({"name": "New", "definition": {"include": {"relation": "OR", "segment_ids": ["x"]}}}), 13_005),
    ] {
        assert_eq!(caller.refusal("POST", "combinedsegments", &body), (400, code), "{body}");
    }
    let of_it = create(&caller, "Of it", &json!({"include": part("OR", &[combined])}));
    let itself = json!({"name": "Taken", "definition": {"include": part("OR", &[of_it])}});
    assert_eq!(caller.refusal("POST", &format!("combinedsegments/{combined}"), &itself), (400, 13_005));
}

#[test]
fn what_a_combined_segment_is_made_of_cannot_be_deleted() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    let tree = json!({"type": "criteria", "field": "email", "operator": "not_empty"});
    let body = json!({"name": "Of list", "baseContactListId": list, "contactCriteria": tree});
    let segment: SegmentId = caller.data("PUT", "filter", &body)["id"].as_str().unwrap().parse().unwrap();
    let combined = create(&caller, "Combined", &json!({"include": part("OR", &[segment])}));
    let (delete, delete_list) =
        (format!("filter/{segment}/delete"), format!("contactlist/{list}/deletelist"));
    let (_, reply) = caller.call("GET", &delete, &Value::Null);
    assert_eq!(
        (&reply["replyCode"], &reply["replyText"]),
        (&json!(1008), &json!("Filter has dependencies."))
    );
    assert_eq!(caller.refusal("POST", &delete_list, &Value::Null), (400, 3008));
    caller.get(&format!("filter/{combined}/delete"));
    assert_eq!(caller.get("combinedsegments"), json!([]));
    caller.data("POST", &delete_list, &Value::Null);
    caller.get(&delete);
}
