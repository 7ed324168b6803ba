//! Many rows: a source, chunk by chunk, read in place.
//!
//! A row is looked at and dropped. What comes row by row is put into columns first; after that, only a row that turns out to
//! have changed is ever copied.

#[cfg(feature = "arrow")]
mod arrow;
mod cells;
mod columns;
mod headed;
mod pieces;
mod serialize;
mod source;
mod texts;

pub(crate) use pieces::{Chunk, Piece, Pieces};
pub(crate) use source::Part;
pub use source::Source;
pub use texts::Texts;

use std::ops::Range;

use crate::{
    Result,
    record::{FieldName, Near, Record, Value, ValueRef},
};

/// A chunk of rows that can be read in place.
///
/// A row is visited for its hash, and once more for its values if it has changed; while rows are looked up one by one, also for
/// its key before. Any thread may do so. Rows must give the same values each time: the state remembers what was hashed, and the
/// second time's values are sent.
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
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no row can have one of the columns;
    /// [`ErrorKind::Source`](crate::ErrorKind::Source) if a row cannot be read; and
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

#[deny(clippy::missing_trait_methods)]
impl<R: Rows + ?Sized> Rows for &R {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn is_empty(&self) -> bool {
        (**self).is_empty()
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
