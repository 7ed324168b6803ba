//! Reading: a source, piece by piece, each digested on one of several threads, and handed out in order.
//!
//! What comes of it depends neither on the number of threads nor on where the pieces begin.

use std::{
    mem,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    channel::oneshot,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};

use crate::{
    Result,
    handover::{Giver, ended, handover},
    host::yield_once,
    plan::digest::{Digested, Digester},
    rows::{Chunk, Part, Piece, Pieces, Rows},
};

/// Rows in a piece: one or two milliseconds of work, long enough that nobody notices how it got to its thread.
pub(super) const ROWS_A_PIECE: usize = 8192;

/// Fewer rows than this are digested where they are.
const ROWS_TO_SEND: usize = 512;

/// Pieces beside those that the threads have: one that is waited for, and the next one for whoever is done first.
const PIECES_AHEAD: usize = 2;

/// Rows of a part that are digested at once, where they are not long.
const ROWS_AT_ONCE: usize = 1024;

/// Of the rows of a part that are handed on together, so many differ, or up to [`ROWS_AT_ONCE`] more.
const DIFFERING_AT_ONCE: usize = 1024;

/// The memory that rows which differ are to take, those of a part that are handed on together: where they take more, fewer are
/// digested at once.
const BYTES_AT_ONCE: usize = 256 * 1024;

/// So many stretches that were handed on may wait for the rows before them, about half of a part of 64 K rows: the thread that
/// has the next part is to have work while the first one is read to its end. Rows that are what the state says take next to no
/// memory.
const WAITING_MAX: usize = 32;

/// The pieces that are left, digested on so many threads.
pub(super) fn digested(
    pieces: Pieces<'_>,
    digester: Digester,
    threads: usize,
) -> BoxStream<'_, Result<Digested>> {
    if pieces.len().is_some() {
        let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.next().await?, pieces)));
        return borrowed(pieces.boxed(), digester, threads).boxed();
    }
    let workers = Workers { digester, threads, jobs: None };
    stream::unfold((pieces, workers), async |(mut pieces, mut workers)| {
        let begun = match pieces.next_in_open().await {
            Some(Ok(piece)) => {
                let begun = workers.digest(piece);
                // Many pieces are begun, and to make a chunk may have taken a while. A part is begun at once: nobody comes back
                // for the next one before the first of those that are begun is read.
                yield_once().await;
                begun
            }
            Some(Err(error)) => ready(once(Err(error))),
            None => workers.digest_part(pieces.next_part()?),
        };
        Some((begun, (pieces, workers)))
    })
    .buffered(threads + PIECES_AHEAD)
    .flatten()
    .boxed()
}

/// Threads that live as long as there is something to do for them. They are no runtime's, so that it does not matter under
/// which one a plan is made, and none is held up.
struct Workers {
    digester: Digester,
    threads: usize,
    jobs: Option<mpsc::Sender<Job>>,
}

enum Job {
    Rows { rows: Arc<dyn Rows>, range: Range<usize>, done: oneshot::Sender<thread::Result<Result<Digested>>> },
    Part { part: Part, giver: Giver<Vec<Digested>> },
}

/// What is begun, and then gives what rows are.
type Begun<'a> = BoxFuture<'a, BoxStream<'a, Result<Digested>>>;

fn ready(begun: BoxStream<'_, Result<Digested>>) -> Begun<'_> {
    future::ready(begun).boxed()
}

fn once<'a>(digested: Result<Digested>) -> BoxStream<'a, Result<Digested>> {
    stream::iter([digested]).boxed()
}

fn unwound(found: thread::Result<Result<Digested>>) -> Result<Digested> {
    found.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

impl Workers {
    /// Begins to digest a piece.
    fn digest<'a>(&mut self, piece: Piece<'a>) -> Begun<'a> {
        if let Chunk::Owned(rows) = &piece.chunk
            && piece.range.len() >= ROWS_TO_SEND
        {
            let (done, digested) = oneshot::channel();
            if self.send(Job::Rows { rows: Arc::clone(rows), range: piece.range.clone(), done }).is_ok() {
                return async move {
                    let digested = digested.await;
                    // Here it came from, and here it is dropped: memory that another thread frees has to be locked each time.
                    drop(piece);
                    once(digested.map_or_else(|oneshot::Canceled| Err(ended()), unwound))
                }
                .boxed();
            }
        }
        // A machine that has no thread left does it here.
        let digester = self.digester.clone();
        async move { once(digester.digest(piece.chunk.rows(), piece.range)) }.boxed()
    }

    /// Begins to read a part and to digest it.
    fn digest_part<'a>(&mut self, part: Part) -> Begun<'a> {
        let (giver, digested) = handover(WAITING_MAX);
        ready(match self.send(Job::Part { part, giver }) {
            Ok(()) => digested.map_ok(|pieces| stream::iter(pieces).map(Ok)).try_flatten().boxed(),
            Err(error) => once(Err(error)),
        })
    }

    fn send(&mut self, job: Job) -> Result<()> {
        let jobs = self.jobs.get_or_insert_with(|| start(&self.digester, self.threads));
        jobs.send(job).map_err(|_| ended())
    }
}

/// Starts threads that end when nobody can send them anything any more.
fn start(digester: &Digester, threads: usize) -> mpsc::Sender<Job> {
    let (jobs, todo) = mpsc::channel::<Job>();
    let todo = Arc::new(Mutex::new(todo));
    for _ in 0..threads {
        let (digester, todo) = (digester.clone(), Arc::clone(&todo));
        let work = move || {
            // The lock is free again before the work begins.
            while let Ok(job) = { todo.lock().unwrap_or_else(PoisonError::into_inner).recv() } {
                job.run(&digester);
            }
        };
        let _ = thread::Builder::new().name("reverse-etl plan".to_owned()).spawn(work);
    }
    jobs
}

impl Job {
    /// Nobody waits for what comes of it if the plan was given up.
    fn run(self, digester: &Digester) {
        match self {
            Self::Rows { done, .. } if done.is_canceled() => {}
            Self::Rows { rows, range, done } => {
                let found = panic::catch_unwind(AssertUnwindSafe(|| digester.digest(&*rows, range)));
                drop(rows);
                let _ = done.send(found);
            }
            Self::Part { part, giver } => giver.run(|giver| read_part(part, digester, giver)),
        }
    }
}

/// Reads a part, and hands on what its rows are, until it is read or nobody wants it.
fn read_part(part: Part, digester: &Digester, giver: &mut Giver<Vec<Digested>>) -> Result<()> {
    let (mut pieces, mut differing, mut bytes) = (Vec::new(), 0, 0);
    let mut at_once = ROWS_AT_ONCE;
    if !giver.is_wanted() {
        return Ok(());
    }
    for rows in part.open() {
        let rows = rows?;
        // Rows that are what the state says are not handed on for long.
        if !giver.is_wanted() {
            return Ok(());
        }
        let mut start = 0;
        while start < rows.len() {
            let end = rows.len().min(start + at_once);
            let piece = digester.digest(&*rows, start..end)?;
            let rows_here = end - start;
            start = end;
            let taken = piece.bytes;
            (differing, bytes) = (differing + piece.others.len(), bytes + taken);
            // As many as would take that memory if they are like these.
            at_once = (rows_here * BYTES_AT_ONCE / taken.max(1)).clamp(1, ROWS_AT_ONCE);
            pieces.push(piece);
            if differing >= DIFFERING_AT_ONCE || bytes >= BYTES_AT_ONCE {
                (differing, bytes) = (0, 0);
                if !giver.give(mem::take(&mut pieces)) {
                    return Ok(());
                }
            }
        }
    }
    giver.give(pieces);
    Ok(())
}

/// Borrowed rows cannot outlive a call, so their threads do not either: each call digests one piece a thread.
fn borrowed<'a>(
    pieces: BoxStream<'a, Result<Piece<'a>>>,
    digester: Digester,
    threads: usize,
) -> impl Stream<Item = Result<Digested>> + Send + 'a {
    pieces.chunks(threads).flat_map(move |pieces| {
        let pieces: Result<Vec<Piece<'a>>> = pieces.into_iter().collect();
        stream::iter(pieces.map_or_else(|error| vec![Err(error)], |pieces| at_once(&pieces, &digester)))
    })
}

/// Digests each piece on a thread of its own, the first one on this.
fn at_once(pieces: &[Piece<'_>], digester: &Digester) -> Vec<Result<Digested>> {
    let digest = |piece: &Piece<'_>| digester.digest(piece.chunk.rows(), piece.range.clone());
    thread::scope(|scope| {
        let digest = &digest;
        let mut others = Vec::new();
        for piece in pieces.iter().skip(1) {
            let thread = thread::Builder::new().spawn_scoped(scope, move || digest(piece));
            others.push(thread.map_err(|_| piece));
        }
        let first = pieces.first().map(digest);
        let others = others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(piece) => digest(piece),
        });
        first.into_iter().chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::{
        iter,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{
        Mapping, Record, Source,
        fingerprint::{Fingerprinter, Secret},
        mapping::Mapper,
        plan::index::Index,
        state::ScannedRows,
    };

    fn digester(mapping: &Mapping, slots: &[u16]) -> Digester {
        let prints = Fingerprinter::new(&Secret::new([7; 32])).unwrap();
        Digester {
            mapper: Arc::new(Mapper::new(mapping, slots, prints).unwrap()),
            index: Arc::new(Index::of_sorted(&ScannedRows::default()).unwrap()),
            all_differ: false,
        }
    }

    #[test]
    fn long_rows_of_a_part_are_digested_a_few_at_a_time() {
        let digester = digester(&Mapping::new("id").map("note", "note"), &[0]);
        let (rows, length) = (600, BYTES_AT_ONCE / 10);
        let people = (0..rows).map(|id| Record::new().with("id", id).with("note", "x".repeat(length)));
        let chunks: Vec<_> = people
            .collect::<Vec<_>>()
            .chunks(60)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        let part = Pieces::new(Source::parts([|| chunks]), 1).next_part().unwrap();
        let (mut giver, pieces) = handover(1000);
        read_part(part, &digester, &mut giver).unwrap();
        drop(giver);
        let pieces = futures::executor::block_on_stream(Box::pin(pieces)).map_while(Result::ok);
        let others = |pieces: Vec<Digested>| pieces.iter().map(|piece| piece.others.len()).sum();
        let counts: Vec<usize> = pieces.map(others).collect();
        assert_eq!(counts.iter().sum::<usize>(), 600);
        // How long they are is not known before the first ones are there.
        assert_eq!(counts[0], 60);
        assert!(counts[1..counts.len() - 1].iter().all(|rows| (1..=18).contains(rows)), "{counts:?}");
    }

    #[test]
    fn nobody_reads_on_in_a_part_that_nobody_wants_any_more() {
        let digester = digester(&Mapping::new("id"), &[]);
        let read = Arc::new(AtomicUsize::new(0));
        // Reads a part, and wants it no more once so many chunks are read.
        let read_until = |wanted: usize| {
            let (mut giver, taken) = handover(WAITING_MAX);
            let taken = Mutex::new(Some(taken).filter(|_| wanted > 0));
            let counted = Arc::clone(&read);
            let chunk = move || {
                if counted.fetch_add(1, Ordering::Relaxed) + 1 == wanted {
                    taken.lock().unwrap().take();
                }
                Ok::<_, std::io::Error>(vec![Record::new().with("id", 1)])
            };
            let parts = Source::parts([|| iter::repeat_with(chunk).take(500)]);
            let part = Pieces::new(parts, 1).next_part().unwrap();
            read_part(part, &digester, &mut giver).unwrap();
            read.swap(0, Ordering::Relaxed)
        };
        assert_eq!(read_until(1000), 500);
        assert_eq!(read_until(7), 7);
        assert_eq!(read_until(0), 0);
    }
}
