//! The calls about contact lists against the replies that are known of them.

use super::*;
use crate::{
    ErrorKind,
    emarsys::{
        Refusal,
        transport::fake::{Answer, client},
    },
};

#[tokio::test(start_paused = true)]
async fn lists_have_number_and_name() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":[
        {"id":"4711","name":"spring_buyers","created":"2026-03-01 10:15:00","type":0},{"id":12,"name":"x"}]}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let lists = client.lists().list().await.unwrap();
    let created = chrono::NaiveDate::from_ymd_opt(2026, 3, 1).and_then(|day| day.and_hms_opt(10, 15, 0));
    let name = "spring_buyers".to_owned();
    assert_eq!(lists[0], ContactList { id: ListId::new(4711), name, created, list_type: Some(0) });
    assert_eq!((lists[1].id, lists[1].created, lists[1].list_type), (ListId::new(12), None, None));
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/contactlist");
}

#[tokio::test(start_paused = true)]
async fn list_is_created_empty() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":4711}}"#;
    let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, reply)]);
    let list = client.lists().create("spring_buyers", Some("made by sync")).await.unwrap();
    assert_eq!(list, ListId::new(4711));
    client.lists().create("spring_buyers", None).await.unwrap();
    let sent = script.sent();
    assert_eq!(sent[0].body, r#"{"name":"spring_buyers","description":"made by sync","key_id":"3"}"#);
    assert_eq!(sent[1].body, r#"{"name":"spring_buyers","key_id":"3"}"#);
    assert_eq!(client.lists().create(" ", None).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn name_that_exists_is_told_by_its_code_under_either_status() {
    for status in [400, 500] {
        let reply = r#"{"replyCode":3005,"replyText":"Contact list with the requested name already exists.","data":""}"#;
        let (client, _) = client([Answer::reply(status, reply)]);
        let error = client.lists().create("spring_buyers", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(3005));
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_added_and_removed_by_key() {
    let added = r#"{"replyCode":0,"replyText":"OK","data":{"inserted_contacts":1,"errors":
        {"zoe@shop.test":{"2008":"No contact found with the external id: 3 - zoe@shop.test"}}}}"#;
    let removed = r#"{"replyCode":0,"replyText":"OK","data":{"deleted_contacts":"2","errors":[]}}"#;
    let (client, script) = client([Answer::reply(200, added), Answer::reply(200, removed)]);
    let (list, keys) = (ListId::new(4711), ["ada@shop.test", "zoe@shop.test"]);
    let results = client.lists().add(list, FieldId::EMAIL, &keys).await.unwrap();
    assert!(
        matches!(&results[..], [RowResult::Done, RowResult::Rejected(no)] if no.is_missing()),
        "{results:?}"
    );
    let results = client.lists().remove(list, FieldId::EMAIL, &keys).await.unwrap();
    assert!(matches!(&results[..], [RowResult::Done, RowResult::Done]));
    let sent = script.sent();
    assert_eq!(sent[0].url, "https://api.emarsys.net/api/v2/contactlist/4711/add");
    assert_eq!(sent[1].url, "https://api.emarsys.net/api/v2/contactlist/4711/delete");
    for sent in sent {
        assert_eq!(sent.body, r#"{"key_id":"3","external_ids":["ada@shop.test","zoe@shop.test"]}"#);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_list_is_refused() {
    let reply = r#"{"replyCode":3004,"replyText":"Invalid contact list id: 4711","data":""}"#;
    let (client, _) = client([Answer::reply(400, reply)]);
    let error = client.lists().add(ListId::new(4711), FieldId::EMAIL, &["a"]).await.unwrap_err();
    let refusal = error.cause::<Refusal>().unwrap();
    assert_eq!((refusal.endpoint.as_str(), refusal.code), ("POST contactlist/{id}/add", Some(3004)));
}

fn codes(rows: &[RowResult]) -> Vec<i64> {
    let code = |row: &RowResult| match row {
        RowResult::Done => 0,
        RowResult::Rejected(rejection) => rejection.code(),
        RowResult::Failed(error) => match error.delivery() {
            crate::Delivery::NotSent => -1,
            crate::Delivery::Refused => -2,
            crate::Delivery::Unknown => -3,
        },
    };
    rows.iter().map(code).collect()
}

#[tokio::test(start_paused = true)]
async fn list_is_created_with_those_who_exist() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":4711,"errors":
        {"zoe@shop.test":{"2008":"No contact found with the external id: 3 - zoe@shop.test"}}}}"#;
    let bare = r#"{"replyCode":0,"replyText":"OK","data":{"id":"4712"}}"#;
    let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, bare)]);
    let keys = ["ada@shop.test", "zoe@shop.test"];
    let made = client.lists().create_with("spring", Some("by sync"), FieldId::EMAIL, &keys).await.unwrap();
    assert_eq!((made.id, codes(&made.rows)), (ListId::new(4711), vec![0, 2008]));
    let made = client.lists().create_with("empty", None, FieldId::EMAIL, &[""; 0]).await.unwrap();
    assert_eq!((made.id, made.rows.len()), (ListId::new(4712), 0));
    let sent = script.sent();
    assert_eq!(
        sent[0].body,
        r#"{"name":"spring","description":"by sync","key_id":"3","external_ids":["ada@shop.test","zoe@shop.test"]}"#
    );
    assert_eq!(sent[1].body, r#"{"name":"empty","key_id":"3"}"#);
}

#[tokio::test(start_paused = true)]
async fn keys_beyond_the_limit_are_added_and_their_failure_is_theirs_alone() {
    let keys: Vec<String> = (0..10_001).map(|row| format!("k{row}")).collect();
    let created = r#"{"replyCode":0,"replyText":"OK","data":{"id":4711,"errors":[]}}"#;
    let replaced = r#"{"replyCode":0,"replyText":"OK","data":{"inserted_contacts":10000,"errors":[]}}"#;
    let (client, script) = client([
        Answer::reply(200, created),
        Answer::reply(403, "Forbidden"),
        Answer::reply(200, replaced),
        Answer::reply(200, r#"{"replyCode":0,"data":{"inserted_contacts":1,"errors":[]}}"#),
    ]);
    let made = client.lists().create_with("big", None, FieldId::EMAIL, &keys).await.unwrap();
    assert_eq!((made.rows.len(), &codes(&made.rows)[9_999..]), (10_001, &[0, -2][..]));
    let rows = client.lists().replace(ListId::new(4711), FieldId::EMAIL, &keys).await.unwrap();
    assert!(rows.len() == 10_001 && codes(&rows).iter().all(|code| *code == 0));
    let paths: Vec<_> =
        script.sent().iter().map(|sent| sent.url.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["contactlist", "add", "replace", "add"]);
    assert_eq!(script.sent()[3].body, r#"{"key_id":"3","external_ids":["k10000"]}"#);
}

#[tokio::test(start_paused = true)]
async fn list_can_be_emptied() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"inserted_contacts":0,"errors":[]}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let rows = client.lists().replace(ListId::new(4711), FieldId::EMAIL, &[""; 0]).await.unwrap();
    assert!(rows.is_empty());
    assert_eq!(script.sent()[0].body, r#"{"key_id":"3","external_ids":[]}"#);
}

#[tokio::test(start_paused = true)]
async fn list_is_renamed_counted_searched_and_deleted() {
    let ok = |data: &str| Answer::reply(200, format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#));
    let (client, script) = client([
        ok(r#"{"id":"4711","name":"new"}"#),
        ok("123"),
        ok(r#""7""#),
        ok("true"),
        ok("false"),
        ok("{}"),
        ok(r#""""#),
        Answer::reply(
            404,
            r#"{"replyCode":3006,"replyText":"No contact list found with the specified ID.","data":""}"#,
        ),
    ]);
    let (lists, list, contact) = (client.lists(), ListId::new(4711), ContactId::new(700_001));
    lists.rename(list, "new").await.unwrap();
    assert_eq!((lists.count(list).await.unwrap(), lists.count(list).await.unwrap()), (123, 7));
    assert!(lists.contains(list, contact).await.unwrap());
    assert!(!lists.contains(list, contact).await.unwrap());
    lists.delete(list).await.unwrap();
    lists.delete(list).await.unwrap();
    let error = lists.count(list).await.unwrap_err();
    assert_eq!(error.cause::<crate::emarsys::Refusal>().unwrap().code, Some(3006));
    let sent = script.sent();
    let paths: Vec<_> =
        sent.iter().map(|sent| (sent.method, sent.url.split_once("/v2/").unwrap().1)).collect();
    assert_eq!(
        paths[..7],
        [
            ("POST", "contactlist/4711/rename"),
            ("GET", "contactlist/4711/count"),
            ("GET", "contactlist/4711/count"),
            ("GET", "contactlist/4711/contacts/700001"),
            ("GET", "contactlist/4711/contacts/700001"),
            ("POST", "contactlist/4711/deletelist"),
            ("POST", "contactlist/4711/deletelist"),
        ]
    );
    assert_eq!(sent[0].body, r#"{"name":"new"}"#);
    assert!(lists.rename(list, " ").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_in_every_form_they_are_printed_in() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "0":{"id":"1","name":null,"created":false},"1":{"id":2,"name":"x","created":"0000-00-00 00:00:00"}}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let lists = client.lists().list().await.unwrap();
    assert_eq!((lists[0].name.as_str(), lists[0].created), ("", None));
    assert_eq!((lists[1].name.as_str(), lists[1].created), ("x", None));
}

#[tokio::test(start_paused = true)]
async fn number_of_a_new_list_is_not_lost_when_its_keys_are_refused() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":4711,"errors":
        {"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}}}}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let keys: Vec<String> = (0..10_001).map(|row| format!("k{row}")).collect();
    let made = client.lists().create_with("spring", None, FieldId::new(999), &keys).await.unwrap();
    assert_eq!((made.id, codes(&made.rows)), (ListId::new(4711), vec![-2; 10_001]));
    assert!(
        matches!(&made.rows[0], RowResult::Failed(error) if error.cause::<Refusal>().unwrap().code == Some(2004))
    );
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reply_that_contradicts_itself_leaves_members_unknown() {
    for data in [
        r#"{"inserted_contacts":1,"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}}}"#,
        r#"{"inserted_contacts":3,"errors":[]}"#,
        r#"{"inserted_contacts":2,"errors":{"zoe@shop.test":{"2008":""},"ada@shop.test":{"2008":""}}}"#,
    ] {
        let (client, _) = client([Answer::reply(200, format!(r#"{{"replyCode":0,"data":{data}}}"#))]);
        let keys = ["ada@shop.test", "zoe@shop.test"];
        let rows = client.lists().add(ListId::new(4711), FieldId::EMAIL, &keys).await.unwrap();
        assert!(!rows.iter().any(|row| matches!(row, RowResult::Done)), "{data}: {rows:?}");
    }
    let none = r#"{"replyCode":0,"data":{"inserted_contacts":0,"errors":{"<NO_KEY_ID>":{"2004":""}}}}"#;
    let (client, _) = client([Answer::reply(200, none)]);
    let error = client.lists().add(ListId::new(4711), FieldId::EMAIL, &["a"]).await.unwrap_err();
    assert_eq!(error.delivery(), crate::Delivery::Refused);
}

#[tokio::test(start_paused = true)]
async fn replacement_that_others_are_added_to_is_sent_once() {
    let keys: Vec<String> = (0..10_001).map(|row| format!("k{row}")).collect();
    let (client, script) = client([Answer::Lost]);
    let error = client.lists().replace(ListId::new(4711), FieldId::EMAIL, &keys).await.unwrap_err();
    assert_eq!((error.delivery(), script.sent().len()), (crate::Delivery::Unknown, 1));
}
