//! The index: every row that the state knows, in 28 bytes each, for one pass over a source.

mod keys;

use std::{
    array,
    hint::{black_box, select_unpredictable},
    sync::Arc,
};

use self::keys::Keys;
use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Hashed, KeyHash, RowFingerprint},
    state::ScannedRows,
};

/// So many rows belong to a line, on average.
const ROWS_A_LINE: usize = 6;
/// Rows for which a line has room. Of random hashes one row in eleven is too many for its own.
const ROOM: usize = 7;
/// Rows whose look-ups are under way at once.
const AT_ONCE: usize = 256;

/// Key hashes in order, and their hot values. Threads share it.
///
/// Nearly all rows of a source are what the state says, and to see that one is, one line of memory has to be fetched. Key
/// hashes are as good as random: all that there can be are divided into equal stretches, so that the line of a row can be
/// computed. Key hashes as such are asked for rows that differ.
#[derive(Debug)]
pub(super) struct Index {
    keys: Keys,
    lines: Vec<Line>,
    lines_wanted: usize,
    /// Blends that had no room in their lines.
    rest: Vec<u64>,
}

/// What is known of the rows of one stretch of key hashes.
///
/// The blend of a row is the lower half of its key hash with its hot value in it. It is another one for a row that has
/// changed. A look-up compares it with a few others, so one in 2⁶¹ takes a row for another; two fingerprints are the same in
/// one case of 2⁶⁴.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Line {
    /// Where its rows start among all, and where those of its blends start for which it has no room.
    start: u32,
    rest: u32,
    /// [`EMPTY`] where there is no row. One row in 2⁶⁴ has that blend as well, and is taken for one that differs.
    blends: [u64; ROOM],
}

/// What a line has before a row is put into it.
const EMPTY: u64 = 0;

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
    /// The rows of chunks that did not come in order.
    late: Vec<Hashed>,
}

impl IndexBuilder {
    /// For so many rows, or a few more.
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { index: Index::with_capacity(rows), late: Vec::new() }
    }

    pub(super) fn extend(&mut self, rows: &ScannedRows) {
        let keys = rows.keys();
        let is_next = self.index.keys.last() < keys.first().copied();
        if is_next && keys.is_sorted_by(|one, next| one < next) {
            self.index.put(rows);
            self.index.keys.push(Arc::clone(keys));
        } else {
            self.late.extend(rows.iter().map(|(key, print)| Hashed { key, print }));
        }
    }

    pub(super) fn build(self) -> Result<Index> {
        let Self { index, mut late } = self;
        let count = index.len() + late.len();
        // Where more rows came than were foreseen, lines would be too full.
        if late.is_empty() && count / ROWS_A_LINE <= 2 * index.lines_wanted {
            return index.checked();
        }
        late.extend((0..index.len()).map(|at| index.hashed(at)));
        drop(index);
        late.sort_unstable_by_key(|row| row.key);
        Index::of_sorted(&late.iter().map(|row| (row.key, row.print)).collect())
    }
}

/// More rows than a number can say are found when all are there.
#[inline]
fn numbered(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// To which of so many lines a key belongs.
#[inline]
fn line(key: KeyHash, lines: usize) -> usize {
    // The upper half of the product is less than their number.
    usize::try_from((u128::from(key.upper()) * lines as u128) >> 64).unwrap_or(usize::MAX)
}

impl Line {
    fn start(&self) -> usize {
        self.start as usize
    }

    /// The place of its `nth` row.
    #[inline]
    fn place(&self, nth: usize) -> Place {
        u32::try_from(nth).map_or(Place::NONE, |nth| Place(self.start.wrapping_add(nth)))
    }
}

impl Index {
    fn with_capacity(rows: usize) -> Self {
        let lines_wanted = rows / ROWS_A_LINE + 1;
        // Room that no row comes for is never touched.
        let lines = Vec::with_capacity(lines_wanted);
        Self { keys: Keys::default(), lines, lines_wanted, rest: Vec::new() }
    }

    /// An index of these rows, which are in order.
    pub(super) fn of_sorted(rows: &ScannedRows) -> Result<Self> {
        let mut index = Self::with_capacity(rows.len());
        index.put(rows);
        index.keys.push(Arc::clone(rows.keys()));
        index.checked()
    }

    /// The index, if its rows can be numbered.
    fn checked(self) -> Result<Self> {
        if u32::try_from(self.len()).is_ok_and(|count| count < u32::MAX) {
            return Ok(self);
        }
        Err(Error::new(
            ErrorKind::Config,
            "the state has more than four billion rows, which is more than a plan can compare: split the sync",
        ))
    }

    /// Puts rows, which are in order, into their lines, which stand behind all others. Their keys come next.
    fn put(&mut self, rows: &ScannedRows) {
        let (mut keys, mut prints, mut at) = (rows.keys().as_slice(), rows.prints(), self.len());
        while let (Some(key), Some(print)) = (keys.first(), prints.first()) {
            let taken = match (keys.first_chunk(), prints.first_chunk()) {
                (Some(keys), Some(prints)) if self.line(*key) == self.lines.len() => {
                    self.put_line(keys, prints, at)
                }
                _ => {
                    self.put_row(Hashed { key: *key, print: *print }, at);
                    1
                }
            };
            (keys, prints, at) = (&keys[taken..], &prints[taken..], at + taken);
        }
    }

    /// Puts those rows into a new line that belong to the same one as the first of them. It is the same few instructions
    /// for all: how many they are, nobody can foretell.
    #[inline]
    fn put_line(&mut self, keys: &[KeyHash; ROOM], prints: &[RowFingerprint; ROOM], at: usize) -> usize {
        let (number, wanted) = (self.lines.len(), self.lines_wanted);
        let count = keys.iter().filter(|key| line(**key, wanted) == number).count();
        let blends = array::from_fn(|nth| {
            let blend = Hashed { key: keys[nth], print: prints[nth] }.blend();
            select_unpredictable(nth < count, blend, EMPTY)
        });
        self.lines.push(Line { start: numbered(at), rest: numbered(self.rest.len()), blends });
        count
    }

    /// Puts a row into its line, be it a new one.
    fn put_row(&mut self, row: Hashed, at: usize) {
        let line = self.line(row.key);
        // The lines between have no rows.
        while self.lines.len() <= line {
            let (start, rest) = (numbered(at), numbered(self.rest.len()));
            self.lines.push(Line { start, rest, blends: [EMPTY; ROOM] });
        }
        let blends = self.lines.last_mut().map(|line| (line.start(), &mut line.blends));
        match blends.and_then(|(start, blends)| blends.get_mut(at - start)) {
            Some(place) => *place = row.blend(),
            None => self.rest.push(row.blend()),
        }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// Where the row of a key stands.
    pub(super) fn find(&self, key: KeyHash) -> Option<Place> {
        let line = self.line(key);
        let start = self.lines.get(line)?.start();
        let end = self.lines.get(line + 1).map_or(self.keys.len(), Line::start);
        u32::try_from(self.keys.find(key, start..end)?).ok().map(Place)
    }

    /// Asks the memory for what [`find`](Self::find) has to look at, for several keys at once.
    pub(super) fn touch(&self, keys: impl Iterator<Item = KeyHash>) {
        let starts = keys.filter_map(|key| self.keys.get(self.lines.get(self.line(key))?.start()));
        black_box(starts.fold(0, |touched, key| touched ^ key.upper()));
    }

    /// Where each of these rows stands, if it has this hot value; the others get [`Place::NONE`].
    ///
    /// The memory is asked for many rows before the first of them is looked at, so that they do not wait for each other.
    pub(super) fn unchanged(&self, rows: &[Hashed], places: &mut Vec<Place>) {
        let mut lines = [0; AT_ONCE];
        for rows in rows.chunks(AT_ONCE) {
            let mut touched = 0;
            for (line, row) in lines.iter_mut().zip(rows) {
                *line = self.line(row.key);
                touched ^= self.lines.get(*line).map_or(0, |line| line.start);
            }
            black_box(touched);
            let start = places.len();
            places.extend(rows.iter().zip(lines).map(|(row, line)| self.place_in_line(row.blend(), line)));
            if let Some(places) = places.get_mut(start..) {
                self.look_among_rest(rows, &lines, places);
            }
        }
    }

    /// The place of a row of this blend, if its line has it. It is the same few instructions for all: which of a line's rows
    /// it is, and whether it is one of them, nobody can foretell.
    #[inline]
    fn place_in_line(&self, blend: u64, number: usize) -> Place {
        // Behind the last line that has a row there are none. What stands for no row is equal to nothing.
        let Some(line) = self.lines.get(number).filter(|_| blend != EMPTY) else { return Place::NONE };
        let nth = (0..ROOM).fold(ROOM, |found, nth| if line.blends[nth] == blend { nth } else { found });
        let place = line.place(nth);
        if nth == ROOM { Place::NONE } else { place }
    }

    /// Sets the places of rows that their lines had no room for. They are looked at together, too: their blends
    /// lie far from their lines.
    fn look_among_rest(&self, rows: &[Hashed], lines: &[usize; AT_ONCE], places: &mut [Place]) {
        let (mut missing, mut many) = ([0; AT_ONCE], 0);
        for (at, place) in places.iter().enumerate() {
            missing[many] = at;
            many += usize::from(*place == Place::NONE);
        }
        let missing = &missing[..many];
        let mut ranges = [(0, 0); AT_ONCE];
        for (range, at) in ranges.iter_mut().zip(missing) {
            *range = self.rest_of(lines[*at]);
        }
        let starts = ranges[..many].iter().filter_map(|(start, _)| self.rest.get(*start));
        black_box(starts.fold(0, |touched, blend| touched ^ blend));
        for (at, (start, end)) in missing.iter().zip(ranges) {
            let blend = rows[*at].blend();
            let rest = self.rest.get(start..end).unwrap_or_default();
            if let Some(nth) = rest.iter().position(|other| *other == blend && blend != EMPTY) {
                places[*at] = self.lines[lines[*at]].place(ROOM + nth);
            }
        }
    }

    /// Where the blends are that a line has no room for.
    fn rest_of(&self, number: usize) -> (usize, usize) {
        let Some(line) = self.lines.get(number) else { return (0, 0) };
        let end = self.lines.get(number + 1).map_or(self.rest.len(), |next| next.rest as usize);
        (line.rest as usize, end)
    }

    /// The number of the line to which a key belongs.
    #[inline]
    fn line(&self, key: KeyHash) -> usize {
        line(key, self.lines_wanted)
    }

    /// The row that is the `at`th.
    fn hashed(&self, at: usize) -> Hashed {
        let known = self.keys.get(at).and_then(|key| {
            let line = self.lines.get(self.line(key))?;
            let nth = at.checked_sub(line.start())?;
            let blend = match line.blends.get(nth) {
                Some(blend) => blend,
                None => self.rest.get(line.rest as usize + nth - ROOM)?,
            };
            Some(Hashed::of_blend(key, *blend))
        });
        known.unwrap_or(Hashed::NONE)
    }

    /// The row at a place; an index of another state may not have it.
    pub(super) fn row(&self, place: Place) -> (KeyHash, RowFingerprint) {
        let Hashed { key, print } = self.hashed(place.at());
        (key, print)
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
        let words = self.0.iter().zip((0..).step_by(64));
        let places = words.flat_map(|(bits, first)| {
            let mut left = !bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(first + bit as usize)
            })
        });
        places.take_while(|at| *at < index.len()).map(|at| {
            let Hashed { key, print } = index.hashed(at);
            (key, print)
        })
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
            // A store may keep what it gives, or not.
            for (is_sorted, chunk, is_kept) in [
                (false, 100, false),
                (true, 100, false),
                (true, 10, false),
                (true, 10, true),
                (true, 1000, true),
            ] {
                let mut rows: Vec<_> = (1..=count).map(row).collect();
                if is_sorted {
                    rows.sort_unstable_by_key(|(key, _)| *key);
                }
                let mut builder = IndexBuilder::with_capacity(foreseen);
                let mut kept = Vec::new();
                for chunk in rows.chunks(chunk) {
                    let chunk: ScannedRows = chunk.iter().copied().collect();
                    builder.extend(&chunk);
                    kept.extend(is_kept.then_some(chunk));
                }
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
    fn rows_that_crowd_into_few_lines_are_found_all_the_same() {
        // Of six hundred lines, three neighbours have 30 rows each, and so have two apart; all others are empty.
        let lines = 600_u64;
        let crowded = [100, 101, 102, 300, 599].into_iter().flat_map(|line: u64| {
            let first = (u128::MAX / u128::from(lines)) * u128::from(line) + (1 << 100);
            (0..30).map(move |nth| {
                let print = RowFingerprint::from_u64(line * 100 + nth + 2);
                (KeyHash::from_u128(first + (u128::from(nth) << 80) + u128::from(nth * 7919)), print)
            })
        });
        let rows: Vec<_> = crowded.collect();
        for is_late in [false, true] {
            let mut builder = IndexBuilder::with_capacity(ROWS_A_LINE * 600 - 1);
            let (first, last) = rows.split_at(if is_late { 40 } else { 0 });
            for chunk in [last, first] {
                builder.extend(&chunk.iter().copied().collect());
            }
            let index = builder.build().unwrap();
            assert!(!index.rest.is_empty());
            let asked: Vec<_> = rows.iter().map(|(key, print)| Hashed { key: *key, print: *print }).collect();
            let mut places = Vec::new();
            index.unchanged(&asked, &mut places);
            for (place, row) in places.into_iter().zip(&rows) {
                assert_eq!(Some(place), index.find(row.0));
                assert!(index.row(place) == *row);
            }
            let changed: Vec<_> =
                asked.iter().map(|row| Hashed { print: RowFingerprint::from_u64(1), ..*row }).collect();
            let mut places = Vec::new();
            index.unchanged(&changed, &mut places);
            assert!(places.iter().all(|place| *place == Place::NONE));
        }
    }

    #[test]
    fn unchanged_rows_are_told_from_changed_and_unknown_ones() {
        let mut rows: Vec<_> = (1..=1000).map(row).collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        let index = Index::of_sorted(&rows.into_iter().collect()).unwrap();
        let asked: Vec<_> = (1..=2000)
            .map(|number| match number % 4 {
                0 => Hashed::NONE,
                1 => Hashed { key: row(number).0, print: RowFingerprint::from_u64(number + 1) },
                _ => Hashed { key: row(number).0, print: row(number).1 },
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
