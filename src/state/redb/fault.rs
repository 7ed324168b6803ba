//! Faults: what can go wrong with the file of a state, and what its user can do about it.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use redb::{DatabaseError, StorageError};

use crate::{BoxError, Error, ErrorKind, Result};

/// Why something was not done.
pub(super) enum Fault {
    /// The engine failed.
    Engine(redb::Error),
    /// The engine panicked, as it does on some files that something else has changed.
    Panicked,
    /// The engine gave something that is no row.
    Damaged,
    /// An error that already says what to do.
    Told(Error),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            // What is written between two keys was found there, so they are in order but in a file that was altered.
            redb::Error::UnorderedKey => Self::Damaged,
            error => Self::Engine(error),
        }
    }
}

/// The engine trusts a file that was closed in good order, and its documentation says that it may panic if that file
/// was altered since. To check every page first would cost a full read at each start, so a panic is taken for what it
/// says about the file. A reader is not used again after one, and a commit that fails closes the writer.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Fault::Panicked))
}

pub(super) fn damaged(path: &Path, source: Option<BoxError>) -> Error {
    let error = Error::new(
        ErrorKind::StateDamaged,
        format!(
            "the state {} cannot be read: it was cut, altered, or never was a state; move it away: the next run then sends every row",
            path.display()
        ),
    );
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

pub(super) fn not_created(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "the state {} cannot be created: see that its directory is writable and has room",
            path.display()
        ),
    )
    .with_source(error)
}

/// What the caller is told, and can do.
pub(super) fn explain(path: &Path, fault: Fault) -> Error {
    use redb::Error as E;

    let error = match fault {
        Fault::Told(error) => return error,
        Fault::Panicked | Fault::Damaged => return damaged(path, None),
        Fault::Engine(error) => error,
    };
    let (kind, text) = match &error {
        // Cut, or no file of the engine at all.
        E::Io(io) if matches!(io.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            return damaged(path, Some(error.into()));
        }
        // A lock is poisoned where the engine has panicked before.
        E::Corrupted(_)
        | E::LockPoisoned(_)
        | E::UpgradeRequired(_)
        | E::TableDoesNotExist(_)
        | E::TableIsMultimap(_)
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. } => return damaged(path, Some(error.into())),
        E::DatabaseAlreadyOpen => {
            (ErrorKind::Busy, "is held by another process that lets nobody read: wait for its end")
        }
        E::LockProtocolMismatch => (
            ErrorKind::Busy,
            "is held by a process with another version of the engine: wait for its end, or build both with one",
        ),
        E::Unsupported => (
            ErrorKind::Io,
            "lies on a file system that cannot lock ranges of a file: move it to a local disk",
        ),
        _ => (
            ErrorKind::Io,
            "cannot be read or written: see that the file may be read and written and that the disk has room",
        ),
    };
    Error::new(kind, format!("the state {} {text}", path.display())).with_source(error)
}

pub(super) fn is_missing(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
}

/// A directory that is gone, as that of a disk which is not mounted, must not pass for a state that is empty.
pub(super) fn folder_exists(path: &Path) -> Result<()> {
    if path.parent().is_some_and(Path::is_dir) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the state {} is to lie in a directory that does not exist: create the directory, or correct the path",
        path.display()
    )))
}

pub(super) fn unusable(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "the state {} cannot be reached: check the path and the rights on its directories",
            path.display()
        ),
    )
    .with_source(error)
}
