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

/// Rows that a hot block has room for.
const HOT_FULL: usize = HOT_BYTES / HOT_ROW;
/// Rows that are put into it where the next row does not have to go into it: it has room for those to come.
const HOT_FILL: usize = HOT_FULL / 10 * 9;

/// A row as a block has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'b> {
    pub(super) key: u128,
    pub(super) hot: u64,
    pub(super) record: &'b [u8],
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

    pub(super) fn iter(self) -> impl Iterator<Item = (u128, u64)> + 'b {
        self.0.iter().map(parts)
    }

    /// Where the first key stands that is not below `key`.
    pub(super) fn position(self, key: u128) -> usize {
        self.0.partition_point(|row| parts(row).0 < key)
    }

    pub(super) fn get(self, at: usize) -> Option<(u128, u64)> {
        self.0.get(at).map(parts)
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

pub(super) fn hot_block(rows: &[Row<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * HOT_ROW);
    for row in rows {
        bytes.extend_from_slice(&row.key.to_be_bytes());
        bytes.extend_from_slice(&row.hot.to_le_bytes());
    }
    bytes
}

pub(super) fn cold_block(rows: &[Row<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.iter().map(|row| cold_bytes(row)).sum::<usize>() + COLD_HEAD);
    // A block has few rows.
    bytes.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
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
    bytes
}

fn cold_bytes(row: &Row<'_>) -> usize {
    row.record.len() + 4
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
    let (mut ranges, mut start, mut bytes) = (Vec::new(), 0, COLD_HEAD);
    for (at, row) in rows.iter().enumerate() {
        if at > start && bytes + cold_bytes(row) > COLD_BYTES {
            ranges.push(start..at);
            (start, bytes) = (at, COLD_HEAD);
        }
        bytes += cold_bytes(row);
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
