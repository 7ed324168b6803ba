//! `runs` and `single_runs`: evaluations that a caller asks for and comes back to.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    super::{
        catalog::OPT_IN,
        context::Context,
        endpoint::{Api, Route},
        reply::{Data, Failure},
        store::{Horizon, Store},
        value::Stored,
    },
    evaluation, unknown,
};

/// An evaluation that makes a contact list.
#[derive(Debug)]
pub(super) struct Run {
    segment: u64,
    user: Api,
    start: SystemTime,
    /// When it is done; a time that no clock can show never comes.
    ready: Option<SystemTime>,
    state: State<Summary>,
}

/// The question whether one contact is in a segment.
#[derive(Debug)]
pub(super) struct SingleRun {
    segment: u64,
    contact: u64,
    ready: Option<SystemTime>,
    state: State<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State<T> {
    Waiting,
    Done(T),
    /// The segment was deleted in the meantime.
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summary {
    list: u64,
    contacts: usize,
    opted_in: usize,
    duration: Duration,
}

pub(super) fn start(cx: &mut Context<'_>, route: &Route) -> Data {
    if !cx.store.segments.exists(route.id) {
        return Err(unknown());
    }
    if is_busy(cx, route.api) {
        return Err(busy());
    }
    let renew = matches!(route.query.get("renew"), Some("true" | "1"));
    let ready = ready(cx, route.id, renew);
    let run = Run { segment: route.id, user: route.api, start: cx.now, ready, state: State::Waiting };
    cx.store.segments.runs.push(run);
    let id = run_id("runs", cx.store.segments.runs.len());
    finish(cx.store, cx.now);
    Ok(json!({ "run_id": id, "status": "waiting" }))
}

pub(super) fn start_for_contact(cx: &mut Context<'_>, route: &Route) -> Data {
    if !cx.store.segments.exists(route.id) {
        return Err(unknown());
    }
    let contact = route.query.get("contact_id").and_then(|sent| sent.parse().ok());
    let contact =
        contact.ok_or_else(|| Failure::bad(10_009, "Contact id for single run is not specified."))?;
    let ready = ready(cx, route.id, false);
    let run = SingleRun { segment: route.id, contact, ready, state: State::Waiting };
    cx.store.segments.single_runs.push(run);
    let id = run_id("single_runs", cx.store.segments.single_runs.len());
    finish(cx.store, cx.now);
    Ok(json!({ "run_id": id, "status": "waiting" }))
}

pub(super) fn read(cx: &Context<'_>, id: &str) -> Data {
    let run = numbered("runs", id, &cx.store.segments.runs)?;
    Ok(print(id, &run.state, |summary| {
        json!({
            "contact_list_id": summary.list,
            "user_count": summary.contacts,
            "opt_in_count": summary.opted_in,
            "duration": u64::try_from(summary.duration.as_millis()).unwrap_or(u64::MAX),
        })
    }))
}

pub(super) fn read_for_contact(cx: &Context<'_>, id: &str) -> Data {
    let run = numbered("single_runs", id, &cx.store.segments.single_runs)?;
    Ok(print(id, &run.state, |inside| json!({ "is_in_segment": inside })))
}

fn print<T>(id: &str, state: &State<T>, result: impl FnOnce(&T) -> Value) -> Value {
    match state {
        State::Waiting => json!({ "run_id": id, "status": "waiting" }),
        State::Error => json!({ "run_id": id, "status": "error" }),
        State::Done(outcome) => json!({ "run_id": id, "status": "done", "result": result(outcome) }),
    }
}

/// Whether a run of this user is still waiting.
pub(super) fn is_busy(cx: &Context<'_>, user: Api) -> bool {
    cx.store.segments.runs.iter().any(|run| run.user == user && run.state == State::Waiting)
}

pub(super) fn busy() -> Failure {
    Failure::new(423, 10_003, "The admin already running a segment. Please wait until it is finished.")
}

/// When an evaluation of a segment is done that begins now, unless one has begun before and is good enough.
fn ready(cx: &mut Context<'_>, segment: u64, again: bool) -> Option<SystemTime> {
    let begun = cx.store.segments.begin(segment, cx.now, again);
    begun.checked_add(cx.switches.segment_evaluation)
}

/// Ends the runs whose time has come. The contacts are those of now: nothing happens between two requests.
pub(in super::super) fn finish(store: &mut Store, now: SystemTime) {
    let is_due = |ready: Option<SystemTime>| ready.is_some_and(|ready| ready <= now);
    for index in 0..store.segments.runs.len() {
        let Some(run) = store.segments.runs.get(index) else { break };
        if run.state != State::Waiting || !is_due(run.ready) {
            continue;
        }
        let (segment, start, end) = (run.segment, run.start, run.ready.unwrap_or(now).max(run.start));
        let state = if store.segments.exists(segment) {
            let name = format!("Segment run {}", run_id("runs", index + 1));
            let duration = end.duration_since(start).unwrap_or_default();
            State::Done(summarize(store, segment, &name, end, duration))
        } else {
            State::Error
        };
        if let Some(run) = store.segments.runs.get_mut(index) {
            run.state = state;
        }
    }
    for index in 0..store.segments.single_runs.len() {
        let Some(run) = store.segments.single_runs.get(index) else { break };
        if run.state != State::Waiting || !is_due(run.ready) {
            continue;
        }
        let state = if store.segments.exists(run.segment) {
            State::Done(evaluation::is_in(store, run.segment, run.contact))
        } else {
            State::Error
        };
        if let Some(run) = store.segments.single_runs.get_mut(index) {
            run.state = state;
        }
    }
}

/// Makes the list of a run.
fn summarize(store: &mut Store, segment: u64, name: &str, end: SystemTime, duration: Duration) -> Summary {
    let contacts = evaluation::contacts(store, segment, Horizon::NONE);
    let list = store.add_list(end, name);
    let mut opted_in = 0;
    for contact in &contacts {
        store.join(list, *contact, end);
        let consent = store.value(*contact, OPT_IN).and_then(Stored::as_text);
        opted_in += usize::from(consent == Some("1"));
    }
    Summary { list, contacts: contacts.len(), opted_in, duration }
}

/// The id of a run: a text that no number can hold, different for the two kinds.
fn run_id(kind: &str, number: usize) -> String {
    let prefix = if kind == "runs" { "5e90a001" } else { "5e90a002" };
    format!("{prefix}-0000-4000-8000-{number:012x}")
}

fn numbered<'a, T>(kind: &str, id: &str, runs: &'a [T]) -> Result<&'a T, Failure> {
    let found = runs.iter().enumerate().find(|(index, _)| run_id(kind, index + 1) == id);
    let missing = || Failure::new(404, 10_008, "The segment run specified does not exist.");
    found.map(|(_, run)| run).ok_or_else(missing)
}
