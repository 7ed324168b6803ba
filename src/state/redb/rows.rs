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
/// The greatest key hash that belongs into a block, of the last block the greatest there is, to its rows' key hashes and hot
/// values. By its greatest key a block is found with one look; by its least the engine would look at the one behind it, too.
pub(super) const HOT: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("hot");
/// The last key hash of a block to its records. Those of one hot block may be several, and never belong to two.
pub(super) const COLD: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("cold");

/// Recent rows that are left where they are in any state, and as many again while a run writes.
pub(super) const RECENT_MIN: u64 = 4 * 1024;
/// One recent row to so many in blocks.
const BLOCKED_TO_RECENT: u64 = 16;
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

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Where key hashes of recent rows lie: to ask here costs less than to look for a row that is in its block.
#[derive(Debug)]
pub(super) struct RecentKeys {
    bits: Vec<u64>,
    /// How far a key hash is shifted to be the number of its bit.
    shift: u32,
}

impl RecentKeys {
    /// With room for so many, of which none is there yet.
    pub(super) fn with_room(rows: u64) -> Self {
        // One bit in sixteen is set, at most: so often a row is looked for that is not there.
        let bits = rows.saturating_mul(16).clamp(64, 1 << 32).next_power_of_two();
        Self { bits: vec![0; usize::try_from(bits / 64).unwrap_or(0)], shift: 128 - bits.trailing_zeros() }
    }

    pub(super) fn insert(&mut self, key: u128) {
        let (word, bit) = self.place(key);
        if let Some(word) = self.bits.get_mut(word) {
            *word |= bit;
        }
    }

    /// Whether this may be the key hash of a recent row.
    fn may_have(&self, key: u128) -> bool {
        let (word, bit) = self.place(key);
        self.bits.get(word).is_none_or(|word| word & bit != 0)
    }

    fn place(&self, key: u128) -> (usize, u64) {
        let number = key >> self.shift;
        (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
    }
}

/// A row that is looked for. One that a scan has found is there with this hot value.
pub(super) type Wanted = (KeyHash, Option<RowFingerprint>);

/// The rows of these keys. `recent_keys` must be those of this very state.
pub(super) fn load(
    state: &ReadTransaction,
    wanted: &[Wanted],
    recent_keys: Option<&RecentKeys>,
) -> Result<Vec<Option<RowState>>> {
    let (recent, mut blocks) = (Recent::new(state, recent_keys)?, Blocks::new(state)?);
    in_order(
        wanted,
        |(key, _)| *key,
        |&(key, scanned)| {
            if let Some(row) = recent.row(key.to_u128())? {
                return recent_row(row.value());
            }
            match scanned.map(|print| blocks.scanned_row(key.to_u128(), print)).transpose()?.flatten() {
                Some(row) => Ok(Some(row)),
                None => blocks.row(key.to_u128()),
            }
        },
    )
}

/// The hot values of the rows of these keys.
pub(super) fn load_fingerprints(
    state: &ReadTransaction,
    wanted: &[KeyHash],
    recent_keys: Option<&RecentKeys>,
) -> Result<Vec<Option<RowFingerprint>>> {
    let (recent, mut blocks) = (Recent::new(state, recent_keys)?, Blocks::new(state)?);
    let hot = |key: &KeyHash| match recent.row(key.to_u128())? {
        Some(row) => Ok(recent_parts(row.value())?.map(|(hot, _)| u64::from_le_bytes(*hot))),
        None => Ok(blocks.hot(key.to_u128())?.map(|(_, hot)| hot)),
    };
    let found = in_order(wanted, |key| *key, hot)?;
    Ok(found.into_iter().map(|hot| hot.map(RowFingerprint::from_u64)).collect())
}

/// Looks at each in the order of the file, so that each of its pages is read once.
fn in_order<W, T>(
    wanted: &[W],
    key: impl Fn(&W) -> KeyHash,
    mut look: impl FnMut(&W) -> Result<Option<T>>,
) -> Result<Vec<Option<T>>> {
    let mut order: Vec<(usize, &W)> = wanted.iter().enumerate().collect();
    order.sort_unstable_by_key(|(_, wanted)| key(wanted));
    let mut found: Vec<Option<T>> = wanted.iter().map(|_| None).collect();
    for (at, wanted) in order {
        found[at] = look(wanted)?;
    }
    Ok(found)
}

/// Looks rows up among the recent ones.
struct Recent<'k> {
    table: redb::ReadOnlyTable<u128, &'static [u8]>,
    keys: Option<&'k RecentKeys>,
}

impl<'k> Recent<'k> {
    fn new(state: &ReadTransaction, keys: Option<&'k RecentKeys>) -> Result<Self> {
        Ok(Self { table: state.open_table(RECENT)?, keys })
    }

    fn row(&self, key: u128) -> Result<Option<Value>> {
        let may_be_recent = self.keys.is_none_or(|keys| keys.may_have(key));
        Ok(if may_be_recent { self.table.get(key)? } else { None })
    }
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

/// Looks rows up in blocks, in the order of their keys. It keeps the last blocks: some rows are in the same.
struct Blocks {
    hot: redb::ReadOnlyTable<u128, &'static [u8]>,
    cold: redb::ReadOnlyTable<u128, &'static [u8]>,
    last_hot: Option<(u128, Value)>,
    last_cold: Option<(u128, Value)>,
}

type Value = redb::AccessGuard<'static, &'static [u8]>;

impl Blocks {
    fn new(state: &ReadTransaction) -> Result<Self> {
        let (hot, cold) = (state.open_table(HOT)?, state.open_table(COLD)?);
        Ok(Self { hot, cold, last_hot: None, last_cold: None })
    }

    /// Where a row is in its hot block, and its hot value.
    fn hot(&mut self, key: u128) -> Result<Option<(usize, u64)>> {
        if self.last_hot.as_ref().is_none_or(|(upper, _)| key > *upper) {
            self.last_hot = block_of(&self.hot, key)?;
        }
        let Some(rows) = hot_rows(self.last_hot.as_ref())? else { return Ok(None) };
        let at = rows.position(key);
        Ok(rows.get(at).filter(|(found, _)| *found == key).map(|(_, hot)| (at, hot)))
    }

    fn row(&mut self, key: u128) -> Result<Option<RowState>> {
        let Some((at, print)) = self.hot(key)? else { return Ok(None) };
        let Some(rows) = hot_rows(self.last_hot.as_ref())? else { return Ok(None) };
        let record = |block: &Option<(u128, Value)>| {
            let (last, block) = block.as_ref()?;
            let block = ColdBlock::new(block.value())?;
            let end = rows.position(*last);
            rows.get(end).filter(|(key, _)| key == last)?;
            Some(row(print, block.get((at + block.len()).checked_sub(end + 1)?)?))
        };
        if let Some(row) = record(&self.last_cold) {
            return row.map(Some);
        }
        self.last_cold = block_of(&self.cold, key)?;
        record(&self.last_cold).ok_or(Failure::Damaged)?.map(Some)
    }

    /// A row that is there with this hot value; `None` if it cannot be told from others without its hot block.
    fn scanned_row(&mut self, key: u128, print: RowFingerprint) -> Result<Option<RowState>> {
        if self.last_cold.as_ref().is_none_or(|(last, _)| key > *last) {
            self.last_cold = block_of(&self.cold, key)?;
        }
        let Some((_, block)) = &self.last_cold else { return Ok(None) };
        let block = ColdBlock::new(block.value()).ok_or(Failure::Damaged)?;
        block.of(key).map(|record| row(print.to_u64(), record)).transpose()
    }
}

fn hot_rows(block: Option<&(u128, Value)>) -> Result<Option<HotBlock<'_>>> {
    block.map(|(_, block)| HotBlock::new(block.value()).ok_or(Failure::Damaged)).transpose()
}

/// The block to which a key belongs, by the greatest key of it.
fn block_of(table: &redb::ReadOnlyTable<u128, &'static [u8]>, key: u128) -> Result<Option<(u128, Value)>> {
    Ok(table.range(key..)?.next().transpose()?.map(|(upper, block)| (upper.value(), block)))
}

/// How many rows are recent.
pub(super) fn recent_rows(state: &ReadTransaction) -> Result<u64> {
    Ok(state.open_table(RECENT)?.len()?)
}

/// Key hashes and hot values of the rows between two key hashes, both of them included. The keys of recent rows among them
/// are added to `recent_keys`.
pub(super) fn scan(
    state: &ReadTransaction,
    first: u128,
    last: u128,
    recent_keys: &mut Vec<u128>,
) -> Result<Vec<(KeyHash, RowFingerprint)>> {
    let (recent, hot) = (state.open_table(RECENT)?, state.open_table(HOT)?);
    let mut recent = recent.range(first..=last)?;
    let mut next_recent = || -> Result<Option<(u128, Option<u64>)>> {
        let Some((key, row)) = recent.next().transpose()? else { return Ok(None) };
        let hot = recent_parts(row.value())?.map(|(hot, _)| u64::from_le_bytes(*hot));
        recent_keys.push(key.value());
        Ok(Some((key.value(), hot)))
    };
    let mut newer = next_recent()?;
    // Chunks have about as many; room that no row comes for is never touched.
    let mut rows = Vec::with_capacity(super::CHUNK);
    let mut push = |key: u128, hot: Option<u64>| {
        rows.extend(hot.map(|hot| (KeyHash::from_u128(key), RowFingerprint::from_u64(hot))));
    };
    for block in hot.range(first..)? {
        let (upper, block) = block?;
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
        if upper.value() >= last {
            break;
        }
    }
    while let Some((new, hot)) = newer {
        push(new, hot);
        newer = next_recent()?;
    }
    Ok(rows)
}

/// The number of recent rows above which a commit puts some into blocks.
///
/// What two commits in a row replace takes room on the disk, so in a small state not both should replace many blocks: rows that
/// a run writes are left to a commit that has none, as the one is that takes hold of the state.
#[derive(Clone, Copy)]
pub(super) struct RecentMax {
    rows: u64,
    /// So many more where the commit writes rows itself; and so many are put into blocks by one that does not.
    spare: u64,
}

impl RecentMax {
    /// Of a state of so many rows.
    pub(super) fn new(rows: u64, recent_min: u64) -> Self {
        Self { rows: recent_min.max(rows / BLOCKED_TO_RECENT), spare: recent_min }
    }
}

/// Writes rows; if there are too many recent ones by then, some are put into their blocks: from `cursor` on, which moves.
pub(super) fn write<'r>(
    transaction: &WriteTransaction,
    rows: impl Iterator<Item = (KeyHash, Option<&'r RowState>)>,
    recent_max: RecentMax,
    cursor: &mut u128,
) -> Result<()> {
    let mut recent = transaction.open_table(RECENT)?;
    let (mut hot, mut cold) = (transaction.open_table(HOT)?, transaction.open_table(COLD)?);
    let (mut written, mut bytes) = (0_u64, Vec::new());
    for (key, row) in rows {
        bytes.clear();
        if let Some(row) = row {
            bytes.extend_from_slice(&row.fingerprint().to_u64().to_le_bytes());
            bytes.extend_from_slice(row.as_bytes());
        }
        recent.insert(key.to_u128(), &*bytes)?;
        written += 1;
    }
    let (most, mut to_move) = match written {
        0 => (recent_max.rows, recent_max.spare),
        // Twice as many as came, so that they become fewer.
        _ => (recent_max.rows.saturating_add(recent_max.spare), 2 * written),
    };
    while to_move > 0 && recent.len()? > most {
        let moved = settle(&mut recent, &mut hot, &mut cold, *cursor)?;
        *cursor = moved.next;
        // A file that was altered may have none where it says that it has some.
        to_move = to_move.saturating_sub(moved.rows.max(1));
    }
    Ok(())
}

struct Moved {
    rows: u64,
    /// Where to go on.
    next: u128,
}

type Table<'t> = redb::Table<'t, u128, &'static [u8]>;

/// Puts the recent rows of one block into it: of the first one from `cursor` on that has any, or of the first one at all.
fn settle(recent: &mut Table<'_>, hot: &mut Table<'_>, cold: &mut Table<'_>, cursor: u128) -> Result<Moved> {
    let next = match recent.range(cursor..)?.next() {
        Some(next) => Some(next?),
        None => recent.first()?,
    };
    let Some(first) = next.map(|(key, _)| key.value()) else { return Ok(Moved { rows: 0, next: 0 }) };
    let block = hot.range(first..)?.next().transpose()?;
    let (upper, before) =
        block.map_or((u128::MAX, Vec::new()), |(upper, block)| (upper.value(), block.value().to_vec()));
    let before = HotBlock::new(&before).ok_or(Failure::Damaged)?;
    let mut newer = Vec::new();
    for row in recent.range(first..=upper)?.take(AT_ONCE) {
        let (key, row) = row?;
        newer.push((key.value(), row.value().to_vec()));
    }
    let Some((until, _)) = newer.last() else { return Ok(Moved { rows: 0, next: 0 }) };
    let until = *until;

    let mut records = Vec::new();
    let mut lasts = Vec::new();
    if let Some((least, _)) = before.get(0) {
        for block in cold.range(least..=upper)? {
            let (last, block) = block?;
            lasts.push(last.value());
            records.push(block.value().to_vec());
        }
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

    for last in lasts {
        cold.remove(last)?;
    }
    // If none of its rows is left, its keys belong into the next block.
    hot.remove(upper)?;
    for range in blocks::hot_ranges(&rows, upper == u128::MAX) {
        let is_last = range.end == rows.len();
        let rows = &rows[range];
        let Some(last) = rows.last() else { continue };
        hot.insert(if is_last { upper } else { last.key }, &*blocks::hot_block(rows))?;
        for range in blocks::cold_ranges(rows) {
            let rows = &rows[range];
            if let Some(last) = rows.last() {
                cold.insert(last.key, &*blocks::cold_block(rows))?;
            }
        }
    }
    recent.retain_in(first..=until, |_, _| false)?;
    Ok(Moved {
        rows: u64::try_from(newer.len()).unwrap_or(u64::MAX),
        next: until.checked_add(1).unwrap_or(0),
    })
}
