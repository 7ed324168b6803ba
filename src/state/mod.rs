//! What a sync remembers between two runs.
//!
//! The state holds, for each row that was ever announced, the fingerprints that the destination has acknowledged, and
//! never a key or a value in clear text. [`record`] says what a row's record is and what each event does to it.

pub mod record;
