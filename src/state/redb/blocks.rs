//! Blocks: rows of consecutive key hashes, packed side by side.
//!
//! A state is mostly rows that nobody touches for long. Packed, ten million of them are read in a fraction of the time that
//! a tree takes to hand them out one by one, and take no more room than they have content.
//!
//! A hot block is a row after the other, 24 bytes each: the key hash, big-endian so that its bytes sort like it, and the hot
//! value, little-endian. A cold block is the number of its rows in 4 bytes, for each row the end of its record and its tag in 2
//! bytes each, and the records; all numbers are little-endian. By its tag, the end of its key hash, a row that is known to be
//! in the block is found without the hot block, if no other row has the same.

use std::ops::Range;

use crate::fingerprint::RowFingerprint;

/// Bytes of a row in a hot block.
const HOT_ROW: usize = 24;

/// Pages of 4 KiB of a hot block. All of them are read by a scan, which takes fewer calls then.
const HOT_PAGES: usize = 2;
/// Bytes that the engine needs for itself of the pages of one value: 24 in its present format.
const ENGINE: usize = 32;
/// Bytes that a hot block may have.
const HOT_BYTES: usize = HOT_PAGES * 4096 - ENGINE;
/// The same of a cold block, which has one page: who looks for one record reads no more than that.
const COLD_BYTES: usize = 4096 - ENGINE;

/// Bytes of a cold block that are no row's.
const COLD_HEAD: usize = 4;

/// Pages of a whole block of recent rows. A row that is far from all others costs one block to write, and many that are near
/// each other cost less in larger ones.
pub(super) const RECENT_PAGES: usize = 2;
/// The same of the journal, which nobody looks one row up in. The ends of records can tell no more.
pub(super) const JOURNAL_PAGES: usize = 16;
const _: () = assert!(JOURNAL_PAGES * 4096 <= 1 << 16);
/// Bytes of a whole block that are no row's.
const WHOLE_HEAD: usize = 4 + COLD_HEAD;

/// Rows that a hot block has room for.
const HOT_FULL: usize = HOT_BYTES / HOT_ROW;
/// Rows that are put into it where the next row does not have to go into it: it has room for those to come.
const HOT_FILL: usize = HOT_FULL / 10 * 9;

/// A row as a block has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'b> {
    pub(super) key: u128,
    pub(super) hot: u64,
    /// Empty, if the row was deleted.
    pub(super) record: &'b [u8],
}

impl Row<'_> {
    pub(super) fn is_deleted(&self) -> bool {
        self.record.is_empty()
    }

    /// Whether the row is in order: there, and nothing of it under way, refused or missing.
    pub(super) fn is_settled(&self) -> bool {
        RowFingerprint::from_u64(self.hot).is_settled()
    }
}

/// Keys and hot values of a block.
#[derive(Clone, Copy)]
pub(super) struct HotBlock<'b>(&'b [[u8; HOT_ROW]]);

impl<'b> HotBlock<'b> {
    /// `None` if the bytes are no block.
    pub(super) fn new(bytes: &'b [u8]) -> Option<Self> {
        let (rows, rest) = bytes.as_chunks();
        rest.is_empty().then_some(Self(rows))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (u128, u64)> + Clone + 'b {
        self.0.iter().map(parts)
    }

    /// Where the first key stands that is not below `key`.
    pub(super) fn position(self, key: u128) -> usize {
        self.0.partition_point(|row| parts(row).0 < key)
    }

    pub(super) fn get(self, at: usize) -> Option<(u128, u64)> {
        self.0.get(at).map(parts)
    }

    pub(super) fn len(self) -> usize {
        self.0.len()
    }

    /// Some of the rows.
    pub(super) fn range(self, rows: Range<usize>) -> Self {
        Self(self.0.get(rows).unwrap_or_default())
    }

    /// The rows whose keys are between these, both of them included.
    pub(super) fn between(self, first: u128, last: u128) -> Self {
        let end = self.0.partition_point(|row| parts(row).0 <= last);
        self.range(self.position(first)..end)
    }
}

fn parts(row: &[u8; HOT_ROW]) -> (u128, u64) {
    let (mut key, mut hot) = ([0; 16], [0; 8]);
    key.copy_from_slice(&row[..16]);
    hot.copy_from_slice(&row[16..]);
    (u128::from_be_bytes(key), u64::from_le_bytes(hot))
}

/// Records of a block.
#[derive(Clone, Copy)]
pub(super) struct ColdBlock<'b> {
    /// End and tag of each.
    heads: &'b [[u8; 4]],
    records: &'b [u8],
}

impl<'b> ColdBlock<'b> {
    /// `None` if the bytes are no block.
    pub(super) fn new(bytes: &'b [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (heads, records) = rest.split_at_checked(count.checked_mul(4)?)?;
        Some(Self { heads: heads.as_chunks().0, records })
    }

    pub(super) fn len(self) -> usize {
        self.heads.len()
    }

    pub(super) fn get(self, at: usize) -> Option<&'b [u8]> {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.end(before))?;
        // A record that is too long for its end to be told is alone in its block.
        let end = if at + 1 == self.len() { self.records.len() } else { self.end(at)? };
        self.records.get(start..end)
    }

    fn end(self, at: usize) -> Option<usize> {
        self.heads.get(at).map(|[low, high, ..]| usize::from(u16::from_le_bytes([*low, *high])))
    }

    /// The record of a row that is in this block; `None` if that cannot be told from here.
    pub(super) fn of(self, key: u128) -> Option<&'b [u8]> {
        let wanted = tag(key);
        let mut found = (0..).zip(self.heads).filter(|(_, [.., low, high])| [*low, *high] == wanted);
        let (at, _) = found.next()?;
        if found.next().is_some() { None } else { self.get(at) }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Option<&'b [u8]>> + 'b {
        (0..self.len()).map(move |at| self.get(at))
    }
}

fn tag(key: u128) -> [u8; 2] {
    let [.., first, second] = key.to_be_bytes();
    [first, second]
}

/// A whole block.
#[derive(Clone, Copy)]
pub(super) struct WholeBlock<'b> {
    hot: HotBlock<'b>,
    cold: ColdBlock<'b>,
}

impl<'b> WholeBlock<'b> {
    /// `None` if the bytes are no block.
    pub(super) fn new(bytes: &'b [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (hot, cold) = rest.split_at_checked(count.checked_mul(HOT_ROW)?)?;
        let (hot, cold) = (HotBlock::new(hot)?, ColdBlock::new(cold)?);
        (cold.len() == count).then_some(Self { hot, cold })
    }

    /// Where the row of this key is, if it is in this block.
    pub(super) fn find(self, key: u128) -> Option<usize> {
        let at = self.hot.position(key);
        self.hot.get(at).is_some_and(|(found, _)| found == key).then_some(at)
    }

    /// Whether rows of these keys, which are in their order, may be in this block.
    pub(super) fn overlaps(self, rows: &[Row<'_>]) -> bool {
        let end = self.len().checked_sub(1).and_then(|last| self.hot.get(last));
        let (Some((least, _)), Some((greatest, _))) = (self.hot.get(0), end) else { return false };
        rows.first().is_some_and(|row| row.key <= greatest) && rows.last().is_some_and(|row| row.key >= least)
    }

    pub(super) fn len(self) -> usize {
        self.cold.len()
    }

    /// All rows; `None` for one that is damaged.
    pub(super) fn iter(self) -> impl Iterator<Item = Option<Row<'b>>> + 'b {
        (0..self.len()).map(move |at| self.get(at))
    }

    /// `None` if the row is damaged.
    pub(super) fn get(self, at: usize) -> Option<Row<'b>> {
        let ((key, hot), record) = (self.hot.get(at)?, self.cold.get(at)?);
        Some(Row { key, hot, record })
    }
}

pub(super) fn hot_block(rows: &[Row<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * HOT_ROW);
    write_hot(&mut bytes, rows);
    bytes
}

pub(super) fn cold_block(rows: &[Row<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.iter().map(cold_bytes).sum::<usize>() + COLD_HEAD);
    write_cold(&mut bytes, rows);
    bytes
}

pub(super) fn whole_block(rows: &[Row<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.iter().map(whole_bytes).sum::<usize>() + WHOLE_HEAD);
    write_count(&mut bytes, rows);
    write_hot(&mut bytes, rows);
    write_cold(&mut bytes, rows);
    bytes
}

fn write_hot(bytes: &mut Vec<u8>, rows: &[Row<'_>]) {
    for row in rows {
        bytes.extend_from_slice(&row.key.to_be_bytes());
        bytes.extend_from_slice(&row.hot.to_le_bytes());
    }
}

fn write_count(bytes: &mut Vec<u8>, rows: &[Row<'_>]) {
    // A block has few rows.
    bytes.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
}

fn write_cold(bytes: &mut Vec<u8>, rows: &[Row<'_>]) {
    write_count(bytes, rows);
    let mut end = 0;
    for row in rows {
        end += row.record.len();
        // Of the last one the end is not asked for.
        bytes.extend_from_slice(&u16::try_from(end).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&tag(row.key));
    }
    for row in rows {
        bytes.extend_from_slice(row.record);
    }
}

fn cold_bytes(row: &Row<'_>) -> usize {
    row.record.len() + 4
}

fn whole_bytes(row: &Row<'_>) -> usize {
    HOT_ROW + cold_bytes(row)
}

/// How rows that stood in one block are put into blocks. `is_last`: nothing stands behind them, so what comes next is likely
/// to go behind them, too.
pub(super) fn hot_ranges(rows: &[Row<'_>], is_last: bool) -> Vec<Range<usize>> {
    let fits = rows.len() <= HOT_FULL;
    let even = rows.len().div_ceil(rows.len().div_ceil(HOT_FILL).max(1));
    let (mut ranges, mut start) = (Vec::new(), 0);
    while start < rows.len() {
        let rest = &rows[start..];
        let many = if fits {
            rest.len()
        } else if is_last {
            filled(rest)
        } else {
            rest.len().min(even)
        };
        ranges.push(start..start + many);
        start += many;
    }
    ranges
}

/// How many of these rows are put into one hot block: no more than it has room for, and fewer if the last of its cold blocks
/// would have next to nothing and yet a page of its own.
fn filled(rows: &[Row<'_>]) -> usize {
    if rows.len() <= HOT_FILL {
        return rows.len();
    }
    // With one row more, so that what follows the last cold block that is full is a block, too.
    let cold = cold_ranges(&rows[..=HOT_FILL]);
    let full = cold.len() - 1;
    let fewer = cold.last().map_or(0, |last| last.start);
    if (HOT_PAGES + full) * HOT_FILL <= (HOT_PAGES + full + 1) * fewer { fewer } else { HOT_FILL }
}

/// How the rows of a hot block are put into cold blocks.
pub(super) fn cold_ranges(rows: &[Row<'_>]) -> Vec<Range<usize>> {
    ranges(rows, cold_bytes, COLD_BYTES - COLD_HEAD)
}

/// How rows are put into whole blocks of so many pages. `is_last`: nothing stands behind them, so what comes next is likely to
/// go behind them, too; else each block gets about as much, so that each has room for what comes next.
pub(super) fn whole_ranges(rows: &[Row<'_>], pages: usize, is_last: bool) -> Vec<Range<usize>> {
    let most = pages * 4096 - ENGINE - WHOLE_HEAD;
    let all: usize = rows.iter().map(whole_bytes).sum();
    let longest = rows.iter().map(whole_bytes).max().unwrap_or_default();
    // With one row more than its part, so that no last block is left for a row or two.
    let even = all / all.div_ceil(most).max(1) + longest;
    ranges(rows, whole_bytes, if is_last { most } else { even.min(most) })
}

/// Rows in order, in ranges that have so many bytes at most, or one row.
fn ranges(rows: &[Row<'_>], bytes_of: impl Fn(&Row<'_>) -> usize, most: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, row) in rows.iter().enumerate() {
        if at > start && bytes + bytes_of(row) > most {
            ranges.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += bytes_of(row);
    }
    if start < rows.len() {
        ranges.push(start..rows.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_found() {
        let records: Vec<Vec<u8>> = (0_u8..200).map(|row| vec![row; usize::from(row % 7)]).collect();
        let rows: Vec<Row<'_>> =
            (0..).zip(&records).map(|(number, record)| Row { key: 3 * number + 1, hot: 7, record }).collect();
        let (hot, cold) = (hot_block(&rows), cold_block(&rows));
        let (hot, cold) = (HotBlock::new(&hot).unwrap(), ColdBlock::new(&cold).unwrap());
        assert_eq!(
            hot.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            rows.iter().map(|row| row.key).collect::<Vec<_>>()
        );
        for (at, row) in rows.iter().enumerate() {
            assert_eq!((hot.position(row.key), hot.get(at)), (at, Some((row.key, 7))));
            assert_eq!(hot.position(row.key + 1), at + 1);
            assert_eq!(cold.get(at), Some(row.record));
            assert_eq!(cold.of(row.key), Some(row.record));
        }
        assert_eq!(cold.get(rows.len()), None);
        assert_eq!(cold.of(2), None);
    }

    #[test]
    fn rows_between_two_keys_are_those_from_the_one_to_the_other() {
        let rows: Vec<Row<'_>> =
            (1..=9).map(|number| Row { key: 10 * number, hot: 7, record: b"" }).collect();
        let bytes = hot_block(&rows);
        let block = HotBlock::new(&bytes).unwrap();
        let between = |first, last| block.between(first, last).iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(between(20, 40), [20, 30, 40]);
        assert_eq!(between(21, 39), [30]);
        assert_eq!(between(0, 10), [10]);
        assert_eq!(between(90, u128::MAX), [90]);
        assert!(between(0, 9).is_empty() && between(91, 100).is_empty() && between(31, 39).is_empty());
        assert_eq!(HotBlock::new(&[]).unwrap().between(0, u128::MAX).len(), 0);
    }

    #[test]
    fn a_whole_block_has_all_of_its_rows_and_the_deleted_ones() {
        let records = [&b"first"[..], b"", b"third"];
        let rows: Vec<Row<'_>> =
            (1..).zip(records).map(|(number, record)| Row { key: 2 * number, hot: 7, record }).collect();
        let bytes = whole_block(&rows);
        let block = WholeBlock::new(&bytes).unwrap();
        assert_eq!((block.len(), block.iter().flatten().collect::<Vec<_>>()), (3, rows.clone()));
        assert_eq!(block.find(4).and_then(|at| block.get(at)), Some(rows[1]));
        assert!(rows[1].is_deleted() && !rows[2].is_deleted());
        assert_eq!(block.find(5), None);
        for length in 0..bytes.len() {
            // A record that is cut is shorter, which is for its own format to find; nothing else is taken for a block.
            let cut = WholeBlock::new(&bytes[..length]);
            assert!(cut.is_none_or(|block| length >= bytes.len() - 15 && block.len() == 3), "{length}");
        }
    }

    #[test]
    fn whole_blocks_fit_into_their_pages_and_share_the_rows_evenly_unless_more_are_to_follow() {
        let record = vec![0; 4000];
        let lengths: [fn(usize) -> usize; 3] = [|_| 100, |number| number % 300, |number| 3000 + number % 900];
        for (pages, count) in
            [(RECENT_PAGES, 1), (RECENT_PAGES, 60), (RECENT_PAGES, 5000), (JOURNAL_PAGES, 5000)]
        {
            for length in lengths {
                let row = |number| Row { key: number as u128, hot: 0, record: &record[..length(number)] };
                let rows: Vec<Row<'_>> = (0..count).map(row).collect();
                for is_last in [false, true] {
                    let ranges = whole_ranges(&rows, pages, is_last);
                    assert!(ranges.iter().cloned().flatten().eq(0..rows.len()));
                    let sizes: Vec<_> =
                        ranges.iter().map(|range| whole_block(&rows[range.clone()]).len()).collect();
                    assert!(sizes.iter().all(|size| *size <= pages * 4096 - ENGINE));
                    let smallest = sizes.iter().min().copied().unwrap_or_default();
                    assert!(is_last || sizes.len() != 2 || smallest > 1500, "{sizes:?}");
                    // Of blocks that are nearly full the last one gets what is left.
                    let full = sizes.iter().filter(|size| **size * 2 > pages * 4096).count();
                    assert!(full + 1 >= sizes.len(), "{sizes:?}");
                }
            }
        }
        assert_eq!(whole_ranges(&[], RECENT_PAGES, false), []);
    }

    #[test]
    fn a_row_that_shares_its_tag_is_not_told_from_the_other() {
        let rows = [1, 2, 1 | 1 << 16].map(|key| Row { key, hot: 0, record: b"record" });
        let cold = cold_block(&rows);
        let cold = ColdBlock::new(&cold).unwrap();
        assert_eq!((cold.of(1), cold.of(2)), (None, Some(&b"record"[..])));
    }

    #[test]
    fn a_record_that_is_longer_than_its_end_can_tell_has_a_block_of_its_own() {
        let records = [vec![1; 3], vec![2; 1 << 17], vec![3; 5]];
        let rows: Vec<Row<'_>> =
            (0..).zip(&records).map(|(key, record)| Row { key, hot: 0, record }).collect();
        for range in cold_ranges(&rows) {
            let block = cold_block(&rows[range.clone()]);
            let records: Vec<_> = ColdBlock::new(&block).unwrap().iter().flatten().collect();
            assert_eq!(records, rows[range].iter().map(|row| row.record).collect::<Vec<_>>());
        }
    }

    #[test]
    fn ranges_cover_all_rows_once_and_fit_into_pages() {
        let record = vec![0; 5000];
        let lengths: [fn(usize) -> usize; 3] = [|_| 0, |number| number % 300, |number| 3900 + number % 300];
        for count in [0, 1, 100, HOT_FILL, HOT_FILL + 1, HOT_FULL, HOT_FULL + 1, 2 * HOT_FULL, 5000] {
            for length in lengths {
                let row = |number| Row { key: number as u128, hot: 0, record: &record[..length(number)] };
                let rows: Vec<Row<'_>> = (0..count).map(row).collect();
                for is_last in [false, true] {
                    let ranges = hot_ranges(&rows, is_last);
                    assert!(ranges.iter().cloned().flatten().eq(0..rows.len()));
                    for range in ranges {
                        let rows = &rows[range];
                        assert!(hot_block(rows).len() <= HOT_BYTES);
                        let ranges = cold_ranges(rows);
                        assert!(ranges.iter().cloned().flatten().eq(0..rows.len()));
                        let fits = |rows: &[Row<'_>]| rows.len() == 1 || cold_block(rows).len() <= COLD_BYTES;
                        assert!(ranges.into_iter().all(|range| fits(&rows[range])));
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_come_in_order_leave_little_of_their_pages_empty() {
        for length in [60, 75, 90, 105, 200, 500] {
            let record = vec![0; length];
            let rows: Vec<Row<'_>> = (0..10_000).map(|key| Row { key, hot: 0, record: &record }).collect();
            let pages: usize = hot_ranges(&rows, true)
                .into_iter()
                .map(|range| HOT_PAGES + cold_ranges(&rows[range]).len())
                .sum();
            let content = rows.len() * (HOT_ROW + 4 + length);
            assert!(pages * 4096 * 100 <= content * 112, "{length}: {pages} pages for {content} bytes");
        }
    }
}
