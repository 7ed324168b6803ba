//! Behaviour through the public API: one binary for all of it.

mod contacts;
mod edges;
mod fixture;
mod mapping;
mod plan;
mod programs;
mod promises;
mod run;
