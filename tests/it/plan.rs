//! Planning: what is compared with what, counted, guarded and written down.

use std::sync::{Arc, Mutex};

use futures::stream;
use reverse_etl::{
    ChangeKind, Column, DuplicatePolicy, ErrorKind, Event, FieldKind, Guards, Limits, Mapping, MissingPolicy,
    NullPolicy, Operation, Outcome, Plan, PlanOptions, PriorState, ProblemKind, Record, Secret, Share,
    Source, Value,
};
use serde_json::{Value as Json, json};

use crate::fixture::{Service, Setup, citizen, crowd, names, no_answer, person, tally};

/// Kinds, keys and fields of all changes.
fn changes(plan: &Plan) -> Vec<(ChangeKind, String, Json)> {
    plan.changes()
        .map(|change| {
            let change = change.unwrap();
            let fields = serde_json::to_value(change.fields()).unwrap();
            (change.kind(), change.key().as_str().to_owned(), fields)
        })
        .collect()
}

async fn plan(setup: &Setup, options: PlanOptions, people: &Vec<Record>) -> Plan {
    setup.with(names(), options).plan(people).await.unwrap()
}

#[tokio::test]
async fn few_rows_and_many_rows_are_planned_alike() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(5_000));
    setup.run(&crowd(25_000, "a")).await;
    let mut people = crowd(25_000, "a");
    for number in [7, 1_500, 21_000, 24_999] {
        people[number] = person(&format!("p{number}@shop.test"), "changed");
    }
    people.push(person("new@shop.test", "new"));
    // Many rows are compared with an index of the state.
    let many = plan(&setup, setup.options(), &people).await;
    assert_eq!((many.counts().unchanged, many.counts().changed, many.counts().added), (24_996, 4, 1));
    // The same changes, looked up one by one.
    let few: Vec<_> = [7, 1_500, 21_000, 24_999, 25_000].map(|number| people[number].clone()).into();
    let few = plan(&setup, setup.options(), &few).await;
    assert_eq!((few.counts().unchanged, few.counts().changed, few.counts().added), (0, 4, 1));
    assert_eq!(changes(&many), changes(&few));
    // And with an index from the first row on.
    let complete = plan(&setup, setup.options().remove_absent(), &people).await;
    assert_eq!(changes(&complete), changes(&many));
}

#[tokio::test]
async fn duplicates_far_apart_are_found_also_where_the_way_of_looking_up_changes() {
    for known in [false, true] {
        let setup = Setup::new(Service::Upserts).limits(Limits::rows(5_000));
        let people = crowd(22_000, "a");
        if known {
            setup.run(&people).await;
        }
        let mut rows = people;
        rows.push(person("p3@shop.test", "N3a"));
        rows.push(person("p4@shop.test", "other"));
        rows.push(person("p21500@shop.test", "other"));
        let plan = plan(&setup, setup.options(), &rows).await;
        let counts = plan.counts();
        let others = if known { counts.unchanged } else { counts.added };
        assert_eq!((others, counts.duplicate, counts.withheld), (21_998, 5, 4), "known {known}");
        assert!(changes(&plan).iter().all(|(_, key, _)| key != "p4@shop.test" && key != "p21500@shop.test"));
    }
}

#[tokio::test]
async fn rows_that_are_absent_are_left_alone_unless_the_source_is_said_to_be_complete() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(4, "a")).await.unwrap();
    setup.people.exists(&["theirs@shop.test"]);
    let few = crowd(2, "a");
    assert_eq!(plan(&setup, setup.options(), &few).await.counts().removed, 0);
    let report = sync().run(&few).await.unwrap();
    assert_eq!((report.counts.removed, tally(&report)), (2, [2, 0, 0, 0, 0]));
    let left: Vec<_> = setup.people.world().records.keys().cloned().collect();
    assert_eq!(left, ["p0@shop.test", "p1@shop.test", "theirs@shop.test"]);
    assert_eq!(sync().run(&few).await.unwrap().counts.planned(), 0);
}

#[tokio::test]
async fn row_that_was_only_rejected_or_missing_is_not_removed() {
    let setup = Setup::new(Service::Updates);
    let sync = || setup.with(names(), setup.options().remove_absent());
    setup.people.exists(&["p1@shop.test", "p2@shop.test"]);
    setup.people.answer(|_, batch, world| {
        let mut effect = world.effect(&crate::fixture::Call::of(batch)).into_iter();
        Some(Ok(batch.outcomes(|_, change| {
            let by_itself = effect.next().unwrap();
            if change.key().as_str() == "p1@shop.test" { Outcome::rejected("422", "no") } else { by_itself }
        })))
    });
    assert_eq!(tally(&sync().run(&crowd(3, "a")).await.unwrap()), [1, 1, 1, 0, 0]);
    setup.people.answer_by_itself();
    let plan = sync().plan(&vec![person("new@shop.test", "new")]).await.unwrap();
    assert_eq!(plan.counts().removed, 1, "only p2 is ours");
}

#[tokio::test]
async fn rows_without_a_usable_key_refuse_removals_until_that_is_waived() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(3, "a")).await.unwrap();
    let mut people = crowd(2, "a");
    people.push(person("no e-mail", "who?"));
    let plan = sync().plan(&people).await.unwrap();
    assert!(plan.refusals()[0].contains("unusable key"), "{plan}");
    assert!(plan.to_string().contains("REFUSED"));
    let error = sync().apply(plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guard);
    let plan = sync().plan(&people).await.unwrap().waive_guards();
    assert_eq!(sync().apply(plan).await.unwrap().outcomes.applied, 1);
}

#[tokio::test]
async fn rows_that_are_invalid_or_duplicate_are_not_absent() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(3, "a")).await.unwrap();
    let people = vec![
        person("p0@shop.test", &"x".repeat(61)),
        person("p1@shop.test", "one"),
        person("p1@shop.test", "another"),
        person("p2@shop.test", "N2a"),
    ];
    assert_eq!(sync().plan(&people).await.unwrap().counts().removed, 0);
}

/// The second of the rows is what the state says, so nothing is mapped of it that could be kept for a removal.
#[tokio::test]
async fn row_that_came_twice_once_as_it_was_can_be_removed_later() {
    for removed_before in [false, true] {
        let setup = Setup::new(Service::Upserts);
        let sync = || setup.with(names(), setup.options().remove_absent());
        if removed_before {
            sync().run(&crowd(3, "a")).await.unwrap();
        } else {
            setup.run(&crowd(3, "a")).await;
        }
        let mut people = crowd(3, "a");
        people.insert(0, person("p1@shop.test", "changed"));
        let report = sync().run(&people).await.unwrap();
        assert_eq!((report.counts.withheld, report.counts.unchanged), (2, 2));
        let report =
            sync().run(&vec![person("p0@shop.test", "N0a"), person("p2@shop.test", "N2a")]).await.unwrap();
        assert_eq!((report.counts.unremovable, report.counts.removed), (0, 1), "{report}");
    }
}

#[tokio::test]
async fn rows_sent_before_the_sync_removed_anything_are_counted_as_not_removable() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(4, "a")).await;
    let sync = || setup.with(names(), setup.options().remove_absent());
    let report = sync().run(&crowd(3, "a")).await.unwrap();
    assert_eq!((report.counts.unremovable, report.counts.removed, report.counts.unchanged), (1, 0, 3));
    assert!(report.to_string().contains("not removable"), "{report}");
    // The others are removable from here on, although nothing about them was sent.
    let report = sync().run(&crowd(1, "a")).await.unwrap();
    assert_eq!((report.counts.unremovable, report.counts.removed), (1, 2));
    assert_eq!(tally(&report), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn removal_that_a_destination_does_not_offer_is_refused() {
    let setup = Setup::new(Service::Inserts);
    let error = setup.with(names(), setup.options().remove_absent()).plan(&crowd(1, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("does not offer removal"), "{error}");
}

#[tokio::test]
async fn every_guard_says_what_it_saw_and_what_to_do() {
    let setup = Setup::new(Service::Upserts);
    let with = |guards: Guards| setup.with(names(), setup.options().remove_absent().guards(guards));
    let none = || Guards::default().rows_min(0);
    with(none()).run(&crowd(10, "a")).await.unwrap();
    let more: Vec<_> = crowd(10, "a").into_iter().chain(vec![person("new@shop.test", "new")]).collect();
    for (guards, people, says) in [
        (Guards::default(), vec![], "the source has 0 rows, fewer than the 1 expected"),
        (Guards::default().rows_min(12), more.clone(), "the source has 11 rows, fewer than the 12 expected"),
        (none().added_max(Share::Rows(0)), more.clone(), "1 rows would be added, more than 0 rows"),
        (
            none().added_max(Share::Percent(9.9)),
            more,
            "1 rows would be added, more than 9.9 % of the rows known",
        ),
        (none().changed_max(Share::Percent(50.0)), crowd(10, "b"), "10 rows would be changed"),
        (none().removed_max(Share::Percent(20.0)), crowd(7, "a"), "3 rows would be removed"),
    ] {
        let plan = with(guards).plan(&people).await.unwrap();
        assert_eq!(plan.refusals().len(), 1, "{plan}");
        assert!(plan.refusals()[0].starts_with(says), "{plan}");
        assert!(plan.refusals()[0].contains("waive the guards"), "{plan}");
    }
    for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
        let error =
            with(none().rejected_max(Share::Percent(nonsense))).plan(&crowd(7, "a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    let exactly = with(none().removed_max(Share::Percent(30.0)).changed_max(Share::Rows(0)));
    assert!(exactly.plan(&crowd(7, "a")).await.unwrap().refusals().is_empty());
}

#[tokio::test]
async fn shares_say_nothing_while_the_state_is_empty_and_counts_do() {
    let setup = Setup::new(Service::Upserts);
    let with = |share| setup.with(names(), setup.options().guards(Guards::default().added_max(share)));
    assert!(with(Share::Percent(1.0)).plan(&crowd(10, "a")).await.unwrap().refusals().is_empty());
    assert_eq!(with(Share::Rows(9)).plan(&crowd(10, "a")).await.unwrap().refusals().len(), 1);
}

/// The rows, in one chunk or each in a chunk of its own.
fn chunked(people: &[Record], size: usize) -> Source<'static> {
    let chunks: Vec<Vec<Record>> = people.chunks(size).map(<[Record]>::to_vec).collect();
    Source::chunks(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
}

#[tokio::test]
async fn rows_with_one_key_merge_are_withheld_or_have_a_winner() {
    let row = |name: &str| person("ada@shop.test", name);
    let bad = || row(&"x".repeat(61));
    let (a, b) = (|| row("A"), || row("B"));
    let other = || person("bob@shop.test", "Bob");
    // Rows, then what is sent of them: by policy, and whether the state has A already.
    for (rows, withheld, first, last) in [
        (vec![a(), a()], Some("A"), Some("A"), Some("A")),
        (vec![a(), b()], None, Some("A"), Some("B")),
        (vec![b(), a()], None, Some("B"), Some("A")),
        (vec![a(), b(), a()], None, Some("A"), Some("A")),
        (vec![a(), a(), b()], None, Some("A"), Some("B")),
        (vec![b(), other(), b(), a()], None, Some("B"), Some("A")),
        (vec![a(), bad()], None, Some("A"), None),
        (vec![bad(), a()], None, Some("A"), Some("A")),
        (vec![a(), b(), bad()], None, Some("A"), None),
        (vec![bad(), bad()], None, None, None),
    ] {
        for known in [false, true] {
            for (policy, sent) in [
                (DuplicatePolicy::Withhold, withheld),
                (DuplicatePolicy::First, first),
                (DuplicatePolicy::Last, last),
            ] {
                for (size, complete) in [(1, false), (1, true), (2, false), (100, false), (100, true)] {
                    let setup = Setup::new(Service::Upserts);
                    if known {
                        let options = setup.options().remove_absent();
                        setup.with(names(), options).run(&vec![a(), other()]).await.unwrap();
                    }
                    let mut options = setup.options().duplicates(policy);
                    if complete {
                        options = options.remove_absent();
                    }
                    let told = format!("{policy:?}, known {known}, {size} a chunk, complete {complete}");
                    let plan = setup.with(names(), options).plan(chunked(&rows, size)).await.unwrap();
                    let counts = plan.counts();
                    let sum = counts.unchanged
                        + counts.held
                        + counts.added
                        + counts.changed
                        + counts.invalid
                        + counts.duplicate;
                    assert_eq!((counts.rows, sum), (rows.len() as u64, rows.len() as u64), "{told}: {plan}");
                    let planned: Vec<_> = changes(&plan)
                        .into_iter()
                        .filter(|(kind, key, _)| key == "ada@shop.test" && *kind != ChangeKind::Removed)
                        .collect();
                    let expected = sent.filter(|sent| !known || *sent != "A");
                    let names: Vec<_> = planned.iter().map(|(_, _, fields)| fields["Name"].clone()).collect();
                    assert_eq!(
                        names,
                        expected.map(|name| json!(name)).into_iter().collect::<Vec<_>>(),
                        "{told}: {plan}"
                    );
                    let fields: usize =
                        changes(&plan).iter().map(|(_, _, fields)| fields.as_object().unwrap().len()).sum();
                    assert_eq!(counts.fields, fields as u64, "{told}: {plan}");
                    assert_eq!(
                        counts.withheld > 0,
                        policy == DuplicatePolicy::Withhold
                            && withheld.is_none()
                            && counts.rows > counts.invalid,
                        "{told}: {plan}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn withheld_rows_name_each_other() {
    let setup = Setup::new(Service::Upserts);
    let people = vec![person("ada@shop.test", "A"), person("Ada@Shop.test ", "B")];
    let plan = plan(&setup, setup.options(), &people).await;
    let problem = &plan.problems()[0];
    assert_eq!((problem.row(), problem.kind()), (Some(2), ProblemKind::Duplicate));
    assert!(problem.reason().contains("the key of row 1"), "{problem}");
    assert!(plan.to_string().contains("2 of them withheld"), "{plan}");
}

#[tokio::test]
async fn null_clears_is_skipped_or_a_blank_is_taken_for_one() {
    for (policy, null, blank, empty) in [
        (NullPolicy::Clear, Some(Json::Null), Some(json!("  ")), Some(json!(""))),
        (NullPolicy::Skip, None, Some(json!("  ")), Some(json!(""))),
        (NullPolicy::SkipBlank, None, None, None),
    ] {
        for (value, sent) in [(Value::Null, null), ("  ".into(), blank), ("".into(), empty)] {
            let setup = Setup::new(Service::Upserts);
            let mapping = Mapping::new("email").column(Column::new("name", "Name").null(policy));
            let people = vec![Record::new().with("email", "ada@shop.test").with("name", value)];
            let plan = setup.with(mapping, setup.options()).plan(&people).await.unwrap();
            let expected = sent.map_or(json!({}), |sent| json!({ "Name": sent }));
            assert_eq!(changes(&plan)[0].2, expected, "{policy:?}");
        }
    }
    // An absent value leaves the field alone, whatever the policy.
    let setup = Setup::new(Service::Upserts);
    let plan = plan(&setup, setup.options(), &vec![Record::new().with("email", "ada@shop.test")]).await;
    assert_eq!(changes(&plan)[0].2, json!({}));
}

#[tokio::test]
async fn null_that_follows_a_value_is_a_change_only_where_it_clears() {
    for (policy, changed) in [(NullPolicy::Clear, 1), (NullPolicy::Skip, 0)] {
        let setup = Setup::new(Service::Upserts);
        let mapping = Mapping::new("email").column(Column::new("name", "Name").null(policy));
        let sync = setup.with(mapping, setup.options());
        sync.run(&vec![person("ada@shop.test", "Ada")]).await.unwrap();
        let nobody = vec![Record::new().with("email", "ada@shop.test").with("name", Value::Null)];
        let report = sync.run(&nobody).await.unwrap();
        assert_eq!(report.counts.changed, changed, "{policy:?}: {report}");
        assert_eq!(sync.run(&nobody).await.unwrap().counts.planned(), 0);
    }
}

#[tokio::test]
async fn field_that_is_added_is_sent_alone_and_one_that_is_mapped_again_is_sent_again() {
    let setup = Setup::new(Service::Upserts);
    let people = vec![citizen("ada@shop.test", "Ada", "Wien")];
    let name = || Mapping::new("email").map("name", "Name");
    let city = || name().map("city", "City");
    for (mapping, sent) in [
        (name(), Some(json!({ "Name": "Ada" }))),
        (city(), Some(json!({ "City": "Wien" }))),
        (name(), None),
        (name(), None),
        (city(), Some(json!({ "City": "Wien" }))),
        (Mapping::new("email").map("city", "City").map("name", "Name"), None),
        (Mapping::new("email").map("city", "CITY").map("name", "nAME"), None),
    ] {
        setup.people.take_calls();
        setup.with(mapping, setup.options()).run(&people).await.unwrap();
        let calls = setup.people.calls();
        let rows: Vec<_> =
            calls.iter().flat_map(|call| &call.rows).map(|(_, fields)| fields.clone()).collect();
        assert_eq!(rows, sent.into_iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn changed_conversion_is_a_change() {
    let setup = Setup::new(Service::Upserts);
    let people = vec![person("ada@shop.test", "Ada"), person("bob@shop.test", "BOB")];
    let upper = |value: Value| match value {
        Value::Text(text) => Ok(Value::from(text.to_uppercase())),
        other => Ok(other),
    };
    let mapping = |convert: bool| {
        let column = Column::new("name", "Name");
        Mapping::new("email").column(if convert { column.convert(upper) } else { column })
    };
    setup.with(mapping(false), setup.options()).run(&people).await.unwrap();
    let report = setup.with(mapping(true), setup.options()).run(&people).await.unwrap();
    assert_eq!((report.counts.changed, report.counts.unchanged), (1, 1), "only where the value differs");
    assert_eq!(setup.people.world().value("ada@shop.test", "Name"), "ADA");
}

#[tokio::test]
async fn two_spellings_of_one_field_are_refused() {
    let setup = Setup::new(Service::Upserts);
    for (mapping, says) in [
        (Mapping::new("email").map("name", "Name").map("city", "NAME"), "one field of the destination"),
        (Mapping::new("email").map("name", "Name").map("city", "Name"), "mapped twice"),
        (Mapping::new("email").map("name", "Name").on_create("Name", "x"), "mapped twice"),
    ] {
        let unbound = mapping.clone();
        let error = setup.with(mapping, setup.options()).plan(&crowd(1, "a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
        if says == "mapped twice" {
            let people = crowd(1, "a");
            let error =
                reverse_etl::plan(&people, &unbound, &setup.store, &setup.options()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "also without a target");
        }
    }
}

fn of_every_type(number: i32) -> Record {
    Record::new()
        .with("id", number)
        .with("name", "Ada, \"the first\"\n😀")
        .with("none", Value::Null)
        .with("flag", true)
        .with("small", -5)
        .with("big", u64::MAX)
        .with("third", 1.0 / f64::from(number + 3))
        .with("whole", 1.0)
        .with("tiny", f64::MIN_POSITIVE)
        .with("born", chrono::NaiveDate::from_ymd_opt(1815, 12, 10).unwrap())
        .with("list", vec![Value::from(1), Value::from(0.1), Value::from("x")])
}

#[tokio::test]
async fn spooled_plan_and_one_read_back_are_equal_to_one_in_memory() {
    let setup = Setup::new(Service::Upserts);
    let columns = ["name", "none", "flag", "small", "big", "third", "whole", "tiny", "born", "list"];
    let mapping = columns.iter().fold(Mapping::new("id"), |mapping, column| mapping.map(*column, *column));
    let people: Vec<Record> = (0..300).map(of_every_type).collect();
    let plan = async |bytes| {
        let options = setup.options().memory_max(bytes).secret(Secret::new([7; 32]));
        reverse_etl::plan(&people, &mapping, &setup.store, &options).await.unwrap()
    };
    let in_memory = plan(usize::MAX).await;
    let expected: Vec<_> = in_memory.changes().map(|change| change.unwrap()).collect();
    let mut file = Vec::new();
    in_memory.write_to(&mut file).unwrap();
    for (told, other) in [
        ("spooled", plan(1).await),
        ("spooled in parts", plan(20_000).await),
        ("read back", Plan::read_from(&*file).unwrap()),
    ] {
        assert_eq!(other.counts(), in_memory.counts());
        let changes: Vec<_> = other.changes().map(|change| change.unwrap()).collect();
        assert_eq!(changes.len(), expected.len());
        for (change, expected) in changes.iter().zip(&expected) {
            assert!(change.key() == expected.key() && change.row() == expected.row(), "{told}: order");
            for (field, expected) in change.fields().iter().zip(expected.fields().iter()) {
                assert_eq!(field.name(), expected.name());
                assert!(field.value() == expected.value(), "{told}: `{}` is another value", field.name());
            }
        }
        let mut again = Vec::new();
        other.write_to(&mut again).unwrap();
        assert!(again == file, "{told}: written once more");
    }
}

/// The plan itself, or the one that is read back from the file that it is written to.
fn kept(plan: Plan, in_a_file: bool) -> Plan {
    let mut file = Vec::new();
    plan.write_to(&mut file).unwrap();
    if in_a_file { Plan::read_from(&*file).unwrap() } else { plan }
}

/// Carries a plan out: every row has this outcome.
async fn carry_out(plan: Plan, setup: &Setup, outcome: &Outcome) {
    let mut run = plan.start(&setup.store, Limits::rows(100)).await.unwrap();
    while let Some(batch) = run.next_batch().await {
        let outcomes = batch.all(outcome);
        batch.settle(outcomes);
    }
    run.finish().await.unwrap();
}

#[tokio::test]
async fn new_rows_of_every_type_are_remembered_field_by_field_however_their_plan_was_kept() {
    let columns = ["name", "none", "flag", "small", "big", "third", "whole", "tiny", "born", "list"];
    let mapping = columns.iter().fold(Mapping::new("id"), |mapping, column| mapping.map(*column, *column));
    for (bytes, in_a_file) in [(usize::MAX, false), (1, false), (usize::MAX, true)] {
        let setup = Setup::new(Service::Upserts);
        let plan = async |people: Vec<Record>| {
            let options = setup.options().memory_max(bytes);
            reverse_etl::plan(&people, &mapping, &setup.store, &options).await.unwrap()
        };
        let people = || (0..300).map(of_every_type);
        let first = plan(people().collect()).await;
        carry_out(kept(first, in_a_file), &setup, &Outcome::applied()).await;
        assert_eq!(plan(people().collect()).await.counts().unchanged, 300);
        for column in columns {
            let changed = people().map(|person| person.with(column, "another")).collect();
            let plan = plan(changed).await;
            assert_eq!((plan.counts().changed, plan.counts().fields), (300, 300), "{column}");
        }
    }
}

#[tokio::test]
async fn new_row_that_was_rejected_is_held_until_it_changes_or_what_it_would_be_created_with() {
    let mapping = Mapping::new("id").map("name", "Name").column(Column::new("origin", "Origin").on_create());
    for in_a_file in [false, true] {
        let setup = Setup::new(Service::Upserts);
        let plan = async |name: &str, origin: &str| {
            let people = vec![Record::new().with("id", 1).with("name", name).with("origin", origin)];
            reverse_etl::plan(&people, &mapping, &setup.store, &setup.options()).await.unwrap()
        };
        let first = plan("Ada", "shop").await;
        carry_out(kept(first, in_a_file), &setup, &Outcome::rejected("422", "no")).await;
        for (name, origin, held) in [("Ada", "shop", 1), ("Ada", "web", 0), ("Eve", "shop", 0)] {
            let counts = plan(name, origin).await.counts().clone();
            assert_eq!((counts.held, counts.planned()), (held, 1 - held), "{name} of {origin}");
        }
    }
}

#[tokio::test]
async fn plan_of_a_file_is_carried_out_by_another_process_and_then_the_state_is_settled() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    // Added, changed, changed and removed, and added again.
    for (people, sent) in [(crowd(5, "a"), 5), (crowd(5, "b"), 5), (crowd(3, "c"), 5), (crowd(4, "c"), 1)] {
        let mut file = Vec::new();
        sync().plan(&people).await.unwrap().write_to(&mut file).unwrap();
        let report = sync().apply(Plan::read_from(&*file).unwrap()).await.unwrap();
        assert_eq!(tally(&report), [sent, 0, 0, 0, 0]);
        assert_eq!(sync().run(&people).await.unwrap().counts.planned(), 0);
    }
}

#[tokio::test]
async fn run_asks_the_state_for_no_record_since_its_plan_has_them() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(10, "a")).await.unwrap();
    let plan = sync().plan(&crowd(8, "b")).await.unwrap();
    let loads = setup.store.loads();
    assert!(loads > 0, "planning does");
    let report = sync().apply(plan).await.unwrap();
    assert_eq!((tally(&report), setup.store.loads()), ([10, 0, 0, 0, 0], loads));
}

#[tokio::test]
async fn secret_of_the_callers_is_in_neither_header_nor_plan_file_and_has_to_be_the_same() {
    let setup = Setup::new(Service::Upserts);
    let secret = |byte: u8| Secret::new([byte; 32]);
    let plan = plan(&setup, setup.options().secret(secret(0xab)), &crowd(2, "a")).await;
    let mut file = Vec::new();
    plan.write_to(&mut file).unwrap();
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(!text.contains("abababab"), "the plan file");
    let read = || Plan::read_from(&*file).unwrap().host(Arc::new(setup.clock.clone()));
    for (plan, says) in [(read(), "supply it"), (read().secret(secret(1)), "another secret")] {
        let error = plan.start(&setup.store, Limits::rows(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(setup.store.header().await.unwrap().is_none(), "nothing was stored");
    let run = read().secret(secret(0xab)).start(&setup.store, Limits::rows(1)).await.unwrap();
    run.finish().await.unwrap();
    let header = setup.store.header().await.unwrap().unwrap().to_bytes().unwrap();
    assert!(!String::from_utf8(header).unwrap().contains("abababab"), "the header");
}

#[tokio::test]
async fn secret_that_was_generated_comes_with_the_plan_of_a_new_state() {
    let setup = Setup::new(Service::Upserts);
    let plan = plan(&setup, setup.options(), &crowd(2, "a")).await;
    let mut file = Vec::new();
    plan.write_to(&mut file).unwrap();
    let read = Plan::read_from(&*file).unwrap();
    setup.sync().apply(read).await.unwrap();
    assert_eq!(setup.run(&crowd(2, "a")).await.counts.unchanged, 2);
}

#[tokio::test]
async fn resolve_tells_which_added_rows_exist_and_plans_missing_ones_that_do() {
    let setup = Setup::new(Service::Updates);
    setup.people.exists(&["p0@shop.test"]);
    let people = crowd(4, "a");
    let fresh = plan(&setup, setup.options(), &people).await.resolve(&setup.people).await.unwrap();
    assert_eq!((fresh.counts().existing, fresh.counts().added), (Some(1), 4));
    assert!(fresh.to_string().contains("1 exist already"), "{fresh}");
    assert_eq!(tally(&setup.sync().apply(fresh).await.unwrap()), [1, 3, 0, 0, 0]);

    setup.people.exists(&["p2@shop.test"]);
    let target = reverse_etl::Destination::describe(&setup.people, names().fields()).await.unwrap();
    let mapping = names().bind(&target).unwrap();
    let unasked = reverse_etl::plan(&people, &mapping, &setup.store, &setup.options()).await.unwrap();
    assert_eq!((unasked.counts().held, unasked.counts().added, unasked.counts().fields), (3, 0, 0));
    let asked = unasked.resolve(&setup.people).await.unwrap();
    let counts = asked.counts();
    assert_eq!((counts.held, counts.added, counts.fields, counts.existing), (2, 1, 1, Some(1)));
    assert_eq!(changes(&asked), [(ChangeKind::Added, "p2@shop.test".into(), json!({ "Name": "N2a" }))]);
    assert_eq!(tally(&setup.sync().apply(asked).await.unwrap()), [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn resolve_counts_added_rows_alone_and_no_removal() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(2, "a")).await.unwrap();
    setup.people.answer(|_, batch, _| (batch.operation() == Operation::Remove).then(|| Err(no_answer())));
    sync().run(&crowd(1, "a")).await.unwrap();
    setup.people.answer(|_, batch, _| Some(Ok(batch.all(&Outcome::Unknown))));
    let rows: Vec<_> = crowd(1, "a").into_iter().chain([person("p7@shop.test", "new")]).collect();
    sync().run(&rows).await.unwrap();
    setup.people.exists(&["p7@shop.test"]);
    let plan = sync().plan(&crowd(1, "a")).await.unwrap().resolve(&setup.people).await.unwrap();
    assert_eq!((plan.counts().removed, plan.counts().existing), (2, Some(0)), "{plan}");
}

#[tokio::test]
async fn missing_rows_are_asked_about_sent_or_left_by_policy() {
    for (policy, service, sent, finds) in [
        (MissingPolicy::Ask, Service::Updates, 0, 1),
        (MissingPolicy::Send, Service::Updates, 2, 0),
        (MissingPolicy::Leave, Service::Updates, 0, 0),
        (MissingPolicy::Ask, Service::Inserts, 2, 0),
        (MissingPolicy::Leave, Service::Inserts, 0, 0),
    ] {
        let mut setup = Setup::new(Service::Updates);
        assert_eq!(tally(&setup.run(&crowd(2, "a")).await), [0, 2, 0, 0, 0]);
        let finds_before = setup.people.world().finds;
        setup.people = setup.people.clone().serving(service);
        let options = setup.options().missing(policy);
        let report = setup.with(names(), options).run(&crowd(2, "a")).await.unwrap();
        let told = format!("{policy:?}, {service:?}: {report}");
        assert_eq!((report.counts.added, report.counts.held), (sent, 2 - sent), "{told}");
        assert_eq!(setup.people.world().finds - finds_before, finds, "{told}");
    }
}

#[tokio::test]
async fn plan_shows_counts_creations_problems_and_refusals() {
    let setup = Setup::new(Service::Upserts);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let options = setup.options().guards(Guards::default().added_max(Share::Rows(0))).observe(move |event| {
        if let Event::Problem(problem) = event {
            heard.lock().unwrap().push(problem.to_string());
        }
    });
    let mut people = crowd(1, "a");
    people.extend((0..14).map(|_| person("no e-mail", "x")));
    let plan = plan(&setup, options, &people).await;
    let shown = plan.to_string();
    for line in [
        "plan for test/people, sync default",
        "source rows          15",
        "invalid              14   not sent",
        "added                 1",
        "fields                1   to be written",
        "! row 2: `email` ",
        "! and 5 more",
        "REFUSED       1 rows would be added",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert_eq!(told.lock().unwrap().len(), 15, "an observer is told all, and of a column that nobody has");
}

#[tokio::test]
async fn state_that_moves_while_a_plan_is_made_is_noticed() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(2, "a")).await;
    let other = setup.clone();
    let chunks = stream::unfold(0, move |number| {
        let other = other.clone();
        async move {
            match number {
                0 => Some((Ok::<_, std::io::Error>(crowd(2, "b")), 1)),
                1 => {
                    other.run(&crowd(2, "c")).await;
                    Some((Ok(crowd(4, "b").split_off(2)), 2))
                }
                _ => None,
            }
        }
    });
    let error = setup.sync().plan(Source::chunks(chunks)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
}

#[tokio::test]
async fn mapping_without_fields_keeps_members() {
    let setup = Setup::new(Service::Upserts);
    let sync = setup.with(Mapping::new("email"), setup.options().remove_absent());
    assert_eq!(tally(&sync.run(&crowd(3, "a")).await.unwrap()), [3, 0, 0, 0, 0]);
    assert_eq!(sync.run(&crowd(3, "b")).await.unwrap().counts.unchanged, 3);
    assert_eq!(sync.run(&crowd(2, "b")).await.unwrap().counts.removed, 1);
    assert_eq!(setup.people.world().records.len(), 2);
}

#[tokio::test]
async fn value_that_only_new_records_get_makes_no_change_and_its_mismatch_concerns_new_records_alone() {
    let mut setup = Setup::new(Service::Upserts);
    setup.people.kind = FieldKind::Number { digits_max: 5 };
    let mapping =
        Mapping::new("email").map("points", "Points").column(Column::new("since", "Since").on_create());
    let sync = setup.with(mapping, setup.options());
    let row = |points: i32, since: &str| {
        vec![Record::new().with("email", "ada@shop.test").with("points", points).with("since", since)]
    };
    assert_eq!(sync.run(&row(1, "never")).await.unwrap().counts.invalid, 1);
    assert_eq!(tally(&sync.run(&row(1, "2020")).await.unwrap()), [1, 0, 0, 0, 0]);
    assert_eq!(setup.people.calls()[0].on_create, [json!({ "Since": "2020" })]);
    assert_eq!(sync.run(&row(1, "2021")).await.unwrap().counts.unchanged, 1);
    assert_eq!(sync.run(&row(2, "never")).await.unwrap().counts.changed, 1);
    assert_eq!(setup.people.calls()[1].on_create, [json!({})]);
}
