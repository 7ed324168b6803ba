//! The keys of an index that is being made, on a thread of their own.
//!
//! What the making of an index takes most of is the first use of its memory, and that is halved by a second thread.

use std::thread;

use futures::{
    SinkExt,
    channel::{mpsc, oneshot},
    executor::block_on_stream,
};

use crate::{
    Result,
    fingerprint::{KeyHash, RowFingerprint},
    handover::ended,
};

/// Fewer rows than this are not worth a thread.
const ROWS_TO_SEND: usize = if cfg!(test) { 1000 } else { 1 << 21 };

/// Chunks that may wait: whoever has to be woken for each of them is woken where the other has just stopped, and then they take
/// turns.
const CHUNKS_AHEAD: usize = 4;

pub(super) type Rows = Vec<(KeyHash, RowFingerprint)>;

/// Takes the keys of rows that come in order.
pub(super) struct KeysThread {
    rows: mpsc::Sender<Rows>,
    keys: oneshot::Receiver<Vec<KeyHash>>,
}

impl KeysThread {
    /// For so many rows, if they are many and the machine has a thread left.
    pub(super) fn start(count: usize) -> Option<Self> {
        let (to_thread, rows) = mpsc::channel::<Rows>(CHUNKS_AHEAD);
        let (done, keys) = oneshot::channel();
        let work = move || {
            let mut keys = Vec::with_capacity(count);
            for (key, _) in block_on_stream(rows).flatten() {
                if is_next(keys.last(), &key) {
                    keys.push(key);
                }
            }
            // Nobody waits for it if the plan was given up.
            let _ = done.send(keys);
        };
        let thread = || thread::Builder::new().name("reverse-etl index".to_owned()).spawn(work).ok();
        (count >= ROWS_TO_SEND).then(thread).flatten().map(|_| Self { rows: to_thread, keys })
    }

    /// Takes the keys of those rows that come in order.
    pub(super) async fn take(&mut self, rows: Rows) -> Result<()> {
        self.rows.send(rows).await.map_err(|_| ended())
    }

    pub(super) async fn finish(self) -> Result<Vec<KeyHash>> {
        drop(self.rows);
        self.keys.await.map_err(|_| ended())
    }
}

/// Whether a row of this key comes in order.
pub(super) fn is_next(last: Option<&KeyHash>, key: &KeyHash) -> bool {
    last.is_none_or(|last| last < key)
}
