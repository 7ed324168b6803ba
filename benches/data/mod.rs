//! People that nobody is: an e-mail and ten texts of 4 to 24 bytes, every one different.
#![allow(dead_code, reason = "each benchmark uses a part")]

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use reverse_etl::{FieldName, Record, Value};

/// Rows by number.
pub(crate) struct People {
    rows: usize,
    seed: u64,
}

/// People 0 to `rows`, whose texts depend on `seed`.
pub(crate) fn people(rows: usize, seed: u64) -> People {
    People { rows, seed }
}

/// The column of the key, and those of the attributes.
pub(crate) fn names() -> Vec<FieldName> {
    let attributes = (0..10).map(|column| format!("attribute_{column}").into());
    std::iter::once("email".into()).chain(attributes).collect()
}

impl People {
    /// The cells of a row, in the order of [`names`]; 3 % of the attributes are null.
    pub(crate) fn cells(&self, row: usize) -> impl Iterator<Item = Option<String>> + '_ {
        let email = format!("person.{row}@shop.test");
        let attributes = (1..=10).map(move |column| {
            let mut random = mix(self.seed ^ mix(row as u64 * 16 + column));
            let (length, is_null) = (4 + random % 21, random >> 32 & 31 == 0);
            let mut text = String::new();
            while text.len() < length as usize {
                random = mix(random);
                text.extend(format!("{random:016x}").chars().take(length as usize - text.len()));
            }
            (!is_null).then_some(text)
        });
        std::iter::once(Some(email)).chain(attributes)
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let names = names();
        (0..self.rows)
            .map(|row| names.iter().cloned().zip(self.cells(row).map(Value::from)).collect())
            .collect()
    }

    pub(crate) fn batches(&self, rows_a_batch: usize) -> Vec<RecordBatch> {
        let names = names();
        (0..self.rows)
            .step_by(rows_a_batch)
            .map(|start| {
                let mut columns = vec![Vec::new(); names.len()];
                for row in start..self.rows.min(start + rows_a_batch) {
                    columns.iter_mut().zip(self.cells(row)).for_each(|(column, cell)| column.push(cell));
                }
                let arrays =
                    columns.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef);
                let names = names.iter().map(FieldName::as_str);
                RecordBatch::try_from_iter_with_nullable(
                    names.zip(arrays).map(|(name, array)| (name, array, true)),
                )
                .expect("all columns are of one length")
            })
            .collect()
    }
}

/// A number that looks random: one round of splitmix64.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
