//! The calls about contact fields against the replies that are known of them.

use super::*;
use crate::{
    Delivery, ErrorKind,
    emarsys::{
        Refusal,
        transport::fake::{Answer, client},
    },
};

#[tokio::test(start_paused = true)]
async fn fields_are_read_in_every_form_they_are_printed_in() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":[
        {"id":3,"name":"Email","application_type":"longtext","string_id":"email"},
        {"id":"4711","name":null,"application_type":"hologram","string_id":""},
        {"id":12}]}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let fields = client.fields().list().await.unwrap();
    assert_eq!(fields[0].id, FieldId::EMAIL);
    assert_eq!(fields[0].name.as_deref(), Some("Email"));
    assert_eq!(fields[0].string_id.as_deref(), Some("email"));
    assert_eq!(fields[0].application_type, ApplicationType::LongText);
    assert_eq!(fields[1].application_type, ApplicationType::Other("hologram".to_owned()));
    assert_eq!((&fields[1].name, &fields[1].string_id), (&None, &None));
    assert_eq!(fields[2].application_type.as_str(), "");
    let sent = script.sent();
    assert_eq!((sent[0].method, sent[0].url.as_str()), ("GET", "https://api.emarsys.net/api/v2/field"));
    assert_eq!(sent[0].body, "");
}

#[test]
fn every_type_is_read_as_it_is_written() {
    for name in [
        "shorttext",
        "longtext",
        "largetext",
        "numeric",
        "date",
        "birthdate",
        "url",
        "fax",
        "singlechoice",
        "multichoice",
        "interests",
        "special",
        "voucher",
        "hologram",
    ] {
        let kind = ApplicationType::from(name.to_owned());
        assert_eq!(kind.as_str(), name);
        assert_eq!(matches!(kind, ApplicationType::Other(_)), name == "hologram");
    }
}

#[tokio::test(start_paused = true)]
async fn field_is_created_with_name_and_type() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":10601}}"#;
    let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, reply)]);
    let field = NewField::new("Loyalty points", ApplicationType::Numeric);
    assert_eq!(client.fields().create(&field).await.unwrap(), FieldId::new(10601));
    client.fields().create(&field.string_id("loyalty_points")).await.unwrap();
    let sent = script.sent();
    assert_eq!(sent[0].body, r#"{"name":"Loyalty points","application_type":"numeric"}"#);
    assert_eq!(
        sent[1].body,
        r#"{"name":"Loyalty points","application_type":"numeric","string_id":"loyalty_points"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn field_that_the_api_cannot_create_is_refused_before_anything_is_sent() {
    let (client, script) = client([]);
    for field in [
        NewField::new("Level", ApplicationType::SingleChoice),
        NewField::new(" ", ApplicationType::Numeric),
        NewField::new("x".repeat(201), ApplicationType::Numeric),
    ] {
        let error = client.fields().create(&field).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
    }
    assert!(script.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn missing_slots_are_told_by_the_code_under_either_status() {
    for status in [400, 500] {
        let reply = r#"{"replyCode":9004,"replyText":"No more slots to create the field","data":""}"#;
        let (client, _) = client([Answer::reply(status, reply)]);
        let error = client.fields().create(&NewField::new("x", ApplicationType::Numeric)).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(9004));
    }
}

#[tokio::test(start_paused = true)]
async fn choices_have_id_and_label() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":[
        {"id":"1","choice":"Male","bit_position":null},{"id":2,"choice":"Female"}]}"#;
    let (client, script) = client([Answer::reply(200, reply)]);
    let choices = client.fields().choices(FieldId::GENDER).await.unwrap();
    assert_eq!(choices[0], Choice { id: 1, label: "Male".to_owned(), bit_position: None });
    assert_eq!(choices[1], Choice { id: 2, label: "Female".to_owned(), bit_position: None });
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/field/5/choice");
}

#[tokio::test(start_paused = true)]
async fn choices_of_several_fields_come_by_field_in_the_language_asked_for() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "5":[{"id":"1","choice":"Herr","bit_position":"3"}],"9":[{"id":4,"choice":"Dr.","bit_position":0}]}}"#;
    let none = r#"{"replyCode":0,"replyText":"OK","data":[]}"#;
    let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, none)]);
    let fields = [FieldId::GENDER, FieldId::TITLE];
    let choices = client.fields().choices_of(&fields, Some("de")).await.unwrap();
    assert_eq!(
        choices[&FieldId::GENDER],
        [Choice { id: 1, label: "Herr".to_owned(), bit_position: Some(3) }]
    );
    assert_eq!(choices[&FieldId::TITLE][0].bit_position, Some(0));
    assert!(client.fields().choices_of(&fields, None).await.unwrap().is_empty());
    assert!(client.fields().choices_of(&[], None).await.unwrap().is_empty());
    let urls: Vec<_> = script.sent().into_iter().map(|sent| sent.url).collect();
    let base = "https://api.emarsys.net/api/v2/field/choices?fields=5%2C9";
    assert_eq!(urls, [format!("{base}&language=de"), base.to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn names_and_choices_are_read_in_a_language() {
    let fields = r#"{"replyCode":0,"replyText":"OK","data":[{"id":1,"name":"Vorname"}]}"#;
    let choices = r#"{"replyCode":0,"replyText":"OK","data":[{"id":"1","choice":"Herr"}]}"#;
    let unknown = r#"{"replyCode":1002,"replyText":"Invalid language code","data":""}"#;
    let (client, script) =
        client([Answer::reply(200, fields), Answer::reply(200, choices), Answer::reply(400, unknown)]);
    assert_eq!(client.fields().list_in("de").await.unwrap()[0].name.as_deref(), Some("Vorname"));
    assert_eq!(client.fields().choices_in(FieldId::SALUTATION, "de").await.unwrap()[0].label, "Herr");
    let error = client.fields().list_in("../field").await.unwrap_err();
    assert_eq!(error.cause::<Refusal>().unwrap().code, Some(1002));
    let urls: Vec<_> = script.sent().into_iter().map(|sent| sent.url).collect();
    assert_eq!(
        urls,
        ["field/translate/de", "field/46/choice/translate/de", "field/translate/..%2Ffield"]
            .map(|path| format!("https://api.emarsys.net/api/v2/{path}"))
    );
}

#[tokio::test(start_paused = true)]
async fn field_is_deleted_or_the_code_says_why_not() {
    let (client, script) = client([
        Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":""}"#),
        Answer::reply(
            400,
            r#"{"replyCode":263,"replyText":"System fields cannot be deleted or edited.","data":""}"#,
        ),
        Answer::reply(404, r#"{"replyText":"No such field"}"#),
    ]);
    client.fields().delete(FieldId::new(10601)).await.unwrap();
    let mut codes = Vec::new();
    for field in [FieldId::EMAIL, FieldId::new(999)] {
        let error = client.fields().delete(field).await.unwrap_err();
        let refusal = error.cause::<Refusal>().unwrap();
        codes.push((refusal.status, refusal.code));
    }
    assert_eq!(codes, [(400, Some(263)), (404, None)]);
    let sent = script.sent();
    assert_eq!(
        (sent[0].method, sent[0].url.as_str()),
        ("DELETE", "https://api.emarsys.net/api/v2/field/10601")
    );
}

#[tokio::test(start_paused = true)]
async fn choices_that_are_numbers_or_without_a_label_are_read() {
    let reply = r#"{"replyCode":0,"replyText":"OK","data":{
        "1":{"id":"1","choice":0,"bit_position":""},"2":{"id":2,"choice":null,"bit_position":"7"}}}"#;
    let (client, _) = client([Answer::reply(200, reply)]);
    let choices = client.fields().choices(FieldId::CHILDREN).await.unwrap();
    assert_eq!(choices[0], Choice { id: 1, label: "0".to_owned(), bit_position: None });
    assert_eq!(choices[1], Choice { id: 2, label: String::new(), bit_position: Some(7) });
}
