use super::*;

fn criteria(field: &str, operator: &str, value: &str) -> Value {
    json!({"type": "criteria", "field": field, "operator": operator, "value": value})
}

/// The contacts of a new segment with these criteria.
fn evaluated(caller: &Caller, criteria: &Value) -> Vec<ContactId> {
    let segment = caller.sandbox.add_segment("Tried", criteria);
    ids(&caller.get(&format!("filter/{segment}/contacts?limit=1000")))
}

fn ids(data: &Value) -> Vec<ContactId> {
    data.as_array().unwrap().iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn segment_is_created_listed_and_read() {
    let caller = Caller::new();
    let tree = json!({"type": "and", "children": [criteria("gender", "equals", "female")]});
    let list = caller.sandbox.add_list("Customers");
    let body = json!({
        "name": "Women",
        "description": "all of them",
        "baseContactListId": list.to_string(),
        "contactCriteria": tree,
        "behaviourCriteria": {"type": "criteria", "criteria": "bounce", "time_restriction": "last_days", "from_day": "3"},
    });
    assert_eq!(caller.data("PUT", "filter", &body), json!({"id": "100055501"}));
    assert_eq!(
        caller.get("filter"),
        json!([{
            "id": "100055501",
            "name": "Women",
            "type": "standard",
            "predefinedSegmentId": "0",
            "tags": [],
            "criteriaTypes": ["contact", "behavior"],
            "baseContactListId": list,
        }])
    );
    let one = caller.get("filter/100055501/");
    assert_eq!(one, json!({"id": "100055501", "name": "Women", "type": "standard", "tags": []}));
    assert_eq!(caller.get("filter/100055501/contact_criteria"), tree);
    assert_eq!(caller.refusal("GET", "filter/99", &Value::Null), (404, 10_002));
}

#[test]
fn segment_creation_follows_the_rules() {
    let caller = Caller::new();
    let good = criteria("first_name", "not_empty", "");
    caller.sandbox.add_segment("Taken", &good);
    let tree = |tree: Value| json!({"name": "New", "contactCriteria": tree});
    let and = |children: Value| tree(json!({"type": "and", "children": children}));
    for (body, code, text) in [
        (json!({"contactCriteria": good}), 1008, "missing: name"),
        (json!({"name": "New"}), 1008, "missing: contactCriteria"),
        (json!({"name": " taken", "contactCriteria": good}), 1008, "duplicated"),
        (json!({"name": "New", "contactCriteria": good, "baseContactListId": "99"}), 1008, "Contact list"),
        (tree(json!("gender")), 10_004, "JSON"),
        (tree(json!({"children": []})), 1008, "missing: type"),
        (tree(json!({"type": "xor", "children": [good]})), 1008, "Invalid type"),
        (tree(json!({"type": "or"})), 1008, "Children are missing"),
        (and(json!("x")), 1008, "array"),
        (and(json!([])), 1008, "Children are missing"),
        (and(json!(["x"])), 1008, "object"),
        (and(json!([{"type": "criteria", "children": []}])), 1008, "cannot have children"),
        (and(json!([{"type": "criteria", "operator": "equals", "value": "x"}])), 1008, "missing: field"),
        (and(json!([{"type": "criteria", "field": "gender", "value": "x"}])), 1008, "missing: operator"),
        (and(json!([{"type": "criteria", "field": "gender", "operator": "equals"}])), 1008, "missing: value"),
        (and(json!([criteria("nothing", "equals", "x")])), 1008, "valid field"),
        (and(json!([criteria("", "equals", "x")])), 1008, "valid field"),
        (and(json!([criteria("gender", "like", "x")])), 1008, "valid operator"),
        (
            and(json!([{"type": "criteria", "field": "gender", "operator": "equals", "value": ["x"]}])),
            1008,
            "scalar",
        ),
        (and(json!([{"type": "criteria", "criteria": "sneeze"}])), 1008, "behaviour"),
        (
            and(json!([{"type": "criteria", "criteria": "bounce", "time_restriction": "never"}])),
            1008,
            "time restriction",
        ),
    ] {
        let (status, reply) = caller.call("PUT", "filter", &body);
        assert_eq!((status, &reply["replyCode"], &reply["data"]), (400, &json!(code), &json!("")), "{body}");
        assert!(reply["replyText"].as_str().unwrap().contains(text), "{body}: {reply}");
    }
    assert_eq!(caller.get("filter").as_array().unwrap().len(), 1);
}

#[test]
fn criteria_are_evaluated_by_the_type_of_their_field() {
    let caller = Caller::new();
    let points = caller.sandbox.add_field("Points", "numeric");
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    caller.sandbox.add_choice(sports, 1, "Running");
    caller.sandbox.add_choice(sports, 2, "Swimming");
    let ada = caller.sandbox.add_contact([
        (FieldId::EMAIL, json!("ada@shop.test")),
        (FieldId::FIRST_NAME, json!("Ada")),
        (FieldId::BIRTH_DATE, json!("1990-05-01")),
        (FieldId::GENDER, json!("2")),
        (FieldId::OPT_IN, json!("1")),
        (points, json!("100")),
        (sports, json!([1, 2])),
    ]);
    let bob = caller.sandbox.add_contact([
        (FieldId::EMAIL, json!("Bob@Other.test")),
        (FieldId::BIRTH_DATE, json!("1980-05-01")),
        (FieldId::GENDER, json!("1")),
        (FieldId::OPT_IN, json!("2")),
        (points, json!("20.0")),
        (sports, json!([2])),
    ]);
    let zoe = caller.sandbox.add_contact([(FieldId::EMAIL, json!("zoe@shop.test"))]);
    for (field, operator, value, expected) in [
        ("email", "equals", "bob@other.test", vec![bob]),
        ("email", "contains", "@SHOP.test", vec![ada, zoe]),
        ("first_name", "not_empty", "", vec![ada]),
        ("gender", "equals", "female", vec![ada]),
        ("gender", "equals", "2", vec![ada]),
        ("gender", "contains", "male", vec![ada, bob]),
        ("gender", "not_empty", "is_not_empty", vec![ada, bob]),
        ("optin", "equals", "true", vec![ada]),
        ("optin", "equals", "2", vec![bob]),
        ("points", "equals", "20", vec![bob]),
        ("points", "greater_or_equal", "100", vec![ada]),
        ("points", "greater_or_equal", "9", vec![ada, bob]),
        ("birth_date", "greater_or_equal", "1985-01-01", vec![ada]),
        ("email", "greater_or_equal", "a", vec![]),
        ("sports", "equals", "swimming", vec![bob]),
        ("sports", "contains", "2", vec![ada, bob]),
        ("sports", "not_empty", "", vec![ada, bob]),
    ] {
        let found = evaluated(&caller, &criteria(field, operator, value));
        assert_eq!(found, expected, "{field} {operator} {value}");
    }
}

#[test]
fn trees_of_criteria_are_evaluated() {
    let caller = Caller::new();
    let person = |email: &str, name: &str| {
        caller.sandbox.add_contact([(FieldId::EMAIL, json!(email)), (FieldId::FIRST_NAME, json!(name))])
    };
    let (ada, bob) = (person("ada@shop.test", "Ada"), person("bob@shop.test", "Bob"));
    person("ada@other.test", "Ada");
    let named = |name: &str| criteria("first_name", "equals", name);
    let either = json!({"type": "or", "children": [named("ada"), named("bob")]});
    let tree = json!({"type": "and", "children": [criteria("email", "contains", "shop"), either]});
    assert_eq!(evaluated(&caller, &tree), [ada, bob]);
    let behaviour =
        json!({"type": "criteria", "criteria": "response_click", "time_restriction": "between_days"});
    let tree = json!({"type": "and", "children": [named("bob"), behaviour]});
    assert_eq!(evaluated(&caller, &tree), [bob]);
    assert_eq!(evaluated(&caller, &json!({"type": "nonsense"})), []);
}

#[test]
fn segment_asks_only_the_members_of_its_base_list() {
    let caller = Caller::new();
    let (ada, list) = (caller.person("ada@shop.test"), caller.sandbox.add_list("Customers"));
    caller.person("bob@shop.test");
    caller.sandbox.add_to_list(list, ada);
    let body = json!({
        "name": "Customers with e-mail",
        "baseContactListId": list,
        "contactCriteria": criteria("email", "not_empty", ""),
    });
    let segment = caller.data("PUT", "filter", &body)["id"].as_str().unwrap().to_owned();
    assert_eq!(caller.get(&format!("filter/{segment}/contacts?limit=10")), json!([ada.to_string()]));
    let body = json!({"name": "Bounced", "behaviourCriteria": {"type": "criteria", "criteria": "bounce"}});
    let segment = caller.data("PUT", "filter", &body)["id"].as_str().unwrap().to_owned();
    assert_eq!(caller.get(&format!("filter/{segment}/contacts/count")), 2);
    assert_eq!(caller.get(&format!("filter/{segment}/contact_criteria")), json!([]));
}

#[test]
fn criteria_are_replaced_and_evaluated_anew() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let segment = caller.sandbox.add_segment("Some", &criteria("email", "contains", "other"));
    assert_eq!(caller.get(&format!("filter/{segment}/contacts/count")), 0);
    let (path, tree) = (format!("filter/{segment}/contact_criteria"), criteria("email", "contains", "shop"));
    assert_eq!(caller.data("PUT", &path, &tree), tree);
    assert_eq!(caller.get(&format!("filter/{segment}/contacts/count")), 1);
    assert_eq!(caller.refusal("PUT", &path, &json!({"type": "and"})), (400, 1008));
    assert_eq!(caller.refusal("PUT", &path, &json!([])), (400, 1010));
    for method in ["GET", "PUT"] {
        assert_eq!(caller.refusal(method, "filter/0/contact_criteria", &tree), (404, 10_002));
    }
    assert_eq!(caller.get(&path), tree);
}

#[test]
fn contacts_come_in_pages_in_both_query_styles() {
    let caller = Caller::new();
    let people: Vec<_> = (0..5).map(|number| caller.person(&format!("{number}@shop.test"))).collect();
    let segment = caller.sandbox.add_segment("All", &criteria("email", "contains", "shop"));
    for query in ["contacts?limit=2&offset=1", "contacts/?limit=2&offset=1", "contacts/limit=2&offset=1"] {
        assert_eq!(ids(&caller.get(&format!("filter/{segment}/{query}"))), people[1..3], "{query}");
    }
    assert_eq!(ids(&caller.get(&format!("filter/{segment}/contacts?limit=1000000&offset=9"))), []);
    assert_eq!(ids(&caller.get("filter/0/contacts/?limit=10")), people);
    for (query, text) in [
        ("", "Limit is a required parameter."),
        ("?limit=0", "Limit must be a positive number."),
        ("?limit=x", "Limit must be a positive number."),
        ("?limit=1000001", "Limit must be less than 1000000."),
        ("?limit=1&offset=-1", "Offset must be zero, or a positive number."),
    ] {
        let (status, reply) = caller.call("GET", &format!("filter/{segment}/contacts{query}"), &Value::Null);
        assert_eq!((status, &reply["replyCode"], &reply["replyText"]), (400, &json!(10_001), &json!(text)));
    }
    assert_eq!(caller.refusal("GET", "filter/99/contacts?limit=1", &Value::Null), (404, 10_002));
}

#[test]
fn one_contact_is_looked_up() {
    let caller = Caller::new();
    let (ada, bob) = (caller.person("ada@shop.test"), caller.person("bob@other.test"));
    let segment = caller.sandbox.add_segment("Shop", &criteria("email", "contains", "shop"));
    for (segment, contact, inside) in [
        (segment, ada, true),
        (segment, bob, false),
        (SegmentId::ALL_CONTACTS, bob, true),
        (SegmentId::ALL_CONTACTS, ContactId::new(1), false),
    ] {
        assert_eq!(caller.get(&format!("filter/{segment}/contacts/{contact}")), json!(inside));
    }
    assert_eq!(caller.refusal("GET", "filter/99/contacts/1", &Value::Null), (404, 10_002));
    assert_eq!(caller.refusal("GET", &format!("filter/{segment}/contacts/x"), &Value::Null), (400, 1));
}

#[test]
fn evaluation_takes_its_time_when_switched() {
    let caller = Caller::switched(Switches::default().segment_evaluation(Duration::from_secs(60)));
    caller.person("ada@shop.test");
    let segment = caller.sandbox.add_segment("Shop", &criteria("email", "contains", "shop"));
    let (contacts, count) =
        (format!("filter/{segment}/contacts?limit=1"), format!("filter/{segment}/contacts/count"));
    assert_eq!(caller.refusal("GET", &contacts, &Value::Null), (202, 10_001));
    caller.clock.advance(Duration::from_secs(59));
    assert_eq!(caller.refusal("GET", &count, &Value::Null), (202, 10_001));
    caller.clock.advance(Duration::from_secs(1));
    assert_eq!(caller.get(&contacts), json!(["700001"]));
    assert_eq!(caller.get(&count), 1);
    let path = format!("filter/{segment}/contact_criteria");
    caller.data("PUT", &path, &criteria("email", "not_empty", ""));
    assert_eq!(caller.refusal("GET", &count, &Value::Null), (202, 10_001));
}

#[test]
fn segment_is_deleted_by_a_get() {
    let caller = Caller::new();
    let segment = caller.sandbox.add_segment("Old", &criteria("email", "not_empty", ""));
    let delete = format!("filter/{segment}/delete");
    assert_eq!(caller.refusal("POST", &delete, &Value::Null), (400, 1009));
    assert_eq!(caller.get(&delete), "");
    assert_eq!(caller.refusal("GET", &delete, &Value::Null), (404, 10_002));
    assert_eq!(caller.refusal("GET", "filter/0/delete", &Value::Null), (404, 10_002));
    assert_eq!(caller.sandbox.write_requests(), 3);
}

#[test]
fn field_that_a_segment_asks_for_cannot_be_deleted() {
    let caller = Caller::new();
    let field = caller.sandbox.add_field("Points", "numeric");
    let tree = json!({"type": "or", "children": [criteria("points", "greater_or_equal", "1")]});
    let segment = caller.sandbox.add_segment("Some", &tree);
    let path = format!("field/{field}");
    assert_eq!(caller.refusal("DELETE", &path, &Value::Null), (400, 261));
    caller.get(&format!("filter/{segment}/delete"));
    caller.data("DELETE", &path, &Value::Null);
}
