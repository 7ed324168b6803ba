//! The index: every row that the state knows, in 26 bytes each, for one pass over a source.

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Hashed, KeyHash, RowFingerprint},
};

/// So many rows are in a bucket, on average.
const ROWS_A_BUCKET: usize = 2;
/// So many rows are looked at in one go. Of random hashes one bucket in twenty has more.
const LOOKED_AT: usize = 4;
/// Rows whose look-ups are under way at once.
const AT_ONCE: usize = 256;

/// Key hashes in order, each with its hot value. Threads share it.
///
/// Key hashes are as good as random. All that there can be are divided into equal stretches, buckets, so that of each row its
/// bucket can be computed, and nothing has to be fetched but where that starts, and the row itself.
#[derive(Debug)]
pub(super) struct Index {
    rows: Vec<Hashed>,
    /// Where the rows of each bucket start.
    starts: Vec<u32>,
    buckets: usize,
}

/// Where a row stands in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Stands for no place where there is no room to say so.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// Takes the rows of an index. Those that come in order are put where they belong at once.
pub(super) struct IndexBuilder {
    index: Index,
    /// Rows that came after one that stands behind them.
    late: Vec<Hashed>,
}

impl IndexBuilder {
    /// For so many rows, or a few more.
    pub(super) fn with_capacity(rows: usize) -> Self {
        let buckets = rows / ROWS_A_BUCKET + 1;
        // Room that no row comes for is never touched.
        let (rows, starts) = (Vec::with_capacity(rows), Vec::with_capacity(buckets));
        Self { index: Index { rows, starts, buckets }, late: Vec::new() }
    }

    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = (KeyHash, RowFingerprint)>) {
        for (key, print) in rows {
            let row = Hashed::new(key, print);
            if self.index.rows.last().is_some_and(|last| last.key >= row.key) {
                self.late.push(row);
            } else {
                self.index.rows.push(row);
                self.index.start_bucket(self.index.rows.len() - 1);
            }
        }
    }

    pub(super) fn build(self) -> Result<Index> {
        let Self { mut index, mut late } = self;
        let count = index.rows.len() + late.len();
        if u32::try_from(count).is_ok_and(|count| count < u32::MAX) {
            // Where more rows came than were foreseen, buckets would be full.
            if !late.is_empty() || count / ROWS_A_BUCKET > 2 * index.buckets {
                index.rows.append(&mut late);
                index.rows.sort_unstable_by_key(|row| row.key);
                index.buckets = count / ROWS_A_BUCKET + 1;
                index.starts = Vec::with_capacity(index.buckets);
                for at in 0..count {
                    index.start_bucket(at);
                }
            }
            return Ok(index);
        }
        Err(Error::new(
            ErrorKind::Config,
            "the state has more than four billion rows, which is more than a plan can compare: split the sync",
        ))
    }
}

impl Index {
    /// An index of these rows.
    pub(super) fn of(
        rows: impl IntoIterator<Item = (KeyHash, RowFingerprint), IntoIter: ExactSizeIterator>,
    ) -> Result<Self> {
        let rows = rows.into_iter();
        let mut builder = IndexBuilder::with_capacity(rows.len());
        builder.extend(rows);
        builder.build()
    }

    /// Sees that the bucket of a row starts, be it with this row, and those before it, if they have none.
    fn start_bucket(&mut self, at: usize) {
        let bucket = self.bucket(self.rows[at].key);
        if self.starts.len() <= bucket {
            // More rows than a number can say are found when all are there.
            self.starts.resize(bucket + 1, u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the row of a key stands.
    pub(super) fn find(&self, key: KeyHash) -> Option<Place> {
        let Hashed { key, .. } = Hashed::new(key, RowFingerprint::LOAD);
        self.find_from(key, self.start(key))
    }

    /// Where each of these rows stands, if it has this hot value; the others get [`Place::NONE`].
    ///
    /// The memory is asked for many rows before the first of them is looked at, so that they do not wait for each other.
    pub(super) fn unchanged(&self, rows: &[Hashed], places: &mut Vec<Place>) {
        let mut starts = [0; AT_ONCE];
        for rows in rows.chunks(AT_ONCE) {
            for (start, row) in starts.iter_mut().zip(rows) {
                *start = self.start(row.key);
            }
            let touched = starts[..rows.len()].iter().fold(0, |touched, start| {
                let [first, third] = [0, 2].map(|at| self.rows.get(start + at).map_or(0, |row| row.print));
                touched ^ first ^ third
            });
            std::hint::black_box(touched);
            places.extend(rows.iter().zip(&starts).map(|(row, start)| self.place_of(row, *start)));
        }
    }

    /// The place of a row that is there with this hot value. It is the same few instructions for nearly all: which of a
    /// bucket's rows it is, nobody can foretell.
    #[inline]
    fn place_of(&self, row: &Hashed, start: usize) -> Place {
        let near: Option<&[Hashed; LOOKED_AT]> = self.rows.get(start..).and_then(|rows| rows.first_chunk());
        let at = near.map_or(0, |near| {
            (0..LOOKED_AT).fold(0, |found, at| if near[at].key[1] == row.key[1] { at } else { found })
        });
        let found = if self.rows.get(start + at) == Some(row) {
            u32::try_from(start + at).ok().map(Place)
        } else {
            self.find_from(row.key, start).filter(|place| self.rows.get(place.at()) == Some(row))
        };
        found.filter(|_| !row.is_none()).unwrap_or(Place::NONE)
    }

    #[inline]
    fn bucket(&self, key: [u64; 2]) -> usize {
        // The upper half of the product is less than the number of buckets.
        usize::try_from((u128::from(key[0]) * self.buckets as u128) >> 64).unwrap_or(usize::MAX)
    }

    /// Where the bucket of a key starts.
    #[inline]
    fn start(&self, key: [u64; 2]) -> usize {
        // Behind the last one that has a row there are none.
        self.starts.get(self.bucket(key)).map_or(self.rows.len(), |start| *start as usize)
    }

    fn find_from(&self, key: [u64; 2], start: usize) -> Option<Place> {
        let end = self.starts.get(self.bucket(key) + 1).map_or(self.rows.len(), |end| *end as usize);
        let at = start + self.rows.get(start..end)?.partition_point(|row| row.key < key);
        let row = self.rows.get(at).filter(|row| row.key == key);
        row.and_then(|_| u32::try_from(at).ok()).map(Place)
    }

    /// The row at a place; an index of another state may not have it.
    pub(super) fn row(&self, place: Place) -> (KeyHash, RowFingerprint) {
        let row = self.rows.get(place.at()).unwrap_or(&Hashed::NONE);
        (row.key_hash(), row.fingerprint())
    }

    pub(super) fn print(&self, place: Place) -> RowFingerprint {
        self.row(place).1
    }
}

/// Which rows of an index the source had: a bit each.
#[derive(Debug)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    /// None of an index.
    pub(super) fn none_of(index: &Index) -> Self {
        Self(vec![0; index.len().div_ceil(64)])
    }

    /// Marks a row as seen, and says whether it was before.
    pub(super) fn mark(&mut self, place: Place) -> bool {
        let (word, bit) = (place.at() / 64, 1 << (place.at() % 64));
        let Some(word) = self.0.get_mut(word) else { return false };
        let was_seen = *word & bit != 0;
        *word |= bit;
        was_seen
    }

    /// The rows of the index that were not seen, in order.
    pub(super) fn unseen<'i>(
        &'i self,
        index: &'i Index,
    ) -> impl Iterator<Item = (KeyHash, RowFingerprint)> + 'i {
        let words = index.rows.chunks(64).zip(&self.0);
        let rows =
            words.flat_map(|(rows, bits)| (0..).zip(rows).filter(move |(bit, _)| bits >> bit & 1 == 0));
        rows.map(|(_, row)| (row.key_hash(), row.fingerprint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> (KeyHash, RowFingerprint) {
        let spread = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        (KeyHash::from_u128(spread), RowFingerprint::from_u64(number))
    }

    #[test]
    fn every_row_is_found_once_and_those_not_asked_for_stay_unseen() {
        for (count, foreseen) in [(0, 0), (0, 10), (1, 0), (3, 3), (7, 5), (64, 64), (1000, 1000), (1000, 10)]
        {
            for is_sorted in [false, true] {
                let mut rows: Vec<_> = (1..=count).map(row).collect();
                if is_sorted {
                    rows.sort_unstable_by_key(|(key, _)| *key);
                }
                let mut builder = IndexBuilder::with_capacity(foreseen);
                rows.chunks(100).for_each(|chunk| builder.extend(chunk.iter().copied()));
                let index = builder.build().unwrap();
                let mut seen = Seen::none_of(&index);
                for number in 1..=count {
                    let place = index.find(row(number).0).unwrap();
                    assert!(index.row(place) == row(number));
                    if number % 3 != 0 {
                        assert!(!seen.mark(place));
                        assert!(seen.mark(place));
                    }
                }
                assert_eq!(index.find(row(count + 1).0), None);
                let unseen: Vec<_> = seen.unseen(&index).collect();
                assert!(unseen.is_sorted_by_key(|(key, _)| *key));
                let mut unseen: Vec<_> = unseen.iter().map(|(_, print)| print.to_u64()).collect();
                unseen.sort_unstable();
                assert_eq!(unseen, (1..=count).filter(|number| number % 3 == 0).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn unchanged_rows_are_told_from_changed_and_unknown_ones() {
        let index = Index::of((1..=1000).map(row).collect::<Vec<_>>()).unwrap();
        let asked: Vec<_> = (1..=2000)
            .map(|number| match number % 4 {
                0 => Hashed::NONE,
                1 => Hashed::new(row(number).0, RowFingerprint::from_u64(number + 1)),
                _ => Hashed::new(row(number).0, row(number).1),
            })
            .collect();
        let mut places = Vec::new();
        index.unchanged(&asked, &mut places);
        for (number, place) in (1..=2000).zip(places) {
            let is_unchanged = number <= 1000 && number % 4 > 1;
            assert_eq!(place, index.find(row(number).0).filter(|_| is_unchanged).unwrap_or(Place::NONE));
        }
    }
}
