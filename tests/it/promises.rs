//! The promises that the crate makes, one or more tests for each.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use reverse_etl::{
    Activation, Batch, Change, Column, Error, ErrorKind, Guards, KeyHash, Limits, Mapping, MemoryStore,
    Mismatch, NullPolicy, Operation, Outcome, Plan, PlanOptions, PriorState, Record, RedbStore, Result,
    RowState, ScannedRows, Secret, Share, Source, StateStore, Value,
    emarsys::{
        Client, ContactsDestination, Credentials, FieldId,
        sandbox::{Endpoint, Fault, Sandbox, WriteRequest},
    },
};
use serde_json::json;

use crate::fixture::{
    Call, Clock, Service, Setup, assert_adds_up, citizen, crowd, names, no_answer, person, tally,
};

/// Two versions of a source.
fn versions() -> [Vec<Record>; 2] {
    let version = |suffix: &str| {
        (0..5).map(|n| citizen(&format!("p{n}@shop.test"), &format!("N{n}{suffix}"), "Wien")).collect()
    };
    [version("a"), version("b")]
}

/// Both versions are synced, or the second one `at_once`; the process dies at the step `last` of the sync of the second
/// one. Says whether it did.
async fn die(service: Service, dies_late: bool, at_once: bool, last: usize) -> bool {
    let told = format!("{service:?}, late {dies_late}, at once {at_once}, step {last}");
    let limits = Limits::rows(2).in_flight(2);
    let mut setup = Setup::new(service).limits(limits);
    let [before, after] = versions();
    if service == Service::Updates {
        setup.people.exists(&["p0@shop.test", "p1@shop.test", "p2@shop.test", "p4@shop.test"]);
    } else {
        setup.people.exists(&["p3@shop.test"]);
    }
    if !at_once {
        setup.run(&before).await;
    }
    setup.people.dies_late = dies_late;
    setup.people.mortal.dies_at(Some(last));
    setup.store.mortal = setup.people.mortal.clone();
    let died = setup.people.mortal.live(Box::pin(setup.sync().run(&after))).await.is_none();
    setup.people.mortal.dies_at(None);

    // Another process finds what the state and the destination are by now.
    setup.store = setup.store.reopened();
    let both = [before.clone(), after.clone()];
    setup.assert_honest(&both, &told).await;
    let people = setup.people.clone();
    setup.clock.at_sleep(move || people.world().land());
    // The source is back at its old values, and the lost request takes effect while that is noticed.
    let report = setup.run(&before).await;
    assert!(report.is_clean() || service == Service::Updates, "{told}: {report}");
    setup.assert_honest(&both, &told).await;
    setup.people.world().land();
    setup.assert_honest(&both, &told).await;
    setup.assert_converges(&before).await;
    let world = setup.people.world();
    for number in 0..5 {
        let key = format!("p{number}@shop.test");
        if service == Service::Updates && number == 3 {
            assert!(!world.records.contains_key(&key), "{told}: update-only creates nothing");
            continue;
        }
        let values = (world.value(&key, "Name"), world.value(&key, "City"));
        assert_eq!(values, (json!(format!("N{number}a")), json!("Wien")), "{told}");
        if service == Service::Inserts {
            assert_eq!(world.list.contains(&key), number != 3, "{told}: who was created is in the list");
        }
    }
    died
}

#[tokio::test]
async fn promise_1_state_never_claims_what_was_not_acknowledged_wherever_the_run_dies() {
    for service in [Service::Updates, Service::Inserts, Service::Upserts] {
        for (dies_late, at_once) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut step = 1;
            while Box::pin(die(service, dies_late, at_once, step)).await {
                step += 1;
            }
            assert!(step > 8, "{service:?}: a sync has more steps than {step}");
        }
    }
}

#[tokio::test]
async fn promise_2_value_that_went_back_is_sent_again_although_the_lost_request_takes_effect_late() {
    let setup = Setup::new(Service::Upserts);
    let (a, b) = (vec![person("ada@shop.test", "Ada")], vec![person("ada@shop.test", "Eve")]);
    setup.run(&a).await;
    setup.people.answer(|_, batch, world| {
        world.late.push(Call::of(batch));
        Some(Err(no_answer()))
    });
    assert_eq!(tally(&setup.run(&b).await), [0, 0, 0, 1, 0]);
    assert_eq!(setup.people.world().value("ada@shop.test", "Name"), "Ada");
    setup.people.answer_by_itself();
    let people = setup.people.clone();
    setup.clock.at_sleep(move || people.world().land());
    let report = setup.run(&a).await;
    assert_eq!(tally(&report), [1, 0, 0, 0, 0], "the value of before is sent again");
    assert!(setup.people.world().late.is_empty(), "the lost request was waited for");
    assert_eq!(setup.people.world().value("ada@shop.test", "Name"), "Ada");
    setup.assert_converges(&a).await;
}

#[tokio::test]
async fn promise_2_fields_are_forgotten_durably_before_their_batch_is_handed_out() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(3, "a")).await;
    let plan = setup.sync().plan(&crowd(3, "b")).await.unwrap();
    let mut run = plan.start(&setup.store, Limits::rows(10)).await.unwrap();
    let batch = run.next_batch().await.unwrap();
    let other = Setup { store: setup.store.reopened(), ..setup.clone() };
    let plan = other.sync().plan(&crowd(3, "a")).await.unwrap();
    assert_eq!(plan.counts().changed, 3, "the values of before are not taken for granted any more");
    drop(batch);
    assert_eq!(tally(&run.finish().await.unwrap()), [0, 0, 0, 3, 0]);
}

#[tokio::test]
async fn promise_3_one_run_after_any_fault_makes_both_equal_and_the_next_one_is_silent() {
    for service in [Service::Updates, Service::Inserts, Service::Upserts] {
        for fault in 0..6 {
            let setup = Setup::new(service).limits(Limits::rows(2).in_flight(2));
            let people = crowd(7, "a");
            if service == Service::Updates {
                let keys: Vec<_> = (0..7).map(|number| format!("p{number}@shop.test")).collect();
                setup.people.exists(&keys.iter().map(String::as_str).collect::<Vec<_>>());
            }
            setup.people.answer(move |call, batch, world| match (fault, call) {
                (0, 2) => Some(Err(no_answer())),
                (1, 2) => {
                    world.effect(&Call::of(batch));
                    Some(Err(no_answer()))
                }
                (2, _) => Some(Err(Error::refused("the service is not for you"))),
                (3, 1..4) => Some(Ok(batch.all(&Outcome::Unknown))),
                (4, 1..3) => Some(Err(Error::new(ErrorKind::RateLimited, "too many requests"))),
                (5, _) => Some(Err(Error::new(ErrorKind::Unauthorized, "the token is refused"))),
                _ => None,
            });
            let ended = setup.sync().run(&people).await;
            assert_eq!(ended.is_err(), [2, 3, 5].contains(&fault), "{service:?}, fault {fault}");
            setup.people.answer_by_itself();
            setup.assert_converges(&people).await;
            for number in 0..7 {
                let name = setup.people.world().value(&format!("p{number}@shop.test"), "Name");
                assert_eq!(name, format!("N{number}a"), "{service:?}, fault {fault}");
            }
        }
    }
}

#[tokio::test]
async fn promise_3_contact_that_somebody_deleted_is_back_after_two_runs() {
    let setup = Setup::new(Service::Inserts);
    let people = crowd(3, "a");
    setup.run(&people).await;
    setup.people.world().records.remove("p1@shop.test");
    let changed = crowd(3, "b");
    assert_eq!(tally(&setup.run(&changed).await), [2, 1, 0, 0, 0], "the run that notices");
    setup.assert_converges(&changed).await;
    assert_eq!(setup.people.world().value("p1@shop.test", "Name"), "N1b");
}

#[tokio::test]
async fn promise_4_update_carries_the_changed_fields_and_nothing_else() {
    let setup = Setup::new(Service::Updates);
    setup.people.exists(&["ada@shop.test", "bob@shop.test"]);
    let row = |name: &str, city: &str| citizen("ada@shop.test", name, city).with("secret", "not mapped");
    let bob = citizen("bob@shop.test", "Bob", "Graz");
    setup.run(&vec![row("Ada", "Wien"), bob.clone()]).await;
    setup.people.take_calls();
    setup.run(&vec![row("Ada", "Linz"), bob.clone()]).await;
    let expected = vec![("ada@shop.test".to_owned(), json!({ "City": "Linz" }))];
    assert_eq!(setup.people.calls()[0].rows, expected);
    setup.run(&vec![row("Ada", "Linz").with("name", Value::Null), bob]).await;
    let expected = vec![("ada@shop.test".to_owned(), json!({ "Name": null }))];
    assert_eq!(setup.people.calls()[1].rows, expected);
    assert!(!format!("{:?}", setup.people.world()).contains("not mapped"), "a field without a mapping");
}

#[tokio::test]
async fn promise_5_update_only_creates_nothing_whatever_happens() {
    let setup = Setup::new(Service::Updates).limits(Limits::rows(2));
    setup.people.exists(&["p0@shop.test"]);
    let people = crowd(5, "a");
    for round in 0..4 {
        setup.people.answer(move |call, batch, world| {
            (call % 4 == round).then(|| {
                world.effect(&Call::of(batch));
                Err(no_answer())
            })
        });
        let _ = setup.sync().run(&people).await;
    }
    let world = setup.people.world();
    assert_eq!(world.records.len(), 1);
    assert!(world.calls.iter().all(|call| call.operation == Operation::Update));
}

#[tokio::test]
async fn promise_5_who_was_created_by_a_lost_insert_is_put_into_the_list_also_with_insert_mode_off() {
    let mut setup = Setup::new(Service::Inserts);
    let people = crowd(2, "a");
    setup.people.exists(&["p0@shop.test"]);
    setup.people.answer(|_, batch, world| {
        (batch.operation() == Operation::Insert).then(|| {
            world.effect(&Call::of(batch));
            // Created, and in no list: the worst that such a request may leave.
            world.list.clear();
            Err(no_answer())
        })
    });
    assert_eq!(tally(&setup.run(&people).await), [1, 0, 0, 1, 0]);
    setup.people.answer_by_itself();
    setup.people = setup.people.clone().serving(Service::Updates);
    // The plan's service is another one by now, and the row left the source.
    let left = crowd(1, "a");
    let report = setup.run(&left).await;
    assert_eq!(report.resolved.applied, 1, "{report}");
    assert_eq!(setup.people.world().list.iter().collect::<Vec<_>>(), ["p1@shop.test"]);
}

/// Small numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn promise_6_every_row_ends_in_one_count_and_the_counts_add_up() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let service =
            [Service::Updates, Service::Inserts, Service::Upserts][usize::try_from(random.below(3)).unwrap()];
        let limits = Limits::rows(1 + usize::try_from(random.below(4)).unwrap())
            .in_flight(1 + usize::try_from(random.below(3)).unwrap());
        let setup = Setup::new(service).limits(limits);
        setup.people.answer(move |call, batch, world| {
            let mut random = Random(seed * 31 + call as u64);
            match random.below(8) {
                0 => Some(Err(no_answer())),
                1 => Some(Err(Error::refused_for_a_row("400", "a row is bad"))),
                2 => Some(Err(Error::new(ErrorKind::Forbidden, "a permission is missing"))),
                3 => {
                    let mut effect = world.effect(&Call::of(batch)).into_iter();
                    Some(Ok(batch.outcomes(|_, _| {
                        let by_itself = effect.next().unwrap();
                        match random.below(5) {
                            0 => Outcome::rejected("422", "refused"),
                            1 => Outcome::Unknown,
                            2 => Outcome::NotAttempted,
                            3 => Outcome::AlreadyExists,
                            _ => by_itself,
                        }
                    })))
                }
                _ => None,
            }
        });
        for _ in 0..3 {
            let rows = random.below(12);
            let people: Vec<Record> = (0..rows)
                .map(|_| {
                    let email = match random.below(9) {
                        0 => "no e-mail".to_owned(),
                        number => format!("p{number}@shop.test"),
                    };
                    let long = "x".repeat(if random.below(7) == 0 { 61 } else { 1 });
                    citizen(&email, &long, ["Wien", "Graz"][usize::try_from(random.below(2)).unwrap()])
                })
                .collect();
            let mut options = setup.options().guards(Guards::default().rows_min(0));
            if service == Service::Upserts && random.below(2) == 0 {
                options = options.remove_absent();
            }
            let sync = setup.with(names(), options);
            let plan = sync.plan(&people).await.unwrap().waive_guards();
            assert_eq!(plan.counts().rows, rows);
            let stops_after = random.below(10);
            let mut polls = 0;
            let stop = std::future::poll_fn(move |context| {
                polls += 1;
                context.waker().wake_by_ref();
                if polls > stops_after * 3 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            });
            let ended = match random.below(2) {
                0 => sync.apply(plan).await,
                _ => sync.apply_until(plan, stop).await,
            };
            match &ended {
                Ok(report) => assert_adds_up(report),
                Err(error) => {
                    assert_adds_up(error.report().unwrap_or_else(|| panic!("seed {seed}: {error}")));
                }
            }
        }
    }
}

#[tokio::test]
async fn promise_6_run_that_is_finished_early_counts_what_it_did_not_do() {
    let setup = Setup::new(Service::Inserts);
    let plan = setup.sync().plan(&crowd(7, "a")).await.unwrap();
    let mut run = plan.start(&setup.store, Limits::rows(2).in_flight(3)).await.unwrap();
    let (first, second) = (run.next_batch().await.unwrap(), run.next_batch().await.unwrap());
    let outcomes = first.all(&Outcome::NoMatch);
    first.settle(outcomes);
    let outcomes = second.all(&Outcome::applied());
    second.settle(outcomes);
    let report = run.finish().await.unwrap();
    assert_adds_up(&report);
    // The inserts that were to follow were never handed out.
    assert_eq!((tally(&report), report.stopped), ([2, 0, 0, 0, 5], true));
    setup.assert_converges(&crowd(7, "a")).await;
}

#[tokio::test]
async fn promise_7_planning_and_a_refused_guard_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("people.state");
    let setup = Setup::new(Service::Upserts);
    let open = || RedbStore::open(&path).unwrap();
    let sync = || reverse_etl::Activation::new(names(), setup.people.clone(), open());
    let _ = sync().plan(&crowd(3, "a")).await.unwrap();
    let refused = sync().guards(Guards::default().added_max(Share::Rows(2)));
    let error = refused.run(&crowd(3, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guard);
    assert!(!path.exists() && std::fs::read_dir(folder.path()).unwrap().next().is_none());

    sync().run(&crowd(3, "a")).await.unwrap();
    let bytes = std::fs::read(&path).unwrap();
    setup.people.take_calls();
    let plan = sync().plan(&crowd(4, "b")).await.unwrap();
    let plan = plan.resolve(&setup.people).await.unwrap();
    plan.write_to(&mut Vec::new()).unwrap();
    let refused = sync().guards(Guards::default().changed_max(Share::Percent(50.0)));
    assert_eq!(refused.run(&crowd(3, "b")).await.unwrap_err().kind(), ErrorKind::Guard);
    assert!(std::fs::read(&path).unwrap() == bytes, "the state is as it was");
    assert!(setup.people.calls().is_empty());
}

#[tokio::test]
async fn promise_7_plan_is_applied_at_most_once_and_not_to_a_state_that_has_moved() {
    let setup = Setup::new(Service::Upserts);
    for people in [crowd(3, "a"), crowd(3, "b")] {
        let plan = setup.sync().plan(&people).await.unwrap();
        let mut file = Vec::new();
        plan.write_to(&mut file).unwrap();
        setup.sync().apply(plan).await.unwrap();
        let again = Plan::read_from(&*file).unwrap();
        let error = setup.sync().apply(again).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateMoved, "{error}");
        assert!(error.to_string().contains("plan again"), "{error}");
        let again = Plan::read_from(&*file).unwrap();
        let error = again.start(&setup.store, Limits::rows(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateMoved, "{error}");
    }
    assert_eq!(setup.people.calls().len(), 2);
}

const HIDDEN: [&str; 5] = ["ada@shop.test", "bob@shop.test", "Lovelace", "Marylebone", "s3cret-of-the-state"];

fn assert_hidden(text: &str, told: &str) {
    let text = text.to_lowercase();
    for hidden in HIDDEN {
        assert!(!text.contains(&hidden.to_lowercase()), "{told} shows `{hidden}`: {text}");
    }
}

fn assert_hidden_in_bytes(bytes: &[u8], told: &str) {
    for hidden in HIDDEN {
        let is_in = bytes.windows(hidden.len()).any(|window| window == hidden.as_bytes());
        assert!(!is_in, "{told} holds `{hidden}`");
    }
}

fn hidden_people() -> Vec<Record> {
    vec![citizen("Ada@shop.test", "Lovelace", "Marylebone"), citizen("bob@shop.test", "Bob", "Graz")]
}

async fn rows_of(store: &dyn StateStore) -> Vec<RowState> {
    let chunks: Vec<ScannedRows> = store.scan().try_collect().await.unwrap();
    let keys: Vec<KeyHash> = chunks.iter().flat_map(ScannedRows::iter).map(|(key, _)| key).collect();
    store.load(&keys).await.unwrap().into_iter().flatten().collect()
}

#[tokio::test]
async fn promise_8_no_key_and_no_value_is_in_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("people.state");
    let secret = || Secret::new(*b"s3cret-of-the-state-s3cret-of-th");
    for number in 0..6 {
        let setup = Setup::new(if number == 4 { Service::Inserts } else { Service::Upserts });
        // Settled, rejected, unknown, removed without an answer, in doubt after an insert, missing.
        setup.people.answer(move |_, batch, _| match number {
            1 => {
                let outcome = Outcome::rejected("422 ada@shop.test", "the value Lovelace of ada@shop.test");
                Some(Ok(batch.all(&outcome)))
            }
            2 => Some(Err(no_answer())),
            3 if batch.operation() == Operation::Remove => Some(Err(no_answer())),
            4 if batch.operation() == Operation::Insert => Some(Err(no_answer())),
            5 => Some(Ok(batch.all(&Outcome::NoMatch))),
            _ => None,
        });
        let mut options = setup.options().secret(secret());
        if number != 4 {
            options = options.remove_absent();
        }
        let redb = RedbStore::open(&path).unwrap();
        let in_file =
            reverse_etl::Activation::new(names(), setup.people.clone(), redb).options(options.clone());
        in_file.run(&hidden_people()).await.unwrap();
        assert_hidden_in_bytes(&std::fs::read(&path).unwrap(), "the state's file");
        drop(in_file);
        std::fs::remove_file(&path).unwrap();

        let sync = setup.with(names(), options);
        sync.run(&hidden_people()).await.unwrap();
        if number == 3 {
            sync.run(&vec![citizen("bob@shop.test", "Bob", "Graz")]).await.unwrap();
        }
        let header = setup.store.header().await.unwrap().unwrap();
        assert_hidden_in_bytes(&header.to_bytes().unwrap(), "the header");
        assert_hidden(&format!("{header:?}"), "Debug of the header");
        let rows = rows_of(&setup.store).await;
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert_hidden_in_bytes(row.as_bytes(), "a record");
            assert_hidden(&format!("{row:?}"), "Debug of a record");
        }
    }
}

#[tokio::test]
async fn promise_8_no_key_and_no_value_is_in_what_is_shown_also_not_in_what_a_server_said() {
    let setup = Setup::new(Service::Upserts);
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = said.clone();
    let options = setup
        .options()
        .secret(Secret::new(*b"s3cret-of-the-state-s3cret-of-th"))
        .observe(move |event| heard.lock().unwrap().push(format!("{event:?}")));
    // What is said of one row quotes its key, its values, and the keys of the rows that were sent with it.
    let keys_in = |batch: &Batch| {
        let keys = batch.changes().iter().map(|change| format!("<{}>", change.key().as_str().to_uppercase()));
        keys.collect::<Vec<_>>().join("; see also ")
    };
    let quote = move |batch: &Batch, change: &Change| {
        format!("`{}` with {} among {}", change.key().as_str(), json!(change.fields()), keys_in(batch))
    };
    setup.people.answer(move |call, batch, _| match call {
        1 => Some(Ok(batch.outcomes(|_, change| Outcome::rejected("422", quote(batch, change))))),
        2 => {
            let mut outcomes = batch.all(&Outcome::applied());
            for (index, change) in batch.changes().iter().enumerate() {
                outcomes.note(index, quote(batch, change));
            }
            Some(Ok(outcomes))
        }
        3 => Some(Err(Error::no_answer(keys_in(batch), std::io::Error::other("reset")))),
        _ => Some(Err(Error::refused_for_a_row("400", keys_in(batch)))),
    });
    let people = hidden_people();
    let mut shown = Vec::new();
    for round in 0..4 {
        // The last round changes both rows, and each is refused alone.
        let people: Vec<Record> =
            people.iter().map(|person| person.clone().with("city", ["Graz", "Linz"][round % 2])).collect();
        let sync = setup.with(names(), options.clone());
        let plan = sync.plan(&people).await.unwrap();
        shown.push(format!("{plan} {plan:?}"));
        shown.extend(
            plan.changes().map(|change| format!("{change:?} {:?}", change.as_ref().unwrap().fields())),
        );
        shown.push(match sync.apply(plan).await {
            Ok(report) => {
                assert!(round >= 3 || !report.problems.is_empty(), "round {round}");
                format!("{report} {report:?} {}", serde_json::to_string(&report).unwrap())
            }
            Err(error) => format!("{error} {error:?} {:?}", error.report()),
        });
        shown.push(format!("{sync:?}"));
    }
    shown.extend(said.lock().unwrap().iter().cloned());
    for text in shown {
        assert_hidden(&text, "what is shown");
    }
}

#[tokio::test]
async fn promise_8_no_public_type_shows_what_it_holds() {
    let secret = Secret::new(*b"s3cret-of-the-state-s3cret-of-th");
    let setup = Setup::new(Service::Upserts);
    let mapping = names().on_create("Born", "Lovelace");
    let options = setup.options().secret(secret.clone());
    let people = hidden_people();
    let plan = setup.with(mapping.clone(), options.clone()).plan(&people).await.unwrap();
    let mut shown = vec![
        format!("{secret:?} {mapping:?} {options:?}"),
        format!("{:?} {:?}", people[0], Source::from(&people)),
        format!("{:?} {:?}", Value::from("Lovelace"), Value::from(vec!["Lovelace"]).as_ref()),
        format!("{:?}", reverse_etl::Key::new("ada@shop.test")),
        format!("{:?}", reverse_etl::Choices::new([("Lovelace", "ada@shop.test")])),
    ];
    let change = plan.changes().next().unwrap().unwrap();
    shown.push(format!("{:?} {:?}", change.key(), change.on_create()));
    shown.extend(change.fields().iter().map(|field| format!("{field:?} {:?}", field.value())));
    let mut run = plan.start(&setup.store, Limits::rows(10)).await.unwrap();
    shown.push(format!("{run:?}"));
    let batch = run.next_batch().await.unwrap();
    shown.push(format!("{batch:?} {:?} {:?}", batch.changes(), batch.all(&Outcome::applied())));
    let mut outcomes = batch.all(&Outcome::rejected("Lovelace", "Ada@shop.test is refused"));
    outcomes.note(0, "Bob is in no list");
    outcomes.interrupt(&[1], reverse_etl::Error::new(ErrorKind::Server, "Marylebone is unknown"));
    shown.push(format!("{outcomes:?} {:?}", outcomes.iter().collect::<Vec<_>>()));
    drop(batch);
    let report = run.finish().await.unwrap();
    shown.push(format!("{report:?} {:?}", setup.store.inner));
    for text in shown {
        assert_hidden(&text, "Debug");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn promise_8_spooled_plan_is_in_a_file_that_no_directory_names() {
    let setup = Setup::new(Service::Upserts);
    let sync = setup.with(names(), setup.options().memory_max(1));
    let plan = sync.plan(&hidden_people()).await.unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let named = std::fs::read_link(&path).ok()?;
        let is_file = std::fs::metadata(&path).ok()?.is_file();
        is_file.then_some((path, named))
    });
    let mut spools = 0;
    for (path, named) in open {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if bytes.windows(8).any(|window| window == b"Lovelace") {
            spools += 1;
            assert!(!named.exists(), "{} is named", named.display());
        }
    }
    assert!(spools > 0, "the plan was spooled");
    assert_eq!(plan.changes().count(), 2);
}

/// Ten people are synced over HTTP, a request each, under a limit of six requests a minute.
async fn limited(is_shared: bool) -> (Sandbox, Clock) {
    let clock = Clock::default();
    let host = Arc::new(clock.clone());
    let sandbox = Sandbox::builder().host(host.clone()).rate_limit(6).start().await.unwrap();
    for number in 0..10 {
        sandbox.add_contact([(FieldId::EMAIL, json!(format!("p{number}@shop.test")))]);
    }
    if is_shared {
        // Somebody else uses up the limit, twice.
        sandbox.fail(Fault::exhaust_limit().on(Endpoint::UpdateContacts).nth(2));
        sandbox.fail(Fault::exhaust_limit().on(Endpoint::UpdateContacts).nth(6));
    }
    let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
    let client = Client::builder(credentials).base_url(sandbox.url()).host(host.clone()).build().unwrap();
    let contacts = ContactsDestination::new(client).limits(Limits::rows(1));
    let mapping = Mapping::new("email").map("name", FieldId::FIRST_NAME);
    let store = MemoryStore::with_host(host.clone());
    let sync = Activation::new(mapping, contacts, store).options(PlanOptions::default().host(host));
    let report = sync.run(&crowd(10, "a")).await.unwrap();
    assert_eq!(tally(&report), [10, 0, 0, 0, 0], "{report}");
    (sandbox, clock)
}

#[tokio::test]
async fn promise_9_request_budget_is_respected_and_nobody_is_told_to_wait() {
    let (sandbox, clock) = limited(false).await;
    let statuses: Vec<_> = sandbox.journal().iter().map(WriteRequest::status).collect();
    assert_eq!(statuses, [Some(200); 10], "no 429");
    assert_eq!(sandbox.requests_to(Endpoint::UpdateContacts), 10);
    assert!(clock.since(Duration::ZERO) >= Duration::from_secs(60), "the next window was waited for");
}

#[tokio::test]
async fn promise_9_refusal_for_the_budget_is_waited_for_and_no_loop() {
    let (sandbox, clock) = limited(true).await;
    let statuses: Vec<_> = sandbox.journal().iter().filter_map(WriteRequest::status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 2, "each is met once: {statuses:?}");
    assert!(clock.since(Duration::ZERO) >= Duration::from_secs(120));
}

#[tokio::test]
async fn promise_10_bad_rows_are_named_and_lose_nothing_of_the_others() {
    let setup = Setup::new(Service::Upserts);
    let mapping = names().column(
        Column::new("age", "Age")
            .null(NullPolicy::Skip)
            .convert(|value| if value == Value::from(7) { Err(Mismatch::new("is 7")) } else { Ok(value) }),
    );
    let people = vec![
        person("ada@shop.test", "Ada"),
        person("no e-mail", "Bob"),
        Record::new().with("name", "nobody"),
        person("cleo@shop.test", &"x".repeat(61)),
        person("dora@shop.test", "Dora").with("age", 7),
        person("eve@shop.test", "Eve"),
    ];
    let sync = setup.with(mapping, setup.options());
    let plan = sync.plan(&people).await.unwrap();
    assert_eq!((plan.counts().invalid, plan.counts().keyless, plan.counts().added), (4, 2, 2));
    let shown: Vec<_> = plan.problems().iter().map(ToString::to_string).collect();
    let named = [
        "row 2: `email`",
        "row 3: `email`",
        "row 4: `name` (field `Name`)",
        "row 5: `age` (field `Age`) is 7",
    ];
    for (problem, name) in shown.iter().zip(named) {
        assert!(problem.starts_with(name), "{problem}");
    }
    assert_eq!(tally(&sync.apply(plan).await.unwrap()), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn promise_10_source_that_breaks_off_is_an_error_and_plans_nothing() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(3, "a")).await;
    let rows = || {
        let people = crowd(2_000, "b").into_iter().map(Ok);
        people.chain([Err("the connection was lost")])
    };
    let options = setup.options().remove_absent();
    let error = setup.with(names(), options).run(Source::stream(stream::iter(rows()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.to_string().contains("row 2001 of the source"), "{error}");
    assert_eq!(setup.people.calls().len(), 1, "nothing was sent");
    setup.assert_converges(&crowd(3, "a")).await;
}

#[tokio::test]
async fn promise_10_plan_file_that_was_cut_anywhere_is_refused() {
    let setup = Setup::new(Service::Inserts);
    setup.people.answer(|_, batch, _| (batch.operation() == Operation::Insert).then(|| Err(no_answer())));
    let mut people = crowd(4, "a");
    setup.run(&people).await;
    setup.people.answer_by_itself();
    setup.people.exists(&["p0@shop.test", "p1@shop.test", "p5@shop.test"]);
    people.remove(0);
    people.extend(crowd(8, "b").split_off(5));
    let plan = setup.sync().plan(&people).await.unwrap();
    let mut file = Vec::new();
    plan.write_to(&mut file).unwrap();
    let lines: Vec<usize> = (0..file.len()).filter(|at| file[*at] == b'\n').map(|at| at + 1).collect();
    assert!(lines.len() > 7, "a head, three rows, three in doubt and one that left the source");
    for end in [0].iter().chain(&lines[..lines.len() - 1]).flat_map(|end| [*end, *end + 5]) {
        let error = Plan::read_from(&file[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source, "cut after {end} bytes");
        assert!(error.to_string().contains("plan again"), "{error}");
        assert!(!format!("{error:?}").contains("shop.test"));
    }
    // A line that was taken out of the middle, or is there twice.
    for (start, end) in [0].iter().chain(&lines).zip(&lines) {
        let without = [&file[..*start], &file[*end..]].concat();
        assert_eq!(Plan::read_from(&*without).unwrap_err().kind(), ErrorKind::Source, "without byte {start}");
        let twice = [&file[..*end], &file[*start..]].concat();
        assert!(Plan::read_from(&*twice).is_err() || *end == file.len(), "twice from byte {start}");
    }
    assert_eq!(Plan::read_from(&*file).unwrap().counts(), plan.counts());
}

/// A state of which one record was altered.
#[derive(Debug)]
struct Damaged {
    inner: MemoryStore,
    hit: fn(&mut Vec<u8>),
}

#[async_trait::async_trait]
impl PriorState for Damaged {
    async fn header(&self) -> Result<Option<reverse_etl::Header>> {
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        let rows = self.inner.load(keys).await?.into_iter().enumerate().map(|(index, row)| {
            let Some(row) = row.filter(|_| index == 0) else { return Ok(None) };
            let mut bytes = row.as_bytes().to_vec();
            (self.hit)(&mut bytes);
            RowState::from_bytes(row.fingerprint(), bytes).map(Some)
        });
        rows.collect()
    }

    fn scan(&self) -> stream::BoxStream<'_, Result<ScannedRows>> {
        self.inner.scan().boxed()
    }
}

#[tokio::test]
async fn promise_10_damaged_record_is_an_error_that_says_what_to_do() {
    let setup = Setup::new(Service::Upserts);
    setup.run(&crowd(3, "a")).await;
    let hits: [fn(&mut Vec<u8>); 5] = [
        Vec::clear,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.push(0),
        |bytes| bytes[0] = 9,
        |bytes| bytes[3..7].fill(0xff),
    ];
    for hit in hits {
        let damaged = Damaged { inner: setup.store.inner.clone(), hit };
        let people = crowd(3, "b");
        let target = reverse_etl::Destination::describe(&setup.people, names().fields()).await.unwrap();
        let mapping = names().bind(&target).unwrap();
        let error = reverse_etl::plan(&people, &mapping, &damaged, &setup.options()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged);
        assert!(error.to_string().contains("start a new state"), "{error}");
    }
    let header = setup.store.header().await.unwrap().unwrap().to_bytes().unwrap();
    for end in 0..header.len() {
        let error = reverse_etl::Header::from_bytes(&header[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged);
    }
}

#[tokio::test]
async fn promise_10_record_with_any_bit_flipped_is_refused_or_read_and_never_a_panic() {
    let setup = Setup::new(Service::Inserts);
    setup.people.answer(|_, batch, _| (batch.operation() == Operation::Insert).then(|| Err(no_answer())));
    setup.run(&crowd(1, "a")).await;
    for row in rows_of(&setup.store).await {
        for bit in 0..row.as_bytes().len() * 8 {
            let mut bytes = row.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = RowState::from_bytes(row.fingerprint(), bytes) {
                assert_eq!(error.kind(), ErrorKind::StateDamaged);
            }
        }
    }
}

#[tokio::test]
async fn promise_10_state_of_another_sync_or_secret_is_refused() {
    let setup = Setup::new(Service::Upserts);
    let secret = |byte| Secret::new([byte; 32]);
    let run = |mapping: Mapping, options: PlanOptions| {
        let sync = setup.with(mapping, options);
        async move { sync.run(&vec![person("ada@shop.test", "Ada").with("id", "ada@shop.test")]).await }
    };
    run(names(), setup.options().secret(secret(1))).await.unwrap();
    for (options, says) in [
        (setup.options().secret(secret(2)), "another secret"),
        (setup.options(), "supply the same one"),
        (setup.options().secret(secret(1)).sync("other"), "belongs to the sync"),
    ] {
        let error = run(names(), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(setup.people.calls().len(), 1);
    // The key is a field of the destination: a column may change its name.
    let renamed = Mapping::new("id").map("name", "Name");
    assert_eq!(run(renamed, setup.options().secret(secret(1))).await.unwrap().counts.unchanged, 1);
}

#[tokio::test]
async fn promise_10_reply_that_is_nonsense_loses_nothing() {
    let setup = Setup::new(Service::Upserts).limits(Limits::rows(2));
    setup.people.answer(|_, _, _| {
        let error = Error::new(ErrorKind::Undecodable, "the reply is not JSON");
        Some(Err(error.with_delivery(reverse_etl::Delivery::Unknown)))
    });
    let error = setup.sync().run(&crowd(5, "a")).await.unwrap_err();
    let report = error.report().unwrap();
    assert_eq!((error.kind(), tally(report)), (ErrorKind::Undecodable, [0, 0, 0, 5, 0]));
    setup.people.answer_by_itself();
    setup.assert_converges(&crowd(5, "a")).await;
}
