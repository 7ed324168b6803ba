//! The spool: the entries of a plan in the order of their key hashes, in memory while they are few, else in a temporary
//! file that no directory names.
//!
//! Entries lie there as bytes from the first moment on: they take a fraction of the memory, and what they take is known.

mod runs;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, binary_heap::PeekMut},
    fs::File,
    io::{BufRead, BufReader, Read},
    mem,
    sync::Arc,
};

use self::runs::{Run, Runs, Stretch, Writer};
use crate::{
    Error, ErrorKind, Result,
    change::{Entry, Step},
    fingerprint::KeyHash,
    state::header::Bytes,
};

/// Bytes of each run of the file that are read at once: there are a hundred and more, and all of them are to be near.
const READ_AT_ONCE: usize = 8 * 1024;

/// Takes entries in any order.
///
/// One half of the memory is filled while a thread writes the other half to the file.
#[derive(Default)]
pub(crate) struct Spooler {
    memory_max: usize,
    kept: Kept,
    writer: Option<Writer>,
    withdrawn: HashSet<u64>,
}

/// Entries one behind the other, and where each of them is.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where an entry is among the bytes. Of one key, the one that came first is the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    hash: KeyHash,
    start: usize,
    end: usize,
}

/// Entries in the order of their key hashes, as often as wanted.
#[derive(Default)]
pub(crate) struct Spool {
    kept: Arc<Kept>,
    runs: Vec<Run>,
    file: Option<Arc<File>>,
    withdrawn: Arc<HashSet<u64>>,
}

/// Writes an entry as it stands in a spool, but for the number of its row, which stands before it: so it can be written
/// before that is known.
pub(crate) fn write(entry: &Entry, to: &mut Vec<u8>) -> Result<()> {
    *to = postcard::to_extend(entry, mem::take(to)).map_err(spooling)?;
    Ok(())
}

fn read(bytes: &[u8]) -> Result<Entry> {
    let (row, entry) = bytes.split_first_chunk().ok_or_else(|| spooling("an entry without a row"))?;
    let mut entry: Entry = postcard::from_bytes(entry).map_err(spooling)?;
    entry.row = u64::from_le_bytes(*row);
    Ok(entry)
}

/// The key hash alone, which stands behind the step.
fn read_hash(bytes: &[u8]) -> Result<KeyHash> {
    let entry = bytes.get(size_of::<u64>()..).unwrap_or_default();
    let ((_, hash), _): ((Step, Bytes<16>), _) = postcard::take_from_bytes(entry).map_err(spooling)?;
    Ok(KeyHash::from_bytes(hash.0))
}

impl Kept {
    fn push(&mut self, hash: KeyHash, row: u64, put: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&row.to_le_bytes());
        put(&mut self.bytes)?;
        self.spans.push(Span { hash, start, end: self.bytes.len() });
        Ok(())
    }

    /// Sorts the entries; those of one key stay as they came.
    fn sort(&mut self) {
        self.spans.sort_unstable();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }

    fn bytes_of(&self, span: &Span) -> &[u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }
}

impl Spooler {
    pub(crate) fn new(memory_max: usize) -> Self {
        Self { memory_max, ..Self::default() }
    }

    pub(crate) fn push(&mut self, entry: &Entry) -> Result<()> {
        self.kept.push(entry.hash(), entry.row, |bytes| write(entry, bytes))?;
        self.spill_if_full()
    }

    /// Takes an entry that is [written](write()) already.
    pub(crate) fn push_written(&mut self, hash: KeyHash, row: u64, entry: &[u8]) -> Result<()> {
        self.kept.push(hash, row, |bytes| {
            bytes.extend_from_slice(entry);
            Ok(())
        })?;
        self.spill_if_full()
    }

    fn spill_if_full(&mut self) -> Result<()> {
        if self.kept.len() > self.memory_max / 2 { self.spill() } else { Ok(()) }
    }

    /// Takes back the entry of a source row, wherever it is by now.
    pub(crate) fn withdraw(&mut self, row: u64) {
        self.withdrawn.insert(row);
    }

    /// # Errors
    /// If the file could not be written.
    pub(crate) fn finish(mut self) -> Result<Spool> {
        self.kept.sort();
        let runs = self.writer.map(Writer::finish).transpose()?.map(Runs::into_parts);
        let (file, runs) = runs.map_or_else(Default::default, |(file, runs)| (Some(file), runs));
        Ok(Spool { kept: Arc::new(self.kept), runs, file, withdrawn: Arc::new(self.withdrawn) })
    }

    fn spill(&mut self) -> Result<()> {
        let writer = self.writer.take().map_or_else(Writer::start, Ok)?;
        let (writer, free) = writer.write(mem::take(&mut self.kept))?;
        (self.writer, self.kept) = (Some(writer), free);
        Ok(())
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("in_memory", &self.kept.spans.len())
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Whether there are more entries than memory was to be used for.
    pub(crate) fn is_long(&self) -> bool {
        self.file.is_some()
    }

    /// Takes the last bytes of the file away, as if the disk had lost them.
    #[cfg(test)]
    pub(crate) fn lose(&self, bytes: u64) {
        let file = self.file.as_ref().unwrap();
        file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
    }

    /// The entries in the order of their key hashes.
    pub(crate) fn entries(&self) -> Entries {
        let mut sources = Vec::new();
        if let Some(file) = &self.file {
            let file_run = |run: &Run| {
                let out = BufReader::with_capacity(READ_AT_ONCE, Stretch::new(file, *run));
                Source::File { out, bytes: Vec::new() }
            };
            sources.extend(self.runs.iter().map(file_run));
        }
        // What came last: of one key, entries come in the order in which they were pushed.
        sources.push(Source::Memory { kept: Arc::clone(&self.kept), next: 0 });
        Entries {
            sources,
            smallest: BinaryHeap::new(),
            started: false,
            withdrawn: Arc::clone(&self.withdrawn),
        }
    }

    /// The same spool with each entry as `decide` wants it; `None` leaves it out.
    pub(crate) fn rewritten(
        &self,
        memory_max: usize,
        mut decide: impl FnMut(Entry) -> Option<Entry>,
    ) -> Result<Self> {
        let mut spooler = Spooler::new(memory_max);
        for entry in self.entries() {
            if let Some(entry) = decide(entry?) {
                spooler.push(&entry)?;
            }
        }
        spooler.finish()
    }
}

/// Where sorted entries come from. An entry is decoded when its turn comes; until then it is bytes, and the hash of its key.
enum Source {
    Memory { kept: Arc<Kept>, next: usize },
    File { out: BufReader<Stretch>, bytes: Vec<u8> },
}

impl Source {
    /// Goes on to the next entry, and gives its key hash.
    fn advance(&mut self) -> Result<Option<KeyHash>> {
        match self {
            Self::Memory { kept, next } => {
                *next += 1;
                Ok(kept.spans.get(*next - 1).map(|span| span.hash))
            }
            Self::File { out, bytes } => {
                if out.fill_buf().map_err(spooling)?.is_empty() {
                    return Ok(None);
                }
                let mut length = [0; 4];
                out.read_exact(&mut length).map_err(spooling)?;
                let length = usize::try_from(u32::from_le_bytes(length)).map_err(spooling)?;
                if length as u64 > out.get_ref().left() + out.buffer().len() as u64 {
                    // Before memory is asked for.
                    return Err(spooling("an entry that reaches over its stretch"));
                }
                bytes.resize(length, 0);
                out.read_exact(bytes).map_err(spooling)?;
                read_hash(bytes).map(Some)
            }
        }
    }

    /// The entry that it has gone on to.
    fn entry(&self) -> Result<Entry> {
        match self {
            Self::Memory { kept, next } => {
                let span = next.checked_sub(1).and_then(|at| kept.spans.get(at));
                read(span.map(|span| kept.bytes_of(span)).unwrap_or_default())
            }
            Self::File { bytes, .. } => read(bytes),
        }
    }
}

/// A merge of sorted sources: the smallest head first.
pub(crate) struct Entries {
    sources: Vec<Source>,
    /// The key hashes of the entries that the sources have gone on to, and whose they are.
    smallest: BinaryHeap<Reverse<(KeyHash, usize)>>,
    started: bool,
    withdrawn: Arc<HashSet<u64>>,
}

impl Entries {
    fn start(&mut self) -> Result<()> {
        self.started = true;
        for (index, source) in self.sources.iter_mut().enumerate() {
            self.smallest.extend(source.advance()?.map(|hash| Reverse((hash, index))));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        if !self.started {
            self.start()?;
        }
        while let Some(mut smallest) = self.smallest.peek_mut() {
            let Reverse((hash, index)) = &mut *smallest;
            let source = &mut self.sources[*index];
            let entry = source.entry()?;
            match source.advance()? {
                Some(next) => *hash = next,
                None => drop(PeekMut::pop(smallest)),
            }
            if entry.row == 0 || !self.withdrawn.contains(&entry.row) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            // What cannot be read cannot be put in order either.
            self.smallest.clear();
        }
        next.transpose()
    }
}

pub(super) fn spooling(error: impl Into<crate::BoxError>) -> Error {
    Error::new(ErrorKind::Io, "the plan could not be written or read back: check the disk").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::{
        change::{ChangeKind, Step},
        record::Key,
    };

    fn entry(hash: u128, row: u64) -> Entry {
        Entry::new(Step::Send, ChangeKind::Added, KeyHash::from_u128(hash), Key::new("k"), row)
    }

    #[test]
    fn entries_of_one_key_come_in_the_order_in_which_they_were_pushed() {
        for memory_max in [usize::MAX, 400, 1] {
            let mut spooler = Spooler::new(memory_max);
            (1..=10).for_each(|row| spooler.push(&entry(7, row)).unwrap());
            let rows: Vec<_> = spooler.finish().unwrap().entries().map(|entry| entry.unwrap().row).collect();
            assert!(rows.iter().copied().eq(1..=10), "{rows:?}");
        }
    }

    #[test]
    fn an_entry_that_was_written_before_its_row_was_known_is_read_with_it() {
        for memory_max in [usize::MAX, 1] {
            let (mut spooler, mut bytes) = (Spooler::new(memory_max), Vec::new());
            let entry = entry(7, 0);
            write(&entry, &mut bytes).unwrap();
            spooler.push_written(entry.hash(), 1 << 40, &bytes).unwrap();
            let read: Vec<_> = spooler.finish().unwrap().entries().map(Result::unwrap).collect();
            assert_eq!(
                read.iter().map(|entry| (entry.row, entry.hash())).collect::<Vec<_>>(),
                [(1 << 40, entry.hash())]
            );
        }
    }

    #[test]
    fn entries_come_in_the_order_of_their_key_hashes_from_memory_and_from_a_file() {
        for memory_max in [usize::MAX, 4000, 1] {
            let mut spooler = Spooler::new(memory_max);
            for row in 1..=100 {
                spooler.push(&entry(u128::from(row) * 37 % 101, row)).unwrap();
            }
            spooler.withdraw(50);
            let spool = spooler.finish().unwrap();
            for _ in 0..2 {
                let rows: Vec<_> = spool.entries().map(|entry| entry.unwrap()).collect();
                assert_eq!(rows.len(), 99);
                assert!(rows.is_sorted_by_key(Entry::hash));
                assert!(rows.iter().all(|entry| entry.row != 50));
            }
        }
    }

    #[test]
    fn entries_that_cannot_be_read_back_are_an_error_once_and_then_there_are_no_more() {
        for cut in 0..3 {
            let mut spooler = Spooler::new(usize::MAX);
            (1..=3).for_each(|row| spooler.push(&entry(u128::from(row), row)).unwrap());
            let mut spool = spooler.finish().unwrap();
            let kept = Arc::get_mut(&mut spool.kept).unwrap();
            kept.bytes.truncate(kept.spans[cut].start);
            let read: Vec<_> = spool.entries().take(10).map(|entry| entry.is_ok()).collect();
            let errors = read.iter().filter(|is_read| !**is_read).count();
            assert_eq!((errors, read.last()), (1, Some(&false)), "{read:?}");
        }
    }

    #[test]
    fn bytes_that_were_altered_in_the_file_are_an_error_or_another_entry_and_never_a_panic() {
        let mut spooler = Spooler::new(1);
        (1..=3).for_each(|row| spooler.push(&entry(u128::from(row) << 120, row)).unwrap());
        let spool = spooler.finish().unwrap();
        let mut file = &**spool.file.as_ref().unwrap();
        let bytes = file.metadata().unwrap().len();
        let mut errors = 0;
        for (at, bit) in (0..bytes).flat_map(|at| [0, 3, 7].map(|bit| (at, bit))) {
            let mut flip = || {
                let mut byte = [0];
                file.seek(SeekFrom::Start(at)).unwrap();
                file.read_exact(&mut byte).unwrap();
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&[byte[0] ^ 1 << bit]).unwrap();
            };
            flip();
            errors += spool.entries().take(10).filter(Result::is_err).count();
            flip();
        }
        assert!(errors > 0);
        assert_eq!(spool.entries().filter_map(Result::ok).count(), 3);
    }

    #[test]
    fn entry_that_the_file_has_lost_as_a_whole_is_an_error_and_not_an_end() {
        let mut spooler = Spooler::new(1);
        (1..=3).for_each(|row| spooler.push(&entry(u128::from(row), row)).unwrap());
        let spool = spooler.finish().unwrap();
        let bytes = spool.file.as_ref().unwrap().metadata().unwrap().len();
        assert_eq!(spool.entries().count(), 3);
        spool.lose(bytes / 3);
        let read: Vec<_> = spool.entries().map(|entry| entry.is_ok()).collect();
        assert_eq!(read, [false]);
    }
}
