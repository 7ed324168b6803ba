use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    Delivery, ErrorKind,
    emarsys::{
        Refusal,
        transport::fake::{Answer, client},
    },
};

fn reply(data: &str) -> Answer {
    Answer::reply(200, format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#))
}

fn not_ready() -> Answer {
    let body = r#"{"replyCode":10001,"replyText":"The segment is currently evaluated.","data":""}"#;
    Answer::reply(202, body)
}

#[tokio::test(start_paused = true)]
async fn segments_are_read_in_every_form_they_are_printed_in() {
    let (client, script) = client([reply(
        r#"[{"id":"123","name":"women","type":"standard","predefinedSegmentId":"9","tags":[],
            "criteriaTypes":["contact"],"baseContactListId":0},
            {"id":124,"name":"odd","type":"quantum","predefinedSegmentId":null,"tags":["a",7],
            "criteriaTypes":{"0":"contact"},"baseContactListId":"4711"},
            {"id":"125","name":"bare"}]"#,
    )]);
    let segments = client.segments().list().await.unwrap();
    let [women, odd, bare] = &segments[..] else { panic!("{segments:?}") };
    assert_eq!((women.id, women.name.as_str()), (SegmentId::new(123), "women"));
    assert_eq!(women.segment_type, Some(SegmentType::Standard));
    assert_eq!((women.predefined_segment, women.base_list), (Some(SegmentId::new(9)), None));
    assert_eq!((&women.tags[..], &women.criteria_types[..]), (&[][..], &["contact".to_owned()][..]));
    assert_eq!(odd.segment_type, Some(SegmentType::Other("quantum".to_owned())));
    assert_eq!((odd.predefined_segment, odd.base_list), (None, Some(ListId::new(4711))));
    assert_eq!(odd.tags, ["a", "7"]);
    assert_eq!((bare.id, &bare.segment_type), (SegmentId::new(125), &None));
    let sent = script.sent();
    assert_eq!((sent[0].method, sent[0].url.as_str()), ("GET", "https://api.emarsys.net/api/v2/filter"));
}

#[tokio::test(start_paused = true)]
async fn account_without_segments_has_none() {
    for empty in ["[]", "{}", r#""""#, "null", "false"] {
        let (client, _) = client([reply(empty)]);
        assert!(client.segments().list().await.unwrap().is_empty(), "{empty}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_segment_is_read_by_its_number() {
    let (client, script) = client([reply(r#"{"id":"123","name":"women"}"#), reply(r#"{"name":"women"}"#)]);
    for _ in 0..2 {
        let segment = client.segments().get(SegmentId::new(123)).await.unwrap();
        assert_eq!((segment.id, segment.name.as_str()), (SegmentId::new(123), "women"));
    }
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/filter/123");
}

#[tokio::test(start_paused = true)]
async fn segment_is_created_from_its_criteria() {
    let (client, script) = client([reply(r#"{"id":"100055501"}"#), reply(r#"{"id":100055502}"#)]);
    let segment = NewSegment::new("women", Criteria::compare("gender", Operator::Equals, "female"))
        .description("made by a program")
        .base_list(ListId::new(4711));
    assert_eq!(client.segments().create(&segment).await.unwrap(), SegmentId::new(100_055_501));
    let clicked = json!({"type": "criteria", "criteria": "response_click", "time_restriction": "last_days"});
    let segment = NewSegment::of_behaviour("clicked", clicked);
    assert_eq!(client.segments().create(&segment).await.unwrap(), SegmentId::new(100_055_502));
    let sent = script.sent();
    assert_eq!((sent[0].method, sent[0].url.as_str()), ("PUT", "https://api.emarsys.net/api/v2/filter"));
    assert_eq!(
        sent[0].body,
        concat!(
            r#"{"name":"women","description":"made by a program","baseContactListId":"4711","#,
            r#""contactCriteria":{"type":"criteria","field":"gender","operator":"equals","value":"female"}}"#
        )
    );
    assert_eq!(
        serde_json::from_str::<Value>(&sent[1].body).unwrap(),
        json!({"name": "clicked", "description": "", "baseContactListId": "0", "behaviourCriteria":
            {"type": "criteria", "criteria": "response_click", "time_restriction": "last_days"}})
    );
}

#[tokio::test(start_paused = true)]
async fn segment_that_cannot_be_is_refused_before_anything_is_sent() {
    let (client, script) = client([]);
    let segments = client.segments();
    let node = || Criteria::not_empty("email");
    for segment in [
        NewSegment::new(" ", node()),
        NewSegment::new("x", Criteria::And(Vec::new())),
        NewSegment::new("x", node().or(Criteria::Or(Vec::new()))),
        NewSegment::new("x", Criteria::not_empty("")),
    ] {
        let error = segments.create(&segment).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
    }
    let all = SegmentId::ALL_CONTACTS;
    for error in [
        segments.contact_criteria(all).await.unwrap_err(),
        segments.set_contact_criteria(all, &node()).await.unwrap_err(),
        segments.delete(all).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert!(script.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn criteria_that_are_refused_are_told_by_the_code() {
    let body = r#"{"replyCode":1008,"replyText":"Validation error: name duplicated","data":""}"#;
    let (client, _) = client([Answer::reply(400, body)]);
    let segment = NewSegment::new("x", Criteria::not_empty("email"));
    let error = client.segments().create(&segment).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
    assert!(error.to_string().contains("the segment's name exists"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn criteria_are_read_and_written_back() {
    let tree = r#"{"type":"and","children":[{"type":"criteria","field":"email","operator":"not_empty"}]}"#;
    let (client, script) = client([reply(tree), reply(r#""""#)]);
    let criteria = client.segments().contact_criteria(SegmentId::new(123)).await.unwrap();
    let criteria = criteria.unwrap();
    assert_eq!(criteria, Criteria::And(vec![Criteria::not_empty("email")]));
    client.segments().set_contact_criteria(SegmentId::new(123), &criteria).await.unwrap();
    let sent = script.sent();
    for sent in &sent {
        assert_eq!(sent.url, "https://api.emarsys.net/api/v2/filter/123/contact_criteria");
    }
    assert_eq!((sent[0].method, sent[1].method), ("GET", "PUT"));
    assert_eq!(
        serde_json::from_str::<Value>(&sent[1].body).unwrap(),
        serde_json::from_str::<Value>(tree).unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn segment_without_contact_criteria_has_none() {
    for empty in ["[]", "{}", r#""""#, "null", "false"] {
        let (client, _) = client([reply(empty)]);
        assert_eq!(client.segments().contact_criteria(SegmentId::new(123)).await.unwrap(), None, "{empty}");
    }
}

#[tokio::test(start_paused = true)]
async fn deletion_is_a_get_that_is_never_sent_twice() {
    for data in [r#""""#, "null", "{}", "[]", "true"] {
        let (client, script) = client([reply(data)]);
        client.segments().delete(SegmentId::new(123)).await.unwrap();
        let sent = script.sent();
        assert_eq!(
            (sent[0].method, sent[0].url.as_str()),
            ("GET", "https://api.emarsys.net/api/v2/filter/123/delete")
        );
    }
    let (client, script) = client([Answer::Lost]);
    let error = client.segments().delete(SegmentId::new(123)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::NoAnswer, Delivery::Unknown));
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn segment_that_others_are_made_of_is_not_deleted() {
    let body = r#"{"replyCode":1008,"replyText":"Filter has dependencies.","data":""}"#;
    let (client, _) = client([Answer::reply(400, body)]);
    let error = client.segments().delete(SegmentId::new(123)).await.unwrap_err();
    assert!(error.to_string().contains("something else depends on the segment"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn count_is_asked_for_until_it_is_there() {
    let (client, script) = client([not_ready(), not_ready(), reply("123"), reply(r#""0""#)]);
    let segments = client.segments();
    assert_eq!(segments.count(SegmentId::new(7), Polling::default()).await.unwrap(), 123);
    assert_eq!(segments.count(SegmentId::ALL_CONTACTS, Polling::default()).await.unwrap(), 0);
    let sent = script.sent();
    assert_eq!(sent[0].url, "https://api.emarsys.net/api/v2/filter/7/contacts/count");
    assert_eq!(sent[2].at, Duration::from_secs(5));
    assert_eq!(sent[3].url, "https://api.emarsys.net/api/v2/filter/0/contacts/count");
}

#[tokio::test(start_paused = true)]
async fn evaluation_that_takes_too_long_is_not_ready() {
    let (client, script) = client([not_ready(), not_ready()]);
    let polling = Polling::default().time_max(Duration::from_secs(3));
    let error = client.segments().count(SegmentId::new(7), polling).await.unwrap_err();
    assert!(error.cause::<Refusal>().unwrap().is_not_ready());
    assert!(error.is_retryable());
    assert_eq!(script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn members_are_read_page_by_page_until_one_is_not_full() {
    let ids: Vec<String> = (0..PAGE).map(|id| id.to_string()).collect();
    let full = json!(ids).to_string();
    let (client, script) = client([not_ready(), reply(&full), reply(r#"["700001",700002]"#)]);
    let members = client.segments().members(SegmentId::new(7), Polling::default());
    let members: Vec<ContactId> = members.try_collect().await.unwrap();
    assert_eq!(members.len(), PAGE + 2);
    assert_eq!(members[PAGE..], [ContactId::new(700_001), ContactId::new(700_002)]);
    let urls: Vec<String> = script.sent().into_iter().map(|sent| sent.url).collect();
    let page =
        |offset| format!("https://api.emarsys.net/api/v2/filter/7/contacts?limit=10000&offset={offset}");
    assert_eq!(urls, [page(0), page(0), page(10_000)]);
}

#[tokio::test(start_paused = true)]
async fn segment_without_members_and_one_that_is_unknown_are_told_apart() {
    for empty in ["[]", r#""""#, "null"] {
        let (client, _) = client([reply(empty)]);
        let mut members = client.segments().members(SegmentId::new(7), Polling::default());
        assert!(members.next().await.is_none(), "{empty}");
    }
    let unknown = r#"{"replyCode":10002,"replyText":"The segment specified does not exist.","data":""}"#;
    let (client, _) = client([Answer::reply(404, unknown)]);
    let mut members = client.segments().members(SegmentId::new(7), Polling::default());
    let error = members.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no segment has this id"), "{error}");
    assert!(members.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn contact_is_looked_up() {
    let (client, script) = client([reply("true"), not_ready(), reply("false"), reply("1")]);
    let contains = |segment| {
        let client = client.clone();
        async move {
            let contact = ContactId::new(700_001);
            client.segments().contains(segment, contact, Polling::default()).await.unwrap()
        }
    };
    let segment = SegmentId::new(7);
    assert_eq!(
        (contains(segment).await, contains(segment).await, contains(segment).await),
        (true, false, true)
    );
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/filter/7/contacts/700001");
}

#[test]
fn new_segment_is_shown_without_values() {
    let shown = format!(
        "{:?}",
        NewSegment::new("x", Criteria::compare("email", Operator::Equals, "ada@shop.test"))
            .behaviour_criteria(json!({"who": "ada@shop.test"}))
    );
    assert!(!shown.contains("ada"), "{shown}");
}
