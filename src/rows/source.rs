//! Source: where the rows of a plan come from.

use std::{fmt, sync::Arc, thread};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;

use super::{
    Rows,
    columns::Columns,
    headed::{HeadedRows, Mismatched},
    serialize,
};
use crate::{
    BoxError, Error, ErrorKind, Result,
    handover::{ended, handover},
    record::FieldName,
};

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
pub struct Source<'a>(pub(super) Feed<'a>);

pub(super) enum Feed<'a> {
    Owned(BoxStream<'a, Result<Arc<dyn Rows>>>),
    Borrowed(Arc<dyn Rows + 'a>),
    Parts(Parts<'a>),
}

/// The parts of a source, none of which is open yet.
pub(super) type Parts<'a> = Box<dyn Iterator<Item = Part> + Send + 'a>;

/// A part of a source, which is read by the thread that opens it.
pub(crate) struct Part(Box<dyn FnOnce() -> Chunks + Send>);

/// The chunks of a part, one after the other.
pub(crate) type Chunks = Box<dyn Iterator<Item = Result<Arc<dyn Rows>>>>;

impl<'a> Source<'a> {
    /// Rows of a type that serde writes as a map of column names to values, such as a struct.
    ///
    /// | Of the row | Value |
    /// |---|---|
    /// | `None`, `()` | null, which clears a field |
    /// | a field that is skipped | absent, which leaves a field alone |
    /// | text, and what is shown as text, such as a date or a UUID | text |
    /// | truth values, numbers | the same, an `f32` as the shortest decimal number that stands for it |
    /// | a list | list |
    /// | a variant without data | its name |
    /// | anything else, such as a struct or a map | its JSON text, with names in order |
    ///
    /// Of two values of one name the last counts. A [`Value::Date`](crate::Value::Date) of a [`Record`](crate::Record) is text
    /// as well: records that are at hand are better read in place, as `Source::from(&records)`.
    pub fn iter<T: Serialize>(rows: impl IntoIterator<Item = T, IntoIter: Send + 'a>) -> Self {
        let mut rows = rows.into_iter().fuse().enumerate();
        let mut chunk = Columns::new();
        Self::pulled(move || {
            for (index, row) in rows.by_ref() {
                if let Err(error) = write(index, &row, &mut chunk) {
                    return Some(Err(error));
                }
                if chunk.is_full() {
                    break;
                }
            }
            finished(chunk.take()).map(Ok)
        })
    }

    /// Rows as they arrive; an error ends the source, and a plan over it fails. The error becomes the cause of the plan's:
    /// it should not quote the row.
    pub fn stream<T: Serialize + Send + 'a, E: Into<BoxError>>(
        rows: impl Stream<Item = std::result::Result<T, E>> + Send + 'a,
    ) -> Self {
        let rows =
            rows.enumerate().map(|(index, row)| (index, row.map_err(|error| unreadable(index, error))));
        let rows = rows.fuse().boxed();
        let chunks = stream::try_unfold((rows, Columns::new()), async |(mut rows, mut chunk)| {
            while let Some((index, row)) = rows.next().await {
                write(index, &row?, &mut chunk)?;
                if chunk.is_full() {
                    break;
                }
            }
            Ok(finished(chunk.take()).map(|finished| (finished, (rows, chunk))))
        });
        Self(Feed::Owned(chunks.boxed()))
    }

    /// Rows of text cells under a header, such as the records of a CSV file. A cell stays text.
    ///
    /// A row with fewer cells than the header lacks the last values; one with more is an error, and so is a column that is mapped
    /// and stands in the header twice. The error of a row becomes the cause of the plan's: it should not quote the row.
    pub fn text<H, R, T, E>(header: H, rows: R) -> Self
    where
        H: IntoIterator<Item: AsRef<str>>,
        R: IntoIterator<Item = std::result::Result<T, E>, IntoIter: Send + 'a>,
        for<'r> &'r T: IntoIterator<Item = &'r str>,
        E: Into<BoxError>,
    {
        let header: Arc<[FieldName]> = header.into_iter().map(|name| name.as_ref().into()).collect();
        let mut rows = rows.into_iter().fuse().enumerate();
        let mut chunk = HeadedRows::new(header);
        Self::pulled(move || {
            for (index, row) in rows.by_ref() {
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
                if chunk.is_full() {
                    break;
                }
            }
            finished(chunk.take()).map(Ok)
        })
    }

    /// Chunks that can be read in place, as they arrive. The error of one becomes the cause of the plan's: it should not quote
    /// rows.
    pub fn chunks<R: Rows + 'static, E: Into<BoxError>>(
        chunks: impl Stream<Item = std::result::Result<R, E>> + Send + 'a,
    ) -> Self {
        Self(Feed::Owned(chunks.map(|chunk| shared(chunk)).boxed()))
    }

    /// Parts of a source that has to be decoded, such as the row groups of a Parquet file: each is a function that opens it and
    /// gives its chunks, one after the other.
    ///
    /// A part is decoded by the thread that compares its rows, so that they are still near: chunks of some thousand rows do
    /// best. While rows are still looked up one by one, as the first ones are, it has a thread of its own. Several parts are
    /// read at once ([`PlanOptions::threads`](crate::PlanOptions::threads)), and rows count in the order of the parts. How
    /// far one part may be ahead of those before it is limited, so they should not have many more than a hundred thousand rows.
    /// The error of a chunk becomes the cause of the plan's: it should not quote rows.
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
}

impl Part {
    pub(crate) fn open(self) -> Chunks {
        (self.0)()
    }

    /// The chunks of the part, read on a thread of their own.
    pub(super) fn streamed(self) -> Result<BoxStream<'static, Result<Arc<dyn Rows>>>> {
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
fn finished<R: Rows + 'static>(chunk: R) -> Option<Arc<dyn Rows>> {
    (!chunk.is_empty()).then(|| Arc::new(chunk) as Arc<dyn Rows>)
}

/// Writes a row into a chunk.
fn write(index: usize, row: &impl Serialize, chunk: &mut Columns) -> Result<()> {
    serialize::write(row, chunk)
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
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Record, Value,
        rows::{
            Piece, Pieces,
            cells::{BYTES_MAX, ROWS_MAX},
        },
    };

    /// Every row's values of `columns` as JSON, absent ones as `-`.
    fn read(source: Source<'_>, columns: &[&str]) -> Result<Vec<String>> {
        let columns: Vec<FieldName> = columns.iter().map(|name| (*name).into()).collect();
        let mut rows = Vec::new();
        let mut pieces = Pieces::new(source, 3);
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
        let mut pieces = Pieces::new(Source::stream(rows.chain(stream::pending())), 3);
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

    proptest! {
        /// Records borrowed are read where they are; those of an iterator and of a stream go through serde.
        #[test]
        fn rows_written_by_serde_are_what_they_were(
            rows in prop::collection::vec(prop::collection::vec((0..5_u8, any_value()), 0..6), 0..30),
        ) {
            let record = |values: &Vec<(u8, Value)>| {
                values.iter().fold(Record::new(), |row, (name, value)| row.with(name.to_string(), value.clone()))
            };
            let rows: Vec<Record> = rows.iter().map(record).collect();
            let columns = ["0", "1", "2", "3", "4", "5"];
            let expected = read(Source::from(&rows), &columns).unwrap();
            prop_assert_eq!(&read(Source::iter(&rows), &columns).unwrap(), &expected);
            let streamed = stream::iter(rows.clone().into_iter().map(Ok::<_, std::io::Error>));
            prop_assert_eq!(read(Source::stream(streamed), &columns).unwrap(), expected);
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i128>().prop_map(Value::Int),
            (-9.0..9.0).prop_map(Value::Float),
            ".{0,9}".prop_map(Value::Text),
            prop::collection::vec(".{0,3}", 0..3).prop_map(Value::from),
        ]
    }

    #[test]
    fn rows_of_which_each_has_other_names_do_not_make_a_chunk_grow_without_bounds() {
        let rows =
            (0..ROWS_MAX * 2).map(|row| Record::new().with(format!("a{row}"), 1).with(format!("b{row}"), 2));
        let mut pieces = Pieces::new(Source::iter(rows), ROWS_MAX);
        let (mut read, columns) = (0, [format!("b{}", ROWS_MAX + 7)].map(FieldName::from));
        while let Some(piece) = block_on(pieces.next()) {
            let Piece { chunk, range } = piece.unwrap();
            assert!(range.len() < ROWS_MAX);
            let mut row = read;
            read += range.len();
            let visited = chunk.rows().visit(&columns, range, &mut |values| {
                assert_eq!(values[0].is_some(), row == ROWS_MAX + 7);
                row += 1;
                Ok(())
            });
            visited.unwrap();
        }
        assert_eq!(read, ROWS_MAX * 2);
    }

    #[test]
    fn a_chunk_has_no_more_rows_than_fit_into_memory_whether_their_texts_lie_in_one_piece_or_not() {
        let long = || "x".repeat(BYTES_MAX * 2 / 3);
        let by_serde = Source::iter((0..5).map(|_| Record::new().with("a", long())));
        let text = Source::text(
            ["a"],
            (0..5).map(|_| Ok::<_, std::io::Error>([long()].iter().collect::<csv::StringRecord>())),
        );
        for source in [by_serde, text] {
            let mut pieces = Pieces::new(source, ROWS_MAX);
            let mut sizes = Vec::new();
            while let Some(piece) = block_on(pieces.next()) {
                sizes.push(piece.unwrap().range.len());
            }
            assert_eq!(sizes, [2, 2, 1]);
        }
    }

    #[test]
    fn a_column_that_a_header_has_twice_is_refused_only_if_it_is_mapped() {
        let text = "email,name,name\nada@shop.test,Ada,Lovelace\n";
        assert_eq!(read(csv(text), &["email"]).unwrap(), [r#""ada@shop.test""#]);
        let error = read(csv(text), &["email", "name"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with("the source has several columns `name`"), "{error}");
    }

    #[test]
    fn chunks_join_without_losing_a_row() {
        let rows = (0..=ROWS_MAX * 2).map(|index| Record::new().with("n", index as u64));
        let read = read(Source::iter(rows), &["n"]).unwrap();
        assert_eq!((read.len(), read[ROWS_MAX].as_str()), (ROWS_MAX * 2 + 1, "1024"));
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
