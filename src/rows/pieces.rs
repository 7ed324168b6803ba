//! Pieces: the rows of a source in the stretches in which they are read.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use futures::{StreamExt, stream::BoxStream};

use super::{
    Rows,
    source::{Feed, Part, Parts, Source},
};
use crate::Result;

/// The rows of a source, piece by piece.
pub(crate) struct Pieces<'a> {
    parts: Option<Parts<'a>>,
    chunks: Option<BoxStream<'a, Result<Arc<dyn Rows>>>>,
    rows_max: usize,
    /// A chunk of which rows are left, and the first of them.
    current: Option<(Chunk<'a>, usize)>,
    /// Pieces that were taken and are to be taken once more.
    again: VecDeque<Piece<'a>>,
}

/// A stretch of rows of one chunk.
#[derive(Clone)]
pub(crate) struct Piece<'a> {
    pub(crate) chunk: Chunk<'a>,
    pub(crate) range: Range<usize>,
}

#[derive(Clone)]
pub(crate) enum Chunk<'a> {
    /// Any thread may have it, as long as it wants.
    Owned(Arc<dyn Rows>),
    Borrowed(Arc<dyn Rows + 'a>),
}

impl Chunk<'_> {
    #[expect(
        clippy::match_same_arms,
        reason = "the two live differently long, so one pattern does not fit both"
    )]
    pub(crate) fn rows(&self) -> &dyn Rows {
        match self {
            Self::Owned(rows) => &**rows,
            Self::Borrowed(rows) => &**rows,
        }
    }
}

impl<'a> Pieces<'a> {
    /// The rows of a source in pieces of at most so many.
    pub(crate) fn new(source: Source<'a>, rows_max: usize) -> Self {
        let mut pieces = Self { parts: None, chunks: None, rows_max, current: None, again: VecDeque::new() };
        match source.0 {
            Feed::Owned(chunks) => pieces.chunks = Some(chunks),
            Feed::Borrowed(rows) => pieces.current = Some((Chunk::Borrowed(rows), 0)),
            Feed::Parts(parts) => pieces.parts = Some(parts),
        }
        pieces
    }

    /// How many rows there are, if that is known before they are read.
    pub(crate) fn len(&self) -> Option<usize> {
        let (chunk, _) = self.current.as_ref()?;
        (self.chunks.is_none() && self.parts.is_none()).then(|| chunk.rows().len())
    }

    /// How many rows are sure to follow: those of a piece that was put back, or those that are left of a chunk. `None` at the end.
    pub(crate) async fn ahead(&mut self) -> Option<Result<usize>> {
        loop {
            if let Some(open) = self.ahead_in_open().await {
                return Some(open);
            }
            match self.next_part()?.streamed() {
                Ok(chunks) => self.chunks = Some(chunks),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The same of what is open: no part is opened.
    async fn ahead_in_open(&mut self) -> Option<Result<usize>> {
        if let Some(piece) = self.again.front() {
            return Some(Ok(piece.range.len()));
        }
        loop {
            if let Some((chunk, start)) = &self.current {
                let left = chunk.rows().len().saturating_sub(*start);
                if left > 0 {
                    return Some(Ok(left));
                }
            }
            match self.chunks.as_mut()?.next().await {
                Some(Ok(rows)) => self.current = Some((Chunk::Owned(rows), 0)),
                Some(Err(error)) => return Some(Err(error)),
                None => self.chunks = None,
            }
        }
    }

    /// Has the pieces that were taken last come once more.
    pub(crate) fn put_back(&mut self, pieces: impl IntoIterator<Item = Piece<'a>>) {
        self.again.extend(pieces);
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Piece<'a>>> {
        let ahead = self.ahead().await?;
        self.piece(ahead).transpose()
    }

    /// The next piece of what is open: no part is opened.
    pub(crate) async fn next_in_open(&mut self) -> Option<Result<Piece<'a>>> {
        let ahead = self.ahead_in_open().await?;
        self.piece(ahead).transpose()
    }

    /// The next part; what is open comes before it.
    pub(crate) fn next_part(&mut self) -> Option<Part> {
        self.parts.as_mut()?.next()
    }

    fn piece(&mut self, ahead: Result<usize>) -> Result<Option<Piece<'a>>> {
        let rows = ahead?.min(self.rows_max);
        if let Some(piece) = self.again.pop_front() {
            return Ok(Some(piece));
        }
        let Some((chunk, start)) = &mut self.current else { return Ok(None) };
        let range = *start..*start + rows;
        *start = range.end;
        Ok(Some(Piece { chunk: chunk.clone(), range }))
    }
}
