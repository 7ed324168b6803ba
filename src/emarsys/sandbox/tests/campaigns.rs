use super::*;
use crate::emarsys::EmailId;

fn days_before(caller: &Caller, days: u64) -> SystemTime {
    caller.clock.wall() - Duration::from_secs(days * 86_400)
}

#[test]
fn history_shows_the_mailings_of_a_span() {
    let caller = Caller::new();
    let (ada, bob) = (caller.person("ada@shop.test"), caller.person("bob@shop.test"));
    caller.sandbox.add_mailing(ada, StoredMailing::new(EmailId::new(8), days_before(&caller, 2)));
    let bounced = StoredMailing::new(EmailId::new(9), days_before(&caller, 1))
        .delivery_status("bounced")
        .bounce_status("soft");
    caller.sandbox.add_mailing(ada, bounced);
    caller.sandbox.add_mailing(ada, StoredMailing::new(EmailId::new(7), days_before(&caller, 31)));
    caller.sandbox.add_mailing(bob, StoredMailing::new(EmailId::new(8), days_before(&caller, 1)));
    let ask = |first: &str, last: &str| {
        let body = json!({"contacts": [ada, "99"], "startDate": first, "endDate": last});
        caller.data("POST", "contact/getcontacthistory", &body)
    };
    let (eight, nine) = (
        json!({
            "emailId": 8,
            "contactId": ada.to_string(),
            "launch_date": "2026-02-27 20:00:00",
            "delivery_status": "launched",
            "bounce_status": null,
        }),
        json!({
            "emailId": 9,
            "contactId": ada.to_string(),
            "launch_date": "2026-02-28 20:00:00",
            "delivery_status": "bounced",
            "bounce_status": "soft",
        }),
    );
    assert_eq!(ask("2026-01-01", "2026-03-01"), json!([eight, nine]));
    assert_eq!(ask("2026-02-28", "2026-02-28"), json!([nine]));
    assert_eq!(ask("2026-03-01", "2026-03-01"), json!([]));
}

#[test]
fn history_refuses_bad_parameters() {
    let caller = Caller::new();
    for body in [
        json!({}),
        json!({"contacts": "700001"}),
        json!({"contacts": ["ada@shop.test"]}),
        json!({"contacts": vec![1; 1_001]}),
        json!({"contacts": [1], "startDate": "01.02.2026"}),
        json!({"contacts": [1], "endDate": 7}),
        json!({"contacts": [1], "startDate": "2026-03-02", "endDate": "2026-03-01"}),
    ] {
        assert_eq!(caller.refusal("POST", "contact/getcontacthistory", &body), (400, 10_001));
    }
}

#[test]
fn unsubscription_is_counted_and_leaves_the_opt_in_alone() {
    let caller = Caller::new();
    let ada =
        caller.sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (FieldId::OPT_IN, json!("1"))]);
    let read = caller.data("POST", "contact/getdata", &json!({"keyId": "id", "keyValues": [ada]}));
    let uid = &read["result"][0]["uid"];
    let body = |uid: &Value| json!({"launch_list_id": "51", "email_id": 8, "contact_uid": uid});
    assert_eq!(caller.data("POST", "email/unsubscribe", &body(uid)), json!({"errors": []}));
    let unknown = caller.data("POST", "email/unsubscribe", &body(&json!("nobody")));
    assert!(unknown["errors"]["nobody"]["2008"].is_string());
    let counted = caller.sandbox.unsubscriptions();
    let counted: Vec<_> = counted.iter().map(|one| (one.launch_list(), one.email(), one.contact())).collect();
    assert_eq!(counted, [(51, EmailId::new(8), ada)]);
    assert_eq!(caller.sandbox.contact(ada).unwrap().value(FieldId::OPT_IN), "1");
    for missing in ["launch_list_id", "email_id", "contact_uid"] {
        let mut body = body(uid);
        body.as_object_mut().unwrap().remove(missing);
        assert_eq!(caller.refusal("POST", "email/unsubscribe", &body), (400, 1001));
    }
}
