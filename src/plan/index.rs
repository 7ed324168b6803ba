//! The index: every row that the state knows, in 25 bytes each, for one pass over a source.

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, RowFingerprint},
};

/// Keys to a prefix, on average: half a cache line to search.
const KEYS_A_PREFIX: usize = 4;

/// Key hashes in order, each with its hot value. Threads share it.
#[derive(Debug)]
pub(super) struct Index {
    keys: Vec<u128>,
    prints: Vec<u64>,
    /// Where the keys of each prefix start, so that a look-up starts near its end.
    starts: Vec<u32>,
    shift: u32,
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
    keys: Vec<u128>,
    prints: Vec<u64>,
}

impl IndexBuilder {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { keys: Vec::with_capacity(rows), prints: Vec::with_capacity(rows) }
    }

    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = (KeyHash, RowFingerprint)>) {
        for (key, print) in rows {
            self.keys.push(key.to_u128());
            self.prints.push(print.to_u64());
        }
    }

    pub(super) fn build(mut self) -> Result<Index> {
        if self.keys.len() >= Place::NONE.at() {
            return Err(Error::new(
                ErrorKind::Config,
                "the state has more than four billion rows, which is more than a plan can compare: split the sync",
            ));
        }
        if !self.keys.is_sorted() {
            self.sort();
        }
        let Self { keys, prints } = self;
        let bits = (keys.len() / KEYS_A_PREFIX).max(1).ilog2();
        let shift = 128 - bits;
        let mut starts: Vec<u32> = Vec::with_capacity((1 << bits) + 1);
        for (at, &key) in (0..).zip(&keys) {
            let prefix = prefix(key, shift);
            while starts.len() <= prefix {
                starts.push(at);
            }
        }
        starts.resize((1 << bits) + 1, u32::try_from(keys.len()).unwrap_or(u32::MAX));
        Ok(Index { keys, prints, starts, shift })
    }

    fn sort(&mut self) {
        let mut rows: Vec<_> = self.keys.drain(..).zip(self.prints.drain(..)).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        (self.keys, self.prints) = rows.into_iter().unzip();
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
        self.keys.len()
    }

    /// Where the row of a key stands.
    pub(super) fn find(&self, key: KeyHash) -> Option<Place> {
        let key = key.to_u128();
        let prefix = prefix(key, self.shift);
        let (start, end) = (*self.starts.get(prefix)?, *self.starts.get(prefix + 1)?);
        let keys = self.keys.get(start as usize..end as usize)?;
        // So few keys that to count the smaller ones is faster than to halve.
        let smaller = keys.iter().filter(|known| **known < key).count();
        (keys.get(smaller) == Some(&key)).then(|| Place(start + u32::try_from(smaller).unwrap_or(0)))
    }

    /// The row at a place; an index of another state may not have it.
    pub(super) fn row(&self, place: Place) -> (KeyHash, RowFingerprint) {
        let key = self.keys.get(place.at()).copied().unwrap_or_default();
        (KeyHash::from_u128(key), self.print(place))
    }

    pub(super) fn print(&self, place: Place) -> RowFingerprint {
        self.prints.get(place.at()).map_or(RowFingerprint::LOAD, |print| RowFingerprint::from_u64(*print))
    }
}

fn prefix(key: u128, shift: u32) -> usize {
    // A shift by all 128 bits is no shift: then there is one prefix.
    usize::try_from(key.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
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
