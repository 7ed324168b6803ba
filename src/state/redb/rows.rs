//! The rows of a state in its tables: those that were written lately one by one, all others in blocks.
//!
//! A run writes each of its rows twice, before it sends them and after. Both times they go into a small table of recent
//! rows, where neighbours share a page; into their blocks they are put later and many at once, a stretch with each commit. So
//! a commit costs what its own rows cost, however many rows the state has.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::blocks::{self, ColdBlock, HotBlock, Row};
use crate::{
    fingerprint::{KeyHash, RowFingerprint},
    state::RowState,
};

/// Key hash to hot value and record of a row that was written lately; nothing, if it was deleted.
pub(super) const RECENT: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("recent");
/// The least key hash that belongs into a block, 0 for the first, to its rows' key hashes and hot values.
pub(super) const HOT: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("hot");
/// The first key hash of a block to its records. Those of one hot block may be several, and never belong to two.
pub(super) const COLD: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("cold");

/// Recent rows before any is put into a block.
pub(super) const RECENT_MIN: u64 = 16 * 1024;
/// One recent row to so many in blocks.
pub(super) const BLOCKED_TO_RECENT: u64 = 16;
/// Recent rows that are put into one block at once.
const AT_ONCE: usize = 16 * 1024;

/// Why rows were not read or written.
pub(super) enum Failure {
    Engine(redb::Error),
    /// What is there cannot be rows.
    Damaged,
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// The rows of these keys.
pub(super) fn load(state: &ReadTransaction, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
    let recent = state.open_table(RECENT)?;
    let (hot, cold) = (state.open_table(HOT)?, state.open_table(COLD)?);
    let mut blocks = Blocks { hot, cold, last_hot: None, last_cold: None };
    // In the order of the file each of its pages is read once.
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&index| keys[index]);
    let mut rows = vec![None; keys.len()];
    for index in order {
        let key = keys[index].to_u128();
        rows[index] = match recent.get(key)? {
            Some(row) => recent_row(row.value())?,
            None => blocks.row(key)?,
        };
    }
    Ok(rows)
}

/// What the table of recent rows says of a row; `None` if that it was deleted.
fn recent_row(bytes: &[u8]) -> Result<Option<RowState>> {
    recent_parts(bytes)?.map(|(hot, record)| row(u64::from_le_bytes(*hot), record)).transpose()
}

/// Hot value and record; `None` if the row was deleted, which is not the same as damaged.
fn recent_parts(bytes: &[u8]) -> Result<Option<(&[u8; 8], &[u8])>> {
    if bytes.is_empty() { Ok(None) } else { bytes.split_first_chunk().ok_or(Failure::Damaged).map(Some) }
}

fn row(hot: u64, record: &[u8]) -> Result<RowState> {
    RowState::from_bytes(RowFingerprint::from_u64(hot), record.to_vec()).map_err(|_| Failure::Damaged)
}

/// Looks rows up in blocks, of which it keeps the last ones: of many keys in order, some are in the same.
struct Blocks<T> {
    hot: T,
    cold: T,
    last_hot: Option<(u128, Value)>,
    last_cold: Option<(u128, Value)>,
}

type Value = redb::AccessGuard<'static, &'static [u8]>;

impl Blocks<redb::ReadOnlyTable<u128, &'static [u8]>> {
    fn row(&mut self, key: u128) -> Result<Option<RowState>> {
        let reaches =
            |block: &Value| HotBlock::new(block.value()).is_some_and(|rows| rows.last() >= Some(key));
        if !self.last_hot.as_ref().is_some_and(|(lower, block)| *lower <= key && reaches(block)) {
            self.last_hot =
                self.hot.range(..=key)?.next_back().transpose()?.map(|(lower, block)| (lower.value(), block));
        }
        let Some((_, block)) = &self.last_hot else { return Ok(None) };
        let rows = HotBlock::new(block.value()).ok_or(Failure::Damaged)?;
        let at = rows.position(key);
        let Some((_, print)) = rows.get(at).filter(|(found, _)| *found == key) else { return Ok(None) };

        // Where the row stands in the block of records that begins with this one.
        let place = |first: u128| {
            let start = rows.position(first);
            rows.get(start).filter(|(key, _)| *key == first)?;
            at.checked_sub(start)
        };
        let record = |block: &Option<(u128, Value)>| {
            let (first, block) = block.as_ref()?;
            Some(row(print, ColdBlock::new(block.value())?.get(place(*first)?)?))
        };
        if let Some(row) = record(&self.last_cold) {
            return row.map(Some);
        }
        self.last_cold =
            self.cold.range(..=key)?.next_back().transpose()?.map(|(first, block)| (first.value(), block));
        record(&self.last_cold).ok_or(Failure::Damaged)?.map(Some)
    }
}

/// Key hashes and hot values of the rows between two key hashes, both of them included.
pub(super) fn scan(
    state: &ReadTransaction,
    first: u128,
    last: u128,
) -> Result<Vec<(KeyHash, RowFingerprint)>> {
    let (recent, hot) = (state.open_table(RECENT)?, state.open_table(HOT)?);
    let mut recent = recent.range(first..=last)?;
    let mut next_recent = || -> Result<Option<(u128, Option<u64>)>> {
        let Some((key, row)) = recent.next().transpose()? else { return Ok(None) };
        let hot = recent_parts(row.value())?.map(|(hot, _)| u64::from_le_bytes(*hot));
        Ok(Some((key.value(), hot)))
    };
    let mut newer = next_recent()?;
    let mut rows = Vec::new();
    let mut push = |key: u128, hot: Option<u64>| {
        rows.extend(hot.map(|hot| (KeyHash::from_u128(key), RowFingerprint::from_u64(hot))));
    };
    // The block that begins before the first key may reach into the range.
    let start = hot.range(..=first)?.next_back().transpose()?.map_or(first, |(lower, _)| lower.value());
    for block in hot.range(start..=last)? {
        let (_, block) = block?;
        let block = HotBlock::new(block.value()).ok_or(Failure::Damaged)?;
        for (key, hot) in block.iter() {
            if key < first {
                continue;
            }
            if key > last {
                break;
            }
            while let Some((new, hot)) = newer
                && new < key
            {
                push(new, hot);
                newer = next_recent()?;
            }
            match newer {
                Some((new, hot)) if new == key => {
                    push(key, hot);
                    newer = next_recent()?;
                }
                _ => push(key, Some(hot)),
            }
        }
    }
    while let Some((new, hot)) = newer {
        push(new, hot);
        newer = next_recent()?;
    }
    Ok(rows)
}

/// Writes rows; if there are more recent ones than `recent_max` by then, some are put into their blocks: from `cursor` on,
/// which moves.
pub(super) fn write<'r>(
    transaction: &WriteTransaction,
    rows: impl Iterator<Item = (KeyHash, Option<&'r RowState>)>,
    recent_max: u64,
    cursor: &mut u128,
) -> Result<()> {
    let mut recent = transaction.open_table(RECENT)?;
    let (mut hot, mut cold) = (transaction.open_table(HOT)?, transaction.open_table(COLD)?);
    let (mut written, mut bytes) = (0_usize, Vec::new());
    for (key, row) in rows {
        bytes.clear();
        if let Some(row) = row {
            bytes.extend_from_slice(&row.fingerprint().to_u64().to_le_bytes());
            bytes.extend_from_slice(row.as_bytes());
        }
        recent.insert(key.to_u128(), &*bytes)?;
        written += 1;
    }
    // Twice as many as came, so that they become fewer.
    let mut to_move = 2 * written;
    while to_move > 0 && recent.len()? > recent_max {
        let moved = settle(&mut recent, &mut hot, &mut cold, *cursor)?;
        *cursor = moved.next;
        to_move = to_move.saturating_sub(moved.rows.max(1));
    }
    Ok(())
}

struct Moved {
    rows: usize,
    /// Where to go on.
    next: u128,
}

type Table<'t> = redb::Table<'t, u128, &'static [u8]>;

/// Puts the recent rows of one block into it: of the first one from `cursor` on that has any.
fn settle(recent: &mut Table<'_>, hot: &mut Table<'_>, cold: &mut Table<'_>, cursor: u128) -> Result<Moved> {
    let Some(first) = recent.range(cursor..)?.next().transpose()?.map(|(key, _)| key.value()) else {
        return Ok(Moved { rows: 0, next: 0 });
    };
    let lower = hot.range(..=first)?.next_back().transpose()?.map_or(0, |(lower, _)| lower.value());
    let upper = match lower.checked_add(1) {
        Some(behind) => hot.range(behind..)?.next().transpose()?.map(|(upper, _)| upper.value()),
        None => None,
    };
    let last = upper.map_or(u128::MAX, |upper| upper - 1);
    let mut newer = Vec::new();
    for row in recent.range(first..=last)?.take(AT_ONCE) {
        let (key, row) = row?;
        newer.push((key.value(), row.value().to_vec()));
    }
    let Some((until, _)) = newer.last() else { return Ok(Moved { rows: 0, next: 0 }) };
    let until = *until;

    let before = hot.get(lower)?.map(|block| block.value().to_vec()).unwrap_or_default();
    let before = HotBlock::new(&before).ok_or(Failure::Damaged)?;
    let mut records = Vec::new();
    let mut firsts = Vec::new();
    for block in cold.range(lower..=last)? {
        let (key, block) = block?;
        firsts.push(key.value());
        records.push(block.value().to_vec());
    }
    let records: Option<Vec<ColdBlock<'_>>> = records.iter().map(|block| ColdBlock::new(block)).collect();
    let mut records = records.ok_or(Failure::Damaged)?.into_iter().flat_map(ColdBlock::iter);

    let mut rows = Vec::new();
    let newer_rows: Result<Vec<_>> = newer.iter().map(|(key, row)| Ok((*key, recent_parts(row)?))).collect();
    let mut newer_rows = newer_rows?.into_iter().peekable();
    let mut push = |key, row: Option<(&[u8; 8], _)>| {
        rows.extend(row.map(|(hot, record)| Row { key, hot: u64::from_le_bytes(*hot), record }));
    };
    let mut older = Vec::new();
    for (key, hot) in before.iter() {
        let record = records.next().flatten().ok_or(Failure::Damaged)?;
        older.push((key, hot.to_le_bytes(), record));
    }
    for (key, hot, record) in &older {
        while let Some((new, row)) = newer_rows.next_if(|(new, _)| new < key) {
            push(new, row);
        }
        match newer_rows.next_if(|(new, _)| new == key) {
            Some((_, row)) => push(*key, row),
            None => push(*key, Some((hot, *record))),
        }
    }
    newer_rows.for_each(|(new, row)| push(new, row));

    for first in firsts {
        cold.remove(first)?;
    }
    let mut ranges = blocks::hot_ranges(rows.len(), upper.is_none());
    if ranges.is_empty() {
        // The first block stays, so that every key has one.
        ranges.extend((lower == 0).then_some(0..0));
        hot.remove(lower)?;
    }
    for (index, range) in ranges.into_iter().enumerate() {
        let rows = &rows[range];
        let key = if index == 0 { lower } else { rows.first().map_or(lower, |row| row.key) };
        hot.insert(key, &*blocks::hot_block(rows))?;
        for range in blocks::cold_ranges(rows) {
            let rows = &rows[range];
            if let Some(first) = rows.first() {
                cold.insert(first.key, &*blocks::cold_block(rows))?;
            }
        }
    }
    recent.retain_in(first..=until, |_, _| false)?;
    Ok(Moved { rows: newer.len(), next: until.checked_add(1).unwrap_or(0) })
}
