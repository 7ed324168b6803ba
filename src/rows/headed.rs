//! Rows of text cells under a header, as a CSV file has them.

use std::{mem, ops::Range, sync::Arc};

use super::{
    Rows, Texts,
    cells::{BYTES_MAX, Cells, ROWS_MAX, visit_cells},
};
use crate::{
    Error, Result,
    record::{FieldName, ValueRef},
};

/// A chunk of rows whose cells are all text, as in a CSV file. A row may lack the last ones.
pub(super) struct HeadedRows {
    header: Arc<[FieldName]>,
    /// The cells under each name.
    columns: Vec<Cells>,
    rows: usize,
}

impl HeadedRows {
    pub(super) fn new(header: Arc<[FieldName]>) -> Self {
        let columns = header.iter().map(|_| Cells::new()).collect();
        Self { header, columns, rows: 0 }
    }

    /// The rows, in whose place there is then room for as many.
    pub(super) fn take(&mut self) -> Self {
        let columns = self.columns.iter().map(Cells::with_same_room).collect();
        mem::replace(self, Self { header: Arc::clone(&self.header), columns, rows: 0 })
    }

    /// Whether there should be no more rows than there are.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.columns.iter().map(Cells::bytes).sum::<usize>() >= BYTES_MAX
    }

    /// Adds a row; one with more cells than the header has names is refused.
    pub(super) fn push<'c>(&mut self, cells: impl IntoIterator<Item = &'c str>) -> Result<(), Mismatched> {
        let (mut cells, named) = (cells.into_iter().fuse(), self.columns.len());
        for (column, cell) in self.columns.iter_mut().zip(&mut cells) {
            column.set_text(self.rows, cell);
        }
        self.rows += 1;
        match cells.count() {
            0 => Ok(()),
            more => Err(Mismatched { found: named + more, named }),
        }
    }
}

pub(super) struct Mismatched {
    pub(super) found: usize,
    pub(super) named: usize,
}

impl HeadedRows {
    fn column(&self, name: &FieldName) -> Result<&Cells> {
        let mut named = self.header.iter().zip(&self.columns).filter(|(known, _)| *known == name);
        match (named.next(), named.next()) {
            (Some((_, cells)), None) => Ok(cells),
            (None, _) => Err(self.no_column(name)),
            (Some(_), Some(_)) => Err(Error::config(format!(
                "the source has several columns `{name}`, and nothing says which is meant: rename all but one"
            ))),
        }
    }

    fn visit_rows(
        &self,
        columns: &[FieldName],
        rows: impl Iterator<Item = usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        let columns = columns.iter().map(|name| self.column(name).map(Some)).collect::<Result<Vec<_>>>()?;
        visit_cells(&columns, rows.take_while(|row| *row < self.rows), row)
    }

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

impl Rows for HeadedRows {
    fn len(&self) -> usize {
        self.rows
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        self.visit_rows(columns, range, row)
    }

    fn visit_some(
        &self,
        columns: &[FieldName],
        rows: &[usize],
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        self.visit_rows(columns, rows.iter().copied(), row)
    }

    fn texts(&self, column: &FieldName) -> Option<Texts<'_>> {
        self.column(column).ok()?.texts(self.rows)
    }
}
