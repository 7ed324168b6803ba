//! Reading: a source, piece by piece, each digested on one of several threads, and handed out in order.
//!
//! What comes of it depends neither on the number of threads nor on where the pieces begin.

use std::{
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use futures::{
    FutureExt, Stream, StreamExt,
    channel::oneshot,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use crate::{
    Error, ErrorKind, Result,
    plan::digest::{Digested, Digester},
    rows::{Chunk, Piece, Pieces, Rows},
};

/// Rows in a piece: one or two milliseconds of work, long enough that nobody notices how it got to its thread.
pub(super) const ROWS_A_PIECE: usize = 8192;

/// Fewer rows than this are digested where they are.
const ROWS_TO_SEND: usize = 512;

/// Pieces beside those that the threads have: one that is waited for, and the next one for whoever is done first.
const PIECES_AHEAD: usize = 2;

/// The pieces that are left, digested on so many threads.
pub(super) fn digested(
    pieces: Pieces<'_>,
    digester: Digester,
    threads: usize,
) -> BoxStream<'_, Result<Digested>> {
    let is_borrowed = pieces.len().is_some();
    let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.next().await?, pieces)));
    if is_borrowed {
        borrowed(pieces.boxed(), digester, threads).boxed()
    } else {
        let mut workers = Workers { digester, threads, jobs: None };
        pieces
            .map(move |piece| match piece {
                Ok(piece) => workers.digest(piece),
                Err(error) => std::future::ready(Err(error)).boxed(),
            })
            .buffered(threads + PIECES_AHEAD)
            .boxed()
    }
}

/// Threads that live as long as there is something to do for them. They are no runtime's, so that it does not matter under
/// which one a plan is made, and none is held up.
struct Workers {
    digester: Digester,
    threads: usize,
    jobs: Option<mpsc::Sender<Job>>,
}

struct Job {
    rows: Arc<dyn Rows>,
    range: Range<usize>,
    done: oneshot::Sender<thread::Result<Result<Digested>>>,
}

impl Workers {
    /// Begins to digest a piece.
    fn digest<'a>(&mut self, piece: Piece<'a>) -> BoxFuture<'a, Result<Digested>> {
        if let Chunk::Owned(rows) = &piece.chunk
            && piece.range.len() >= ROWS_TO_SEND
        {
            let (done, digested) = oneshot::channel();
            let job = Job { rows: Arc::clone(rows), range: piece.range.clone(), done };
            if self.jobs.get_or_insert_with(|| start(&self.digester, self.threads)).send(job).is_ok() {
                return async move {
                    let digested = digested.await;
                    // Here it came from, and here it is dropped: memory that another thread frees has to be locked each time.
                    drop(piece);
                    match digested {
                        Ok(Ok(digested)) => digested,
                        Ok(Err(panicked)) => panic::resume_unwind(panicked),
                        Err(oneshot::Canceled) => Err(Error::new(
                            ErrorKind::Source,
                            "a thread that compares rows with the state has ended: plan again",
                        )),
                    }
                }
                .boxed();
            }
        }
        // A machine that has no thread left does it here.
        let digester = self.digester.clone();
        async move { digester.digest(piece.chunk.rows(), piece.range) }.boxed()
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
            while let Ok(Job { rows, range, done }) =
                { todo.lock().unwrap_or_else(PoisonError::into_inner).recv() }
            {
                let found = panic::catch_unwind(AssertUnwindSafe(|| digester.digest(&*rows, range)));
                drop(rows);
                // Nobody waits for it if the plan was given up.
                let _ = done.send(found);
            }
        };
        let _ = thread::Builder::new().name("reverse-etl plan".to_owned()).spawn(work);
    }
    jobs
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
