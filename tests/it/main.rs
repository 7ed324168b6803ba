//! Behaviour through the public API: one binary for all of it.

mod arrow;
mod contacts;
mod edges;
mod emarsys;
mod fingerprints;
mod fixture;
mod mapping;
mod other_clients;
mod plan;
mod process;
mod programs;
mod promises;
mod reading;
mod run;
mod threads;
mod watch;
