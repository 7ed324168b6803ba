//! Mappings: source columns on their way into fields.

use reverse_etl::{
    Column, Destination, ErrorKind, FieldKind, Limits, Mapping, Mismatch, Operation, Record, Source, Target,
    Value, plan,
};
use serde_json::{Value as Json, json};

use crate::fixture::{Service, Setup};

/// The fields of each change.
async fn mapped(mapping: Mapping, source: Source<'_>) -> Vec<Json> {
    let setup = Setup::new(Service::Upserts);
    let plan = plan(source, &mapping, &setup.store, &setup.options()).await.unwrap();
    assert_eq!(plan.counts().invalid, 0, "{plan}");
    let fields = |change: &reverse_etl::Change| json!([change.key(), change.fields(), change.on_create()]);
    let mut changes: Vec<_> = plan.changes().map(|change| fields(&change.unwrap())).collect();
    changes.sort_by_key(Json::to_string);
    changes
}

#[tokio::test]
async fn column_goes_into_several_fields_and_the_key_may_be_one_of_them() {
    let mapping = Mapping::new("id")
        .map("name", "first")
        .column(Column::new("name", "loud").convert(|value| match value {
            Value::Text(text) => Ok(text.to_uppercase().into()),
            other => Ok(other),
        }))
        .map("id", "number");
    let people = vec![Record::new().with("id", 7).with("name", "Ada")];
    let mapped = mapped(mapping, Source::from(&people)).await;
    assert_eq!(mapped, [json!(["7", { "first": "Ada", "loud": "ADA", "number": 7 }, {}])]);
}

#[tokio::test]
async fn conversion_comes_before_the_field_and_its_refusal_makes_the_row_invalid() {
    let setup = Setup::new(Service::Upserts);
    let column = Column::new("name", "Name").convert(|value| match value {
        Value::Null => Ok("nobody".into()),
        Value::Int(number) => Ok(format!("number {number}").into()),
        Value::Text(text) if text.is_empty() => Ok("x".repeat(61).into()),
        _ => Err(Mismatch::new("is not what was agreed")),
    });
    let people = vec![
        Record::new().with("email", "a@shop.test").with("name", Value::Null),
        Record::new().with("email", "b@shop.test").with("name", 5),
        Record::new().with("email", "c@shop.test").with("name", "text"),
        Record::new().with("email", "d@shop.test").with("name", ""),
        Record::new().with("email", "e@shop.test"),
    ];
    let sync = setup.with(Mapping::new("email").column(column), setup.options());
    let report = sync.run(&people).await.unwrap();
    assert_eq!((report.counts.invalid, report.outcomes.applied), (2, 3));
    assert!(report.problems[0].to_string().contains("is not what was agreed"), "{report}");
    let world = setup.people.world();
    assert_eq!(world.value("a@shop.test", "Name"), "nobody");
    assert_eq!(world.value("b@shop.test", "Name"), "number 5");
    assert!(world.records["e@shop.test"].is_empty(), "a value that is absent is not converted");
}

#[tokio::test]
async fn value_for_new_records_is_checked_when_the_mapping_is_bound() {
    let mapping = Mapping::new("email").on_create("Points", "many");
    let target =
        |kind| Target::new("test", FieldKind::Email, Limits::rows(1)).field(&mapping.fields()[0], kind, None);
    let error = mapping.clone().bind(&target(FieldKind::Number { digits_max: 5 })).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.contains("`Points`") && text.contains("is not a decimal number") && !text.contains("many"),
        "{text}"
    );
    let _ = mapping.clone().bind(&target(FieldKind::Text { chars_max: 5 })).unwrap();
}

#[tokio::test]
async fn value_for_new_records_is_sent_in_the_form_of_its_field() {
    let setup = Setup::new(Service::Inserts);
    let mut people = setup.people.clone();
    people.kind = FieldKind::Number { digits_max: 5 };
    let mapping = Mapping::new("email").on_create("Points", "007");
    let rows = vec![Record::new().with("email", "a@shop.test")];
    let setup = Setup { people, ..setup };
    setup.with(mapping, setup.options()).run(&rows).await.unwrap();
    let calls = setup.people.calls();
    assert_eq!(
        calls.iter().map(|call| call.operation).collect::<Vec<_>>(),
        [Operation::Update, Operation::Insert]
    );
    assert_eq!(setup.people.world().value("a@shop.test", "Points"), "7");
}

#[tokio::test]
async fn field_that_does_not_exist_is_named() {
    let target = Target::new("test", FieldKind::Email, Limits::rows(1));
    let error = Mapping::new("email").map("name", "Nam").bind(&target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no field `Nam`"), "{error}");
    let any = target.any_field();
    let _ = Mapping::new("email").map("name", "Nam").bind(&any).unwrap();
}

#[tokio::test]
async fn unknown_column_is_an_error_in_text_and_an_absent_value_in_a_record() {
    let setup = Setup::new(Service::Upserts);
    let mapping = Mapping::new("email").map("nmae", "Name");
    let cells = csv::Reader::from_reader("email,name\nada@shop.test,Ada\n".as_bytes()).into_records();
    let source = Source::text(["email", "name"], cells);
    let error = plan(source, &mapping, &setup.store, &setup.options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("`nmae`") && text.contains("none of its 2 names"), "{text}");
    let people = vec![Record::new().with("email", "ada@shop.test").with("name", "Ada")];
    assert_eq!(mapped(mapping, Source::from(&people)).await, [json!(["ada@shop.test", {}, {}])]);
}

#[tokio::test]
async fn key_is_the_same_whatever_its_spelling_and_its_type() {
    let setup = Setup::new(Service::Upserts);
    let email = |email: &str| vec![Record::new().with("email", email).with("name", "Ada")];
    setup.run(&email("ada@shop.test")).await;
    for spelling in [" Ada@Shop.TEST ", "ADA@SHOP.TEST"] {
        assert_eq!(setup.run(&email(spelling)).await.counts.unchanged, 1, "{spelling}");
    }
    let setup = Setup::new(Service::Upserts);
    let mapping = Mapping::new("id").map("name", "Name");
    let keys: [Value; 4] = [7.into(), "7".into(), 7_u64.into(), Value::Null];
    for (index, key) in keys.into_iter().enumerate() {
        let people = vec![Record::new().with("id", key).with("name", "Ada")];
        let plan = plan(&people, &mapping, &setup.store, &setup.options()).await.unwrap();
        if index == 3 {
            assert_eq!(plan.counts().keyless, 1);
            continue;
        }
        assert_eq!(plan.counts().added, u64::from(index == 0), "the key of form {index}");
        let mut run = plan.start(&setup.store, Limits::rows(1)).await.unwrap();
        while let Some(batch) = run.next_batch().await {
            batch.deliver(&setup.people).await;
        }
        run.finish().await.unwrap();
    }
}

#[tokio::test]
async fn custom_field_is_described_as_one_to_be_created() {
    let mapping =
        Mapping::new("email").map("a", "A").custom("b").column(Column::new("c", "C").create(FieldKind::Date));
    let created: Vec<_> =
        mapping.fields().iter().map(|spec| (spec.name().as_str(), spec.create().cloned())).collect();
    assert_eq!(
        created,
        [("A", None), ("b", Some(FieldKind::Text { chars_max: 60 })), ("C", Some(FieldKind::Date))]
    );
    assert_eq!(mapping.key_column().as_str(), "email");
    let _ = Setup::new(Service::Upserts).people.describe(mapping.fields()).await.unwrap();
}
