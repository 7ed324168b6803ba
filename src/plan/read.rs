//! Reading: a source, piece by piece, each digested on one of several threads, and handed out in order.
//!
//! What comes of it depends neither on the number of threads nor on where the pieces begin.

use std::{panic, sync::Arc, thread};

use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::runtime::Handle;

use crate::{
    Error, ErrorKind, Result,
    plan::digest::{Digested, Digester},
    rows::{Chunk, Piece, Pieces},
};

/// Rows in a piece: one or two milliseconds of work, long enough that nobody notices how it got to its thread.
pub(super) const ROWS_A_PIECE: usize = 8192;

/// Fewer rows than this are digested where they are.
const ROWS_TO_SEND: usize = 512;

type Done<'a> = Result<(Piece<'a>, Digested)>;

/// The pieces that are left, digested on so many threads.
pub(super) fn digested(pieces: Pieces<'_>, digester: Digester, threads: usize) -> BoxStream<'_, Done<'_>> {
    let is_borrowed = pieces.len().is_some();
    let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.next().await?, pieces)));
    if is_borrowed {
        borrowed(pieces.boxed(), digester, threads).boxed()
    } else {
        pieces.map(move |piece| owned(piece, &digester)).buffered(threads).boxed()
    }
}

/// Has tokio's blocking threads digest a piece, which begins at once; without tokio it is done in place.
fn owned<'a>(piece: Result<Piece<'a>>, digester: &Digester) -> BoxFuture<'a, Done<'a>> {
    let piece = match piece {
        Ok(piece) => piece,
        Err(error) => return std::future::ready(Err(error)).boxed(),
    };
    let digester = digester.clone();
    match (&piece.chunk, Handle::try_current()) {
        (Chunk::Owned(rows), Ok(runtime)) if piece.range.len() >= ROWS_TO_SEND => {
            let (rows, range) = (Arc::clone(rows), piece.range.clone());
            let work = runtime.spawn_blocking(move || digester.digest(&*rows, range));
            async move {
                match work.await {
                    Ok(found) => Ok((piece, found?)),
                    Err(stopped) => match stopped.try_into_panic() {
                        Ok(panicked) => panic::resume_unwind(panicked),
                        Err(stopped) => Err(Error::new(
                            ErrorKind::Source,
                            "the runtime was shut down before the source was read to its end; nothing was planned",
                        )
                        .with_source(stopped)),
                    },
                }
            }
            .boxed()
        }
        _ => async move {
            let found = digester.digest(piece.chunk.rows(), piece.range.clone())?;
            Ok((piece, found))
        }
        .boxed(),
    }
}

/// Borrowed rows cannot outlive a call, so their threads do not either: each call digests one piece a thread.
fn borrowed<'a>(
    pieces: BoxStream<'a, Result<Piece<'a>>>,
    digester: Digester,
    threads: usize,
) -> impl Stream<Item = Done<'a>> + Send + 'a {
    pieces.chunks(threads).flat_map(move |pieces| {
        let pieces: Result<Vec<Piece<'a>>> = pieces.into_iter().collect();
        stream::iter(pieces.map_or_else(|error| vec![Err(error)], |pieces| at_once(pieces, &digester)))
    })
}

/// Digests each piece on a thread of its own, the first one on this.
fn at_once<'a>(pieces: Vec<Piece<'a>>, digester: &Digester) -> Vec<Done<'a>> {
    let digest = |piece: &Piece<'a>| digester.digest(piece.chunk.rows(), piece.range.clone());
    let found: Vec<Result<Digested>> = thread::scope(|scope| {
        let digest = &digest;
        let mut others = Vec::new();
        for piece in pieces.iter().skip(1) {
            // A machine that has no thread left does it here.
            let thread = thread::Builder::new().spawn_scoped(scope, move || digest(piece));
            others.push(thread.map_err(|_| piece));
        }
        let first = pieces.first().map(digest);
        let others = others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(piece) => digest(piece),
        });
        first.into_iter().chain(others).collect()
    });
    pieces.into_iter().zip(found).map(|(piece, found)| Ok((piece, found?))).collect()
}
