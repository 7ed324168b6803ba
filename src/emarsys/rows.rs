//! The rows of a call that carries many: cut into requests, and told what became of each.
//!
//! Success is nowhere stated per row: a reply names the rows that failed, and counts the others at best. So a row
//! counts as done only if the reply accounts for all rows of its request.

mod account;
mod keys;
mod parts;

use std::{fmt, sync::Arc};

use super::refusal::Rejection;
use crate::Error;

pub use self::keys::KeyValue;
pub(crate) use self::{
    account::{Account, Done, look_up, none_rejected},
    keys::{Keys, check_key, text, texts, usable_key},
    parts::{in_parts, split},
};

/// What became of one row of a write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RowResult {
    /// It was done.
    Done,
    /// It was not done, and the reply says why for this row.
    Rejected(Rejection),
    /// Nothing was said about this row. [`Error::delivery`] tells whether it may have been done; rows of the same
    /// request share the error.
    Failed(Arc<Error>),
}

impl RowResult {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// In one line, without anything about a person.
impl fmt::Display for RowResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Rejected(rejection) => write!(f, "rejected with {rejection}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// What became of one key of a read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lookup<T> {
    /// The contact with this key.
    Found(T),
    /// No contact has this key.
    Missing,
    /// The reply gives another reason for this key, such as that several contacts have it.
    Rejected(Rejection),
    /// Nothing was said about this key.
    Failed(Arc<Error>),
}

/// In one line, without what was found.
impl<T> fmt::Display for Lookup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(_) => f.write_str("found"),
            Self::Missing => f.write_str("missing"),
            Self::Rejected(rejection) => write!(f, "rejected with {rejection}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<T> Lookup<T> {
    /// What was found, if it was.
    pub fn into_found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Rejected(_) | Self::Failed(_) => None,
        }
    }

    /// What was found, if it was.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Rejected(_) | Self::Failed(_) => None,
        }
    }
}
