//! Runs: what is handed out, what comes back, and where a run stops.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use reverse_etl::{
    Activation, Batch, Destination, DuplicatePolicy, Error, ErrorKind, Event, FieldSpec, Guards, Limits,
    Operation, Outcome, Outcomes, Plan, ProblemKind, Record, RejectedPolicy, Report, Result, Run, Share,
    Target, host::Host,
};

use crate::fixture::{
    Call, Service, Setup, assert_adds_up, crowd, names, no_answer, person, tally, yield_once,
};

async fn planned(setup: &Setup, people: &Vec<Record>) -> Plan {
    setup.sync().plan(people).await.unwrap()
}

async fn started<'s>(setup: &'s Setup, people: &Vec<Record>, limits: Limits) -> Run<'s> {
    planned(setup, people).await.start(&setup.store, limits).await.unwrap()
}

fn settle(batch: Batch, outcome: &Outcome) {
    let outcomes = batch.all(outcome);
    batch.settle(outcomes);
}

fn key_of(batch: &Batch, index: usize) -> &str {
    batch.changes()[index].key().as_str()
}

#[tokio::test]
async fn batches_are_cut_by_rows_and_by_bytes_and_come_in_the_order_of_their_key_hashes() {
    let big = || {
        let mut people = crowd(20, "a");
        people[4] = person("p4@shop.test", &"x".repeat(60));
        people
    };
    for limits in [Limits::rows(3), Limits::rows(100).bytes(150), Limits::rows(3).bytes(90), Limits::rows(1)]
    {
        let setup = Setup::new(Service::Upserts);
        let plan = planned(&setup, &big()).await;
        let expected: Vec<_> =
            plan.changes().map(|change| change.unwrap().key().as_str().to_owned()).collect();
        let mut run = plan.start(&setup.store, limits).await.unwrap();
        let mut keys = Vec::new();
        let mut sizes = Vec::new();
        while let Some(batch) = run.next_batch().await {
            let json: usize = batch
                .changes()
                .iter()
                .map(|change| {
                    serde_json::to_vec(&(change.key(), change.fields(), change.on_create())).unwrap().len()
                })
                .sum();
            sizes.push((batch.changes().len(), json));
            keys.extend(batch.changes().iter().map(|change| change.key().as_str().to_owned()));
            settle(batch, &Outcome::applied());
        }
        assert_adds_up(&run.finish().await.unwrap());
        assert_eq!(keys, expected, "a row once, in the plan's order");
        let rows_max = if limits == Limits::rows(100).bytes(150) { 100 } else { 3 };
        let bytes_max = if limits == Limits::rows(3).bytes(90) {
            90
        } else if rows_max == 100 {
            150
        } else {
            10_000
        };
        assert!(
            sizes.iter().all(|(rows, bytes)| *rows <= rows_max && (*rows == 1 || *bytes <= bytes_max)),
            "{sizes:?}"
        );
        assert!(sizes.iter().any(|(rows, _)| *rows > 1) || limits == Limits::rows(1), "{sizes:?}");
    }
}

/// Three batches; with two under way, the third is announced while the second is sent, however many rows have come back.
#[tokio::test]
async fn the_next_batch_is_announced_while_another_is_sent_if_the_limits_allow_two() {
    for (in_flight, commits) in [(1, [2, 3, 4]), (2, [2, 3, 3])] {
        for rows in [2, 4_096] {
            let setup = Setup::new(Service::Upserts);
            setup.store.slow(2);
            let limits = Limits::rows(rows).in_flight(in_flight);
            let mut run = started(&setup, &crowd(3 * rows, "a"), limits).await;
            for commits in commits {
                let batch = run.next_batch().await.unwrap();
                assert_eq!(setup.store.commits(), commits, "{rows} rows");
                settle(batch, &Outcome::applied());
            }
            assert!(run.next_batch().await.is_none());
            assert_eq!(run.finish().await.unwrap().outcomes.applied, 3 * rows as u64);
        }
    }
}

#[tokio::test]
async fn a_batch_whose_announcement_fails_while_another_is_sent_is_not_handed_out() {
    for stored in [false, true] {
        let setup = Setup::new(Service::Upserts);
        setup.store.fail(3, stored);
        let mut run = started(&setup, &crowd(6, "a"), Limits::rows(2).in_flight(2)).await;
        for _ in 0..2 {
            settle(run.next_batch().await.unwrap(), &Outcome::applied());
        }
        assert!(run.next_batch().await.is_none());
        let error = run.finish().await.unwrap_err();
        let outcomes = &error.report().unwrap().outcomes;
        assert_eq!((outcomes.applied, outcomes.not_attempted), (4, 2));
        let plan = planned(&setup, &crowd(6, "a")).await;
        assert_eq!(plan.counts().planned(), 2);
    }
}

#[tokio::test]
async fn as_many_batches_are_in_flight_as_the_limits_say() {
    for in_flight in [1, 3] {
        let setup = Setup::new(Service::Upserts).limits(Limits::rows(1).in_flight(in_flight));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let limits = Limits::rows(1).in_flight(in_flight);
        let mut run = started(&setup, &crowd(9, "a"), limits).await;
        let deliver = async |batch: Batch| {
            let count = now.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(count, Ordering::Relaxed);
            for _ in 0..4 {
                yield_once().await;
            }
            now.fetch_sub(1, Ordering::Relaxed);
            settle(batch, &Outcome::applied());
        };
        run.batches().for_each_concurrent(in_flight, &deliver).await;
        assert_eq!(tally(&run.finish().await.unwrap()), [9, 0, 0, 0, 0]);
        assert_eq!(most.into_inner(), in_flight);
        // One commit begins the run and one ends it. Three batches are announced at once or one after the other; what comes
        // back is remembered with the next announcement, and at the end, where there is none, as it comes.
        assert_eq!(setup.store.commits(), 2 + 9);
    }
}

#[tokio::test]
async fn row_that_an_update_does_not_find_is_inserted_in_the_same_run() {
    let setup = Setup::new(Service::Inserts);
    setup.people.exists(&["p1@shop.test"]);
    let report = setup.run(&crowd(3, "a")).await;
    assert_eq!((tally(&report), report.created, report.batches), ([3, 0, 0, 0, 0], 2, 2));
    let calls = setup.people.calls();
    assert_eq!((calls[0].operation, calls[1].operation), (Operation::Update, Operation::Insert));
    assert_eq!((calls[0].place.as_deref(), calls[1].place.as_deref()), (None, Some("list")));
    assert_eq!(setup.people.world().list.len(), 2);
}

#[tokio::test]
async fn row_that_exists_after_all_is_updated_once_more_and_a_second_contradiction_is_a_rejection() {
    for contradicts in [false, true] {
        let setup = Setup::new(Service::Inserts);
        setup.people.answer(move |_, batch, world| match batch.operation() {
            Operation::Insert => {
                world.records.entry("p0@shop.test".into()).or_default();
                Some(Ok(batch.all(&Outcome::AlreadyExists)))
            }
            _ if contradicts => Some(Ok(batch.all(&Outcome::NoMatch))),
            _ => None,
        });
        let report = setup.run(&crowd(1, "a")).await;
        let operations: Vec<_> = setup.people.calls().iter().map(|call| call.operation).collect();
        assert_eq!(operations, [Operation::Update, Operation::Insert, Operation::Update]);
        if contradicts {
            assert_eq!(tally(&report), [0, 0, 1, 0, 0]);
            assert!(report.problems.last().unwrap().reason().contains("then that it does not"), "{report}");
        } else {
            assert_eq!(tally(&report), [1, 0, 0, 0, 0]);
            assert!(setup.people.world().list.is_empty(), "nobody was created");
        }
    }
}

#[tokio::test]
async fn known_row_that_is_missing_is_inserted_by_the_next_run_with_all_its_fields() {
    let setup = Setup::new(Service::Inserts);
    let row = |name: &str| vec![crate::fixture::citizen("ada@shop.test", name, "Wien")];
    setup.run(&row("Ada")).await;
    setup.people.world().records.clear();
    setup.people.take_calls();
    assert_eq!(tally(&setup.run(&row("Eve")).await), [0, 1, 0, 0, 0]);
    assert_eq!(setup.people.take_calls().len(), 1, "not in the same run, whose update lacked a field");
    assert_eq!(tally(&setup.run(&row("Eve")).await), [1, 0, 0, 0, 0]);
    let world = setup.people.world();
    assert_eq!(world.value("ada@shop.test", "City"), "Wien");
}

/// What becomes of eight rows of which some, by their places in the batch, are refused for the whole request.
async fn halved(guilty: &[usize], code: fn(&str) -> String) -> (Setup, Result<Report, Error>) {
    let setup = Setup::new(Service::Upserts);
    // The state is new, and so is its secret: the order of hashes is found by a run of its own.
    let order = Arc::new(Mutex::new(Vec::<String>::new()));
    let guilty = guilty.to_vec();
    setup.people.answer(move |_, batch, _| {
        let mut order = order.lock().unwrap();
        if order.is_empty() {
            order.extend(batch.changes().iter().map(|change| change.key().as_str().to_owned()));
        }
        let is_guilty = |key: &str| guilty.iter().any(|index| order[*index] == key);
        let bad = batch.changes().iter().find(|change| is_guilty(change.key().as_str()))?;
        Some(Err(Error::refused_for_a_row(code(bad.key().as_str()), "a row of the request is bad")))
    });
    let ended = setup.sync().run(&crowd(8, "a")).await;
    (setup, ended)
}

#[tokio::test]
async fn request_that_is_refused_for_a_row_is_halved_until_the_guilty_rows_are_alone() {
    for guilty in
        [vec![0], vec![7], vec![3], vec![2, 3], vec![0, 1], vec![6, 7], vec![0, 7], vec![0, 4, 5, 6, 7]]
    {
        let (setup, ended) = halved(&guilty, |_| "400".into()).await;
        let report = ended.unwrap_or_else(|error| panic!("{guilty:?}: {error}"));
        assert_adds_up(&report);
        let (bad, good) = (guilty.len() as u64, 8 - guilty.len() as u64);
        assert_eq!(tally(&report), [good, 0, bad, 0, 0], "{guilty:?}");
        let mut rejected = report.problems.iter().filter(|problem| problem.row().is_some());
        assert!(rejected.all(|problem| problem.code() == Some("400")));
        assert_eq!(setup.people.world().records.len(), 8 - guilty.len());
        // They are left alone until they change or their back-off ends.
        setup.people.take_calls();
        let again = setup.run(&crowd(8, "a")).await;
        assert_eq!((again.counts.held, again.counts.planned()), (bad, 0));
    }
}

#[tokio::test]
async fn two_single_rows_refused_with_one_code_and_no_success_are_the_error_of_the_run() {
    let all: Vec<usize> = (0..8).collect();
    let (setup, ended) = halved(&all, |_| "400".into()).await;
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), error.row_code()), (ErrorKind::Refused, Some("400")));
    assert_eq!(tally(error.report().unwrap()), [0, 0, 0, 0, 8], "nobody is called guilty");
    assert!(setup.people.calls().len() <= 7, "{}", setup.people.calls().len());
    setup.people.answer_by_itself();
    setup.assert_converges(&crowd(8, "a")).await;

    // With a code of its own each row is guilty of something else.
    let (_, ended) = halved(&all, str::to_owned).await;
    assert_eq!(tally(&ended.unwrap()), [0, 0, 8, 0, 0]);
}

#[tokio::test]
async fn unanswered_rows_are_unknown_and_wait_until_the_request_is_over() {
    let limits = Limits::rows(10).send_within(Duration::from_secs(60)).late(Duration::from_secs(30));
    let limits = limits.clock_margin(Duration::from_secs(10));
    let setup = Setup::new(Service::Upserts).limits(limits);
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    let report = setup.run(&crowd(2, "a")).await;
    assert_eq!(tally(&report), [0, 0, 0, 2, 0]);
    assert_eq!(report.problems.last().unwrap().kind(), ProblemKind::Unknown);
    setup.people.answer_by_itself();
    let start = setup.clock.monotonic();
    let waited = Arc::new(Mutex::new(Vec::new()));
    let heard = waited.clone();
    let clock = setup.clock.clone();
    let options = setup.options().observe(move |event| {
        if let Event::Waiting { rows, until } = event {
            heard.lock().unwrap().push((*rows, until.duration_since(clock.wall()).unwrap()));
        }
    });
    let report = setup.with(names(), options).run(&crowd(2, "a")).await.unwrap();
    assert_eq!(tally(&report), [2, 0, 0, 0, 0]);
    assert!(setup.clock.since(start) > Duration::from_secs(99));
    assert_eq!(*waited.lock().unwrap(), [(2, Duration::from_secs(100))]);
}

#[tokio::test]
async fn rows_that_would_have_to_wait_are_left_to_the_next_run_if_that_is_wanted() {
    let setup = Setup::new(Service::Upserts);
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    setup.run(&crowd(2, "a")).await;
    setup.people.answer_by_itself();
    let start = setup.clock.monotonic();
    let sync = || setup.with(names(), setup.options().leave_late());
    let report = sync().run(&crowd(4, "a")).await.unwrap();
    assert_eq!((tally(&report), report.stopped), ([2, 0, 0, 0, 2], false));
    assert_eq!(setup.clock.monotonic(), start, "nobody waited");
    setup.clock.advance(Duration::from_secs(600));
    assert_eq!(tally(&sync().run(&crowd(4, "a")).await.unwrap()), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn batch_whose_time_has_passed_is_announced_again_at_most_three_times() {
    for late in [1, 3, 9] {
        let setup = Setup::new(Service::Upserts);
        let mut run = started(&setup, &crowd(2, "a"), Limits::rows(2)).await;
        let mut handed_out = 0;
        while let Some(batch) = run.next_batch().await {
            handed_out += 1;
            assert!(!batch.is_expired());
            if handed_out <= late {
                setup.clock.advance(Duration::from_secs(91));
                assert!(batch.is_expired());
            }
            batch.deliver(&setup.people).await;
        }
        let report = run.finish().await.unwrap();
        assert_eq!(handed_out, late.min(3) + 1);
        let is_sent = late <= 3;
        assert_eq!(tally(&report), if is_sent { [2, 0, 0, 0, 0] } else { [0, 0, 0, 0, 2] });
        assert_eq!((setup.people.calls().len(), report.stopped), (usize::from(is_sent), !is_sent));
        setup.assert_converges(&crowd(2, "a")).await;
    }
}

/// The caller sends one batch after the other, and each takes longer than a batch may wait.
#[tokio::test]
async fn batch_that_was_announced_ahead_and_not_fetched_in_time_is_announced_anew() {
    let setup = Setup::new(Service::Upserts);
    let limits = Limits::rows(2).in_flight(2);
    let mut run = started(&setup, &crowd(40, "a"), limits).await;
    let mut handed_out = 0;
    while let Some(batch) = run.next_batch().await {
        handed_out += 1;
        assert!(!batch.is_expired(), "batch {handed_out}");
        setup.clock.advance(Duration::from_secs(100));
        settle(batch, &Outcome::applied());
    }
    let report = run.finish().await.unwrap();
    assert_eq!((handed_out, report.batches, tally(&report)), (20, 20, [40, 0, 0, 0, 0]));
}

/// That others were announced anew in between is no answer.
#[tokio::test]
async fn three_batches_without_an_answer_stop_a_run_also_if_others_were_not_fetched_in_time() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(9, "a"), Limits::rows(1).in_flight(2)).await;
    let mut handed_out = 0;
    while let Some(batch) = run.next_batch().await {
        handed_out += 1;
        setup.clock.advance(Duration::from_secs(100));
        batch.fail(no_answer());
    }
    assert_eq!((handed_out, run.finish().await.unwrap_err().kind()), (3, ErrorKind::NoAnswer));
}

#[tokio::test]
async fn run_that_is_stopped_while_it_waits_for_late_requests_says_so() {
    let setup = Setup::new(Service::Upserts);
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    setup.run(&crowd(2, "a")).await;
    setup.people.answer_by_itself();
    let mut run = started(&setup, &crowd(2, "a"), Limits::rows(2)).await;
    assert!(poll_and_drop(run.next_batch(), 3).is_none());
    let report = run.finish().await.unwrap();
    assert_eq!((tally(&report), report.stopped), ([0, 0, 0, 0, 2], true));
}

#[tokio::test]
async fn run_that_lost_its_hold_waits_for_its_batches_and_does_not_ask_for_the_time_all_along() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(6, "a"), Limits::rows(2)).await;
    let batch = run.next_batch().await.unwrap();
    setup.clock.advance(Duration::from_secs(1_000));
    setup.run(&crowd(6, "b")).await;
    let other = run.next_batch().await;
    assert!(other.is_none());
    setup.clock.advance(Duration::from_secs(31));
    let sleeps = Arc::new(AtomicUsize::new(0));
    let counted = sleeps.clone();
    setup.clock.at_sleep(move || assert!(counted.fetch_add(1, Ordering::Relaxed) < 20));
    let error = run.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
    drop(batch);
}

#[tokio::test]
async fn keys_of_many_rows_are_sealed_in_several_commits() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(1_000));
    setup.run(&crowd(20_000, "a")).await;
    assert!(setup.store.rows_max() < 3_000);
    let sync = setup.with(names(), setup.options().remove_absent());
    assert_eq!(sync.run(&crowd(20_000, "a")).await.unwrap().counts.unchanged, 20_000);
    assert!((4_096..13_000).contains(&setup.store.rows_max()), "{}", setup.store.rows_max());
}

#[tokio::test]
async fn three_batches_without_an_answer_stop_a_run() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(1));
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    let error = setup.sync().run(&crowd(9, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoAnswer);
    assert_eq!(tally(error.report().unwrap()), [0, 0, 0, 3, 6]);

    // An answer in between begins the count anew.
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(1));
    setup.people.answer(|call, _, _| (call % 3 != 0).then(|| Err(no_answer())));
    assert_eq!(tally(&setup.run(&crowd(9, "a")).await), [3, 0, 0, 6, 0]);
}

#[tokio::test]
async fn error_that_does_not_go_away_stops_the_run_and_batches_in_flight_are_settled() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(10, "a"), Limits::rows(2).in_flight(3)).await;
    let first = run.next_batch().await.unwrap();
    let second = run.next_batch().await.unwrap();
    let third = run.next_batch().await.unwrap();
    second.fail(Error::new(ErrorKind::Forbidden, "a permission is missing"));
    assert!(run.next_batch().await.is_none());
    assert!(first.is_expired(), "nothing more is to be sent");
    settle(first, &Outcome::applied());
    let (one, other) = third.split();
    settle(one, &Outcome::applied());
    other.fail(no_answer());
    let error = run.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert_eq!(tally(error.report().unwrap()), [3, 0, 0, 1, 6]);
    let report = setup.run(&crowd(10, "a")).await;
    assert_eq!(
        (report.counts.unchanged, tally(&report)),
        (3, [7, 0, 0, 0, 0]),
        "what was heard is remembered"
    );
}

#[tokio::test]
async fn too_many_rejected_rows_stop_a_run() {
    let rejects = |share| {
        let setup = Setup::new(Service::Upserts).limits(Limits::rows(100));
        setup.people.answer(|_, batch, _| {
            Some(Ok(batch.outcomes(|index, _| {
                if index < 10 { Outcome::rejected("422", "no") } else { Outcome::applied() }
            })))
        });
        async move {
            let guards = Guards::default().rejected_max(share);
            setup.with(names(), setup.options().guards(guards)).run(&crowd(2_000, "a")).await
        }
    };
    let error = rejects(Share::Rows(19)).await.unwrap_err();
    assert_eq!((error.kind(), tally(error.report().unwrap())), (ErrorKind::Guard, [180, 0, 20, 0, 1_800]));
    assert!(error.to_string().contains("20 of 200 rows were rejected"), "{error}");
    let error = rejects(Share::Percent(9.9)).await.unwrap_err();
    assert_eq!(tally(error.report().unwrap()), [900, 0, 100, 0, 1_000], "a share waits for 1,000 outcomes");
    assert_eq!(tally(&rejects(Share::Percent(10.0)).await.unwrap()), [1_800, 0, 200, 0, 0]);
}

#[tokio::test]
async fn rejected_rows_are_tried_again_when_they_change_or_their_back_off_ends() {
    let setup = Setup::new(Service::Upserts);
    setup.people.answer(|_, batch, _| Some(Ok(batch.all(&Outcome::rejected("422", "no")))));
    let hours = |hours: u64| setup.clock.advance(Duration::from_secs(hours * 3_600));
    for (wait, planned) in [(0, 1), (0, 0), (1, 1), (1, 0), (1, 1), (3, 0), (1, 1)] {
        hours(wait);
        assert_eq!(setup.run(&crowd(1, "a")).await.counts.planned(), planned);
    }
    assert_eq!(setup.run(&crowd(1, "b")).await.counts.planned(), 1, "it changed");
    let sync = |policy| setup.with(names(), setup.options().rejected(policy));
    assert_eq!(sync(RejectedPolicy::EveryRun).run(&crowd(1, "b")).await.unwrap().counts.planned(), 1);
    hours(10_000);
    assert_eq!(sync(RejectedPolicy::Never).run(&crowd(1, "b")).await.unwrap().counts.planned(), 0);
}

#[tokio::test]
async fn run_that_is_stopped_between_batches_loses_nothing() {
    for batches in 0..4 {
        let setup = Setup::new(Service::Inserts);
        let mut run = started(&setup, &crowd(6, "a"), Limits::rows(2)).await;
        for _ in 0..batches {
            run.next_batch().await.unwrap().deliver(&setup.people).await;
        }
        let report = run.finish().await.unwrap();
        assert_adds_up(&report);
        assert!(report.stopped);
        setup.assert_converges(&crowd(6, "a")).await;
        assert_eq!(setup.people.world().list.len(), 6);
    }
}

/// Polls a future so many times, and drops it.
fn poll_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
    }
    None
}

#[tokio::test]
async fn next_batch_that_is_cancelled_anywhere_loses_nothing() {
    for polls in 1..12 {
        for finishes in [false, true] {
            let setup = Setup::new(Service::Inserts);
            setup.run(&crowd(3, "a")).await;
            setup.store.slow(2);
            let people = crowd(7, "b");
            let mut run = started(&setup, &people, Limits::rows(2).in_flight(2)).await;
            let mut cancelled = 0;
            loop {
                let batch = match poll_and_drop(run.next_batch(), polls) {
                    Some(batch) => batch,
                    None if finishes && cancelled > 4 => break,
                    None => {
                        cancelled += 1;
                        if cancelled < 300 {
                            continue;
                        }
                        run.next_batch().await
                    }
                };
                let Some(batch) = batch else { break };
                batch.deliver(&setup.people).await;
            }
            let report = run.finish().await.unwrap();
            assert_adds_up(&report);
            assert_eq!(report.outcomes.unknown + report.outcomes.rejected, 0, "{polls} polls: {report}");
            assert!(finishes || tally(&report) == [7, 0, 0, 0, 0], "{polls} polls: {report}");
            setup.store.slow(0);
            let start = setup.clock.monotonic();
            setup.assert_converges(&people).await;
            assert_eq!(setup.clock.monotonic(), start, "nothing was left unknown");
            assert_eq!(setup.people.world().list.len(), 7);
        }
    }
}

#[tokio::test]
async fn batch_that_is_dropped_is_unknown() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(4, "a"), Limits::rows(2)).await;
    drop(run.next_batch().await.unwrap());
    settle(run.next_batch().await.unwrap(), &Outcome::applied());
    assert!(run.next_batch().await.is_none());
    let report = run.finish().await.unwrap();
    assert_eq!(tally(&report), [2, 0, 0, 2, 0]);
    assert!(!report.is_clean());
}

#[tokio::test]
async fn run_that_is_dropped_leaves_what_it_was_doing_to_the_next_one() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(4, "a"), Limits::rows(2)).await;
    let batch = run.next_batch().await.unwrap();
    drop(run);
    settle(batch, &Outcome::applied());
    let error = setup.sync().run(&crowd(4, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "its hold ends by itself");
    setup.clock.advance(Duration::from_secs(241));
    setup.assert_converges(&crowd(4, "a")).await;
}

#[tokio::test]
async fn batch_that_nobody_gives_back_is_waited_for_until_its_answer_can_no_longer_come() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(2, "a"), Limits::rows(2)).await;
    let batch = run.next_batch().await.unwrap();
    let start = setup.clock.monotonic();
    let report = run.finish().await.unwrap();
    assert_eq!(tally(&report), [0, 0, 0, 2, 0]);
    assert_eq!(setup.clock.since(start), Duration::from_secs(90 + 120));
    assert!(setup.store.commits() >= 2 + 7, "the state was held all the while: {}", setup.store.commits());
    settle(batch, &Outcome::applied());
    setup.assert_converges(&crowd(2, "a")).await;
}

#[tokio::test]
async fn store_that_fails_at_any_commit_leaves_a_state_that_is_right() {
    for service in [Service::Inserts, Service::Upserts] {
        for stored in [false, true] {
            for number in 1..12 {
                let mut setup = Setup::new(service).limits(Limits::rows(2).in_flight(2));
                setup.people.exists(&["p2@shop.test"]);
                setup.run(&crowd(3, "a")).await;
                setup.store.fail(number, stored);
                let ended = setup.sync().run(&crowd(6, "b")).await;
                let told = format!("{service:?}, commit {number}, stored {stored}");
                if setup.store.commits() < number {
                    ended.unwrap();
                    break;
                }
                let error = ended.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Io, "{told}");
                if let Some(report) = error.report() {
                    assert_adds_up(report);
                }
                setup.store = setup.store.reopened();
                setup.assert_honest(&[crowd(6, "a"), crowd(6, "b")], &told).await;
                setup.assert_converges(&crowd(6, "b")).await;
                let expected = if service == Service::Inserts { 5 } else { 0 };
                assert_eq!(setup.people.world().list.len(), expected, "{told}");
            }
        }
    }
}

#[tokio::test]
async fn hold_on_the_state_is_given_back_also_by_a_run_whose_commit_failed() {
    for (number, stored) in [(1, false), (1, true), (2, false), (2, true), (3, false), (3, true)] {
        let setup = Setup::new(Service::Upserts).limits(Limits::rows(2));
        setup.store.fail(number, stored);
        setup.sync().run(&crowd(4, "a")).await.unwrap_err();
        // Nobody is told that the state is busy.
        setup.run(&crowd(4, "a")).await;
    }
}

#[tokio::test]
async fn second_run_is_told_who_holds_the_state_and_since_when() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(4, "a"), Limits::rows(2)).await;
    let batch = run.next_batch().await.unwrap();
    setup.clock.advance(Duration::from_secs(9));
    let plan = planned(&setup, &crowd(4, "a")).await;
    let error = plan.start(&setup.store, Limits::rows(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Busy, true));
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder) && error.to_string().contains("for 9 s"), "{error}");
    settle(batch, &Outcome::applied());
    assert_eq!(tally(&run.finish().await.unwrap()), [2, 0, 0, 0, 2]);
    assert_eq!(tally(&setup.run(&crowd(4, "a")).await), [2, 0, 0, 0, 0], "finish gives it back");
}

#[tokio::test]
async fn hold_is_renewed_while_a_run_waits() {
    let setup = Setup::new(Service::Upserts);
    setup.people.answer(|_, _, _| Some(Err(no_answer())));
    setup.run(&crowd(2, "a")).await;
    setup.people.answer_by_itself();
    let plan = planned(&setup, &crowd(2, "a")).await;
    let mut run = plan.start(&setup.store, Limits::rows(2)).await.unwrap();
    let commits = setup.store.commits();
    let start = setup.clock.monotonic();
    let batch = run.next_batch().await.unwrap();
    // It waited for four minutes, in pauses of half a minute.
    assert!(setup.clock.since(start) > Duration::from_secs(230));
    assert!(setup.store.commits() - commits >= 8, "{}", setup.store.commits() - commits);
    settle(batch, &Outcome::applied());
    run.finish().await.unwrap();
}

/// Takes five minutes to prepare, and then another run wants the state.
struct SlowToPrepare(Setup);

impl fmt::Debug for SlowToPrepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlowToPrepare")
    }
}

#[async_trait]
impl Destination for SlowToPrepare {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        self.0.people.describe(wanted).await
    }

    async fn prepare(&self, target: Target) -> Result<Target> {
        for _ in 0..30 {
            self.0.clock.sleep(Duration::from_secs(10)).await;
        }
        let plan = planned(&self.0, &crowd(2, "b")).await;
        let error = plan.start(&self.0.store, Limits::rows(2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        Ok(target)
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        self.0.people.apply(batch).await
    }
}

#[tokio::test]
async fn hold_is_renewed_while_the_destination_is_prepared() {
    let setup = Setup::new(Service::Upserts);
    let sync = Activation::new(names(), SlowToPrepare(setup.clone()), setup.store.clone());
    let report = sync.options(setup.options()).run(&crowd(2, "a")).await.unwrap();
    assert_eq!(tally(&report), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn run_that_is_told_to_stop_does_not_wait_for_its_preparation() {
    let setup = Setup::new(Service::Upserts);
    let sync = Activation::new(names(), SlowToPrepare(setup.clone()), setup.store.clone());
    let sync = sync.options(setup.options());
    let plan = sync.plan(&crowd(2, "a")).await.unwrap();
    let start = setup.clock.monotonic();
    let report = sync.apply_until(plan, setup.clock.sleep(Duration::from_secs(20))).await.unwrap();
    assert!(report.stopped && setup.clock.since(start) < Duration::from_secs(200));
    assert_eq!(tally(&report), [0, 0, 0, 0, 2]);
    assert_eq!(tally(&setup.run(&crowd(2, "a")).await), [2, 0, 0, 0, 0], "the state was given back");
}

#[tokio::test]
async fn run_that_cannot_renew_its_hold_prepares_nothing_more() {
    let setup = Setup::new(Service::Upserts);
    // The first one takes the state.
    setup.store.fail_from(2);
    let sync = Activation::new(names(), SlowToPrepare(setup.clone()), setup.store.clone());
    let error = sync.options(setup.options()).run(&crowd(2, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(setup.people.calls().is_empty());
}

#[tokio::test]
async fn run_that_lost_its_hold_stops_and_says_so() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(6, "a"), Limits::rows(2)).await;
    let batch = run.next_batch().await.unwrap();
    // It stands still for too long, and another run takes over.
    setup.clock.advance(Duration::from_secs(1_000));
    let report = setup.run(&crowd(6, "b")).await;
    assert_eq!(tally(&report), [6, 0, 0, 0, 0]);
    settle(batch, &Outcome::applied());
    assert!(run.next_batch().await.is_none());
    let error = run.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMoved);
    assert!(error.to_string().contains("plan again"), "{error}");
    assert_adds_up(error.report().unwrap());
    assert_eq!(setup.run(&crowd(6, "b")).await.counts.unchanged, 6, "the other run's state is as it left it");
}

#[tokio::test]
async fn outcomes_are_set_interrupted_and_noted() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(6, "a"), Limits::rows(10)).await;
    let batch = run.next_batch().await.unwrap();
    let mut outcomes = batch.all(&Outcome::applied());
    outcomes.set(0, Outcome::rejected("422", format!("{} is refused", key_of(&batch, 0))));
    outcomes.set(99, Outcome::Unknown);
    outcomes.note(1, format!("the list of {} is gone", key_of(&batch, 1)));
    outcomes.note(99, "nobody");
    outcomes.interrupt(&[2, 3], Error::new(ErrorKind::Server, "the second call failed"));
    outcomes.set_error(Error::new(ErrorKind::Forbidden, "only the first error counts"));
    assert_eq!(outcomes.positions(|_, outcome| *outcome == Outcome::Unknown), [2, 3]);
    assert_eq!(outcomes.iter().count(), 6);
    batch.settle(outcomes);
    assert!(run.next_batch().await.is_none());
    let report = run.finish().await.unwrap();
    assert_eq!(tally(&report), [3, 0, 1, 2, 0]);
    let shown: BTreeMap<_, _> =
        report.problems.iter().map(|problem| (problem.kind().to_string(), problem.reason())).collect();
    assert_eq!(shown["rejected"], "… is refused");
    assert_eq!(shown["note"], "the list of … is gone");
    assert_eq!(shown["unknown"], "the second call failed");
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[tokio::test]
async fn error_that_some_rows_have_their_outcomes_by_ends_the_run_and_the_others_stand() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(4));
    setup.people.answer(|call, batch, world| {
        let mut effect = world.effect(&Call::of(batch)).into_iter();
        (call == 1).then(|| {
            let mut outcomes = batch.outcomes(|_, _| effect.next().unwrap());
            outcomes.interrupt(&[0], Error::new(ErrorKind::Unauthorized, "the token is refused"));
            Ok(outcomes)
        })
    });
    let error = setup.sync().run(&crowd(8, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(tally(error.report().unwrap()), [3, 0, 0, 1, 4]);
}

#[tokio::test]
async fn observer_is_told_of_progress_up_to_the_end_and_of_problems() {
    let setup = Setup::new(Service::Inserts).limits(Limits::rows(2).in_flight(2));
    setup.people.answer(|_, batch, world| {
        let mut effect = world.effect(&Call::of(batch)).into_iter();
        Some(Ok(batch.outcomes(|_, change| {
            let by_itself = effect.next().unwrap();
            if change.key().as_str() == "p3@shop.test" { Outcome::rejected("422", "no") } else { by_itself }
        })))
    });
    let (progress, problems) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (steps, met) = (progress.clone(), problems.clone());
    let options = setup.options().observe(move |event| match event {
        Event::Progress { done, planned } => steps.lock().unwrap().push((*done, *planned)),
        Event::Problem(problem) => met.lock().unwrap().push((problem.row(), problem.kind())),
        _ => {}
    });
    setup.with(names(), options).run(&crowd(7, "a")).await.unwrap();
    let progress = progress.lock().unwrap();
    assert!(progress.is_sorted() && progress.iter().all(|(_, planned)| *planned == 7), "{progress:?}");
    assert_eq!(progress.last(), Some(&(7, 7)));
    assert_eq!(
        *problems.lock().unwrap(),
        [(None, ProblemKind::Note), (Some(4), ProblemKind::Rejected)],
        "nobody has a city, and one is refused"
    );
}

#[tokio::test]
async fn row_that_was_not_sent_goes_out_again_in_the_same_run_and_not_for_ever() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(1, "a"), Limits::rows(1)).await;
    let mut handed_out = 0;
    while let Some(batch) = run.next_batch().await {
        handed_out += 1;
        settle(batch, &Outcome::NotAttempted);
    }
    assert_eq!((handed_out, tally(&run.finish().await.unwrap())), (4, [0, 0, 0, 0, 1]));
}

#[tokio::test]
async fn request_limit_that_is_exhausted_stops_a_run_and_nothing_is_unknown() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(1));
    setup.people.answer(|call, _, _| {
        (call > 2).then(|| Err(Error::new(ErrorKind::RateLimited, "the request limit is exhausted")))
    });
    let error = setup.sync().run(&crowd(9, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(tally(error.report().unwrap()), [2, 0, 0, 0, 7]);
    assert_eq!(setup.people.calls().len(), 5, "no loop");
}

#[tokio::test]
async fn outcomes_of_another_batch_acknowledge_nothing_and_stop_the_run() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(5, "a"), Limits::rows(3)).await;
    let large = run.next_batch().await.unwrap();
    let small = run.next_batch().await.unwrap();
    let outcomes = small.all(&Outcome::applied());
    drop(small);
    large.settle(outcomes);
    assert!(run.next_batch().await.is_none());
    let error = run.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let report = error.report().unwrap();
    assert_adds_up(report);
    assert_eq!(tally(report), [0, 0, 0, 5, 0]);
    setup.assert_converges(&crowd(5, "a")).await;
}

#[tokio::test]
async fn halves_of_a_batch_are_settled_on_their_own() {
    let setup = Setup::new(Service::Upserts);
    let mut run = started(&setup, &crowd(5, "a"), Limits::rows(5)).await;
    let (first, second) = run.next_batch().await.unwrap().split();
    assert_eq!((first.changes().len(), second.changes().len()), (3, 2));
    let (one, none) = {
        let (second, last) = second.split();
        settle(last, &Outcome::applied());
        second.split()
    };
    assert!(none.changes().is_empty());
    drop(none);
    settle(one, &Outcome::applied());
    first.fail(Error::new(ErrorKind::RateLimited, "too many requests"));
    assert!(run.next_batch().await.is_none());
    let report = run.finish().await.unwrap();
    assert_eq!(tally(&report), [2, 0, 0, 0, 3]);
}

#[tokio::test]
async fn rejected_row_that_a_removal_or_a_change_follows_is_sent() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(2, "a")).await.unwrap();
    setup.people.answer(|_, batch, _| Some(Ok(batch.all(&Outcome::rejected("422", "no")))));
    assert_eq!(tally(&sync().run(&crowd(1, "a")).await.unwrap()), [0, 0, 1, 0, 0], "a removal");
    assert_eq!(sync().run(&crowd(1, "a")).await.unwrap().counts.planned(), 0, "it is in back-off");
    setup.people.answer_by_itself();
    setup.clock.advance(Duration::from_secs(3_601));
    assert_eq!(sync().run(&crowd(1, "a")).await.unwrap().outcomes.applied, 1);
    assert_eq!(setup.people.world().records.len(), 1);
    assert_eq!(sync().run(&crowd(1, "a")).await.unwrap().counts.planned(), 0);
}

#[tokio::test]
async fn row_whose_removal_got_no_answer_and_that_is_back_is_sent_whole() {
    let setup = Setup::new(Service::Upserts);
    let sync = || setup.with(names(), setup.options().remove_absent());
    sync().run(&crowd(2, "a")).await.unwrap();
    setup.people.answer(|_, batch, world| {
        (batch.operation() == Operation::Remove).then(|| {
            world.late.push(Call::of(batch));
            Err(no_answer())
        })
    });
    assert_eq!(tally(&sync().run(&crowd(1, "a")).await.unwrap()), [0, 0, 0, 1, 0]);
    setup.people.answer_by_itself();
    let people = setup.people.clone();
    setup.clock.at_sleep(move || people.world().land());
    assert_eq!(tally(&sync().run(&crowd(2, "a")).await.unwrap()), [1, 0, 0, 0, 0]);
    assert_eq!(setup.people.world().value("p1@shop.test", "Name"), "N1a");
    assert_eq!(sync().run(&crowd(2, "a")).await.unwrap().counts.planned(), 0);
}

#[tokio::test]
async fn store_that_fails_for_good_is_an_error_with_a_report_and_loses_nothing() {
    let mut setup = Setup::new(Service::Inserts).limits(Limits::rows(2));
    for number in 1..8 {
        setup.store.fail_from(number);
        let error = setup.sync().run(&crowd(5, "a")).await;
        setup.store = setup.store.reopened();
        setup.assert_honest(&[crowd(5, "a")], &format!("from commit {number} on")).await;
        if let Err(error) = error {
            assert_eq!(error.kind(), ErrorKind::Io);
        }
    }
    setup.assert_converges(&crowd(5, "a")).await;
    assert_eq!(setup.people.world().list.len(), 5);
}

/// Each of them has an entry that seals the key, for the row that is invalid, and one for the row that follows it. With one
/// row more, some pairs are not taken together.
#[tokio::test]
async fn a_key_may_be_sealed_with_some_rows_and_sent_with_the_next() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(10));
    setup.run(&crowd(200, "a")).await;
    let invalid = |person: &Record| person.clone().with("name", vec!["a", "list"]);
    let mut people = crowd(200, "b");
    for at in (1..people.len()).rev() {
        people.insert(at, invalid(&people[at]));
    }
    let options = setup.options().remove_absent().duplicates(DuplicatePolicy::Last);
    let report = setup.with(names(), options).run(&people).await.unwrap();
    assert_eq!((report.counts.invalid, report.outcomes.applied), (199, 200), "{report}");
}
