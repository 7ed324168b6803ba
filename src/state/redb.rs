//! The state in one file, kept by an embedded database: the default store.
//!
//! A row's hot value and its record stand apart, so that a scan reads nothing but key hashes and fingerprints; how, that says
//! the module `rows`.
//! The file is opened read-only until the first commit, which is also what makes a new file; so planning leaves no
//! trace, and works beside a writer.

mod blocks;
mod fault;
mod rows;
mod scan;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase,
    ReadableTable, TableDefinition,
};

use self::{
    fault::{Fault, caught, damaged, explain, folder_exists, is_missing, not_created, unusable},
    rows::{RecentKeys, RecentRows, RowsMax},
    scan::{CHUNK, CHUNKS_AT_ONCE, Scan},
};
use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, RowFingerprint},
    host::{Host, SystemHost},
    state::{
        Commit, Header, PriorState, RowState, ScannedRows, StateStore,
        header::{Lease, RunId},
    },
};

/// The header, and the number of this format.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HEADER: &str = "header";
const FORMAT: &str = "format";
const FORMAT_NUMBER: u32 = 1;
/// What is known of the recent rows.
const RECENT_ROWS: &str = "recent";

/// Bytes of pages that a handle which writes keeps in memory. The inner pages of ten million rows fit, or nearly so if the
/// state keeps their keys; a run goes through the rows in the order of the file, so more would not help it.
const CACHE: usize = 16 * 1024 * 1024;
/// The same of one that only reads. It goes through the file in order, be it for a scan or for some rows, so it seldom needs
/// a page twice; it keeps so few that they stay in the processor's cache.
const READER_CACHE: usize = 4 * 1024 * 1024;

/// How often, and after which pause, a reader looks again at a file that another process is just repairing.
const LOOKS_MAX: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Keeps the state of one sync in one file, without a server; every commit is atomic and durable.
///
/// * **Opening makes no file** and changes none: the first commit makes it, at once whole, readable by its owner only
///   (mode 0600 on Unix), since fingerprints of people are worth protecting. The one exception is a file left behind
///   by a process that died while it held it: the first read puts it in order, which needs the right to write.
/// * **Many read, one writes.** Readers of other processes work beside a writer. The writer holds the file's lock from
///   its first commit until a commit that carries no lease (the last one of a run), or until the last clone is
///   dropped. Whoever else wants to write meanwhile is told who holds the state, and since when.
/// * **A dead process frees it at once**: whoever gets the lock need not wait for the lease that it finds.
///   Within one process clones share the lock, and there the lease decides.
/// * **A file that is cut, altered or no state** gives [`ErrorKind::StateDamaged`]: it never passes for an empty state.
///
/// Clones share one handle. All work is done on tokio's blocking threads, or in place where there is no tokio; a commit
/// that was begun is completed even if its future is dropped. The operating system must offer locks on ranges of a
/// file, as Linux, macOS and Windows do. A crash during the very first commit may leave a file named `.state-*.new`
/// beside the path, which is of no use to anybody.
///
/// ```
/// use futures::executor::block_on;
/// use reverse_etl::{PriorState, RedbStore};
///
/// let folder = tempfile::tempdir()?;
/// let store = RedbStore::open(folder.path().join("people.state"))?;
/// assert!(block_on(store.header())?.is_none()); // nothing was ever synced,
/// assert!(!store.path().exists()); // and asking has not changed that
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    host: Arc<dyn Host>,
    /// One commit or repair at a time; within, the run to which the last commit of this store left the lease.
    turn: Mutex<Option<RunId>>,
    /// Open, and holding the file's lock, as long as a run of this store has the lease.
    writer: RwLock<Option<Database>>,
    reader: Mutex<Option<ReadOnlyDatabase>>,
    /// What the last scan of all rows found, and in which state of the file.
    recent_keys: Mutex<Option<(Moment, Arc<RecentKeys>)>>,
    /// Rows that need not be in blocks, however small the state is.
    recent_min: u64,
    /// Rows in the state to one that may be in the journal.
    rows_to_journaled: u64,
    /// Rows in one chunk of a scan, about.
    chunk: usize,
}

/// Looks rows up in one state of the file, knowing perhaps where its recent rows are.
type LookUp<W, T> = fn(&ReadTransaction, &[W], Option<&RecentKeys>) -> Result<Vec<Option<T>>, Fault>;

impl RedbStore {
    /// The state in the file at `path`, which need not exist yet.
    ///
    /// # Errors
    /// * [`ErrorKind::Config`] if `path` is not a file, or lies in a directory that does not exist;
    /// * [`ErrorKind::Io`] if the file system cannot say.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_host(path, SystemHost::shared())
    }

    /// The same, with leases that run on the clock of `host`.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn with_host(path: impl AsRef<Path>, host: Arc<dyn Host>) -> Result<Self> {
        // The path stays the same file when the process changes its working directory.
        let given = path.as_ref();
        let path = std::path::absolute(given).map_err(|error| unusable(given, error))?;
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                return Err(Error::config(format!(
                    "the state {} is not a file: give the path of a file, which need not exist yet",
                    path.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => folder_exists(&path)?,
            Err(error) => return Err(unusable(&path, error)),
        }
        let inner = Inner {
            path,
            host,
            turn: Mutex::default(),
            writer: RwLock::default(),
            reader: Mutex::default(),
            recent_keys: Mutex::default(),
            recent_min: rows::RECENT_MIN,
            rows_to_journaled: rows::ROWS_TO_JOURNALED,
            chunk: CHUNK,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same store with fewer rows that are not in blocks.
    #[cfg(test)]
    fn with_recent_min(mut self, rows: u64) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.recent_min = rows;
        }
        self
    }

    /// The same store with as many rows in the journal as in all of the state.
    #[cfg(test)]
    fn with_long_journal(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.rows_to_journaled = 1;
        }
        self
    }

    /// The same store with fewer rows in a chunk.
    #[cfg(test)]
    fn with_chunk(mut self, rows: usize) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.chunk = rows;
        }
        self
    }

    /// The file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Looks rows up, each of which may not be there.
    async fn look_up<W: Send + 'static, T: Send + 'static>(
        &self,
        wanted: Vec<W>,
        look: LookUp<W, T>,
    ) -> Result<Vec<Option<T>>> {
        self.blocking(move |inner| {
            let rows = inner.read(Look::Kept, |state| {
                let recent_keys = inner.recent_keys(state)?;
                look(state, &wanted, recent_keys.as_deref())
            })?;
            Ok(rows.unwrap_or_else(|| wanted.iter().map(|_| None).collect()))
        })
        .await
    }

    /// Does `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let work = move || {
            caught(|| work(&inner)).map_err(|fault| {
                if matches!(fault, Fault::Panicked) {
                    *locked(&inner.reader) = None;
                }
                explain(&inner.path, fault)
            })
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(work).await.unwrap_or_else(|stopped| {
                Err(Error::new(ErrorKind::Io, "the runtime was shut down before the state was reached")
                    .with_source(stopped))
            }),
            Err(_) => work(),
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl PriorState for RedbStore {
    async fn header(&self) -> Result<Option<Header>> {
        self.blocking(|inner| {
            // Planning begins here, so a file that was put in the place of another one since is found here.
            inner.read(Look::Anew, |state| inner.header(&state.open_table(META)?)).map(Option::flatten)
        })
        .await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        self.look_up(keys.iter().map(|key| (*key, None)).collect(), rows::load).await
    }

    async fn load_fingerprints(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowFingerprint>>> {
        self.look_up(keys.to_vec(), rows::load_fingerprints).await
    }

    async fn load_scanned(&self, rows: &[(KeyHash, RowFingerprint)]) -> Result<Vec<Option<RowState>>> {
        self.look_up(rows.iter().map(|(key, print)| (*key, Some(*print))).collect(), rows::load).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        // One look at the state for all chunks, however long they take.
        let begun = self.blocking(|inner| {
            let Some(state) = inner.begin(Look::Kept)? else { return Ok(None) };
            let meta = state.open_table(META)?;
            let Some(header) = inner.header(&meta)? else { return Ok(None) };
            let recent = recent_rows(&meta)?;
            let (scan, ranges) = Scan::begin(state, &header, &recent, inner.chunk)?;
            Ok(Some((Arc::new(scan), ranges)))
        });
        let chunks = begun.map(move |begun| match begun {
            Ok(Some((scan, ranges))) => stream::iter(ranges)
                .map(move |range| {
                    let scan = Arc::clone(&scan);
                    self.blocking(move |inner| scan.chunk(&range, inner))
                })
                .buffered(CHUNKS_AT_ONCE)
                .boxed(),
            Ok(None) => stream::empty().boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        });
        chunks.flatten_stream().boxed()
    }
}

/// A state of the file, told by the last commit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    version: u64,
    writer: Option<RunId>,
}

impl Moment {
    fn of(header: &Header) -> Self {
        Self { version: header.version(), writer: header.last_writer }
    }
}

#[async_trait]
impl StateStore for RedbStore {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        let commit = commit.clone();
        self.blocking(move |inner| inner.commit(&commit)).await
    }
}

/// Whether a reader that is open already will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Anew,
    Kept,
}

fn engine(cache: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter).set_cache_size(cache);
    builder
}

/// What the state knows of its recent rows; a new one has none.
fn recent_rows(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<RecentRows, Fault> {
    match meta.get(RECENT_ROWS)? {
        Some(bytes) => RecentRows::from_bytes(bytes.value()).ok_or(Fault::Damaged),
        None => Ok(RecentRows::default()),
    }
}

impl Inner {
    /// Reads one state of the file; `None` if there is no file.
    fn read<T>(
        &self,
        look: Look,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        // Held to the end, so that the writer is never closed under a read, nor by one.
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &*writer {
            return read(&writer.begin_read()?).map(Some);
        }
        drop(writer);
        self.begin(look)?.map(|state| read(&state)).transpose()
    }

    /// A read transaction that does not depend on the writer.
    fn begin(&self, look: Look) -> Result<Option<ReadTransaction>, Fault> {
        let mut reader = locked(&self.reader);
        if look == Look::Kept
            && let Some(reader) = &*reader
            && let Ok(state) = reader.begin_read()
        {
            return Ok(Some(state));
        }
        *reader = None;
        let Some(opened) = self.open_reader()? else { return Ok(None) };
        let state = opened.begin_read()?;
        self.check_format(&state)?;
        *reader = Some(opened);
        Ok(Some(state))
    }

    fn open_reader(&self) -> Result<Option<ReadOnlyDatabase>, Fault> {
        for _ in 0..LOOKS_MAX {
            match engine(READER_CACHE).open_read_only(&self.path) {
                Ok(reader) => return Ok(Some(reader)),
                Err(DatabaseError::RepairAborted) if self.repair()? => {}
                Err(DatabaseError::RepairAborted) => thread::sleep(LOOK_AGAIN),
                Err(error) if is_missing(&error) => {
                    folder_exists(&self.path).map_err(Fault::Told)?;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Fault::Told(Error::new(
            ErrorKind::Busy,
            format!(
                "another process is repairing the state {} after a crash: try again in a minute",
                self.path.display()
            ),
        )))
    }

    /// Puts a file in order that a process left behind when it died; false if another one has the lock by now.
    ///
    /// It reads the whole file and checks it, 1.2 s for ten million rows, since the crash may have been the machine's.
    /// The engine could record with every commit what makes this instant, but then nothing would notice a file that
    /// lost its end.
    fn repair(&self) -> Result<bool, Fault> {
        // Else a commit of this store would find the lock taken by its own reader.
        let _turn = locked(&self.turn);
        match engine(CACHE).open(&self.path) {
            Ok(repaired) => {
                tracing::info!(path = %self.path.display(), "repaired the state after a crash; nothing was lost");
                repaired.close()?;
                Ok(true)
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn check_format(&self, state: &ReadTransaction) -> Result<(), Fault> {
        let meta = state.open_table(META)?;
        let format =
            meta.get(FORMAT)?.and_then(|bytes| Some(u32::from_le_bytes(bytes.value().try_into().ok()?)));
        match format {
            Some(FORMAT_NUMBER) => Ok(()),
            Some(newer) if newer > FORMAT_NUMBER => Err(Fault::Told(Error::new(
                ErrorKind::StateDamaged,
                format!(
                    "the state {} was written by a newer version of this program: run that one, or move the file away: \
                     the next run then sends every row",
                    self.path.display()
                ),
            ))),
            _ => Err(Fault::Told(damaged(&self.path, None))),
        }
    }

    fn header(
        &self,
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Option<Header>, Fault> {
        let bytes = meta.get(HEADER)?;
        let header = bytes.map(|bytes| Header::from_bytes(bytes.value())).transpose();
        header.map_err(|error| Fault::Told(damaged(&self.path, Some(error.into()))))
    }

    /// Where the recent rows of this state are, if a scan has found that out and nothing was committed since.
    fn recent_keys(&self, state: &ReadTransaction) -> Result<Option<Arc<RecentKeys>>, Fault> {
        let Some((moment, keys)) = locked(&self.recent_keys).clone() else { return Ok(None) };
        let header = self.header(&state.open_table(META)?)?;
        Ok(header.is_some_and(|header| Moment::of(&header) == moment).then_some(keys))
    }

    fn commit(&self, commit: &Commit) -> Result<(), Fault> {
        let mut leased = locked(&self.turn);
        let outcome = caught(|| self.commit_in_turn(commit, &mut leased));
        // Without a lease of ours nobody here is going to write soon, so the next process may. A handle that failed
        // is of no use any more; opening anew decides what became of the commit.
        let is_usable = matches!(outcome, Ok(()) | Err(Fault::Told(_)));
        if leased.is_none() || !is_usable {
            self.release();
        }
        outcome
    }

    fn commit_in_turn(&self, commit: &Commit, leased: &mut Option<RunId>) -> Result<(), Fault> {
        let is_open = self.writer.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if !is_open {
            let opened = match self.open_writer()? {
                Some(opened) => opened,
                None if self.create(commit, leased)? => return Ok(()),
                // Another process made the file in this very moment.
                None => self.open_writer()?.ok_or_else(|| Fault::Told(damaged(&self.path, None)))?,
            };
            self.keep(opened);
        }
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        // It is open: only a commit opens or closes it, and this one has the turn.
        writer.as_ref().map_or(Ok(()), |writer| self.write(writer, commit, leased))
    }

    fn open_writer(&self) -> Result<Option<Database>, Fault> {
        // Opening to write changes the file, so one of somebody else's is turned away before.
        if let Ok(reader) = engine(READER_CACHE).open_read_only(&self.path) {
            self.check_format(&reader.begin_read()?)?;
        }
        match engine(CACHE).open(&self.path) {
            Ok(writer) => {
                self.check_format(&writer.begin_read()?)?;
                Ok(Some(writer))
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(Fault::Told(self.busy())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the file with its first commit inside; false if there is one by now.
    ///
    /// It is written under another name first: a crash leaves either no state or all of the commit, and an empty file
    /// never means an empty state.
    fn create(&self, commit: &Commit, leased: &mut Option<RunId>) -> Result<bool, Fault> {
        folder_exists(&self.path).map_err(Fault::Told)?;
        let Some(folder) = self.path.parent() else { return Ok(false) };
        // Made with mode 0600 on Unix, and removed again when it is dropped before it got its name.
        let draft = tempfile::Builder::new().prefix(".state-").suffix(".new").tempfile_in(folder);
        let draft = draft.map_err(|error| Fault::Told(not_created(&self.path, error)))?.into_temp_path();
        let before = *leased;
        let writer = engine(CACHE).create(&draft)?;
        self.write(&writer, commit, leased)?;
        match draft.persist_noclobber(&self.path) {
            Ok(()) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                *leased = before;
                return Ok(false);
            }
            Err(error) => return Err(Fault::Told(not_created(&self.path, error.error))),
        }
        // The name is durable only once its directory is.
        if cfg!(unix) {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| Fault::Engine(error.into()))?;
        }
        self.keep(writer);
        Ok(true)
    }

    fn write(&self, writer: &Database, commit: &Commit, leased: &mut Option<RunId>) -> Result<(), Fault> {
        // Durable when it returns, which is what the engine does unless told otherwise.
        let transaction = writer.begin_write()?;
        let lease = {
            let mut meta = transaction.open_table(META)?;
            let found = self.header(&meta)?.map(|header| match &header.lease {
                // The file's lock is ours, so whoever wrote this lease has let go of it: it ended or died.
                Some(lease) if Some(lease.run) != *leased => header.without_lease(),
                _ => header,
            });
            let header = commit.admit(found.as_ref(), self.host.wall()).map_err(Fault::Told)?;
            let bytes = header.to_bytes().map_err(Fault::Told)?;
            let rows_max = RowsMax::new(header.rows, self.recent_min, self.rows_to_journaled);
            let lease = header.lease.map(|lease| lease.run);
            // Known before it is written: should the outcome stay unknown, this lease still counts as ours.
            *leased = lease.or(*leased);

            let mut recent = recent_rows(&meta)?;
            rows::write(&transaction, commit.rows(), rows_max, lease.is_some(), &mut recent)?;
            meta.insert(RECENT_ROWS, &*recent.to_bytes())?;
            meta.insert(FORMAT, &FORMAT_NUMBER.to_le_bytes()[..])?;
            meta.insert(HEADER, &*bytes)?;
            lease
        };
        transaction.commit()?;
        *leased = lease;
        Ok(())
    }

    fn keep(&self, opened: Database) {
        *self.writer.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }

    /// Lets the next process write.
    fn release(&self) {
        let writer = self.writer.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        // Every commit is durable by now: at worst the next one to open the file has to repair it.
        if caught(|| Ok(writer.close()?)).is_err() {
            tracing::warn!(path = %self.path.display(), "the state was not closed in good order");
        }
    }

    /// Another process has the lock: its header says who.
    fn busy(&self) -> Error {
        let path = self.path.display();
        let text = match self.holder() {
            Some(lease) => {
                let age = self.host.wall().duration_since(lease.since).unwrap_or_default();
                format!(
                    "another process ({}) has held the state {path} for {} s: wait for its end, or end it",
                    lease.holder,
                    age.as_secs()
                )
            }
            None => {
                format!("another process is just opening or closing the state {path}: try again in a minute")
            }
        };
        Error::new(ErrorKind::Busy, text)
    }

    fn holder(&self) -> Option<Lease> {
        // Not through the kept reader: whoever uses that one may be waiting for the turn that we have.
        let state = engine(READER_CACHE).open_read_only(&self.path).ok()?.begin_read().ok()?;
        self.header(&state.open_table(META).ok()?).ok()??.lease
    }
}

// What these locks guard is replaced whole, so a panic under one leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
