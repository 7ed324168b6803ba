//! The keys of an index that is being made.

use std::thread;

use futures::{
    SinkExt,
    channel::{mpsc, oneshot},
    executor::block_on_stream,
};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Hashed, KeyHash, RowFingerprint},
};

/// Fewer rows than this are not worth a thread.
const ROWS_TO_SEND: usize = if cfg!(test) { 1000 } else { 1 << 18 };

pub(super) type Rows = Vec<(KeyHash, RowFingerprint)>;

/// Takes the keys of rows that come in order.
///
/// What the making of an index takes most of is the first use of its memory, and that is halved by a second thread.
pub(super) enum Keys {
    Here(Vec<[u64; 2]>),
    OnThread { rows: mpsc::Sender<Rows>, keys: oneshot::Receiver<Vec<[u64; 2]>> },
}

impl Keys {
    /// For so many rows.
    pub(super) fn here(rows: usize) -> Self {
        Self::Here(Vec::with_capacity(rows))
    }

    /// For so many rows, on a thread of its own if they are many and the machine has a thread left.
    pub(super) fn on_thread(count: usize) -> Self {
        let (to_thread, rows) = mpsc::channel::<Rows>(0);
        let (done, keys) = oneshot::channel();
        let work = move || {
            let mut keys = Vec::with_capacity(count);
            block_on_stream(rows).for_each(|rows| append(&mut keys, &rows));
            // Nobody waits for it if the plan was given up.
            let _ = done.send(keys);
        };
        let is_started = count >= ROWS_TO_SEND
            && thread::Builder::new().name("reverse-etl index".to_owned()).spawn(work).is_ok();
        if is_started { Self::OnThread { rows: to_thread, keys } } else { Self::here(count) }
    }

    /// Takes the keys of those rows that come in order.
    pub(super) async fn take(&mut self, rows: Rows) -> Result<()> {
        match self {
            Self::Here(keys) => {
                append(keys, &rows);
                Ok(())
            }
            Self::OnThread { rows: to_thread, .. } => to_thread.send(rows).await.map_err(|_| ended()),
        }
    }

    pub(super) async fn finish(self) -> Result<Vec<[u64; 2]>> {
        match self {
            Self::Here(keys) => Ok(keys),
            Self::OnThread { rows, keys } => {
                drop(rows);
                keys.await.map_err(|_| ended())
            }
        }
    }
}

/// Adds the keys that are in order, each behind the one before.
fn append(keys: &mut Vec<[u64; 2]>, rows: &[(KeyHash, RowFingerprint)]) {
    let mut last = keys.last().copied();
    for (key, _) in rows {
        let Hashed { key, .. } = Hashed::new(*key, RowFingerprint::LOAD);
        if last.is_none_or(|last| last < key) {
            keys.push(key);
            last = Some(key);
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Io, "a thread that reads the state has ended: plan again")
}
