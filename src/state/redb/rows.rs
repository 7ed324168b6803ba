//! The rows of a state in its tables, all of them packed into blocks.
//!
//! A run writes each of its rows twice, before it sends them and after, and its inserts, updates and removals each go
//! through all key hashes, one kind ahead of the other. So what a commit writes goes
//!
//! 1. into the journal, as it is: as many bytes as the rows have;
//! 2. with the rows of some other commits among the recent rows, where neighbours share a small block;
//! 3. later and many at once, a stretch after the other, into the large blocks where most rows stay, hot values and records apart.
//!
//! Rows that lie close together, as those of a first run, pass the recent ones by, and the journal as well once nothing of
//! them is under way; and in a small state a commit of many rows passes the journal by. Whoever looks for a row looks there
//! in the same order, and the first that knows of it is right. The commit that gives the state back empties the journal. So a
//! commit costs what its own rows cost, however many rows the state has.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::{
    blocks::{self, ColdBlock, HotBlock, Row, WholeBlock},
    fault::Fault,
};
use crate::{
    fingerprint::{KeyHash, RowFingerprint},
    state::{RowState, ScannedRows},
};

/// Rows as they were written or deleted, block after block: of two with the same key hash the later one is right.
pub(super) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
/// The last key hash of a block of rows that were written or deleted lately, to these rows.
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
/// Rows in the state to one in the journal, or to one of a commit that goes there.
pub(super) const ROWS_TO_JOURNALED: u64 = 64;
/// The most rows in the journal before it takes more: a run need not wait while so many are moved on.
const JOURNAL_MAX: usize = 8 * 1024;
/// The most rows of a commit that goes there.
const JOURNALED_AT_ONCE: usize = 32 * 1024;
/// The most blocks of the journal, so that neither long records nor many small commits make it long.
const JOURNAL_BLOCKS_MAX: u64 = 256;
/// The fewest rows of which it can be said that they lie close together, and how many others each may have between it and the next.
const DENSE_MIN: usize = 32;
const DENSE_OTHERS: u128 = 2;
/// Rows that are merged with others at once, about.
const AT_ONCE: usize = 16 * 1024;

type Result<T> = std::result::Result<T, Fault>;

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
    let journal = journal_blocks(&state.open_table(JOURNAL)?)?;
    let newest = newest(&journal)?;
    let (mut recent, mut blocks) = (Recent::new(state, &newest, recent_keys)?, Blocks::new(state)?);
    in_order(
        wanted,
        |(key, _)| *key,
        |&(key, scanned)| {
            if let Some(found) = recent.row(key.to_u128())? {
                return (!found.is_deleted()).then(|| row(found.hot, found.record)).transpose();
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
    let journal = journal_blocks(&state.open_table(JOURNAL)?)?;
    let newest = newest(&journal)?;
    let (mut recent, mut blocks) = (Recent::new(state, &newest, recent_keys)?, Blocks::new(state)?);
    let hot = |key: &KeyHash| match recent.row(key.to_u128())? {
        Some(row) => Ok((!row.is_deleted()).then_some(row.hot)),
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

/// Looks rows up in the journal and among the recent ones, in the order of their keys. It keeps the last block.
struct Recent<'k> {
    newest: &'k [Row<'k>],
    table: redb::ReadOnlyTable<u128, &'static [u8]>,
    keys: Option<&'k RecentKeys>,
    last: Option<(u128, Value)>,
}

impl<'k> Recent<'k> {
    fn new(state: &ReadTransaction, newest: &'k [Row<'k>], keys: Option<&'k RecentKeys>) -> Result<Self> {
        Ok(Self { newest, table: state.open_table(RECENT)?, keys, last: None })
    }

    fn row(&mut self, key: u128) -> Result<Option<Row<'_>>> {
        if self.keys.is_some_and(|keys| !keys.may_have(key)) {
            return Ok(None);
        }
        if let Ok(at) = self.newest.binary_search_by_key(&key, |row| row.key) {
            return Ok(self.newest.get(at).copied());
        }
        if self.last.as_ref().is_none_or(|(last, _)| key > *last) {
            self.last = block_of(&self.table, key)?;
        }
        let Some((_, block)) = &self.last else { return Ok(None) };
        let block = WholeBlock::new(block.value()).ok_or(Fault::Damaged)?;
        block.find(key).map(|at| block.get(at).ok_or(Fault::Damaged)).transpose()
    }
}

fn row(hot: u64, record: &[u8]) -> Result<RowState> {
    RowState::from_bytes(RowFingerprint::from_u64(hot), record.to_vec()).map_err(|_| Fault::Damaged)
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
        record(&self.last_cold).ok_or(Fault::Damaged)?.map(Some)
    }

    /// A row that is there with this hot value; `None` if it cannot be told from others without its hot block.
    fn scanned_row(&mut self, key: u128, print: RowFingerprint) -> Result<Option<RowState>> {
        if self.last_cold.as_ref().is_none_or(|(last, _)| key > *last) {
            self.last_cold = block_of(&self.cold, key)?;
        }
        let Some((_, block)) = &self.last_cold else { return Ok(None) };
        let block = ColdBlock::new(block.value()).ok_or(Fault::Damaged)?;
        block.of(key).map(|record| row(print.to_u64(), record)).transpose()
    }
}

fn hot_rows(block: Option<&(u128, Value)>) -> Result<Option<HotBlock<'_>>> {
    block.map(|(_, block)| HotBlock::new(block.value()).ok_or(Fault::Damaged)).transpose()
}

/// The block to which a key belongs, by the greatest key of it.
fn block_of(table: &redb::ReadOnlyTable<u128, &'static [u8]>, key: u128) -> Result<Option<(u128, Value)>> {
    Ok(table.range(key..)?.next().transpose()?.map(|(upper, block)| (upper.value(), block)))
}

/// A key hash with its hot value; nothing, if the row was deleted.
pub(super) type Hot = (u128, Option<u64>);

fn hot(row: Row<'_>) -> Hot {
    (row.key, (!row.is_deleted()).then_some(row.hot))
}

/// What the journal has, in the order of the key hashes.
pub(super) fn journal(state: &ReadTransaction) -> Result<Vec<Hot>> {
    let journal = journal_blocks(&state.open_table(JOURNAL)?)?;
    Ok(newest(&journal)?.into_iter().map(hot).collect())
}

/// Adds to `rows` those between two key hashes, both of them included. The keys of recent rows among them are added to
/// `recent_keys`.
pub(super) fn scan(
    state: &ReadTransaction,
    journal: &[Hot],
    first: u128,
    last: u128,
    mut rows: ScannedRows,
    recent_keys: &mut Vec<u128>,
) -> Result<ScannedRows> {
    let mut recent = Vec::new();
    for block in state.open_table(RECENT)?.range(first..)? {
        let (upper, block) = block?;
        for row in WholeBlock::new(block.value()).ok_or(Fault::Damaged)?.iter() {
            let row = row.ok_or(Fault::Damaged)?;
            if (first..=last).contains(&row.key) {
                recent.push(hot(row));
            }
        }
        if upper.value() >= last {
            break;
        }
    }
    let start = journal.partition_point(|(key, _)| *key < first);
    let end = journal.partition_point(|(key, _)| *key <= last);
    let recent = merged(recent, &journal[start..end], |(key, _)| *key);
    recent_keys.extend(recent.iter().map(|(key, _)| key));

    let mut recent = recent.into_iter().peekable();
    for block in state.open_table(HOT)?.range(first..)? {
        let (upper, block) = block?;
        let block = HotBlock::new(block.value()).ok_or(Fault::Damaged)?.between(first, last);
        let mut next = 0;
        // Most blocks have no recent rows, and are taken as they are.
        while let Some((new, hot)) = recent.next_if(|(new, _)| *new <= upper.value()) {
            let at = block.position(new);
            rows.extend(block.range(next..at).iter().map(scanned));
            rows.extend(hot.map(|hot| scanned((new, hot))).into_iter());
            let is_in_block = block.get(at).is_some_and(|(key, _)| key == new);
            next = at + usize::from(is_in_block);
        }
        rows.extend(block.range(next..block.len()).iter().map(scanned));
        if upper.value() >= last {
            break;
        }
    }
    // Recent rows that stand behind the last block.
    rows.extend(recent.filter_map(|(new, hot)| Some(scanned((new, hot?)))));
    Ok(rows)
}

fn scanned((key, hot): (u128, u64)) -> (KeyHash, RowFingerprint) {
    (KeyHash::from_u128(key), RowFingerprint::from_u64(hot))
}

/// The numbers of rows in the journal and of recent ones above which a commit moves them on.
///
/// What two commits in a row replace takes room on the disk, so in a small state not both should replace many blocks: rows that
/// a run writes far apart are left to a commit that has none, as the one is that takes hold of the state.
#[derive(Clone, Copy)]
pub(super) struct RowsMax {
    journaled: usize,
    journaled_at_once: usize,
    recent: u64,
    /// So many more recent ones where the commit makes rows recent itself; and so many are put into blocks by one that does not.
    spare: u64,
    /// Rows in the state.
    rows: u64,
}

impl RowsMax {
    /// Of a state of so many rows.
    pub(super) fn new(rows: u64, recent_min: u64, rows_to_journaled: u64) -> Self {
        let journaled = usize::try_from(rows / rows_to_journaled).unwrap_or(usize::MAX);
        Self {
            journaled: journaled.min(JOURNAL_MAX),
            journaled_at_once: journaled.min(JOURNALED_AT_ONCE),
            recent: recent_min.max(rows / BLOCKED_TO_RECENT),
            spare: recent_min,
            rows,
        }
    }

    /// Whether these rows lie so close together that their blocks are written anew for little else.
    fn is_dense(&self, rows: &[Row<'_>]) -> bool {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return false };
        // Every key hash is as likely as any other.
        let others = (((last.key - first.key) >> 64) * u128::from(self.rows)) >> 64;
        rows.len() >= DENSE_MIN && others <= DENSE_OTHERS * rows.len() as u128
    }
}

/// What a state knows of its recent rows.
#[derive(Clone, Copy, Default)]
pub(super) struct RecentRows {
    /// How many there are.
    pub(super) count: u64,
    /// Rows of the journal, each as often as it is there.
    pub(super) journaled: u64,
    /// Where the recent rows are that are to be put into blocks next.
    next: u128,
}

impl RecentRows {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, bytes) = bytes.split_first_chunk()?;
        let (journaled, next) = bytes.split_first_chunk()?;
        Some(Self {
            count: u64::from_le_bytes(*count),
            journaled: u64::from_le_bytes(*journaled),
            next: u128::from_le_bytes(next.try_into().ok()?),
        })
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&self.count.to_le_bytes()[..], &self.journaled.to_le_bytes()[..], &self.next.to_le_bytes()[..]]
            .concat()
    }
}

type Table<'t> = redb::Table<'t, u128, &'static [u8]>;
/// A block as a table has it, with its key.
type Block = (u128, Vec<u8>);

/// Writes rows, which come in the order of their keys: into the journal, if more are to come that `may_stay` there. When it is
/// full, what was in it moves on, and so do some of the recent rows if there are too many by then.
pub(super) fn write<'r>(
    transaction: &WriteTransaction,
    rows: impl Iterator<Item = (KeyHash, Option<&'r RowState>)>,
    max: RowsMax,
    may_stay: bool,
    known: &mut RecentRows,
) -> Result<()> {
    let mut journal = transaction.open_table(JOURNAL)?;
    let mut tables = Tables {
        recent: transaction.open_table(RECENT)?,
        hot: transaction.open_table(HOT)?,
        cold: transaction.open_table(COLD)?,
    };
    let row = |(key, row): (KeyHash, Option<&'r RowState>)| Row {
        key: key.to_u128(),
        hot: row.map_or(0, |row| row.fingerprint().to_u64()),
        record: row.map_or(&[], RowState::as_bytes),
    };
    let mut rows: Vec<Row<'_>> = rows.map(row).collect();
    if may_stay && rows.is_empty() {
        return tables.settle(known, max.recent, max.spare);
    }
    if may_stay {
        let (settled, open): (Vec<_>, Vec<_>) = rows.iter().copied().partition(Row::is_settled);
        if max.is_dense(&settled) {
            // Where blocks are written for little else, and once, the journal would only add to that.
            take_out(&mut journal, &settled, known)?;
            tables.put_all(&settled, max, known)?;
            tables.settle_twice(settled.len(), max, known)?;
            rows = open;
        }
    }
    let stays = may_stay && rows.len() <= max.journaled_at_once;
    let has_room = journal.len()? < JOURNAL_BLOCKS_MAX;
    let journaled = known.journaled.saturating_add(count(rows.len()));
    if stays && has_room && journaled <= count(max.journaled) {
        known.journaled = journaled;
        return append(&mut journal, &rows);
    }

    let older = journal_blocks(&journal)?;
    let mut moving = newest(&older)?;
    journal.retain(|_, _| false)?;
    known.journaled = 0;
    if stays {
        // Most of these rows are about to be sent, and the next commits write them once more.
        moving.retain(|row| rows.binary_search_by_key(&row.key, |row| row.key).is_err());
        append(&mut journal, &rows)?;
        known.journaled = count(rows.len());
    } else {
        moving = merged(moving, &rows, |row| row.key);
    }
    tables.put_all(&moving, max, known)?;
    match moving.len() {
        0 => tables.settle(known, max.recent, max.spare),
        moved => tables.settle_twice(moved, max, known),
    }
}

/// Puts rows at the end of the journal.
fn append(journal: &mut redb::Table<'_, u64, &'static [u8]>, rows: &[Row<'_>]) -> Result<()> {
    let ranges = blocks::whole_ranges(rows, blocks::JOURNAL_PAGES, true);
    let next = journal.last()?.map_or(Some(0), |(last, _)| last.value().checked_add(1));
    // Numbers do not run out but in a file that was altered.
    let next = next.filter(|next| next.checked_add(count(ranges.len())).is_some()).ok_or(Fault::Damaged)?;
    for (number, range) in (next..).zip(ranges) {
        journal.insert(number, &*blocks::whole_block(&rows[range]))?;
    }
    Ok(())
}

/// Takes rows out of the journal, as often as they are there.
fn take_out(
    journal: &mut redb::Table<'_, u64, &'static [u8]>,
    rows: &[Row<'_>],
    known: &mut RecentRows,
) -> Result<()> {
    let mut changed = Vec::new();
    for block in journal.iter()? {
        let (number, block) = block?;
        let block = WholeBlock::new(block.value()).ok_or(Fault::Damaged)?;
        if !block.overlaps(rows) {
            continue;
        }
        let mut left = Vec::with_capacity(block.len());
        for row in block.iter() {
            let row = row.ok_or(Fault::Damaged)?;
            if rows.binary_search_by_key(&row.key, |row| row.key).is_err() {
                left.push(row);
            }
        }
        if left.len() < block.len() {
            known.journaled = known.journaled.saturating_sub(count(block.len() - left.len()));
            changed.push((number.value(), (!left.is_empty()).then(|| blocks::whole_block(&left))));
        }
    }
    for (number, left) in changed {
        match left {
            Some(left) => journal.insert(number, &*left)?,
            None => journal.remove(number)?,
        };
    }
    Ok(())
}

/// The journal from its begin to its end.
fn journal_blocks(journal: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<Vec<u8>>> {
    let mut blocks = Vec::new();
    for block in journal.iter()? {
        blocks.push(block?.1.value().to_vec());
    }
    Ok(blocks)
}

/// The rows of a journal in the order of their keys, each as it was written last.
fn newest(journal: &[Vec<u8>]) -> Result<Vec<Row<'_>>> {
    let mut rows = rows_of(journal)?;
    rows.reverse();
    // Of rows with the same key the order stays, and the first is kept.
    rows.sort_by_key(|row| row.key);
    rows.dedup_by_key(|row| row.key);
    Ok(rows)
}

fn rows_of<'b>(blocks: impl IntoIterator<Item = &'b Vec<u8>>) -> Result<Vec<Row<'b>>> {
    let mut rows = Vec::new();
    for block in blocks {
        for row in WholeBlock::new(block).ok_or(Fault::Damaged)?.iter() {
            rows.push(row.ok_or(Fault::Damaged)?);
        }
    }
    Ok(rows)
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// What is in either, in the order of the keys; of what is in both, the newer.
fn merged<T: Copy>(older: impl IntoIterator<Item = T>, newer: &[T], key: impl Fn(&T) -> u128) -> Vec<T> {
    let mut newer = newer.iter().copied().peekable();
    let mut all = Vec::new();
    for older in older {
        while let Some(new) = newer.next_if(|new| key(new) < key(&older)) {
            all.push(new);
        }
        all.push(newer.next_if(|new| key(new) == key(&older)).unwrap_or(older));
    }
    all.extend(newer);
    all
}

/// The tables of rows that are in their order.
struct Tables<'t> {
    recent: Table<'t>,
    hot: Table<'t>,
    cold: Table<'t>,
}

impl Tables<'_> {
    /// Puts rows where they belong.
    fn put_all(&mut self, mut rows: &[Row<'_>], max: RowsMax, known: &mut RecentRows) -> Result<()> {
        while !rows.is_empty() {
            rows = &rows[self.put(rows, max, known)?..];
        }
        Ok(())
    }

    /// Puts rows where they belong: the first of these, and those that follow it as far as no block of recent rows stands
    /// between; so many they are. They become recent rows, unless they lie close together.
    fn put(&mut self, rows: &[Row<'_>], max: RowsMax, known: &mut RecentRows) -> Result<usize> {
        let Some(first) = rows.first() else { return Ok(0) };
        let (mut older, mut put): (Vec<Block>, usize) = (Vec::new(), 0);
        let mut is_last = false;
        for block in self.recent.range(first.key..)?.map(Some).chain([None]) {
            if put >= rows.len().min(AT_ONCE) {
                break;
            }
            let Some((upper, block)) = block.transpose()? else {
                (is_last, put) = (true, rows.len().min(put + AT_ONCE));
                break;
            };
            let many = rows[put..].partition_point(|row| row.key <= upper.value());
            if many == 0 {
                break;
            }
            put += many;
            older.push((upper.value(), block.value().to_vec()));
        }
        if put == 0 {
            // In a file that was altered, the engine may give a block that stands before.
            return Err(Fault::Damaged);
        }
        let newer = &rows[..put];
        let is_dense = max.is_dense(newer);
        if older.is_empty()
            && !is_dense
            && let Some((upper, block)) = self.recent.last()?
        {
            older.push((upper.value(), block.value().to_vec()));
        }
        let before = rows_of(older.iter().map(|(_, block)| block))?;
        for (upper, _) in &older {
            self.recent.remove(upper)?;
        }
        known.count = known.count.saturating_sub(count(before.len()));
        let rows = merged(before, newer, |row| row.key);
        if is_dense {
            self.put_into_blocks(&rows)?;
        } else {
            known.count = known.count.saturating_add(count(rows.len()));
            for range in blocks::whole_ranges(&rows, blocks::RECENT_PAGES, is_last) {
                let rows = &rows[range];
                if let Some(last) = rows.last() {
                    self.recent.insert(last.key, &*blocks::whole_block(rows))?;
                }
            }
        }
        Ok(put)
    }

    /// If more rows are recent than may be while a run writes, puts twice as many as came into their blocks, so that they become
    /// fewer.
    fn settle_twice(&mut self, came: usize, max: RowsMax, known: &mut RecentRows) -> Result<()> {
        self.settle(known, max.recent.saturating_add(max.spare), count(came).saturating_mul(2))
    }

    /// If more than `most` rows are recent, puts some of them into their blocks, about so many: those that come next.
    fn settle(&mut self, known: &mut RecentRows, most: u64, to_move: u64) -> Result<()> {
        let mut to_move = to_move.min(known.count.saturating_sub(most));
        while to_move > 0 {
            let is_any = self.recent.range(known.next..)?.next().transpose()?.is_some();
            let (mut stretch, mut rows): (Vec<Block>, u64) = (Vec::new(), 0);
            for block in self.recent.range(if is_any { known.next } else { 0 }..)? {
                if rows >= to_move.min(count(AT_ONCE)) {
                    break;
                }
                let (upper, block) = block?;
                rows += count(WholeBlock::new(block.value()).ok_or(Fault::Damaged)?.len());
                stretch.push((upper.value(), block.value().to_vec()));
            }
            // A file that was altered may have none where it says that it has some.
            let Some((last, _)) = stretch.last() else { break };
            self.put_into_blocks(&rows_of(stretch.iter().map(|(_, block)| block))?)?;
            for (upper, _) in &stretch {
                self.recent.remove(upper)?;
            }
            known.count = known.count.saturating_sub(rows);
            known.next = last.checked_add(1).unwrap_or(0);
            to_move = to_move.saturating_sub(rows.max(1));
        }
        Ok(())
    }

    fn put_into_blocks(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut rest = rows;
        while let Some(first) = rest.first() {
            let block = self.hot.range(first.key..)?.next().transpose()?;
            let block = block
                .map_or((u128::MAX, Vec::new()), |(upper, block)| (upper.value(), block.value().to_vec()));
            let many = rest.partition_point(|row| row.key <= block.0);
            if many == 0 {
                return Err(Fault::Damaged);
            }
            self.rewrite(&block, &rest[..many])?;
            rest = &rest[many..];
        }
        Ok(())
    }

    /// Writes a hot block and its cold ones anew, with these rows.
    fn rewrite(&mut self, (upper, hot): &Block, newer: &[Row<'_>]) -> Result<()> {
        let before = HotBlock::new(hot).ok_or(Fault::Damaged)?;
        let mut records: Vec<Block> = Vec::new();
        if let Some((least, _)) = before.get(0) {
            for block in self.cold.range(least..=*upper)? {
                let (last, block) = block?;
                records.push((last.value(), block.value().to_vec()));
            }
        }
        let mut older = Vec::new();
        let mut hots = before.iter();
        for (_, block) in &records {
            for (record, (key, hot)) in ColdBlock::new(block).ok_or(Fault::Damaged)?.iter().zip(&mut hots) {
                older.push(Row { key, hot, record: record.ok_or(Fault::Damaged)? });
            }
        }
        if hots.next().is_some() {
            return Err(Fault::Damaged);
        }
        let mut rows = merged(older, newer, |row| row.key);
        rows.retain(|row| !row.is_deleted());

        for (last, _) in &records {
            self.cold.remove(last)?;
        }
        // If none of its rows is left, its keys belong into the next block.
        self.hot.remove(upper)?;
        let Some(first) = rows.first() else { return Ok(()) };
        // Blocks that go into one gap fill the engine's inner pages. Inserted one by one they would leave them half empty.
        let ranges = blocks::hot_ranges(&rows, *upper == u128::MAX);
        let mut hot = self.hot.lower_bound_mut(Bound::Included(first.key))?;
        for range in &ranges {
            let is_last = range.end == rows.len();
            let rows = &rows[range.clone()];
            let Some(last) = rows.last() else { continue };
            hot.insert_before(if is_last { *upper } else { last.key }, &*blocks::hot_block(rows))?;
        }
        // One at a time: what is left of one that was begun is inserted also while the engine panics over the other.
        hot.close()?;
        let mut cold = self.cold.lower_bound_mut(Bound::Included(first.key))?;
        for rows in ranges.into_iter().map(|range| &rows[range]) {
            for range in blocks::cold_ranges(rows) {
                let rows = &rows[range];
                if let Some(last) = rows.last() {
                    cold.insert_before(last.key, &*blocks::cold_block(rows))?;
                }
            }
        }
        cold.close()?;
        Ok(())
    }
}
