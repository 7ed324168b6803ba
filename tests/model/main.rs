//! The engine under random histories: plan, run and the store in memory, on simulated time, against a destination that
//! loses, delays and refuses, with crashes between any two steps and other people who edit behind its back.
//!
//! Every choice comes from one seed, so a failure can be played again:
//!
//! ```text
//! MODEL_SEED=4711 MODEL_HISTORIES=1 cargo test --test model -- --nocapture contacts
//! ```
//!
//! With a single history its steps are printed.

mod check;
mod destination;
mod history;
mod host;
mod store;
mod world;

use world::Service;

/// Histories of one service, unless the environment says otherwise.
const HISTORIES: u64 = 5_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn histories_of(service: Service) {
    let (first, count) = (number("MODEL_SEED", 1), number("MODEL_HISTORIES", HISTORIES));
    for (done, seed) in (first..first + count).enumerate() {
        if let Err(violation) = history::play(seed, service, count == 1) {
            panic!(
                "{violation}\nin history {} ({service:?}); to see it: MODEL_SEED={seed} MODEL_HISTORIES=1 cargo test \
                 --test model -- --nocapture",
                done + 1
            );
        }
    }
}

#[test]
fn contacts_keep_the_promises_in_every_history() {
    histories_of(Service::Contacts);
}

#[test]
fn relational_records_keep_the_promises_in_every_history() {
    histories_of(Service::Records);
}

#[test]
fn list_members_keep_the_promises_in_every_history() {
    histories_of(Service::Members);
}
