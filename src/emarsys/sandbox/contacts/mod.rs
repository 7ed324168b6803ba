//! Contacts: creating, changing, deleting, looking up and reading them.

mod read;
mod write;

pub(super) use read::{check_ids, find, get_data};
pub(super) use write::{create, delete, update};
