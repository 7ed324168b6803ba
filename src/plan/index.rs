//! The index: every row that the state knows, in 27 bytes each, for one pass over a source.

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Hashed, KeyHash, RowFingerprint},
};

/// Slots for so many rows there are [`SLOTS`].
const ROWS: usize = 8;
const SLOTS: usize = 9;

/// Key hashes in order, each with its hot value. Threads share it.
///
/// Key hashes are as good as random, so where one stands in the order can be computed from the hash itself: it is in that
/// slot, or, if that was taken by one before it, in one of the next. Nothing but the row itself has to be fetched.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<Hashed>,
    /// Slots that hashes are spread over; a few that stand behind are for those that came too late.
    spread: usize,
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
    rows: usize,
    /// Rows that came after one that stands behind them.
    late: Vec<Hashed>,
}

impl IndexBuilder {
    /// For so many rows, or a few more.
    pub(super) fn with_capacity(rows: usize) -> Self {
        let spread = (rows / ROWS + 1).saturating_mul(SLOTS);
        // Room that no row comes for is never touched.
        Self { index: Index { slots: Vec::with_capacity(spread), spread }, rows: 0, late: Vec::new() }
    }

    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = (KeyHash, RowFingerprint)>) {
        for (key, print) in rows {
            self.push(Hashed::new(key, print));
        }
    }

    fn push(&mut self, row: Hashed) {
        if self.index.slots.last().is_some_and(|last| last.key >= row.key) {
            return self.late.push(row);
        }
        if self.rows >= self.index.spread {
            self.spread_out();
        }
        let slot = self.index.start(row.key).max(self.index.slots.len());
        self.index.slots.resize(slot, Hashed::NONE);
        self.index.slots.push(row);
        self.rows += 1;
    }

    /// There are more rows than were foreseen: makes twice the room.
    fn spread_out(&mut self) {
        let mut wider = Self::with_capacity(2 * self.rows);
        self.index.rows().for_each(|row| wider.push(*row));
        wider.late = std::mem::take(&mut self.late);
        *self = wider;
    }

    pub(super) fn build(mut self) -> Result<Index> {
        if !self.late.is_empty() {
            let mut rows: Vec<Hashed> = self.index.rows().copied().collect();
            rows.append(&mut self.late);
            rows.sort_unstable_by_key(|row| row.key);
            self = Self::with_capacity(rows.len());
            for row in rows {
                self.push(row);
            }
        }
        if u32::try_from(self.index.slots.len()).is_ok_and(|slots| slots != u32::MAX) {
            return Ok(self.index);
        }
        Err(Error::new(
            ErrorKind::Config,
            "the state has more than three billion rows, which is more than a plan can compare: split the sync",
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

    fn rows(&self) -> impl Iterator<Item = &Hashed> {
        self.slots.iter().filter(|row| !row.is_none())
    }

    /// Places that there are, also those where no row is.
    fn len(&self) -> usize {
        self.slots.len()
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
            let mut touched = 0;
            for (start, row) in starts.iter_mut().zip(rows) {
                *start = self.start(row.key);
                touched ^= self.slots.get(*start).map_or(0, |row| row.print);
                touched ^= self.slots.get(*start + 2).map_or(0, |row| row.print);
            }
            std::hint::black_box(touched);
            places.extend(rows.iter().zip(&starts).map(|(row, start)| {
                let place = self.find_from(row.key, *start);
                place.filter(|place| self.slots[place.at()] == *row && !row.is_none()).unwrap_or(Place::NONE)
            }));
        }
    }

    /// The first slot that this key may be in.
    #[inline]
    fn start(&self, key: [u64; 2]) -> usize {
        // The upper half of the product is less than the number of slots.
        usize::try_from((u128::from(key[0]) * self.spread as u128) >> 64).unwrap_or(usize::MAX)
    }

    #[inline]
    fn find_from(&self, key: [u64; 2], start: usize) -> Option<Place> {
        for (at, row) in (start..).zip(self.slots.get(start..)?) {
            if row.key[0] >= key[0] || row.is_none() {
                // No two keys of a state have one half in common, except by an accident that nobody lives to see.
                let mut same = (at..).zip(&self.slots[at..]).take_while(|(_, row)| row.key[0] == key[0]);
                let (at, _) = same.find(|(_, row)| row.key == key && !row.is_none())?;
                return u32::try_from(at).ok().map(Place);
            }
        }
        None
    }

    /// The row at a place; an index of another state may not have it.
    pub(super) fn row(&self, place: Place) -> (KeyHash, RowFingerprint) {
        let row = self.slots.get(place.at()).unwrap_or(&Hashed::NONE);
        (row.key_hash(), row.fingerprint())
    }

    pub(super) fn print(&self, place: Place) -> RowFingerprint {
        self.row(place).1
    }
}

/// Rows whose look-ups are under way at once.
const AT_ONCE: usize = 256;

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
        let words = index.slots.chunks(64).zip(&self.0);
        let rows =
            words.flat_map(|(rows, bits)| (0..).zip(rows).filter(move |(bit, _)| bits >> bit & 1 == 0));
        rows.map(|(_, row)| row)
            .filter(|row| !row.is_none())
            .map(|row| (row.key_hash(), row.fingerprint()))
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
