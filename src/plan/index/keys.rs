//! The key hashes of an index, in the chunks in which a store gave them: they are most of its memory, and lie where the store
//! put them.

use std::{ops::Range, sync::Arc};

use crate::fingerprint::KeyHash;

/// Of fewer rows no chunk is kept, but they are put together.
const ROWS_A_CHUNK_MIN: usize = if cfg!(test) { 32 } else { 1024 };

/// Key hashes in order.
#[derive(Debug, Default)]
pub(super) struct Keys {
    chunks: Vec<Arc<Vec<KeyHash>>>,
    /// The number of keys up to the end of each chunk.
    ends: Vec<usize>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(super) fn last(&self) -> Option<KeyHash> {
        self.chunks.last()?.last().copied()
    }

    /// Adds keys, which stand behind all that are there.
    pub(super) fn push(&mut self, keys: Arc<Vec<KeyHash>>) {
        let len = self.len() + keys.len();
        if let Some((last, end)) = self.chunks.last_mut().zip(self.ends.last_mut())
            && last.len().min(keys.len()) < ROWS_A_CHUNK_MIN
            // What the store keeps as well, it keeps.
            && let Some(last) = Arc::get_mut(last)
        {
            last.extend_from_slice(&keys);
            *end = len;
        } else {
            self.chunks.push(keys);
            self.ends.push(len);
        }
    }

    /// The number of the chunk that has this place, and where the chunk starts.
    fn chunk(&self, at: usize) -> (usize, usize) {
        let chunk = self.ends.partition_point(|end| *end <= at);
        let before = chunk.checked_sub(1).and_then(|before| self.ends.get(before));
        (chunk, before.copied().unwrap_or(0))
    }

    pub(super) fn get(&self, at: usize) -> Option<KeyHash> {
        let (chunk, start) = self.chunk(at);
        self.chunks.get(chunk)?.get(at - start).copied()
    }

    /// The place of a key among some.
    pub(super) fn find(&self, key: KeyHash, places: Range<usize>) -> Option<usize> {
        let mut rest = places;
        // Nearly always they are in one chunk.
        while !rest.is_empty() {
            let (chunk, start) = self.chunk(rest.start);
            let keys = self.chunks.get(chunk)?;
            let end = keys.len().min(rest.end - start);
            match keys.get(rest.start - start..end)?.binary_search(&key) {
                Ok(at) => return Some(rest.start + at),
                Err(_) => rest.start = start + end,
            }
        }
        None
    }
}
