//! Cells: the values that the rows of a chunk have in one column, their texts in one piece.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use super::Texts;
use crate::{
    Result,
    record::{Value, ValueRef},
};

/// Rows in one chunk of a source that hands them out one by one.
pub(super) const ROWS_MAX: usize = 1024;

/// Bytes of text in one piece: a longer one would have offsets that do not fit, and a text that does not fit in has its own.
pub(super) const BYTES_MAX: usize = 1 << 26;

/// The values of one column, row by row.
pub(super) struct Cells {
    /// Rows before the first that has a value here: they take nothing.
    before: usize,
    values: Vec<Cell>,
    text: String,
    /// Bytes of the texts that did not fit in there.
    beside: usize,
    /// Where the text of each row begins in `text`, and at last where the next one will.
    offsets: Vec<i32>,
    /// A bit for each row, the lowest of a byte first, set where there is a text in `text`.
    texts: Vec<u8>,
    has_nulls: bool,
    /// There are values that are neither texts nor nulls, or rows without any.
    has_others: bool,
}

enum Cell {
    Absent,
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// It lies in the text of the column.
    Text,
    /// A list, and what is too large for the others: both are rare.
    Other(Box<Value>),
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            before: 0,
            values: Vec::new(),
            text: String::new(),
            beside: 0,
            offsets: vec![0],
            texts: Vec::new(),
            has_nulls: false,
            has_others: false,
        }
    }

    /// No values, and room for as many and as long ones as there are.
    pub(super) fn with_same_room(&self) -> Self {
        let mut empty = Self {
            before: 0,
            values: Vec::with_capacity(self.values.len()),
            text: String::with_capacity(self.text.len()),
            beside: 0,
            offsets: Vec::with_capacity(self.offsets.len()),
            texts: Vec::with_capacity(self.texts.len()),
            has_nulls: false,
            has_others: false,
        };
        empty.offsets.push(0);
        empty
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a row; `None` if it has none.
    pub(super) fn get(&self, row: usize) -> Option<ValueRef<'_>> {
        let nth = row.checked_sub(self.before)?;
        Some(match self.values.get(nth)? {
            Cell::Absent => return None,
            Cell::Null => ValueRef::Null,
            Cell::Bool(value) => ValueRef::Bool(*value),
            Cell::Int(value) => ValueRef::Int((*value).into()),
            Cell::Float(value) => ValueRef::Float(*value),
            Cell::Text => ValueRef::Text(Cow::Borrowed(self.text(nth)?)),
            Cell::Other(value) => value.as_ref().as_ref(),
        })
    }

    fn text(&self, nth: usize) -> Option<&str> {
        let [start, end] = [nth, nth + 1].map(|nth| self.offsets.get(nth).copied());
        self.text.get(usize::try_from(start?).ok()?..usize::try_from(end?).ok()?)
    }

    /// The texts where they lie, if each of so many rows has a text or null.
    pub(super) fn texts(&self, rows: usize) -> Option<Texts<'_>> {
        if self.has_others || self.before > 0 || self.values.len() != rows {
            return None;
        }
        let texts = Texts::dense(self.text.as_bytes(), &self.offsets);
        Some(if self.has_nulls { texts.with_nulls(&self.texts, 0) } else { texts })
    }

    /// Makes `row` the next one: the last one, whose value is replaced, or one behind it. Rows between have no value.
    fn go_to(&mut self, row: usize) {
        if self.values.is_empty() {
            self.before = row;
        }
        let nth = row - self.before.min(row);
        if self.values.len() > nth {
            self.values.truncate(nth);
            self.offsets.truncate(nth + 1);
            self.text.truncate(self.end());
            self.texts.truncate(nth.div_ceil(8));
            if let Some(bits) = self.texts.get_mut(nth / 8) {
                *bits &= (1 << (nth % 8)) - 1;
            }
        }
        while self.values.len() < nth {
            self.push(Cell::Absent);
        }
    }

    /// Where the next text begins.
    fn end(&self) -> usize {
        self.offsets.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
    }

    fn push(&mut self, cell: Cell) {
        let cell = match cell {
            Cell::Text if self.text.len() > BYTES_MAX => {
                let text = self.text.split_off(self.end());
                self.beside += text.len();
                Cell::Other(Box::new(Value::Text(text)))
            }
            cell => cell,
        };
        let bit = self.values.len() % 8;
        if bit == 0 {
            self.texts.push(0);
        }
        match cell {
            Cell::Text => self.texts.last_mut().into_iter().for_each(|bits| *bits |= 1 << bit),
            Cell::Null => self.has_nulls = true,
            _ => self.has_others = true,
        }
        self.values.push(cell);
        self.offsets.push(i32::try_from(self.text.len()).unwrap_or(i32::MAX));
    }

    pub(super) fn set(&mut self, row: usize, value: Value) {
        let cell = match value {
            Value::Null => Cell::Null,
            Value::Bool(value) => Cell::Bool(value),
            Value::Int(value) => {
                i64::try_from(value).map_or_else(|_| Cell::Other(Box::new(Value::Int(value))), Cell::Int)
            }
            Value::Float(value) => Cell::Float(value),
            Value::Text(text) => return self.set_text(row, &text),
            Value::Date(_) | Value::List(_) => Cell::Other(Box::new(value)),
        };
        self.go_to(row);
        self.push(cell);
    }

    pub(super) fn set_text(&mut self, row: usize, text: &str) {
        self.go_to(row);
        self.text.push_str(text);
        self.push(Cell::Text);
    }

    /// Sets the text that `shown` shows.
    pub(super) fn set_shown(&mut self, row: usize, shown: &(impl fmt::Display + ?Sized)) -> fmt::Result {
        self.go_to(row);
        let start = self.text.len();
        let written = write!(self.text, "{shown}");
        match written {
            Ok(()) => self.push(Cell::Text),
            // What there is of it must not become the beginning of the next one.
            Err(_) => self.text.truncate(start),
        }
        written
    }

    /// How long the texts are, those that do not lie in one piece with the others as well.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.beside
    }
}

/// Calls `row` with what each of the columns has in each of the rows; nobody has a value in a column that is not there.
pub(super) fn visit_cells(
    columns: &[Option<&Cells>],
    rows: impl Iterator<Item = usize>,
    row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
) -> Result<()> {
    let mut values = Vec::with_capacity(columns.len());
    for index in rows {
        values.clear();
        values.extend(columns.iter().map(|cells| cells.and_then(|cells| cells.get(index))));
        row(&values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            8 => ".{0,9}".prop_map(Value::Text),
            2 => Just(Value::Null),
            1 => any::<i128>().prop_map(Value::Int),
            1 => any::<i64>().prop_map(Value::from),
            1 => any::<bool>().prop_map(Value::Bool),
            1 => (-9.0..9.0).prop_map(Value::Float),
            1 => prop::collection::vec(any::<i32>(), 0..3).prop_map(Value::from),
        ]
    }

    /// Values, each for the row of the one before, or for one of the next.
    fn steps() -> impl Strategy<Value = Vec<(usize, Value)>> {
        let step = prop_oneof![2 => Just(0), 18 => Just(1), 1 => 2..4_usize];
        prop_oneof![
            prop::collection::vec((step, value()), 0..60),
            prop::collection::vec(
                (0..2_usize, prop_oneof![Just(Value::Null), ".{0,9}".prop_map(Value::Text)]),
                0..60
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_row_has_the_last_value_that_was_set(steps in steps()) {
            let (mut cells, mut rows, mut had_others) = (Cells::new(), vec![None], false);
            for (step, value) in steps {
                let row = rows.len() - 1 + step;
                rows.resize(row + 1, None);
                match &value {
                    Value::Text(text) if text.len() % 2 == 0 => cells.set_shown(row, text).unwrap(),
                    _ => cells.set(row, value.clone()),
                }
                had_others |= !matches!(value, Value::Text(_) | Value::Null);
                rows[row] = Some(value);
            }
            for (row, value) in rows.iter().enumerate() {
                prop_assert!(cells.get(row) == value.as_ref().map(Value::as_ref), "row {row}");
            }
            prop_assert!(cells.get(rows.len()).is_none());

            let are_texts = rows.iter().all(|value| matches!(value, Some(Value::Text(_) | Value::Null)));
            match cells.texts(rows.len()) {
                Some(texts) => {
                    prop_assert!(are_texts);
                    let mut found = Vec::new();
                    texts.each_text(|text| found.push(text.map(|text| text.as_bytes().to_vec())));
                    let expected = rows.iter().map(|value| match value {
                        Some(Value::Text(text)) => Some(text.clone().into_bytes()),
                        _ => None,
                    });
                    prop_assert_eq!(found, expected.collect::<Vec<_>>());
                }
                // One of another type may have been replaced.
                None => prop_assert!(had_others || !are_texts),
            }
        }
    }

    #[test]
    fn rows_before_the_first_value_take_nothing() {
        let mut cells = Cells::new();
        cells.set_text(1_000_000, "late");
        assert!(cells.values.len() == 1 && cells.offsets.len() == 2);
        assert!(cells.get(999_999).is_none() && cells.get(1_000_000).is_some());
    }

    #[test]
    fn a_text_that_does_not_fit_into_the_piece_is_kept_beside_it() {
        let mut cells = Cells::new();
        let long = "x".repeat(BYTES_MAX);
        let rows = [long.as_str(), "", "y", "", long.as_str()];
        rows.iter().enumerate().for_each(|(row, text)| cells.set_text(row, text));
        for (row, text) in rows.iter().enumerate() {
            assert!(cells.get(row) == Some(ValueRef::Text(Cow::Borrowed(text))), "row {row}");
        }
        assert!(cells.texts(rows.len()).is_none());
    }

    #[test]
    fn a_text_that_cannot_be_shown_leaves_nothing_behind() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half").and(Err(fmt::Error))
            }
        }
        let mut cells = Cells::new();
        assert!(cells.set_shown(0, &Broken).is_err());
        cells.set_text(0, "whole");
        assert!(cells.get(0) == Some(ValueRef::Text(Cow::Borrowed("whole"))));
    }
}
