//! Every form in which a reply is known to be printed.

use serde_json::json;

use super::*;
use crate::emarsys::ids::ContactId;

#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    ids: List<ContactId>,
    #[serde(default)]
    errors: RowErrors,
}

fn read<T: DeserializeOwned>(body: &str) -> T {
    data(Envelope::read(body.as_bytes()).expect("an envelope").data).expect("the expected shape")
}

fn errors(body: &str) -> Vec<(String, Option<i64>, Option<u32>)> {
    let reply: Ids = read(body);
    reply.errors.0.into_iter().map(|error| (error.key, error.code, error.field.map(FieldId::get))).collect()
}

#[test]
fn shape_of_a_body_says_nothing_of_what_is_in_it() {
    let cases = [
        ("", "an empty body"),
        (" \n", "an empty body"),
        ("Ada", "a text of 3 bytes"),
        (
            "<html>Ada</html>",
            "a web page of 16 bytes; if it is no passing failure of a gateway, check the base URL",
        ),
        (r#"{"replyCode":0,"data":{"Ada"#, "JSON of 27 bytes that breaks off in line 1, column 27"),
        (
            r#"{"replyCode":0,"data":{"ids":["Ada",7],"errors":{"ada@shop.test":{"2008":"Ada"}},"Ada":true}}"#,
            "JSON of 93 bytes: {data: {errors: {and 1 more}, ids: [2 × a text], and 1 more}, replyCode: a number}",
        ),
        (r#""Ada""#, "JSON of 5 bytes: a text"),
        ("[[[[[1]]]]]", "JSON of 11 bytes: [1 × [1 × [1 × [1]]]]"),
    ];
    for (body, expected) in cases {
        assert_eq!(shape(body.as_bytes()), expected);
    }
}

#[test]
fn body_without_an_envelope_is_read_where_that_is_the_form() {
    let read = |body: &str, form| {
        Envelope::read_success(body.as_bytes(), form).map(|reply| (reply.code, reply.data))
    };
    let page = r#"{"value":[7],"next":null}"#;
    assert_eq!(read(page, ReplyForm::Envelope), None);
    assert_eq!(read(page, ReplyForm::Any), Some((0, json!({"value": [7], "next": null}))));
    assert_eq!(read(r#"{"replyCode":0,"data":[7]}"#, ReplyForm::Any), Some((0, json!([7]))));
    assert_eq!(read("", ReplyForm::Any), Some((0, Value::Null)));
    assert_eq!(read("done", ReplyForm::Any), Some((0, json!("done"))));
    assert_eq!(read(r#"{"code":200}"#, ReplyForm::Any), Some((0, json!({"code": 200}))));
    for body in ["<html></html>", r#"{"replyCode":0,"data":{"ids":["7"#, "[1", &"x".repeat(200)] {
        assert_eq!(read(body, ReplyForm::Any), None, "{body}");
    }
    assert_eq!(read(r#"{"replyCode":0,"data":""}"#, ReplyForm::Text), None);
    assert_eq!(read(r#"{"code":"15002"}"#, ReplyForm::Any).map(|(code, _)| code), Some(15_002));
    assert_eq!(read("user_id,1\n7,Ada", ReplyForm::Text), Some((0, json!("user_id,1\n7,Ada"))));
    assert_eq!(read(r#"{"replyCode":4005,"data":""}"#, ReplyForm::Text).map(|(code, _)| code), Some(4005));
}

#[test]
fn ids_are_numbers_and_strings_in_the_same_reply() {
    let reply: Ids = read(r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001",700002]}}"#);
    assert_eq!(reply.ids.0, [ContactId::new(700_001), ContactId::new(700_002)]);
    assert!(reply.errors.0.is_empty());
}

#[test]
fn ids_may_be_an_object_with_numbers_for_keys() {
    let reply: Ids = read(r#"{"replyCode":0,"data":{"ids":{"0":"700001","2":700002}}}"#);
    assert_eq!(reply.ids.0.len(), 2);
}

#[test]
fn empty_maps_and_lists_come_in_every_spelling() {
    for data in [
        r#"{"ids":[],"errors":[]}"#,
        r#"{"ids":{},"errors":{}}"#,
        r#"{"ids":false,"errors":false}"#,
        r#"{"ids":null,"errors":null}"#,
        r#"{"ids":"","errors":""}"#,
        "{}",
        "[]",
        "null",
        "false",
        r#""""#,
    ] {
        let reply: Ids = read(&format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#));
        assert!(reply.ids.0.is_empty() && reply.errors.0.is_empty(), "{data}");
    }
    let absent: Ids = read(r#"{"replyCode":0}"#);
    assert!(absent.ids.0.is_empty());
}

#[test]
fn reply_code_may_be_a_string() {
    assert_eq!(Envelope::read(br#"{"replyCode":"2008","data":""}"#).map(|reply| reply.code), Some(2008));
}

#[test]
fn envelope_is_read_behind_a_byte_order_mark_and_around_broken_utf_8() {
    let body = b"\xef\xbb\xbf{\"replyCode\":0,\"replyText\":\"\xff\",\"data\":7}";
    assert_eq!(Envelope::read(body).map(|reply| reply.data), Some(7.into()));
}

#[test]
fn replies_of_a_gateway_are_no_envelope() {
    for body in [
        "Your application has made too many requests in too short a time.",
        r#"{"message":"Request size limit exceeded"}"#,
        r#"{"replyCode":null}"#,
        r#"{"replyCode":0,"data":{"ids":["7"#,
        "<html></html>",
        "[]",
        "",
    ] {
        assert!(Envelope::read(body.as_bytes()).is_none(), "{body}");
    }
}

#[test]
fn row_error_has_its_code_and_the_field_that_its_text_names() {
    assert_eq!(
        errors(
            r#"{"replyCode":0,"data":{"ids":[],"errors":{"C-1001":{"2007":"Invalid choice id for field id: 14"}}}}"#
        ),
        [("C-1001".to_owned(), Some(2007), Some(14))]
    );
    assert_eq!(
        errors(
            r#"{"replyCode":0,"data":{"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}},"ids":[]}}"#
        ),
        [("<NO_KEY_ID>".to_owned(), Some(2004), Some(999))]
    );
}

#[test]
fn digits_of_a_key_are_not_taken_for_a_field() {
    assert_eq!(
        errors(
            r#"{"replyCode":0,"data":{"errors":{"k":{"2008":"No contact found: 3 - field id: 4917012345"}}}}"#
        ),
        [("k".to_owned(), Some(2008), None)]
    );
}

#[test]
fn row_errors_may_be_a_list_with_the_code_as_number_or_string() {
    assert_eq!(
        errors(
            r#"{"replyCode":0,"data":{"result":false,"errors":[
                {"key":"zoe@shop.test","errorCode":2008,"errorMsg":"No contact found with the external id: 3"},
                {"key":5678,"errorCode":"2010","errorMsg":""}]}}"#
        ),
        [("zoe@shop.test".to_owned(), Some(2008), None), ("5678".to_owned(), Some(2010), None)]
    );
}

#[test]
fn row_errors_of_the_keys_0_and_1_arrive_as_a_list() {
    assert_eq!(
        errors(r#"{"replyCode":0,"data":{"errors":[{"2008":"No contact"},{"2010":"More contacts"}]}}"#),
        [("0".to_owned(), Some(2008), None), ("1".to_owned(), Some(2010), None)]
    );
}

#[test]
fn entry_without_a_code_is_kept() {
    for entry in ["[]", "{}", "\"2008\"", "null", r#"{"code":"text"}"#] {
        let body = format!(r#"{{"replyCode":0,"data":{{"errors":{{"k":{entry}}}}}}}"#);
        assert_eq!(errors(&body), [("k".to_owned(), None, None)], "{entry}");
    }
}

#[test]
fn code_that_also_means_exists_is_told_apart_by_its_text() {
    let says =
        |code: i64, text: &str| RowError::new("k".into(), Some(&code.into()), Some(&text.into())).says_exists;
    assert!(says(2006, "Contact with the external id already exists: 3"));
    assert!(says(2010, "Contacts with the external id already exist: 3"));
    assert!(!says(2006, "Invalid field id: 999"));
    assert!(!says(2010, "More contacts found with the external id: 3 - external id already exist"));
}

#[test]
fn refusal_that_names_successes_is_noticed() {
    let names = |body: &str| Envelope::read(body.as_bytes()).unwrap().names_successes();
    assert!(names(r#"{"replyCode":1,"data":{"ids":["1"]}}"#));
    assert!(names(r#"{"replyCode":1,"data":{"deleted_contacts":"2"}}"#));
    assert!(!names(r#"{"replyCode":1,"data":{"ids":[],"errors":{"a":{"2007":""}}}}"#));
    assert!(!names(r#"{"replyCode":1,"data":""}"#));
}
