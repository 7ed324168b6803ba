//! The spool: the entries of a plan in the order of their key hashes, in memory while they are few, else in a temporary
//! file that no directory names.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use crate::{Error, ErrorKind, Result, change::Entry, fingerprint::KeyHash};

/// Takes entries in any order.
#[derive(Default)]
pub(crate) struct Spooler {
    memory_max: usize,
    entries: Vec<Entry>,
    weight: usize,
    runs: Vec<Run>,
    file: Option<File>,
    withdrawn: HashSet<u64>,
}

/// A sorted stretch of the file.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
}

/// Entries in the order of their key hashes, as often as wanted.
#[derive(Default)]
pub(crate) struct Spool {
    entries: Arc<Vec<Entry>>,
    runs: Vec<Run>,
    file: Option<Arc<File>>,
    withdrawn: Arc<HashSet<u64>>,
}

impl Spooler {
    pub(crate) fn new(memory_max: usize) -> Self {
        Self { memory_max, ..Self::default() }
    }

    pub(crate) fn push(&mut self, entry: Entry) -> Result<()> {
        self.weight += entry.weight();
        self.entries.push(entry);
        if self.weight > self.memory_max { self.spill() } else { Ok(()) }
    }

    /// Takes back the entry of a source row, wherever it is by now.
    pub(crate) fn withdraw(&mut self, row: u64) {
        self.withdrawn.insert(row);
    }

    pub(crate) fn finish(mut self) -> Spool {
        self.entries.sort_by_key(Entry::hash);
        Spool {
            entries: Arc::new(self.entries),
            runs: self.runs,
            file: self.file.map(Arc::new),
            withdrawn: Arc::new(self.withdrawn),
        }
    }

    fn spill(&mut self) -> Result<()> {
        self.entries.sort_by_key(Entry::hash);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile().map_err(spooling)?),
        };
        let start = file.seek(SeekFrom::End(0)).map_err(spooling)?;
        let mut out = BufWriter::new(&mut *file);
        for entry in self.entries.drain(..) {
            write_line(&mut out, &entry)?;
        }
        out.flush().map_err(spooling)?;
        drop(out);
        let end = file.stream_position().map_err(spooling)?;
        self.runs.push(Run { start, end });
        self.weight = 0;
        Ok(())
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("in_memory", &self.entries.len())
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// The entries in the order of their key hashes.
    pub(crate) fn entries(&self) -> Entries {
        let mut sources: Vec<Lines> = vec![Lines::Memory { entries: Arc::clone(&self.entries), next: 0 }];
        if let Some(file) = &self.file {
            let file_run =
                |run: &Run| Lines::File(BufReader::new(Stretch { file: Arc::clone(file), run: *run }));
            sources.extend(self.runs.iter().map(file_run));
        }
        Entries { sources, heads: BinaryHeap::new(), started: false, withdrawn: Arc::clone(&self.withdrawn) }
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
                spooler.push(entry)?;
            }
        }
        Ok(spooler.finish())
    }
}

enum Lines {
    Memory { entries: Arc<Vec<Entry>>, next: usize },
    File(BufReader<Stretch>),
}

impl Lines {
    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::Memory { entries, next } => {
                *next += 1;
                Ok(entries.get(*next - 1).cloned())
            }
            Self::File(lines) => next_line(lines)?.as_deref().map(parse).transpose(),
        }
    }
}

/// A merge of sorted sources: the smallest head first.
pub(crate) struct Entries {
    sources: Vec<Lines>,
    heads: BinaryHeap<Reverse<(KeyHash, usize, Head)>>,
    started: bool,
    withdrawn: Arc<HashSet<u64>>,
}

/// An entry that takes no part in the order.
struct Head(Entry);

impl PartialEq for Head {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Entries {
    fn refill(&mut self, source: usize) -> Result<()> {
        if let Some(entry) = self.sources[source].next()? {
            self.heads.push(Reverse((entry.hash(), source, Head(entry))));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        if !self.started {
            self.started = true;
            for source in 0..self.sources.len() {
                self.refill(source)?;
            }
        }
        while let Some(Reverse((_, source, Head(entry)))) = self.heads.pop() {
            self.refill(source)?;
            let is_withdrawn = entry.row > 0 && self.withdrawn.contains(&entry.row);
            if !is_withdrawn {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// One run of the file, read through a handle that others read as well.
struct Stretch {
    file: Arc<File>,
    run: Run,
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.run.end - self.run.start).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = read_at(&self.file, &mut buffer[..wanted], self.run.start)?;
        self.run.start += read as u64;
        Ok(read)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

pub(crate) fn write_line(mut out: impl Write, line: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut out, line).map_err(spooling)?;
    out.write_all(b"\n").map_err(spooling)
}

/// The next line, with its end; `None` at the end of the file.
pub(crate) fn next_line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = lines.read_until(b'\n', &mut line).map_err(spooling)?;
    Ok((length > 0).then_some(line))
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T> {
    // serde quotes values in its messages, so the cause stays out.
    serde_json::from_slice(line).map_err(|_| {
        Error::new(
            ErrorKind::Source,
            "a line of the plan cannot be read: the file was cut or altered; plan again",
        )
    })
}

fn spooling(error: impl Into<crate::BoxError>) -> Error {
    Error::new(ErrorKind::Io, "the plan could not be written or read back: check the disk").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{ChangeKind, Step},
        record::Key,
    };

    fn entry(hash: u128, row: u64) -> Entry {
        Entry::new(Step::Send, ChangeKind::Added, KeyHash::from_u128(hash), Key::new("k"), row)
    }

    #[test]
    fn entries_come_in_the_order_of_their_key_hashes_from_memory_and_from_a_file() {
        for memory_max in [usize::MAX, 4000, 1] {
            let mut spooler = Spooler::new(memory_max);
            for row in 1..=100 {
                spooler.push(entry(u128::from(row) * 37 % 101, row)).unwrap();
            }
            spooler.withdraw(50);
            let spool = spooler.finish();
            for _ in 0..2 {
                let rows: Vec<_> = spool.entries().map(|entry| entry.unwrap()).collect();
                assert_eq!(rows.len(), 99);
                assert!(rows.is_sorted_by_key(Entry::hash));
                assert!(rows.iter().all(|entry| entry.row != 50));
            }
        }
    }
}
