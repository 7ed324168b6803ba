//! What the histories of a run of the tests must have met, each at least once: nothing is tested against a kind of trouble
//! that no history meets any more.

use std::collections::BTreeSet;

use reverse_etl::emarsys::sandbox::Endpoint;

use super::{fate::Fate, many::Played};

/// What must be met beside the [`faults`]: counts of a report, effects, what others do, outcomes by operation, what
/// becomes of records, requests, ends of runs, and the status of answers.
const KINDS: &[&str] = &[
    "commit: Busy",
    "count: added",
    "count: applied",
    "count: changed",
    "count: created",
    "count: duplicate",
    "count: held",
    "count: invalid",
    "count: no match",
    "count: not attempted",
    "count: rejected",
    "count: resolved",
    "count: unchanged",
    "count: unknown",
    "effect: a contact is created",
    "fault: a clock is set",
    "fault: a clock is wrong",
    "fault: a commit fails",
    "fault: a commit is stored and fails all the same",
    "fault: a monotonic clock stands still while its process is suspended",
    "fault: a process dies",
    "fault: a process is suspended",
    "fault: a source breaks off",
    "others: add a second contact for a key",
    "others: change the e-mail of a key",
    "others: create a field",
    "others: create a key",
    "others: create a list",
    "others: delete a field",
    "others: delete a key",
    "others: delete a list",
    "others: edit a mapped field of a key",
    "others: edit another field of a key",
    "others: merge the contacts of a key",
    "others: use up the limit",
    "outcome: Insert, already exists",
    "outcome: Insert, created",
    "outcome: Insert, not attempted",
    "outcome: Insert, rejected",
    "outcome: Insert, unknown",
    "outcome: Update, applied",
    "outcome: Update, no match",
    "outcome: Update, not attempted",
    "outcome: Update, rejected",
    "outcome: Update, unknown",
    "plan: kept too long",
    "plan: kept, and applied",
    "record: announced",
    "record: announced and in doubt",
    "record: announced once more",
    "record: announced while in doubt",
    "record: not found",
    "record: not settled",
    "record: rejected",
    "record: settled",
    "record: settled without a request",
    "record: still marked",
    "request: GET contactlist",
    "request: GET field",
    "request: GET field/{id}/choice",
    "request: GET settings",
    "request: POST contact",
    "request: POST contact/checkids",
    "request: POST contactlist/{id}/add",
    "request: POST field",
    "request: POST oauth2/token",
    "request: PUT contact",
    "run: Busy",
    "run: Config",
    "run: Forbidden",
    "run: Guard",
    "run: Io",
    "run: NoAnswer",
    "run: Server",
    "run: Source",
    "run: StateMoved",
    "run: done",
    "run: planned, and nothing else",
    "run: two at once",
    "status: 200",
    "status: 400",
    "status: 401",
    "status: 403",
    "status: 429",
    "status: 500",
    "status: 502",
    "status: 503",
    "status: 504",
];

/// What may be met, and is too seldom to be demanded.
const RARE: &[&str] = &[
    "commit: StateMoved",
    "plan: kept, and not applied",
    "run: RateLimited",
    "run: Refused",
    "run: Unauthorized",
    "run: Undecodable",
];

/// What must be checked.
const CHECKS: &[&str] = &[
    "a row that was refused waits",
    "promise 1: what is remembered was acknowledged",
    "promise 2: nothing is announced while something earlier may take effect",
    "promise 2: what is sent is announced, and nothing is sent after its deadline",
    "promise 3: the account has what the source has",
    "promise 3: the run after a run without faults sends nothing",
    "promise 4: a field keeps its slot",
    "promise 4: an update has the key and what changed",
    "promise 5: a row in doubt has its key sealed",
    "promise 5: in which list contacts are created, and with which values",
    "promise 5: who is created, and who gets into a list",
    "promise 5: who is in doubt is put into the list of that doubt",
    "promise 5: who was created is in the list",
    "promise 6: every planned row has its outcome",
    "promise 6: every source row is counted",
    "promise 7: a plan is applied once",
    "promise 7: a plan is applied to the state that it was made for",
    "promise 7: a plan that a guard refuses causes no write",
    "promise 7: planning writes nothing",
    "promise 8: commits have no key in clear text",
    "promise 8: errors and reports show no key",
    "promise 9: a limit that is met is waited for",
    "promises 1 and 2: the state says what the account has",
    "one writer at a time",
    "the attempts of a refused row are counted on",
    "the header counts what the state has",
    "what is sent is what the source has",
];

/// What may happen to each kind of request.
fn faults() -> BTreeSet<String> {
    let endpoints = [
        // For all that is read.
        Endpoint::ListFields,
        Endpoint::UpdateContacts,
        Endpoint::CreateContacts,
        Endpoint::AddToList,
        Endpoint::CreateField,
    ];
    let faults = |endpoint| Fate::all(endpoint).skip(1).map(move |fate| fate.met(endpoint));
    endpoints.into_iter().flat_map(faults).collect()
}

/// What should have been met or checked and was not.
pub(crate) fn missing(played: &Played) -> Vec<String> {
    let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).chain(faults());
    let kinds = kinds.filter(|kind| !played.met.contains_key(kind.as_str()));
    let checks = CHECKS.iter().filter(|check| !played.checks.contains_key(**check));
    kinds.chain(checks.map(|check| (*check).to_owned())).collect()
}

/// What was met or checked and is in none of the lists.
pub(crate) fn surprising(played: &Played) -> Vec<String> {
    let faults = faults();
    let is_known = |kind: &str| KINDS.contains(&kind) || RARE.contains(&kind) || faults.contains(kind);
    let met = played.met.keys().filter(|kind| !is_known(kind));
    met.chain(played.checks.keys().filter(|check| !CHECKS.contains(&check.as_ref())))
        .map(ToString::to_string)
        .collect()
}
