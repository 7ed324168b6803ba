//! The index: every row that the state knows, in 26 to 28 bytes each, for one pass over a source.

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, RowFingerprint},
};

/// Keys to a prefix, on average.
const KEYS_A_PREFIX: usize = 2;

/// Key hashes in order, each with its hot value. Threads share it.
#[derive(Debug)]
pub(super) struct Index {
    rows: Vec<Row>,
    /// Where the keys of each prefix start, so that a look-up starts near its end.
    starts: Vec<u32>,
    shift: u32,
}

/// Key hash, upper half first, and hot value: beside each other, since whoever finds the one wants the other.
#[derive(Clone, Copy, Debug)]
struct Row {
    key: [u64; 2],
    print: u64,
}

impl Row {
    fn key(&self) -> u128 {
        u128::from(self.key[0]) << 64 | u128::from(self.key[1])
    }
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

/// Takes the rows of an index, in any order.
#[derive(Default)]
pub(super) struct IndexBuilder {
    rows: Vec<Row>,
}

impl IndexBuilder {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows) }
    }

    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = (KeyHash, RowFingerprint)>) {
        self.rows
            .extend(rows.into_iter().map(|(key, print)| Row { key: halves(key), print: print.to_u64() }));
    }

    pub(super) fn build(mut self) -> Result<Index> {
        let rows = u32::try_from(self.rows.len()).ok().filter(|rows| *rows != u32::MAX).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "the state has more than four billion rows, which is more than a plan can compare: split the sync",
            )
        })?;
        if !self.rows.is_sorted_by_key(|row| row.key) {
            self.rows.sort_unstable_by_key(|row| row.key);
        }
        let bits = (self.rows.len() / KEYS_A_PREFIX).next_power_of_two().ilog2().max(1);
        let shift = 64 - bits;
        let mut starts: Vec<u32> = Vec::with_capacity((1 << bits) + 1);
        for (at, row) in (0..).zip(&self.rows) {
            let prefix = prefix(row.key, shift);
            while starts.len() <= prefix {
                starts.push(at);
            }
        }
        starts.resize((1 << bits) + 1, rows);
        Ok(Index { rows: self.rows, starts, shift })
    }
}

impl Index {
    /// An index of these rows.
    pub(super) fn of(rows: impl IntoIterator<Item = (KeyHash, RowFingerprint)>) -> Result<Self> {
        let mut builder = IndexBuilder::default();
        builder.extend(rows);
        builder.build()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the row of a key stands.
    pub(super) fn find(&self, key: KeyHash) -> Option<Place> {
        let key = halves(key);
        self.find_from(key, self.start(key))
    }

    /// Where each of these rows stands, if it has this hot value; the others get [`Place::NONE`].
    ///
    /// Each step is done for all rows before the next one: so the memory is asked for many rows at once, and does not let
    /// them wait for each other.
    pub(super) fn unchanged(&self, rows: &[Option<(KeyHash, RowFingerprint)>], places: &mut Vec<Place>) {
        let mut starts = [0; AT_ONCE];
        for rows in rows.chunks(AT_ONCE) {
            for (start, row) in starts.iter_mut().zip(rows) {
                *start = row.map_or(0, |(key, _)| self.start(halves(key)));
            }
            let mut touched = 0;
            for start in &starts[..rows.len()] {
                let start = *start as usize;
                touched ^= self.rows.get(start).map_or(0, |row| row.print);
                touched ^= self.rows.get(start + 2).map_or(0, |row| row.print);
            }
            std::hint::black_box(touched);
            places.extend(rows.iter().zip(&starts).map(|(row, start)| {
                let place = row.and_then(|(key, print)| {
                    let place = self.find_from(halves(key), *start)?;
                    (self.rows[place.at()].print == print.to_u64()).then_some(place)
                });
                place.unwrap_or(Place::NONE)
            }));
        }
    }

    /// Where the keys with the prefix of this one start.
    #[inline]
    fn start(&self, key: [u64; 2]) -> u32 {
        self.starts.get(prefix(key, self.shift)).copied().unwrap_or(u32::MAX)
    }

    #[inline]
    fn find_from(&self, key: [u64; 2], start: u32) -> Option<Place> {
        for (at, row) in (start..).zip(self.rows.get(start as usize..)?) {
            if row.key[0] >= key[0] {
                // No two keys of a state have one half in common, except by an accident that nobody lives to see.
                let mut same =
                    (at..).zip(&self.rows[at as usize..]).take_while(|(_, row)| row.key[0] == key[0]);
                return same.find(|(_, row)| row.key == key).map(|(at, _)| Place(at));
            }
        }
        None
    }

    /// The row at a place; an index of another state may not have it.
    pub(super) fn row(&self, place: Place) -> (KeyHash, RowFingerprint) {
        let key = self.rows.get(place.at()).map_or(0, Row::key);
        (KeyHash::from_u128(key), self.print(place))
    }

    pub(super) fn print(&self, place: Place) -> RowFingerprint {
        self.rows.get(place.at()).map_or(RowFingerprint::LOAD, |row| RowFingerprint::from_u64(row.print))
    }
}

/// Rows whose look-ups are under way at once.
const AT_ONCE: usize = 256;

#[expect(clippy::cast_possible_truncation, reason = "each half is taken on its own")]
fn halves(key: KeyHash) -> [u64; 2] {
    [(key.to_u128() >> 64) as u64, key.to_u128() as u64]
}

fn prefix(key: [u64; 2], shift: u32) -> usize {
    usize::try_from(key[0] >> shift).unwrap_or(usize::MAX)
}

/// Which rows of an index the source had: a bit each.
#[derive(Debug)]
pub(super) struct Seen {
    bits: Vec<u64>,
    rows: usize,
}

impl Seen {
    /// None of an index.
    pub(super) fn none_of(index: &Index) -> Self {
        Self { bits: vec![0; index.len().div_ceil(64)], rows: index.len() }
    }

    /// Marks a row as seen, and says whether it was before.
    pub(super) fn mark(&mut self, place: Place) -> bool {
        let (word, bit) = (place.at() / 64, 1 << (place.at() % 64));
        let Some(word) = self.bits.get_mut(word) else { return false };
        let was_seen = *word & bit != 0;
        *word |= bit;
        was_seen
    }

    /// The rows that were not seen, in order.
    pub(super) fn unseen(&self) -> impl Iterator<Item = Place> + '_ {
        let places = (0..).zip(&self.bits).flat_map(|(word, bits)| {
            let mut left = !bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(word * 64 + bit)
            })
        });
        places.take_while(|place| (*place as usize) < self.rows).map(Place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_once_and_those_not_asked_for_stay_unseen() {
        for count in [0_u128, 1, 3, 7, 64, 1000] {
            let spread = |number: u128| {
                KeyHash::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
            };
            let print = |n: u128| RowFingerprint::from_u64(u64::try_from(n).unwrap());
            let index = Index::of((1..=count).map(|n| (spread(n), print(n)))).unwrap();
            let mut seen = Seen::none_of(&index);
            for n in 1..=count {
                let place = index.find(spread(n)).unwrap();
                assert!(index.row(place) == (spread(n), print(n)));
                if n % 3 != 0 {
                    assert!(!seen.mark(place));
                    assert!(seen.mark(place));
                }
            }
            assert_eq!(index.find(spread(count + 1)), None);
            let unseen: Vec<_> = seen.unseen().map(|place| index.row(place)).collect();
            assert!(unseen.is_sorted_by_key(|(key, _)| *key));
            let mut unseen: Vec<_> = unseen.iter().map(|(_, print)| u128::from(print.to_u64())).collect();
            unseen.sort_unstable();
            assert_eq!(unseen, (1..=count).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        }
    }
}
