use super::*;

fn field(name: &str, kind: &str) -> Value {
    json!({ "name": name, "application_type": kind })
}

#[test]
fn fields_are_listed_with_numbers_for_ids_in_every_language() {
    let caller = Caller::new();
    let fields = caller.get("field");
    let email = json!({"id": 3, "name": "Email", "application_type": "longtext", "string_id": "email"});
    assert!(fields.as_array().unwrap().contains(&email));
    assert_eq!(caller.get("field/translate/en"), fields);
    assert_eq!(caller.get("field/translate/de/"), fields);
    assert_eq!(caller.refusal("GET", "field/translate/xx", &Value::Null), (400, 1002));
}

#[test]
fn created_field_is_listed_and_usable() {
    let caller = Caller::new();
    let body = json!({"name": "Loyalty points", "application_type": "numeric", "string_id": "points"});
    let data = caller.data("POST", "field", &body);
    assert_eq!(data, json!({"id": 10_601}));
    let listed =
        json!({"id": 10_601, "name": "Loyalty points", "application_type": "numeric", "string_id": "points"});
    assert!(caller.get("field").as_array().unwrap().contains(&listed));
    caller.data("POST", "contact", &json!({"3": "ada@shop.test", "10601": 120}));
    assert_eq!(caller.sandbox.contacts()[0].value(FieldId::new(10601)), "120");
}

#[test]
fn field_creation_follows_the_rules() {
    let caller = Caller::new();
    caller.sandbox.add_field("Loyalty level", "shorttext");
    for (body, code) in [
        (json!({"name": "x"}), 9005),
        (json!({"application_type": "date"}), 9005),
        (field(" ", "date"), 9001),
        (field(&"x".repeat(201), "date"), 9001),
        (json!({"name": "x", "application_type": "date", "string_id": "Not Snake"}), 9001),
        (field("LOYALTY level", "date"), 9002),
        (json!({"name": "x", "application_type": "date", "string_id": "loyalty_level"}), 9002),
        (field("first name", "date"), 9003),
        (json!({"name": "x", "application_type": "date", "string_id": "email"}), 9003),
        (field("x", "singlechoice"), 9006),
        (field("x", "number"), 9006),
    ] {
        assert_eq!(caller.refusal("POST", "field", &body), (400, code), "{body}");
    }
    for kind in ["shorttext", "longtext", "largetext", "date", "url", "numeric"] {
        caller.data("POST", "field", &field(&format!("A {kind}"), kind));
    }
}

#[test]
fn string_id_may_have_to_be_nine_digits() {
    let caller = Caller::switched(Switches::default().string_id_nine_digits(true));
    let body = |id| json!({"name": "x", "application_type": "date", "string_id": id});
    assert_eq!(caller.refusal("POST", "field", &body("points")), (400, 9001));
    caller.data("POST", "field", &body("123456789"));
}

#[test]
fn fields_run_out() {
    let caller = Caller::with(Sandbox::builder().field_slots(1));
    caller.data("POST", "field", &field("One", "date"));
    assert_eq!(caller.refusal("POST", "field", &field("Two", "date")), (400, 9004));
    // Long texts have a quota of their own.
    let caller = Caller::switched(Switches::default().creation_error_status(500));
    for number in 0..21 {
        caller.data("POST", "field", &field(&format!("Long {number}"), "longtext"));
    }
    assert_eq!(caller.refusal("POST", "field", &field("One more", "longtext")), (500, 9004));
    caller.data("POST", "field", &field("One more", "shorttext"));
}

#[test]
fn deleted_field_takes_its_values_along() {
    let caller = Caller::new();
    let points = caller.sandbox.add_field("Points", "numeric");
    let ada = caller.sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (points, json!("7"))]);
    let path = format!("field/{points}");
    assert_eq!(caller.data("DELETE", &path, &Value::Null), "");
    assert_eq!(caller.sandbox.contact(ada).unwrap().value(points), &Value::Null);
    assert!(caller.sandbox.field("Points").is_none());
    // The documentation has no code for it.
    for (body, expected) in [
        (ErrorBody::Envelope, r#"{"replyText":"No such field","data":""}"#),
        (ErrorBody::Plain, "No such field"),
        (ErrorBody::Message, r#"{"message":"No such field"}"#),
    ] {
        let other = Caller::switched(Switches::default().error_body(body));
        let response = other.response("DELETE", &path, &Value::Null);
        assert_eq!((response.status(), response.body()), (404, expected));
    }
    assert_eq!(caller.refusal("DELETE", "field/1", &Value::Null), (400, 263));
    let voucher = caller.sandbox.add_field("Voucher", "voucher");
    assert_eq!(caller.refusal("DELETE", &format!("field/{voucher}"), &Value::Null), (400, 9006));
}

#[test]
fn choices_have_text_ids_and_only_multiple_ones_a_bit() {
    let caller = Caller::new();
    let gender = caller.get("field/5/choice");
    assert_eq!(gender[1], json!({"id": "2", "choice": "Female", "bit_position": null}));
    assert_eq!(caller.get("field/5/choice/translate/en"), gender);
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    caller.sandbox.add_choice(sports, 5_501, "Running");
    let choice = json!([{"id": "5501", "choice": "Running", "bit_position": 0}]);
    assert_eq!(caller.get(&format!("field/{sports}/choice")), choice);
    let both = caller.get(&format!("field/choices?fields=5,{sports}&language=en"));
    assert_eq!(both, json!({"5": gender, sports.to_string(): choice}));
    assert_eq!(caller.refusal("GET", "field/999/choice", &Value::Null), (400, 1007));
    assert_eq!(caller.refusal("GET", "field/choices?fields=5,x", &Value::Null), (400, 1007));
}

#[test]
fn languages_and_fields_of_choices_are_checked() {
    let caller = Caller::new();
    for path in ["field/translate/xx", "field/5/choice/translate/xx", "field/choices?fields=5&language=xx"] {
        assert_eq!(caller.refusal("GET", path, &Value::Null), (400, 1002), "{path}");
    }
    let german = caller.get("field/choices/?fields=5,9&language=de");
    assert_eq!(german["5"], caller.get("field/5/choice/translate/de/"));
    for path in ["field/choices", "field/choices/?fields="] {
        assert_eq!(caller.refusal("GET", path, &Value::Null), (400, 1006), "{path}");
    }
}
