//! Rows as serde writes them, a chunk of them column by column.
//!
//! Were each row a record of its own, each name and each text would be memory to take and to give back.

use std::{collections::HashMap, mem, ops::Range};

use super::{
    Rows, Texts,
    cells::{BYTES_MAX, Cells, ROWS_MAX, visit_cells},
};
use crate::{
    Result,
    record::{FieldName, ValueRef},
};

/// Cells of a chunk, with those that its rows do not have: rows of which each has other names are kept in small chunks.
const CELLS_MAX: usize = 1 << 20;

/// A chunk of rows. A column that a row lacks is an absent value: rows need not be alike.
pub(super) struct Columns {
    /// In the order in which rows first had them.
    named: Vec<Column>,
    /// Where the column of a name is.
    places: HashMap<String, usize>,
    rows: usize,
    /// The name that is being written, as its only value.
    pub(super) name: Cells,
}

struct Column {
    name: FieldName,
    cells: Cells,
}

impl Columns {
    pub(super) fn new() -> Self {
        Self { named: Vec::new(), places: HashMap::new(), rows: 0, name: Cells::new() }
    }

    /// The rows, in whose place there is then room for as many that have the same columns.
    pub(super) fn take(&mut self) -> Self {
        let mut next = Self::new();
        for Column { name, cells } in self.named.iter().filter(|column| !column.cells.is_empty()) {
            next.add(name.clone(), cells.with_same_room());
        }
        mem::replace(self, next)
    }

    /// Whether there should be no more rows than there are.
    pub(super) fn is_full(&self) -> bool {
        let bytes = || self.named.iter().map(|column| column.cells.bytes()).sum::<usize>();
        self.rows >= ROWS_MAX || self.rows * self.named.len() >= CELLS_MAX || bytes() >= BYTES_MAX
    }

    /// The place of the column of this name; it may be `near`.
    #[inline]
    pub(super) fn find(&self, name: &str, near: usize) -> Option<usize> {
        match self.named.get(near) {
            Some(column) if column.name.as_str() == name => Some(near),
            _ => self.places.get(name).copied(),
        }
    }

    /// Adds a column, and gives its place.
    pub(super) fn add(&mut self, name: FieldName, cells: Cells) -> usize {
        let place = self.named.len();
        self.places.insert(name.as_str().to_owned(), place);
        self.named.push(Column { name, cells });
        place
    }

    /// The cells of a column, and the row that is being written.
    pub(super) fn next_cell(&mut self, column: usize) -> Option<(&mut Cells, usize)> {
        Some((&mut self.named.get_mut(column)?.cells, self.rows))
    }

    pub(super) fn end_row(&mut self) {
        self.rows += 1;
    }

    fn cells(&self, name: &FieldName) -> Option<&Cells> {
        let place = self.places.get(name.as_str())?;
        self.named.get(*place).map(|column| &column.cells)
    }

    fn visit_rows(
        &self,
        columns: &[FieldName],
        rows: impl Iterator<Item = usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        let columns: Vec<Option<&Cells>> = columns.iter().map(|name| self.cells(name)).collect();
        visit_cells(&columns, rows.take_while(|row| *row < self.rows), row)
    }
}

impl Rows for Columns {
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
        self.cells(column)?.texts(self.rows)
    }
}
