//! Behaviour through the public API: one binary for all of it.

mod contacts;
mod programs;
