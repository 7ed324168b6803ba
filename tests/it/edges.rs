//! Where one wrong step would go unnoticed: numbers that JSON does not know, edited files, old copies, misspelt columns.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reverse_etl::{
    Column, Delivery, Error, ErrorKind, Event, FieldKind, Guards, Limits, Mapping, MemoryStore, Outcome,
    Plan, PlanOptions, ProblemKind, Record, Share, Source, plan,
};
use serde::Serialize;

use crate::fixture::{Service, Setup, citizen, crowd, names, no_answer, person, tally};

#[derive(Serialize)]
struct Row {
    email: &'static str,
    name: f64,
}

#[tokio::test]
async fn number_that_is_not_finite_makes_its_row_invalid_and_clears_nothing() {
    let setup = Setup::new(Service::Upserts);
    let sync = setup.with(Mapping::new("email").map("name", "Name"), setup.options());
    sync.run(Source::iter([Row { email: "ada@shop.test", name: 5.5 }])).await.unwrap();
    let report = sync.run(Source::iter([Row { email: "ada@shop.test", name: f64::NAN }])).await.unwrap();
    assert_eq!((report.counts.invalid, report.counts.planned()), (1, 0));
    assert_eq!(setup.people.world().value("ada@shop.test", "Name"), "5.5");
}

#[tokio::test]
async fn error_of_an_own_destination_means_unknown_where_something_may_have_been_applied() {
    for (kind, delivery) in [
        (ErrorKind::NoAnswer, Delivery::Unknown),
        (ErrorKind::Server, Delivery::Unknown),
        (ErrorKind::Undecodable, Delivery::Unknown),
        (ErrorKind::RateLimited, Delivery::NotSent),
        (ErrorKind::Forbidden, Delivery::NotSent),
    ] {
        let setup = Setup::new(Service::Upserts);
        setup.people.answer(move |_, _, _| Some(Err(Error::new(kind, "it did not work"))));
        let outcome = setup.sync().run(&crowd(1, "a")).await;
        let report = outcome.as_ref().unwrap_or_else(|error| error.report().unwrap());
        let is_unknown = delivery == Delivery::Unknown;
        assert_eq!(tally(report), [0, 0, 0, u64::from(is_unknown), u64::from(!is_unknown)], "{kind:?}");
    }
}

#[tokio::test]
async fn guards_look_again_at_missing_rows_that_exist_by_now() {
    let setup = Setup::new(Service::Updates);
    assert_eq!(tally(&setup.run(&crowd(3, "a")).await), [0, 3, 0, 0, 0]);
    setup.people.exists(&["p0@shop.test", "p1@shop.test"]);
    let guarded = || setup.with(names(), setup.options().guards(Guards::default().added_max(Share::Rows(1))));
    let plan = guarded().plan(&crowd(3, "a")).await.unwrap();
    assert_eq!((plan.counts().added, plan.refusals().len()), (2, 1));
    assert_eq!(guarded().apply(plan).await.unwrap_err().kind(), ErrorKind::Guard);
    let plan = guarded().plan(&crowd(3, "a")).await.unwrap().waive_guards();
    assert_eq!(guarded().apply(plan).await.unwrap().outcomes.applied, 2);
}

#[tokio::test]
async fn value_for_creation_that_does_not_fit_keeps_no_existing_row_from_an_update() {
    let setup = Setup::new(Service::Updates);
    setup.people.exists(&["ada@shop.test"]);
    let mapping = || names().column(Column::new("origin", "Origin").on_create());
    let ada = || vec![person("ada@shop.test", "Ada").with("origin", vec!["a", "list"])];
    let report = setup.with(mapping(), setup.options()).run(&ada()).await.unwrap();
    assert_eq!((report.counts.invalid, tally(&report)), (0, [1, 0, 0, 0, 0]));
}

#[tokio::test]
async fn plan_made_against_another_history_of_the_state_is_refused_at_the_same_version() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(1, "a")).await;
    let copy = setup.store.reopened();
    setup.run(&crowd(1, "b")).await;
    let plan = setup.sync().plan(&crowd(2, "b")).await.unwrap();
    // The copy takes as many commits, of another run.
    let restored = Setup { store: copy, ..setup.clone() };
    restored.run(&crowd(1, "c")).await;
    let error = restored.sync().apply(plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
}

#[tokio::test]
async fn plan_file_that_was_edited_is_refused_and_one_that_was_not_is_carried_out() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(1, "a")).await;
    setup.people.take_calls();
    let mut file = Vec::new();
    setup.sync().plan(&crowd(2, "b")).await.unwrap().write_to(&mut file).unwrap();
    let text = String::from_utf8(file).unwrap();
    for (from, to) in [("N0b", "Eve"), ("p1@shop.test", "eve@shop.test"), ("\"rows\":2", "\"rows\":7")] {
        assert!(text.contains(from), "{from}");
        let commits = setup.store.commits();
        let plan = Plan::read_from(text.replace(from, to).as_bytes()).unwrap();
        let error = setup.sync().apply(plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source, "{from}");
        assert_eq!(setup.store.commits(), commits, "nothing was written");
    }
    assert!(setup.people.calls().is_empty());
    let plan = Plan::read_from(text.as_bytes()).unwrap();
    let mut again = Vec::new();
    plan.write_to(&mut again).unwrap();
    assert!(again == text.as_bytes());
    assert_eq!(tally(&setup.sync().apply(plan).await.unwrap()), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn plan_applied_with_another_mapping_is_a_mistake_that_names_the_field() {
    let setup = Setup::new(Service::Upserts);
    let plan = setup.sync().plan(&crowd(1, "a")).await.unwrap();
    let other = setup.with(Mapping::new("email").map("city", "City"), setup.options());
    let error = other.apply(plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`Name`"), "{error}");
}

#[tokio::test]
async fn column_that_no_row_has_is_told_and_a_key_that_no_row_has_is_an_error() {
    let setup = Setup::new(Service::Upserts);
    let misspelt = setup.with(Mapping::new("email").map("nmae", "Name"), setup.options());
    let plan = misspelt.plan(&crowd(2, "a")).await.unwrap();
    let problem = &plan.problems()[0];
    assert_eq!((problem.kind(), problem.column().unwrap().as_str()), (ProblemKind::Note, "nmae"));
    let error = setup.with(Mapping::new("e-mail"), setup.options()).plan(&crowd(2, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`e-mail`"), "{error}");
}

#[tokio::test]
async fn fields_that_are_cleared_are_counted() {
    let setup = Setup::new(Service::Upserts);
    let people = vec![
        person("ada@shop.test", "Ada").with("city", None::<String>),
        citizen("bob@shop.test", "", "Graz"),
        citizen("cleo@shop.test", "", ""),
        citizen("cleo@shop.test", "Cleo", ""),
    ];
    let counts = setup.sync().plan(&people).await.unwrap().counts().clone();
    assert_eq!((counts.fields, counts.cleared, counts.withheld), (4, 2, 2));
}

#[tokio::test]
async fn rows_that_nobody_knows_are_told_one_by_one_and_fill_no_report() {
    let setup = Setup::new(Service::Updates);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let options = setup.options().observe(move |event| {
        if let Event::Problem(problem) = event
            && problem.kind() == ProblemKind::NoMatch
        {
            heard.lock().unwrap().push(problem.row());
        }
    });
    let report = setup.with(names(), options).run(&crowd(3, "a")).await.unwrap();
    let mut told = told.lock().unwrap().clone();
    told.sort_unstable();
    assert_eq!(told, [Some(1), Some(2), Some(3)]);
    assert!(report.problems.iter().all(|problem| problem.kind() == ProblemKind::Note));
}

#[tokio::test]
async fn row_that_was_away_when_removal_was_switched_on_is_removed_once_it_came_back_and_left() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(3, "a")).await;
    let removing = || setup.with(names(), setup.options().remove_absent());
    // Its key was not kept, so it can only be counted.
    let report = removing().run(&crowd(2, "a")).await.unwrap();
    assert_eq!((report.counts.unremovable, report.counts.removed), (1, 0));
    assert_eq!(removing().run(&crowd(3, "a")).await.unwrap().counts.unchanged, 3);
    let report = removing().run(&crowd(1, "a")).await.unwrap();
    assert_eq!((report.counts.unremovable, report.outcomes.applied), (0, 2));
    assert_eq!(setup.people.world().records.len(), 1);
}

#[tokio::test]
async fn row_that_could_not_be_sent_when_removal_was_switched_on_is_removed_all_the_same() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(3, "a")).await;
    let removing = || setup.with(names(), setup.options().remove_absent());
    let mut people = crowd(3, "a");
    people[1] = person("p1@shop.test", "N1a").with("city", vec!["no", "text"]);
    people.push(person("p2@shop.test", "another one"));
    let report = removing().run(&people).await.unwrap();
    assert_eq!((report.counts.invalid, report.counts.withheld), (1, 2));
    assert_eq!(removing().run(&crowd(3, "a")).await.unwrap().counts.unchanged, 3);
    let report = removing().run(&crowd(1, "a")).await.unwrap();
    assert_eq!((report.counts.unremovable, report.outcomes.applied), (0, 2));
}

#[tokio::test]
async fn rows_that_are_left_to_the_next_run_end_no_run_early() {
    let setup = Setup::new(Service::Upserts);
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    setup.run(&crowd(1, "a")).await;
    setup.people.answer_by_itself();
    let report = setup.with(names(), setup.options().leave_late()).run(&crowd(2, "a")).await.unwrap();
    assert_eq!((tally(&report), report.stopped), ([1, 0, 0, 0, 1], false));
}

#[test]
fn rows_are_planned_from_a_slice() {
    let people: [Record; 2] = [person("ada@shop.test", "Ada"), person("bob@shop.test", "Bob")];
    let (store, options) = (MemoryStore::default(), PlanOptions::default());
    let mapping = Mapping::new("email").map("name", "Name");
    let planned = futures::executor::block_on(plan(people.as_slice(), &mapping, &store, &options)).unwrap();
    assert_eq!(planned.counts().added, 2);
}

#[test]
fn times_of_any_length_are_no_reason_to_panic() {
    let store = MemoryStore::default();
    let limits = Limits::rows(1).late(Duration::MAX).send_within(Duration::MAX).clock_margin(Duration::MAX);
    let mapping = Mapping::new("email").column(Column::new("name", "Name").create(FieldKind::Any));
    futures::executor::block_on(async {
        let plan = plan(&crowd(1, "a"), &mapping, &store, &PlanOptions::default()).await.unwrap();
        let mut run = plan.start(&store, limits).await.unwrap();
        let batch = run.next_batch().await.unwrap();
        let outcomes = batch.all(&Outcome::applied());
        batch.settle(outcomes);
        assert!(run.next_batch().await.is_none());
        assert_eq!(run.finish().await.unwrap().outcomes.applied, 1);
    });
}
