//! A scan of all rows, in chunks that are read at once, of one state of the file.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

use redb::ReadTransaction;

use super::{
    Inner, Moment,
    fault::Fault,
    locked,
    rows::{self, Hot, RecentKeys, RecentRows},
};
use crate::state::{Header, ScannedRows};

/// About so many rows are in one chunk of a scan.
pub(super) const CHUNK: usize = 8 * 1024;
/// The most chunks of a scan, whatever the header says of the rows.
const RANGES_MAX: usize = 1 << 16;
/// Chunks of a scan that are read at once.
pub(super) const CHUNKS_AT_ONCE: usize = 8;

/// A scan of all rows.
pub(super) struct Scan {
    state: ReadTransaction,
    journal: Vec<Hot>,
    moment: Moment,
    /// Rows that a chunk has room for.
    room: usize,
    found: Mutex<Found>,
}

/// What a scan has found so far.
struct Found {
    keys: RecentKeys,
    /// Chunks that are not read yet.
    left: usize,
}

impl Scan {
    /// A scan of this state, and the stretches of key hashes that are its chunks.
    pub(super) fn begin(
        state: ReadTransaction,
        header: &Header,
        recent: &RecentRows,
        rows_a_chunk: usize,
    ) -> Result<(Self, Vec<RangeInclusive<u128>>), Fault> {
        let ranges = ranges(header.rows, rows_a_chunk);
        let keys = RecentKeys::with_room(recent.count.saturating_add(recent.journaled));
        let found = Mutex::new(Found { keys, left: ranges.len() });
        let journal = rows::journal(&state)?;
        // Key hashes are as good as random, so few chunks have more than this. Whoever asked keeps the room.
        let rows = usize::try_from(header.rows).unwrap_or(usize::MAX) / ranges.len();
        let room = rows.min(CHUNK) / 16 * 17;
        Ok((Self { state, journal, moment: Moment::of(header), room, found }, ranges))
    }

    /// The rows of a stretch. With the last one it is known where all recent rows are.
    pub(super) fn chunk(&self, range: &RangeInclusive<u128>, inner: &Inner) -> Result<ScannedRows, Fault> {
        let mut recent_keys = Vec::new();
        let room = ScannedRows::with_capacity(self.room);
        let (first, last) = (*range.start(), *range.end());
        let rows = rows::scan(&self.state, &self.journal, first, last, room, &mut recent_keys)?;
        let mut found = locked(&self.found);
        for key in recent_keys {
            found.keys.insert(key);
        }
        found.left -= 1;
        if found.left == 0 {
            let keys = std::mem::replace(&mut found.keys, RecentKeys::with_room(0));
            *locked(&inner.recent_keys) = Some((self.moment, Arc::new(keys)));
        }
        Ok(rows)
    }
}

/// All key hashes, in stretches that have about a chunk's rows each: a hash is as likely as any other.
fn ranges(rows: u64, chunk: usize) -> Vec<RangeInclusive<u128>> {
    let bits = (rows / chunk as u64).checked_ilog2().map_or(0, |bits| bits + 1).min(RANGES_MAX.ilog2());
    let width = u128::MAX >> bits;
    let range = |number: u128| {
        let start = number << (128 - bits).min(127);
        start..=start + width
    };
    (0..1 << bits).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_a_scan_cover_every_key_hash_once_whatever_the_header_says() {
        for (rows, chunk, count) in [
            (0, CHUNK, 1),
            (999, 1000, 1),
            (1000, 1000, 2),
            (1 << 24, 1 << 16, 512),
            (u64::MAX, 1, RANGES_MAX),
        ] {
            let ranges = ranges(rows, chunk);
            assert_eq!(ranges.len(), count, "{rows} rows");
            assert_eq!((*ranges[0].start(), *ranges[count - 1].end()), (0, u128::MAX));
            assert!(ranges.windows(2).all(|pair| *pair[0].end() + 1 == *pair[1].start()));
        }
    }
}
