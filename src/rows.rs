//! Many rows: a source, chunk by chunk, read in place.
//!
//! A row is looked at and dropped. Only a row that turns out to have changed is ever copied.

#[cfg(feature = "arrow")]
mod arrow;
mod serialize;
mod texts;

pub use texts::Texts;

use std::{borrow::Cow, fmt, ops::Range, sync::Arc, thread};

use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream, TryChunksError},
};
use serde::Serialize;

use crate::{
    BoxError, Error, ErrorKind, Result,
    handover::{ended, handover},
    record::{FieldName, Near, Record, Value, ValueRef},
};

/// Rows in one chunk of a source that hands them out one by one.
const CHUNK: usize = 1024;

/// A chunk of rows that can be read in place.
///
/// A row that has not changed is visited once, for its hash, one that has changed a second time, for its values, and on any
/// thread. Rows must give the same values each time: the state remembers what was hashed, and the second time's values are sent.
///
/// ```
/// use std::ops::Range;
/// use reverse_etl::{FieldName, Mapping, MemoryStore, PlanOptions, Result, Rows, ValueRef, plan};
///
/// /// Two columns, side by side.
/// struct Scores {
///     emails: Vec<String>,
///     points: Vec<i64>,
/// }
///
/// impl Rows for Scores {
///     fn len(&self) -> usize {
///         self.emails.len()
///     }
///
///     fn visit(
///         &self,
///         columns: &[FieldName],
///         range: Range<usize>,
///         row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
///     ) -> Result<()> {
///         for index in range {
///             let values = columns.iter().map(|column| match column.as_str() {
///                 "email" => Some(ValueRef::Text(self.emails[index].as_str().into())),
///                 "points" => Some(ValueRef::Int(self.points[index].into())),
///                 _ => None, // or an error that names the column
///             });
///             row(&values.collect::<Vec<_>>())?;
///         }
///         Ok(())
///     }
/// }
///
/// # futures::executor::block_on(async {
/// let scores = Scores { emails: vec!["ada@shop.test".into()], points: vec![120] };
/// let mapping = Mapping::new("email").map("points", "points");
/// let plan = plan(&scores, &mapping, &MemoryStore::default(), &PlanOptions::default()).await?;
/// assert_eq!(plan.counts().added, 1);
/// # Ok::<(), reverse_etl::Error>(())
/// # }).unwrap();
/// ```
pub trait Rows: Send + Sync {
    /// The number of rows.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds `columns` once, then calls `row` with a value of each of them, for each row of `range`, in order. `None` stands
    /// for a value that the row does not have, which is not [`ValueRef::Null`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no row can have one of the columns; [`ErrorKind::Source`] if a row cannot be read; and
    /// whatever `row` returns, which ends the visit.
    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()>;

    /// The same for some of the rows, whose numbers ascend. By default each stretch of them is a visit.
    ///
    /// # Errors
    /// Those of [`visit`](Self::visit).
    fn visit_some(
        &self,
        columns: &[FieldName],
        rows: &[usize],
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        stretches(rows).try_for_each(|stretch| self.visit(columns, stretch, &mut *row))
    }

    /// The texts of a column where they lie, if it has nothing but texts and nulls.
    /// They are the same values that [`visit`](Self::visit) gives, only faster. By default there are none.
    fn texts(&self, _column: &FieldName) -> Option<Texts<'_>> {
        None
    }

    /// The rows as records, if that is what they are. They are the same rows, only nearer. By default they are not.
    fn records(&self) -> Option<&[Record]> {
        None
    }
}

const _: fn(&dyn Rows) = |_| (); // stays usable as a trait object

/// Numbers that ascend, as ranges of those that follow each other.
fn stretches(rows: &[usize]) -> impl Iterator<Item = Range<usize>> {
    rows.chunk_by(|row, next| row + 1 == *next).map(|stretch| stretch[0]..stretch[0] + stretch.len())
}

/// A column that a record lacks is an absent value: records need not be alike.
impl Rows for [Record] {
    fn len(&self) -> usize {
        <[Record]>::len(self)
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        let mut values = Vec::with_capacity(columns.len());
        // Records of one source mostly have their values in one order: a value is looked for where the last one was.
        let mut places = vec![Near::default(); columns.len()];
        for record in self.get(range).unwrap_or_default() {
            values.clear();
            let found = columns.iter().zip(&mut places).map(|(column, place)| record.get_near(column, place));
            values.extend(found.map(|value| value.map(Value::as_ref)));
            row(&values)?;
        }
        Ok(())
    }

    fn records(&self) -> Option<&[Record]> {
        Some(self)
    }
}

impl Rows for Vec<Record> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        self.as_slice().visit(columns, range, row)
    }

    fn records(&self) -> Option<&[Record]> {
        Some(self)
    }
}

impl<R: Rows + ?Sized> Rows for &R {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        (**self).visit(columns, range, row)
    }

    fn visit_some(
        &self,
        columns: &[FieldName],
        rows: &[usize],
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        (**self).visit_some(columns, rows, row)
    }

    fn texts(&self, column: &FieldName) -> Option<Texts<'_>> {
        (**self).texts(column)
    }

    fn records(&self) -> Option<&[Record]> {
        (**self).records()
    }
}

/// Rows whose cells are all text, as in a CSV file: the cells of one chunk in one piece of text.
struct TextRows {
    header: Arc<[FieldName]>,
    cells: String,
    /// Where each cell ends in `cells`.
    ends: Vec<usize>,
    /// How many cells precede each row.
    starts: Vec<usize>,
}

impl TextRows {
    fn new(header: Arc<[FieldName]>) -> Self {
        Self { header, cells: String::new(), ends: Vec::new(), starts: Vec::new() }
    }

    /// Adds a row; one with more cells than the header has names is refused.
    fn push<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) -> Result<(), Mismatched> {
        let start = self.ends.len();
        self.starts.push(start);
        for cell in cells {
            self.cells.push_str(cell);
            self.ends.push(self.cells.len());
        }
        let found = self.ends.len() - start;
        if found > self.header.len() { Err(Mismatched { found, named: self.header.len() }) } else { Ok(()) }
    }

    fn cell(&self, row: usize, column: usize) -> Option<&str> {
        let index = self.starts.get(row)? + column;
        let row_end = self.starts.get(row + 1).copied().unwrap_or(self.ends.len());
        let end = *self.ends.get(index).filter(|_| index < row_end)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.cells.get(start..end)
    }
}

struct Mismatched {
    found: usize,
    named: usize,
}

impl TextRows {
    /// Where a header is missing, the first row stands in its place, and that is about a person: names are not listed.
    fn no_column(&self, column: &FieldName) -> Error {
        let letters =
            |name: &FieldName| name.as_str().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let is_near = |name: &&FieldName| letters(name).eq_ignore_ascii_case(&letters(column));
        let hint = match (self.header.iter().find(is_near), self.header.len()) {
            (Some(near), _) => format!("it has `{near}`: map that one"),
            (None, 1) => {
                "it has a single one, of another name: check the mapping, what its cells are parted by, \
                          and that the name stands above the rows"
                    .to_owned()
            }
            (None, names) => format!(
                "none of its {names} names is like that: check the mapping, and that the names stand above the rows"
            ),
        };
        Error::config(format!("the source has no column `{column}`; {hint}"))
    }
}

impl Rows for TextRows {
    fn len(&self) -> usize {
        self.starts.len()
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        let positions = columns
            .iter()
            .map(|column| {
                let position = self.header.iter().position(|name| name == column);
                position.ok_or_else(|| self.no_column(column))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(positions.len());
        for index in range.start..range.end.min(self.len()) {
            values.clear();
            let cells = positions.iter().map(|&column| self.cell(index, column));
            values.extend(cells.map(|cell| cell.map(|text| ValueRef::Text(Cow::Borrowed(text)))));
            row(&values)?;
        }
        Ok(())
    }
}

/// Where the rows of a plan come from.
///
/// ```
/// use reverse_etl::{Record, Source};
///
/// // Anything that serde can write as a map: `Option::None` is null, and null clears a field.
/// let source = Source::iter([Record::new().with("email", "ada@shop.test").with("points", 120)]);
///
/// // Text cells, as a CSV reader gives them: `007` stays `007`.
/// let mut csv = csv::Reader::from_reader("email,code\nada@shop.test,007\n".as_bytes());
/// let header = csv.headers()?.clone();
/// let source = Source::text(&header, csv.into_records());
///
/// // Chunks of anything that is `Rows`, such as Arrow batches from a query or a file (feature `arrow`).
/// # use futures::stream;
/// # let batches = stream::iter([Ok::<_, std::io::Error>(vec![Record::new().with("email", "ada@shop.test")])]);
/// let source = Source::chunks(batches); // a stream of `Result<RecordBatch, _>`
/// # Ok::<(), csv::Error>(())
/// ```
pub struct Source<'a>(Feed<'a>);

enum Feed<'a> {
    Owned(BoxStream<'a, Result<Arc<dyn Rows>>>),
    Borrowed(Arc<dyn Rows + 'a>),
    Parts(Parts<'a>),
}

/// The parts of a source, none of which is open yet.
type Parts<'a> = Box<dyn Iterator<Item = Part> + Send + 'a>;

/// A part of a source, which is read by the thread that opens it.
pub(crate) struct Part(Box<dyn FnOnce() -> Chunks + Send>);

/// The chunks of a part, one after the other.
pub(crate) type Chunks = Box<dyn Iterator<Item = Result<Arc<dyn Rows>>>>;

impl<'a> Source<'a> {
    /// Rows of a type that serde writes as a map of column names to values.
    pub fn iter<T: Serialize>(rows: impl IntoIterator<Item = T, IntoIter: Send + 'a>) -> Self {
        let mut rows = rows.into_iter().enumerate();
        Self::pulled(move || {
            let chunk: Result<Vec<Record>> =
                rows.by_ref().take(CHUNK).map(|(index, row)| record(index, &row)).collect();
            finished(chunk)
        })
    }

    /// Rows as they arrive; an error ends the source, and a plan over it fails. The error becomes the cause of the plan's:
    /// it should not quote the row.
    pub fn stream<T: Serialize + Send + 'a, E: Into<BoxError>>(
        rows: impl Stream<Item = std::result::Result<T, E>> + Send + 'a,
    ) -> Self {
        let records = rows.enumerate().map(|(index, row)| match row {
            Ok(row) => record(index, &row),
            Err(error) => Err(unreadable(index, error)),
        });
        let chunks = records.try_chunks(CHUNK).map(|chunk| match chunk {
            Ok(chunk) => Ok(Arc::new(chunk) as Arc<dyn Rows>),
            Err(TryChunksError(_, error)) => Err(error),
        });
        Self(Feed::Owned(chunks.boxed()))
    }

    /// Rows of text cells under a header, such as the records of a CSV file. A cell stays text.
    ///
    /// A row with fewer cells than the header lacks the last values; one with more is an error.
    pub fn text<H, R, T, E>(header: H, rows: R) -> Self
    where
        H: IntoIterator<Item: AsRef<str>>,
        R: IntoIterator<Item = std::result::Result<T, E>, IntoIter: Send + 'a>,
        for<'r> &'r T: IntoIterator<Item = &'r str>,
        E: Into<BoxError>,
    {
        let header: Arc<[FieldName]> = header.into_iter().map(|name| name.as_ref().into()).collect();
        let mut rows = rows.into_iter().enumerate();
        Self::pulled(move || {
            let mut chunk = TextRows::new(Arc::clone(&header));
            for (index, row) in rows.by_ref().take(CHUNK) {
                let row = match row {
                    Ok(row) => row,
                    Err(error) => return Some(Err(unreadable(index, error))),
                };
                if let Err(Mismatched { found, named }) = chunk.push(&row) {
                    let row = index + 1;
                    return Some(Err(Error::new(
                        ErrorKind::Source,
                        format!(
                            "row {row} of the source has {found} cells, and the header names {named} columns: \
                             mend the row, perhaps its quotes"
                        ),
                    )));
                }
            }
            finished(Ok(chunk))
        })
    }

    /// Chunks that can be read in place, as they arrive.
    pub fn chunks<R: Rows + 'static, E: Into<BoxError>>(
        chunks: impl Stream<Item = std::result::Result<R, E>> + Send + 'a,
    ) -> Self {
        Self(Feed::Owned(chunks.map(|chunk| shared(chunk)).boxed()))
    }

    /// Parts of a source that has to be decoded, such as the row groups of a Parquet file: each is a function that opens it and
    /// gives its chunks, one after the other.
    ///
    /// A part is decoded by the thread that compares its rows, so that they are still near: chunks of some thousand rows do
    /// best. Several parts are read at once ([`PlanOptions::threads`](crate::PlanOptions::threads)), and rows count in the order
    /// of the parts. How far one part may be ahead of those before it is limited, so they should not have many more than a
    /// hundred thousand rows.
    ///
    /// ```
    /// use reverse_etl::{Record, Source};
    ///
    /// let person = |id: u32| Record::new().with("email", format!("{id}@shop.test"));
    /// let chunk = move |start: u32| Ok::<_, std::io::Error>(vec![person(start), person(start + 1)]);
    /// let source = Source::parts([0, 100].map(|start| move || (start..start + 100).step_by(2).map(chunk)));
    /// ```
    pub fn parts<P, C, R, E>(parts: impl IntoIterator<Item = P, IntoIter: Send + 'a>) -> Self
    where
        P: FnOnce() -> C + Send + 'static,
        C: IntoIterator<Item = std::result::Result<R, E>, IntoIter: 'static>,
        R: Rows + 'static,
        E: Into<BoxError>,
    {
        let part = |open: P| Part(Box::new(move || Box::new(open().into_iter().map(|chunk| shared(chunk)))));
        Self(Feed::Parts(Box::new(parts.into_iter().map(part))))
    }

    /// Chunks from a function, until it has no more or one is an error.
    fn pulled(mut next: impl FnMut() -> Option<Result<Arc<dyn Rows>>> + Send + 'a) -> Self {
        let mut failed = false;
        let chunks = std::iter::from_fn(move || {
            let chunk = if failed { None } else { next() };
            failed = matches!(chunk, Some(Err(_)));
            chunk
        });
        Self(Feed::Owned(stream::iter(chunks).boxed()))
    }

    /// The rows in pieces of at most so many.
    pub(crate) fn into_pieces(self, rows_max: usize) -> Pieces<'a> {
        let mut pieces = Pieces { parts: None, chunks: None, rows_max, current: None };
        match self.0 {
            Feed::Owned(chunks) => pieces.chunks = Some(chunks),
            Feed::Borrowed(rows) => pieces.current = Some((Chunk::Borrowed(rows), 0)),
            Feed::Parts(parts) => pieces.parts = Some(parts),
        }
        pieces
    }
}

impl Part {
    pub(crate) fn open(self) -> Chunks {
        (self.0)()
    }

    /// The chunks of the part, read on a thread of their own.
    fn streamed(self) -> Result<BoxStream<'static, Result<Arc<dyn Rows>>>> {
        let (giver, chunks) = handover(0);
        let work = move || {
            giver.run(|giver| {
                for chunk in self.open() {
                    if !giver.give(chunk?) {
                        break;
                    }
                }
                Ok(())
            });
        };
        let started = thread::Builder::new().name("reverse-etl part".to_owned()).spawn(work);
        started.map(|_| chunks.boxed()).map_err(|_| ended())
    }
}

/// The rows of a source, piece by piece.
pub(crate) struct Pieces<'a> {
    parts: Option<Parts<'a>>,
    chunks: Option<BoxStream<'a, Result<Arc<dyn Rows>>>>,
    rows_max: usize,
    /// A chunk of which rows are left, and the first of them.
    current: Option<(Chunk<'a>, usize)>,
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
    /// How many rows there are, if that is known before they are read.
    pub(crate) fn len(&self) -> Option<usize> {
        let (chunk, _) = self.current.as_ref()?;
        (self.chunks.is_none() && self.parts.is_none()).then(|| chunk.rows().len())
    }

    /// How many rows are sure to follow: those that are left of a chunk. `None` at the end.
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
        let Some((chunk, start)) = &mut self.current else { return Ok(None) };
        let range = *start..*start + rows;
        *start = range.end;
        Ok(Some(Piece { chunk: chunk.clone(), range }))
    }
}

impl<'a, R: Rows + ?Sized> From<&'a R> for Source<'a> {
    fn from(rows: &'a R) -> Self {
        Self(Feed::Borrowed(Arc::new(rows)))
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Feed::Owned(_) => "Source(owned)",
            Feed::Borrowed(_) => "Source(borrowed)",
            Feed::Parts(_) => "Source(parts)",
        })
    }
}

fn shared<R: Rows + 'static>(chunk: std::result::Result<R, impl Into<BoxError>>) -> Result<Arc<dyn Rows>> {
    let unread =
        || Error::new(ErrorKind::Source, "the source could not be read to its end; nothing was planned");
    chunk.map(|rows| Arc::new(rows) as Arc<dyn Rows>).map_err(|error| unread().with_source(error))
}

/// A chunk to hand out, unless it is empty: then the source is at its end.
fn finished<R: Rows + 'static>(chunk: Result<R>) -> Option<Result<Arc<dyn Rows>>> {
    match chunk {
        Ok(rows) if rows.is_empty() => None,
        Ok(rows) => Some(Ok(Arc::new(rows))),
        Err(error) => Some(Err(error)),
    }
}

fn record(index: usize, row: &impl Serialize) -> Result<Record> {
    serialize::record(row)
        .map_err(|why| Error::new(ErrorKind::Source, format!("row {} of the source {why}", index + 1)))
}

fn unreadable(index: usize, error: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::Source,
        format!("row {} of the source could not be read; nothing was planned", index + 1),
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, executor::block_on};

    use super::*;

    /// Every row's values of `columns` as JSON, absent ones as `-`.
    fn read(source: Source<'_>, columns: &[&str]) -> Result<Vec<String>> {
        let columns: Vec<FieldName> = columns.iter().map(|name| (*name).into()).collect();
        let mut rows = Vec::new();
        let mut pieces = source.into_pieces(3);
        while let Some(piece) = block_on(pieces.next()) {
            let Piece { chunk, range } = piece?;
            chunk.rows().visit(&columns, range, &mut |values| {
                let shown = values.iter().map(|value| match value {
                    Some(value) => serde_json::to_string(&value.clone().into_owned()).unwrap(),
                    None => "-".to_owned(),
                });
                rows.push(shown.collect::<Vec<_>>().join(" "));
                Ok(())
            })?;
        }
        Ok(rows)
    }

    /// A source as a CSV reader makes it that lets rows differ in length.
    fn csv(text: &'static str) -> Source<'static> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        Source::text(&header, reader.into_records())
    }

    #[test]
    fn text_stays_text_and_a_short_row_lacks_its_last_values() {
        let source = csv("email,code,note\nada@shop.test,007,\nbob@shop.test,1e3\n");
        assert_eq!(read(source, &["note", "code"]).unwrap(), [r#""" "007""#, r#"- "1e3""#]);
    }

    #[test]
    fn a_row_with_too_many_cells_is_named() {
        let error = read(csv("x,y\na,b\na,b,c\n"), &["x"]).unwrap_err();
        assert!(error.to_string().starts_with("row 2 of the source has 3 cells"), "{error}");
    }

    #[test]
    fn a_text_column_that_does_not_exist_is_named_and_a_header_that_is_a_row_is_not_shown() {
        let told = |text, column| {
            let error = read(csv(text), &[column]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            error.to_string()
        };
        assert_eq!(
            told("x,First Name\n1,2\n", "first_name"),
            "the source has no column `first_name`; it has `First Name`: map that one"
        );
        let text = told("+43 660 1234567,Lovelace\n+43 660 7654321,Byron\n", "phone");
        assert!(
            text.starts_with("the source has no column `phone`; none of its 2 names is like that"),
            "{text}"
        );
        assert_eq!(
            told("x;y\n1;2\n", "y"),
            "the source has no column `y`; it has a single one, of another name: check the mapping, what its cells are \
             parted by, and that the name stands above the rows"
        );
    }

    #[test]
    fn an_error_of_a_stream_is_told_at_once_and_not_when_more_rows_come() {
        let rows = stream::iter([Ok(Record::new().with("a", 1)), Err(std::io::Error::other("gone"))]);
        let mut pieces = Source::stream(rows.chain(stream::pending())).into_pieces(3);
        let first = pieces.next().now_or_never().expect("nothing is waited for");
        assert!(
            first.unwrap().err().unwrap().to_string().starts_with("row 2 of the source could not be read")
        );
    }

    #[test]
    fn null_and_absent_values_of_records_are_told_apart() {
        let rows = vec![Record::new().with("a", None::<i64>), Record::new().with("b", 1)];
        assert_eq!(read(Source::from(&rows), &["a", "b"]).unwrap(), ["null -", "- 1"]);
        assert_eq!(read(Source::iter(rows), &["a", "b"]).unwrap(), ["null -", "- 1"]);
    }

    #[test]
    fn chunks_join_without_losing_a_row() {
        let rows = (0..=CHUNK * 2).map(|index| Record::new().with("n", index as u64));
        let read = read(Source::iter(rows), &["n"]).unwrap();
        assert_eq!((read.len(), read[CHUNK].as_str()), (CHUNK * 2 + 1, "1024"));
    }

    #[test]
    fn an_error_of_the_source_names_the_row_and_ends_it() {
        let rows = [Ok(Record::new().with("a", 1)), Err(std::io::Error::other("gone")), Ok(Record::new())];
        let error = read(Source::stream(stream::iter(rows)), &["a"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.to_string().starts_with("row 2 of the source could not be read"), "{error}");
    }

    #[test]
    fn a_row_that_is_no_map_is_refused_without_showing_it() {
        let error = read(Source::iter(["ada@shop.test"]), &["a"]).unwrap_err();
        assert!(error.to_string().starts_with("row 1 of the source is not a map"), "{error}");
        assert!(!format!("{error:?}").contains("ada"));
    }
}
