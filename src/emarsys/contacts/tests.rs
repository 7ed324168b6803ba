//! The calls about contacts against the replies that are known of them.

use chrono::NaiveDate;
use futures::TryStreamExt;
use serde_json::json;

use super::*;
use crate::{
    Delivery, Error, ErrorKind,
    emarsys::{
        ListId, Lookup, Refusal, RowResult,
        transport::fake::{Answer, client},
    },
};

fn people() -> [Contact; 2] {
    [
        Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada"),
        Contact::new(FieldId::EMAIL, "zoe@shop.test").with(FieldId::OPT_IN, Value::Null),
    ]
}

fn words(results: &[RowResult]) -> Vec<String> {
    let word = |result: &RowResult| match result {
        RowResult::Done => "done".to_owned(),
        RowResult::Rejected(rejection) => rejection.code().to_string(),
        RowResult::Failed(error) => format!("{:?}", error.delivery()),
    };
    results.iter().map(word).collect()
}

async fn update(reply: &str) -> Result<Vec<String>> {
    let (client, _) = client([Answer::reply(200, reply).header("content-type", "text/html; charset=utf-8")]);
    client.contacts().update(FieldId::EMAIL, &people()).await.map(|results| words(&results))
}

#[test]
fn contact_is_written_with_field_numbers_as_names_and_shown_without_values() {
    let contact = Contact::new(FieldId::EMAIL, "ada@shop.test")
        .with(FieldId::new(20417), json!([5501, 5504]))
        .with(FieldId::EMAIL, "ada@new.test");
    assert_eq!(serde_json::to_string(&contact).unwrap(), r#"{"3":"ada@new.test","20417":[5501,5504]}"#);
    assert_eq!(contact.value(FieldId::EMAIL), Some(&"ada@new.test".into()));
    assert_eq!(format!("{contact:?}"), r#"Contact { fields: ["3", "20417"], .. }"#);
}

#[tokio::test(start_paused = true)]
async fn updated_and_missing_contacts_are_told_apart() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001"],"errors":
        {"zoe@shop.test":{"2008":"No contact found with the external id: 3 - zoe@shop.test"}}}}"#;
    assert_eq!(update(reply).await.unwrap(), ["done", "2008"]);
}

#[tokio::test(start_paused = true)]
async fn reply_without_errors_is_done() {
    assert_eq!(
        update(r#"{"replyCode":0,"data":{"ids":["700001",700002]}}"#).await.unwrap(),
        ["done", "done"]
    );
    let reply = r#"{"replyCode":"0","data":{"ids":["700001","700002"],"errors":[]}}"#;
    assert_eq!(update(reply).await.unwrap(), ["done", "done"]);
}

#[tokio::test(start_paused = true)]
async fn reply_that_does_not_account_for_all_rows_leaves_them_unknown() {
    assert_eq!(update(r#"{"replyCode":0,"data":""}"#).await.unwrap(), ["Unknown", "Unknown"]);
    assert_eq!(update(r#"{"replyCode":0,"data":{"ids":["700001"]}}"#).await.unwrap(), ["Unknown", "Unknown"]);
    let reply = r#"{"replyCode":0,"data":{"ids":["700001"],"errors":{"someone@else.test":{"2008":""}}}}"#;
    assert_eq!(update(reply).await.unwrap(), ["Unknown", "Unknown"]);
}

#[tokio::test(start_paused = true)]
async fn invalid_key_field_refuses_the_request() {
    let reply = r#"{"data":{"ids":[],"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}}},
        "replyCode":0,"replyText":"OK"}"#;
    let error = update(reply).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
    assert_eq!(error.cause::<Refusal>().unwrap().code, Some(2004));
}

#[tokio::test(start_paused = true)]
async fn creation_names_the_list_and_tells_who_exists() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":[700003],"errors":
        {"ada@shop.test":{"2009":"Contact with the external id already exists: 3"}}}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let results = client.contacts().create(FieldId::EMAIL, &people(), Some(ListId::new(4711))).await.unwrap();
    assert!(matches!(&results[0], RowResult::Rejected(rejection) if rejection.is_existing()));
    assert!(matches!(&results[1], RowResult::Done));
    let sent = script.sent();
    assert_eq!((sent[0].method, sent[0].url.as_str()), ("POST", "https://api.emarsys.net/api/v2/contact"));
    assert_eq!(
        sent[0].body,
        r#"{"key_id":"3","contacts":[{"3":"ada@shop.test","1":"Ada"},{"3":"zoe@shop.test","31":null}],"contact_list_id":4711}"#
    );
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_usable_key_are_refused_before_anything_is_sent() {
    let (client, script) = client([]);
    for contacts in [
        vec![Contact::new(FieldId::FIRST_NAME, "Ada")],
        vec![Contact::new(FieldId::EMAIL, Value::Null)],
        vec![Contact::new(FieldId::EMAIL, " ")],
        vec![Contact::new(FieldId::EMAIL, "a"), Contact::new(FieldId::EMAIL, "A ")],
    ] {
        let error = client.contacts().update(FieldId::EMAIL, &contacts).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
    }
    assert!(client.contacts().update(FieldId::EMAIL, &[]).await.unwrap().is_empty());
    assert!(script.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn numbers_of_contacts_come_in_the_order_of_the_keys() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "ids":{"ada@shop.test":"700001","bob@shop.test":700002},
        "errors":{"zoe@shop.test":{"2008":"No contact found with the external id: 3"}}}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let keys = ["zoe@shop.test", "bob@shop.test", "ADA@shop.test"];
    let found = client.contacts().check_ids(FieldId::EMAIL, &keys).await.unwrap();
    assert!(matches!(found[0], Lookup::Missing));
    assert!(matches!(found[1], Lookup::Found(id) if id == ContactId::new(700_002)));
    assert!(matches!(found[2], Lookup::Found(id) if id == ContactId::new(700_001)));
    assert_eq!(
        script.sent()[0].body,
        r#"{"key_id":"3","external_ids":["zoe@shop.test","bob@shop.test","ADA@shop.test"]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn data_is_matched_by_the_key_field_and_shown_without_values() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "errors":[{"key":"zoe@shop.test","errorCode":"2008","errorMsg":"No contact found with the external id: 3"}],
        "result":[{"id":"700002","uid":"x","1":null,"3":"bob@shop.test"},
            {"id":700001,"uid":"k3Jd82LsQx","1":"Ada","3":"ada@shop.test","20417":[5501,5504]}]}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let keys = ["ada@shop.test", "zoe@shop.test", "bob@shop.test"];
    let fields = [FieldId::FIRST_NAME, FieldId::new(20417)];
    let data = client.contacts().get_data(FieldId::EMAIL, &keys, &fields).await.unwrap();
    let [Lookup::Found(ada), Lookup::Missing, Lookup::Found(bob)] = data.as_slice() else {
        panic!("{data:?}")
    };
    assert_eq!(ada.id(), ContactId::new(700_001));
    assert_eq!(ada.value(FieldId::FIRST_NAME), Some(&"Ada".into()));
    assert_eq!(ada.value(FieldId::new(20417)), Some(&json!([5501, 5504])));
    assert_eq!(bob.value(FieldId::FIRST_NAME), Some(&Value::Null));
    assert_eq!(bob.value(FieldId::new(20417)), None);
    assert!(!format!("{data:?}").to_lowercase().contains("ada"), "{data:?}");
    assert_eq!(
        script.sent()[0].body,
        r#"{"keyId":"3","keyValues":["ada@shop.test","zoe@shop.test","bob@shop.test"],"fields":["1","20417","3"]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_found_is_no_error() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"errors":
        [{"key":"zoe@shop.test","errorCode":2008,"errorMsg":"No contact found with the external id: 3"}],
        "result":false}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let data = client.contacts().get_data(FieldId::EMAIL, &["zoe@shop.test"], &[]).await.unwrap();
    assert!(matches!(data[0], Lookup::Missing));
}

#[tokio::test(start_paused = true)]
async fn keys_beyond_the_limit_are_asked_for_in_further_requests() {
    let keys: Vec<_> = (0..1001).map(|row| format!("k{row}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let ids = |range: std::ops::Range<usize>| {
        let ids: serde_json::Map<_, _> =
            keys[range].iter().map(|key| ((*key).to_owned(), json!("7"))).collect();
        Answer::reply(200, json!({"replyCode": 0, "data": {"ids": ids, "errors": []}}).to_string())
    };
    let (client, script) = client([ids(0..1000), ids(1000..1001)]);
    let found = client.contacts().check_ids(FieldId::EMAIL, &keys).await.unwrap();
    assert_eq!(found.len(), 1001);
    assert!(found.iter().all(|found| matches!(found, Lookup::Found(_))));
    assert_eq!(script.sent()[1].body, r#"{"key_id":"3","external_ids":["k1000"]}"#);
}

#[tokio::test(start_paused = true)]
async fn upsert_tells_who_was_created_and_who_existed() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001",700002]}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let upserted =
        client.contacts().upsert(FieldId::EMAIL, &people(), Some(ListId::new(4711))).await.unwrap();
    assert_eq!(words(&upserted.rows), ["done", "done"]);
    assert_eq!(upserted.updated, [ContactId::new(700_001)]);
    assert_eq!(upserted.created, [ContactId::new(700_002)]);
    let sent = script.sent();
    assert_eq!(
        (sent[0].method, sent[0].url.as_str()),
        ("PUT", "https://api.emarsys.net/api/v2/contact/?create_if_not_exists=1")
    );
    assert!(sent[0].body.ends_with(r#""contact_list_id":4711}"#), "{}", sent[0].body);
}

#[tokio::test(start_paused = true)]
async fn upsert_by_another_key_may_stumble_over_the_email() {
    let key = FieldId::new(1188);
    let people = [Contact::new(key, 1234), Contact::new(key, 5678)];
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001"],"errors":
        {"5678":{"2010":"Contacts with the external id already exist: 3"}}}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let upserted = client.contacts().upsert(key, &people, None).await.unwrap();
    assert!(matches!(&upserted.rows[..],
        [RowResult::Done, RowResult::Rejected(rejection)] if rejection.is_existing() && !rejection.is_ambiguous()));
}

#[tokio::test(start_paused = true)]
async fn one_contact_stands_in_the_body_itself() {
    let done =
        |id: &str| Answer::reply(200, format!(r#"{{"replyCode":0,"replyText":"OK","data":{{"id":{id}}}}}"#));
    let (client, script) = client([done("700001"), done(r#""700001""#), done(r#""700001""#), done("700002")]);
    let (contacts, id) = (client.contacts(), ContactId::new(700_001));
    let ada = Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada");
    let ada = ada.from_source(SourceId::new(77));
    assert_eq!(contacts.create_one(FieldId::EMAIL, &ada, Some(ListId::new(4711))).await.unwrap(), id);
    assert_eq!(contacts.update_one(FieldId::EMAIL, &ada).await.unwrap(), id);
    assert_eq!(contacts.upsert_one(FieldId::EMAIL, &ada, None).await.unwrap(), Written::Updated(id));
    let created = contacts.upsert_one(FieldId::EMAIL, &ada, None).await.unwrap();
    assert_eq!(created, Written::Created(ContactId::new(700_002)));
    let sent = script.sent();
    assert_eq!(
        sent[0].body,
        r#"{"key_id":"3","3":"ada@shop.test","1":"Ada","source_id":77,"contact_list_id":4711}"#
    );
    assert_eq!(sent[1].body, r#"{"key_id":"3","3":"ada@shop.test","1":"Ada","source_id":77}"#);
    let verbs: Vec<_> = sent.iter().map(|sent| (sent.method, sent.url.rsplit('/').next().unwrap())).collect();
    assert_eq!(
        verbs,
        [
            ("POST", "contact"),
            ("PUT", "?create_if_not_exists=0"),
            ("PUT", "?create_if_not_exists=1"),
            ("PUT", "?create_if_not_exists=1")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn refusal_of_one_contact_says_why() {
    let ada = Contact::new(FieldId::EMAIL, "ada@shop.test");
    for (code, text) in [
        (2009, "Contact with the external id already exists: 3"),
        (2006, "Contact with the external id already exists: 3"),
        (2008, "No contact found with the external id: 3 - ada@shop.test"),
        (2010, "More contacts found with the external id: 3 - ada@shop.test"),
    ] {
        let body = json!({"replyCode": code, "replyText": text, "data": ""}).to_string();
        let (client, _) = client([Answer::reply(400, body)]);
        let error = client.contacts().create_one(FieldId::EMAIL, &ada, None).await.unwrap_err();
        let refusal = error.cause::<Refusal>().unwrap();
        assert_eq!(
            (refusal.is_existing(), refusal.is_missing(), refusal.is_ambiguous()),
            (text.contains("already exists"), code == 2008, code == 2010),
        );
        assert!(!error.to_string().contains("ada"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn contacts_are_written_and_read_by_their_internal_id() {
    let written = r#"{"replyCode":0,"data":{"ids":["700001"]}}"#;
    let data =
        r#"{"replyCode":0,"data":{"errors":[],"result":[{"id":700001,"uid":"k3Jd82LsQx","1":"Ada"}]}}"#;
    let (client, script) =
        client([Answer::reply(200, written), Answer::reply(200, data), Answer::reply(200, data)]);
    let contact = Contact::new(KeyField::Id, "700001").with(FieldId::FIRST_NAME, "Ada");
    let results = client.contacts().update(KeyField::Id, &[contact]).await.unwrap();
    assert_eq!(words(&results), ["done"]);
    let found = client.contacts().get_data(KeyField::Id, &["700001"], &[FieldId::FIRST_NAME]).await.unwrap();
    assert!(matches!(&found[..], [Lookup::Found(ada)] if ada.uid() == Some("k3Jd82LsQx")));
    let found = client.contacts().get_data(KeyField::Uid, &["k3Jd82LsQx"], &[]).await.unwrap();
    assert!(matches!(&found[..], [Lookup::Found(_)]));
    let bodies: Vec<_> = script.sent().into_iter().map(|sent| sent.body).collect();
    assert_eq!(
        bodies,
        [
            r#"{"key_id":"id","contacts":[{"id":"700001","1":"Ada"}]}"#,
            r#"{"keyId":"id","keyValues":["700001"],"fields":["1"]}"#,
            r#"{"keyId":"uid","keyValues":["k3Jd82LsQx"]}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn deletion_is_told_row_by_row_in_every_form_of_its_reply() {
    let part = r#"{"replyCode":0,"data":{"errors":{"zoe@shop.test":{"2008":"No"}},"deleted_contacts":"1"}}"#;
    let more = r#"{"replyCode":0,"data":{"errors":[],"deleted_contacts":1}}"#;
    for (status, reply, expected) in [
        (
            200,
            r#"{"replyCode":0,"replyText":"OK","data":{"errors":[],"deleted_contacts":2}}"#,
            ["done", "done"],
        ),
        (200, r#"{"replyCode":0,"replyText":"OK","data":{}}"#, ["done", "done"]),
        (200, part, ["done", "2008"]),
        (200, more, ["Unknown", "Unknown"]),
    ] {
        let (client, script) = client([Answer::reply(status, reply)]);
        let rows =
            client.contacts().delete(FieldId::EMAIL, &["ada@shop.test", "zoe@shop.test"]).await.unwrap();
        assert_eq!(words(&rows), expected, "{status} {reply}");
        let sent = script.sent();
        assert_eq!(sent[0].url, "https://api.emarsys.net/api/v2/contact/delete");
        assert_eq!(sent[0].body, r#"{"key_id":"3","3":["ada@shop.test","zoe@shop.test"]}"#);
    }
}

#[tokio::test(start_paused = true)]
async fn one_contact_is_found_by_a_value_or_is_not_there() {
    let ambiguous = r#"{"replyCode":2010,"replyText":"More contacts found","data":""}"#;
    let (client, script) = client([
        Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":{"id":"700001"}}"#),
        Answer::reply(400, r#"{"replyCode":2008,"replyText":"No contact found","data":""}"#),
        Answer::reply(400, ambiguous),
    ]);
    let contacts = client.contacts();
    assert_eq!(contacts.find(FieldId::EMAIL, "a+b@c.test").await.unwrap(), Some(ContactId::new(700_001)));
    assert_eq!(contacts.find(FieldId::EMAIL, "zoe@shop.test").await.unwrap(), None);
    let error = contacts.find(FieldId::EMAIL, "dup@shop.test").await.unwrap_err();
    assert!(error.cause::<Refusal>().unwrap().is_ambiguous());
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/contact/?3=a%2Bb%40c.test");
}

#[tokio::test(start_paused = true)]
async fn all_numbers_of_a_key_are_found() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "ids":{"ada@shop.test":["700001",700002],"bob@shop.test":"700003"},
        "errors":{"zoe@shop.test":{"2008":"No contact found with the external id: 3"}}}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let keys = ["ada@shop.test", "bob@shop.test", "zoe@shop.test"];
    let found = client.contacts().check_all_ids(FieldId::EMAIL, &keys).await.unwrap();
    assert!(matches!(&found[..], [Lookup::Found(two), Lookup::Found(one), Lookup::Missing]
        if two.len() == 2 && one[..] == [ContactId::new(700_003)]));
    assert!(script.sent()[0].body.ends_with(r#""get_multiple_ids":true}"#));
}

#[tokio::test(start_paused = true)]
async fn query_reads_pages_until_one_is_short() {
    let (client, script) = client([
        Answer::reply(
            200,
            r#"{"replyCode":0,"data":{"errors":[],"result":[{"id":1,"3":"a@b.test"},{"id":"2","3":null}]}}"#,
        ),
        Answer::reply(200, r#"{"replyCode":0,"data":{"result":[{"id":3,"3":"c@b.test"}]}}"#),
    ]);
    let query = client.contacts().query(FieldId::EMAIL).with(FieldId::CITY, "").page(2);
    let found: Vec<QueriedContact> = query.stream().try_collect().await.unwrap();
    let ids: Vec<_> = found.iter().map(|contact| (contact.id().get(), contact.value().is_some())).collect();
    assert_eq!(ids, [(1, true), (2, false), (3, true)]);
    assert_eq!(serde_json::to_value(&found[0]).unwrap(), json!({"id": 1, "3": "a@b.test"}));
    assert!(!format!("{found:?}").contains("b.test"));
    let urls: Vec<_> = script.sent().into_iter().map(|sent| sent.url).collect();
    let base = "https://api.emarsys.net/api/v2/contact/query/?return=3&11=&limit=2&offset=";
    assert_eq!(urls, [format!("{base}0"), format!("{base}2")]);
}

#[tokio::test(start_paused = true)]
async fn query_of_nobody_is_empty_and_a_missing_index_an_error() {
    let (client, _) = client([
        Answer::reply(200, r#"{"replyCode":0,"data":{"errors":[],"result":false}}"#),
        Answer::reply(400, r#"{"replyCode":2015,"replyText":"No index on column 11","data":""}"#),
    ]);
    let query = client.contacts().query(FieldId::EMAIL);
    assert!(query.clone().stream().try_collect::<Vec<_>>().await.unwrap().is_empty());
    let error = query.with(FieldId::CITY, "Graz").stream().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.cause::<Refusal>().unwrap().code, Some(2015));
}

#[tokio::test(start_paused = true)]
async fn history_names_contact_campaign_and_what_became_of_it() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":[
        {"emailId":12,"contactId":"700001","launch_date":"2026-01-15 09:30:00","delivery_status":"launched","bounce_status":"soft"},
        {"emailId":"13","contactId":700001,"launch_date":null,"delivery_status":"","bounce_status":null}]}"#;
    let (client, script) =
        client([Answer::reply(200, reply), Answer::reply(200, r#"{"replyCode":0,"data":""}"#)]);
    let day = |month, day| NaiveDate::from_ymd_opt(2026, month, day).unwrap();
    let contacts: Vec<_> = (0..1_001).map(ContactId::new).collect();
    let mailings = client.contacts().history(&contacts, day(1, 1), day(2, 1)).await.unwrap();
    assert_eq!(mailings.len(), 2);
    assert_eq!(mailings[0].launched, day(1, 15).and_hms_opt(9, 30, 0));
    assert_eq!(mailings[0].bounce_status.as_deref(), Some("soft"));
    assert_eq!((mailings[1].launched, &mailings[1].delivery_status), (None, &None));
    assert_eq!(
        script.sent()[1].body,
        r#"{"contacts":[1000],"startDate":"2026-01-01","endDate":"2026-02-01"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn merge_and_unsubscription_are_sent_as_told_and_shown_without_people() {
    let (client, script) = client([
        Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":""}"#),
        Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":{"errors":[]}}"#),
        Answer::reply(
            200,
            r#"{"replyCode":0,"replyText":"OK","data":{"errors":{"k3Jd82LsQx":{"2008":"No"}}}}"#,
        ),
    ]);
    let merge = Merge::new(FieldId::EMAIL, "old@shop.test", "ada@shop.test")
        .rule(FieldId::CITY, MergeRule::Overwrite)
        .delete_source();
    client.contacts().merge(&merge).await.unwrap();
    let unsubscription = Unsubscription::new(7, super::super::ids::EmailId::new(12), "k3Jd82LsQx");
    client.contacts().unsubscribe(&unsubscription).await.unwrap();
    let error = client.contacts().unsubscribe(&unsubscription).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
    let sent = script.sent();
    assert_eq!(
        sent[0].body,
        r#"{"key_id":"3","source_key_value":"old@shop.test","target_key_value":"ada@shop.test","merge_rules":{"11":"overwrite"},"delete_source":true}"#
    );
    assert_eq!(sent[1].body, r#"{"launch_list_id":7,"email_id":12,"contact_uid":"k3Jd82LsQx"}"#);
    let shown = format!("{merge:?} {unsubscription:?} {error}");
    assert!(!shown.contains("shop") && !shown.contains("k3J"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_the_deletion_of_one_is_the_result_of_its_row() {
    let ambiguous =
        r#"{"replyCode":2010,"replyText":"More contacts found with the external id: 3","data":""}"#;
    let (client, _) = client([Answer::reply(400, ambiguous), Answer::reply(400, ambiguous)]);
    let rows = client.contacts().delete(FieldId::EMAIL, &["dup@shop.test"]).await.unwrap();
    assert!(matches!(&rows[..], [RowResult::Rejected(rejection)] if rejection.is_ambiguous()), "{rows:?}");
    // Of several, it does not say which.
    let error =
        client.contacts().delete(FieldId::EMAIL, &["dup@shop.test", "b@shop.test"]).await.unwrap_err();
    assert!(error.cause::<Refusal>().unwrap().is_ambiguous());
}

#[tokio::test(start_paused = true)]
async fn refused_unsubscription_has_its_code_as_cause() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"errors":{"k3Jd82LsQx":{"2008":"No"}}}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let unsubscription = Unsubscription::new(7, super::super::ids::EmailId::new(12), "k3Jd82LsQx");
    let error = client.contacts().unsubscribe(&unsubscription).await.unwrap_err();
    let refusal = error.cause::<Refusal>().unwrap();
    assert!(refusal.is_missing());
    assert_eq!(refusal.endpoint, "POST email/unsubscribe");
    assert!(!format!("{error} {error:?}").contains("k3J"));
}

#[tokio::test(start_paused = true)]
async fn queried_contact_without_a_value_has_none_however_it_is_printed() {
    let reply =
        r#"{"replyCode":0,"data":{"result":[{"id":1,"3":null},{"id":2,"3":""},{"id":3},{"id":4,"3":[]}]}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let found: Vec<QueriedContact> =
        client.contacts().query(FieldId::EMAIL).stream().try_collect().await.unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|contact| contact.value().is_none()));
}

#[tokio::test(start_paused = true)]
async fn history_is_read_in_every_form_that_nothing_is_printed_in() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"0":
        {"emailId":12,"contactId":"700001","launch_date":false,"delivery_status":[],"bounce_status":false}}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let day = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let mailings = client.contacts().history(&[ContactId::new(700_001)], day, day).await.unwrap();
    assert_eq!(
        (mailings[0].launched, &mailings[0].delivery_status, &mailings[0].bounce_status),
        (None, &None, &None)
    );
}

#[tokio::test(start_paused = true)]
async fn deletion_of_one_who_is_not_there_is_told_under_every_status() {
    let missing =
        r#"{"replyCode":2008,"replyText":"No contact found with the external id: 3 - a","data":""}"#;
    for status in [404, 400, 200] {
        let (client, _) = client([Answer::reply(status, missing), Answer::reply(status, missing)]);
        let rows = client.contacts().delete(FieldId::EMAIL, &["a"]).await.unwrap();
        assert_eq!(words(&rows), ["2008"], "{status}");
        let error = client.contacts().delete(FieldId::EMAIL, &["a", "b"]).await.unwrap_err();
        assert!(error.cause::<Refusal>().unwrap().is_missing(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn deletion_that_is_refused_and_done_at_once_is_unknown() {
    let reply = r#"{"replyCode":2008,"replyText":"","data":{"deleted_contacts":1}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let error = client.contacts().delete(FieldId::EMAIL, &["a"]).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::Unknown));
}

#[tokio::test(start_paused = true)]
async fn query_without_empty_values_goes_on_until_nobody_at_all_is_left() {
    let page = |rows: &str| Answer::reply(200, format!(r#"{{"replyCode":0,"data":{{"result":{rows}}}}}"#));
    let (client, script) = client([
        page(r#"[{"id":1,"3":"a@b.test"}]"#),
        page("[]"),
        page(r#"[{"id":3,"3":null}]"#),
        page(r#"[{"id":5,"3":"c@b.test"},{"id":6,"3":"d@b.test"}]"#),
        page("false"),
        page("[]"),
    ]);
    let query = client.contacts().query(FieldId::EMAIL).exclude_empty().page(2);
    let found: Vec<QueriedContact> = query.stream().try_collect().await.unwrap();
    assert_eq!(found.iter().map(|contact| contact.id().get()).collect::<Vec<_>>(), [1, 5, 6]);
    let asked: Vec<_> =
        script.sent().iter().map(|sent| sent.url.split_once("limit=").unwrap().1.to_owned()).collect();
    let filled = |offset: u64| format!("2&offset={offset}&excludeempty=true");
    let anybody = |offset: u64| format!("1&offset={offset}");
    assert_eq!(asked, [filled(0), filled(2), anybody(2), filled(4), filled(6), anybody(6)]);
}

#[tokio::test(start_paused = true)]
async fn page_with_more_contacts_than_asked_for_is_an_error_and_no_endless_stream() {
    let page = r#"{"replyCode":0,"data":{"result":[{"id":1,"3":"a"},{"id":2,"3":"b"},{"id":3,"3":"c"}]}}"#;
    let (client, _) = client([Answer::reply(200, page)]);
    let query = client.contacts().query(FieldId::EMAIL).page(2);
    let error = query.stream().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::NotSent));
}

#[tokio::test(start_paused = true)]
async fn ids_of_contacts_are_keys_as_they_are() {
    let (client, script) = client([
        Answer::reply(200, r#"{"replyCode":0,"data":{"result":[{"id":"700001","1":"Ada"}],"errors":[]}}"#),
        Answer::reply(200, r#"{"replyCode":0,"data":{"ids":["700001"],"errors":[]}}"#),
    ]);
    let ada = ContactId::new(700_001);
    let found = client.contacts().get_data(KeyField::Id, &[ada], &[FieldId::FIRST_NAME]).await.unwrap();
    assert_eq!(found[0].found().map(ContactData::id), Some(ada));
    let contact = Contact::new(KeyField::Id, ada).with(FieldId::FIRST_NAME, "Ada");
    assert!(client.contacts().update(KeyField::Id, &[contact]).await.unwrap()[0].is_done());
    let sent = script.sent();
    assert_eq!(sent[0].body, r#"{"keyId":"id","keyValues":["700001"],"fields":["1"]}"#);
    assert_eq!(sent[1].body, r#"{"key_id":"id","contacts":[{"id":"700001","1":"Ada"}]}"#);
}

#[tokio::test(start_paused = true)]
async fn key_that_cannot_be_one_is_refused_before_anything_is_sent() {
    let (client, script) = client([]);
    let contacts = client.contacts();
    let nobody = Contact::new(KeyField::Id, ContactId::new(7));
    let errors: Vec<Error> = vec![
        contacts.find(FieldId::EMAIL, " ").await.unwrap_err(),
        contacts.create(KeyField::Id, std::slice::from_ref(&nobody), None).await.unwrap_err(),
        contacts.create_one(KeyField::Uid, &nobody, None).await.unwrap_err(),
        contacts.update_one(FieldId::EMAIL, &nobody).await.unwrap_err(),
    ];
    for (error, why) in
        errors.iter().zip(["key field 3", "`id` as its key", "`uid` as its key", "key field 3"])
    {
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(script.sent().is_empty());
}
