//! Whole syncs on simulated time, in one thread, from one seed.
//!
//! The code under test is the real one: activation, engine, store, the contacts destination, its client with limits and
//! retries, and the sandbox's handlers. What is simulated is what lies around it: time, the network, the disk, other
//! people, and whoever edits the source and the sync. Nothing of the protocol is written a second time; the checks look
//! at the account, at the requests and at the state.
//!
//! A history reads from top to bottom:
//!
//! ```text
//! many ─▶ history: rounds of edits and runs, then a quiet end ─▶ executor: runs, until each ends or its process dies
//!            │                                                      │
//!            ├ source: rows and set-up, edited                      └ run: plan and apply
//!            └ people: the account, and who else edits it              ├ delivery: batches and outcomes, watched
//!                                                                      ├ store: commits, watched and made to fail
//!                                                                      └ flight: requests on their way
//! ```
//!
//! `fate` has what may happen to a request, `checks` what must hold at each step, `rest` what must hold at the end,
//! `coverage` what every run of the tests must have met, `choices` the one place where a history is drawn, `shrink` the way
//! to a short one, `story` the words for it.

mod checks;
pub(crate) mod choices;
mod clock;
pub(crate) mod coverage;
mod delivery;
mod executor;
mod fate;
mod flight;
pub(crate) mod history;
pub(crate) mod many;
mod people;
mod rest;
mod run;
pub(crate) mod shrink;
mod source;
mod store;
mod story;
pub(crate) mod switches;
mod world;
