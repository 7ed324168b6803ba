//! Contacts: creating, changing, merging, deleting, looking up and reading them.

mod merge;
mod query;
mod read;
mod write;

pub(super) use merge::merge;
pub(super) use query::query;
pub(super) use read::{check_ids, find, get_data};
pub(super) use write::{create, delete, update};
