use super::*;

fn three(caller: &Caller) -> [ContactId; 3] {
    let contact = |email: &str, first: Value| {
        caller.sandbox.add_contact([(FieldId::EMAIL, json!(email)), (FieldId::FIRST_NAME, first)])
    };
    [
        contact("ada@shop.test", json!("Ada")),
        contact("bob@shop.test", json!("Bob")),
        contact("eve@shop.test", json!("")),
    ]
}

fn ids(data: &Value) -> Vec<ContactId> {
    data["result"].as_array().unwrap().iter().map(|row| ContactId::new(row["id"].as_u64().unwrap())).collect()
}

#[test]
fn one_field_of_all_contacts_is_listed_with_numbers_for_ids() {
    let caller = Caller::new();
    let [ada, bob, eve] = three(&caller);
    let data = caller.get("contact/query/?return=1");
    assert_eq!(
        data,
        json!({"errors": [], "result": [
            {"id": ada, "1": "Ada"}, {"id": bob, "1": "Bob"}, {"id": eve, "1": ""},
        ]})
    );
    for path in ["contact/query?return=1", "contact/query/return=1", "contact/query/return=1/"] {
        assert_eq!(caller.get(path), data, "{path}");
    }
}

#[test]
fn pages_follow_each_other_by_offset() {
    let caller = Caller::new();
    let [ada, bob, eve] = three(&caller);
    assert_eq!(ids(&caller.get("contact/query/?return=3&limit=2")), [ada, bob]);
    assert_eq!(ids(&caller.get("contact/query/return=3&limit=2&offset=2")), [eve]);
    assert_eq!(caller.get("contact/query/?return=3&offset=3")["result"], json!([]));
    for query in ["limit=0", "limit=10001", "limit=x", "limit="] {
        let path = format!("contact/query/?return=3&{query}");
        assert_eq!(caller.refusal("GET", &path, &Value::Null), (400, 2016), "{path}");
    }
}

#[test]
fn only_indexed_fields_can_be_a_filter() {
    let caller = Caller::new();
    let [ada, _, eve] = three(&caller);
    assert_eq!(ids(&caller.get("contact/query/?return=1&3=ADA@shop.test")), [ada]);
    assert_eq!(ids(&caller.get("contact/query/?return=1&3=zoe@shop.test")), []);
    let path = "contact/query/?return=3&1=Ada";
    assert_eq!(caller.refusal("GET", path, &Value::Null), (400, 2015));
    caller.sandbox.add_index(FieldId::FIRST_NAME);
    assert_eq!(ids(&caller.get(path)), [ada]);
    assert_eq!(ids(&caller.get("contact/query/?return=3&1=")), [eve]);
    assert_eq!(ids(&caller.get("contact/query/?return=3&1=Ada&3=bob@shop.test")), []);
}

#[test]
fn several_choices_are_a_filter_and_a_key() {
    let caller = Caller::new();
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    let ada = caller.sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (sports, json!([1, 2]))]);
    caller.sandbox.add_contact([(FieldId::EMAIL, json!("bob@shop.test")), (sports, json!([1]))]);
    caller.sandbox.add_index(sports);
    assert_eq!(ids(&caller.get(&format!("contact/query/?return=3&{sports}=2,1"))), [ada]);
    assert_eq!(caller.get(&format!("contact/?{sports}=1,2")), json!({"id": ada.to_string()}));
    let list = caller.sandbox.add_list("Athletes");
    let body = json!({"key_id": sports, "external_ids": [[1, 2], [3]]});
    let data = caller.data("POST", &format!("contactlist/{list}/add"), &body);
    assert_eq!((&data["inserted_contacts"], data["errors"]["3"]["2008"].is_string()), (&json!(1), true));
}

#[test]
fn empty_values_are_left_out_only_if_the_word_is_true() {
    let caller = Caller::new();
    let all = three(&caller);
    assert_eq!(ids(&caller.get("contact/query/?return=1&excludeempty=true")), all[..2]);
    assert_eq!(ids(&caller.get("contact/query/?return=1&excludeempty=1")), all);
}

#[test]
fn unknown_fields_are_refused_in_return_and_filter() {
    let caller = Caller::new();
    for query in ["return=999", "return=email", "return=3&999=x", "return=3&email=x"] {
        let path = format!("contact/query/?{query}");
        assert_eq!(caller.refusal("GET", &path, &Value::Null), (400, 2006), "{path}");
    }
}

#[test]
fn query_without_return_is_refused_or_finds_one_id() {
    let caller = Caller::new();
    caller.person("ada@shop.test");
    let path = "contact/query/?3=ada@shop.test";
    assert_eq!(caller.refusal("GET", path, &Value::Null), (400, 2014));
    let caller = Caller::switched(Switches::default().query_without_return(true));
    let ada = caller.person("ada@shop.test");
    for path in [path, "contact/query/3=ada@shop.test"] {
        assert_eq!(caller.get(path), json!({"id": ada}));
    }
    assert_eq!(caller.refusal("GET", "contact/query/?3=zoe@shop.test", &Value::Null), (400, 2008));
}

#[test]
fn query_sees_new_contacts_late_when_switched() {
    let caller = Caller::switched(Switches::default().read_delay(Duration::from_secs(5)));
    caller.data("POST", "contact", &json!({"3": "ada@shop.test"}));
    for filter in ["", "&3=ada@shop.test"] {
        assert_eq!(caller.get(&format!("contact/query/?return=3{filter}"))["result"], json!([]));
    }
    caller.clock.advance(Duration::from_secs(5));
    assert_eq!(ids(&caller.get("contact/query/?return=3")), [ContactId::new(700_001)]);
}

#[test]
fn pages_may_have_gaps_where_contacts_have_no_value() {
    let caller = Caller::switched(Switches::default().query_pages_with_gaps(true));
    for name in [json!("Ada"), json!(null), json!(null), json!("Bob"), json!(null)] {
        caller.sandbox.add_contact([(FieldId::FIRST_NAME, name)]);
    }
    let page = |offset: usize| {
        ids(&caller.get(&format!("contact/query/?return=1&excludeempty=true&limit=2&offset={offset}"))).len()
    };
    assert_eq!([page(0), page(1), page(2), page(4), page(6)], [1, 0, 1, 0, 0]);
}

#[tokio::test]
async fn client_finds_everybody_whether_pages_have_gaps_or_not() {
    use futures::TryStreamExt;

    for gaps in [false, true] {
        let host = TestHost::shared();
        let switches = Switches::default().query_pages_with_gaps(gaps);
        let sandbox = Sandbox::builder().host(host.clone()).switches(switches).build();
        for person in 0..7 {
            let name = if person % 5 == 0 { json!("Ada") } else { json!(null) };
            sandbox.add_contact([(FieldId::FIRST_NAME, name)]);
        }
        let credentials = crate::emarsys::Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
        let client =
            crate::emarsys::Client::builder(credentials).host(host).in_process(&sandbox).build().unwrap();
        let query = client.contacts().query(FieldId::FIRST_NAME).exclude_empty().page(2);
        assert_eq!(query.stream().try_collect::<Vec<_>>().await.unwrap().len(), 2, "gaps: {gaps}");
    }
}
