//! People that nobody is: an e-mail and ten texts of 4 to 24 bytes, all of them different, 3 % of them null.
//!
//! Between the prior rows and the current ones 1 % of the people change, in one column or in two, 0.5 % leave and 0.5 % come.
//! Who that is, and everything about them, follows from their numbers, so nothing has to be kept.
#![allow(dead_code, reason = "each benchmark uses a part")]

use std::{fmt::Write, ops::Range, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, builder::StringBuilder};
use reverse_etl::{FieldName, Record, Value};

/// The attributes, beside the e-mail.
pub(crate) const ATTRIBUTES: u64 = 10;

/// The names of the columns, that of the e-mail first.
pub(crate) fn names() -> Vec<FieldName> {
    let attributes = (0..ATTRIBUTES).map(|column| format!("a{column}").into());
    std::iter::once("email".into()).chain(attributes).collect()
}

/// What becomes of a person between the prior rows and the current ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Leaves,
    /// These two columns change, which may be the same one.
    Changes(u64, u64),
}

/// What becomes of the person of this number.
pub(crate) fn fate(person: u64) -> Fate {
    let chance = mix(person ^ 0xFA7E << 40);
    match chance % 200 {
        0 => Fate::Leaves,
        1 | 2 => {
            let first = (chance >> 16) % ATTRIBUTES;
            let second = (first + (chance >> 32) % (ATTRIBUTES - 1) + 1) % ATTRIBUTES;
            Fate::Changes(first, if chance >> 63 == 0 { first } else { second })
        }
        _ => Fate::Stays,
    }
}

/// Which rows are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Prior,
    Current,
    /// The prior ones after so many runs, before each of which 1 % of the people changed in one column.
    After(u64),
}

/// Writes the cell of a person, where column 0 is the e-mail; false for a null.
pub(crate) fn cell(rows: Rows, person: u64, column: u64, to: &mut impl Write) -> bool {
    if column == 0 {
        let salt = person.wrapping_mul(2_654_435_761) % 100_000_007;
        // Neither a text nor a column of an array runs out of room.
        let _ = write!(to, "user{person}.{salt:08}@example.com");
        return true;
    }
    let attribute = column - 1;
    let seed = mix(person * 16 + attribute);
    let was_null = seed.is_multiple_of(32);
    if let Rows::After(runs) = rows
        && let Some(run) = (1..=runs).rev().find(|run| changes(person, *run) == Some(attribute))
    {
        // No text begins with this either, and of two changes no two are alike.
        let _ = write!(to, "!{run}!");
        text(mix(seed ^ run), 1 + seed % 20, to);
        return true;
    }
    match fate(person) {
        Fate::Changes(first, second) if rows == Rows::Current && [first, second].contains(&attribute) => {
            let seed = mix(seed ^ 0xC4A6);
            if !was_null && seed.is_multiple_of(10) {
                return false;
            }
            // No text begins with this, so a value that changes is another one.
            let _ = to.write_char('~');
            text(seed, 3 + seed % 20, to);
            true
        }
        _ if was_null => false,
        _ => {
            text(seed, 4 + (seed >> 8) % 21, to);
            true
        }
    }
}

/// Which attribute of a person changes before this run.
fn changes(person: u64, run: u64) -> Option<u64> {
    let chance = mix(person ^ run << 40);
    chance.is_multiple_of(100).then_some((chance >> 16) % ATTRIBUTES)
}

/// Letters, digits and signs of so many bytes; one text in ten begins with a letter of two bytes.
fn text(seed: u64, length: u64, to: &mut impl Write) {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789-";
    let mut random = seed;
    let mut start = 0;
    if length > 1 && mix(seed).is_multiple_of(10) {
        let _ = to.write_char('é');
        start = 2;
    }
    for at in start..length {
        if at == start || at % 10 == 0 {
            random = mix(seed ^ at << 32);
        }
        let _ = to.write_char(LETTERS[usize::try_from(random & 63).unwrap_or(0)].into());
        random >>= 6;
    }
}

/// These people as records.
pub(crate) fn records(rows: Rows, people: Range<u64>) -> Vec<Record> {
    let names = names();
    let value = |person, column| {
        let mut text = String::new();
        Value::from(cell(rows, person, column, &mut text).then_some(text))
    };
    let record =
        |person| (0..).zip(&names).map(|(column, name)| (name.clone(), value(person, column))).collect();
    people.map(record).collect()
}

/// These people as a batch.
pub(crate) fn batch(rows: Rows, people: impl IntoIterator<Item = u64>) -> RecordBatch {
    let names = names();
    let mut columns: Vec<StringBuilder> = names.iter().map(|_| StringBuilder::new()).collect();
    for person in people {
        for (column, cells) in (0..).zip(&mut columns) {
            if cell(rows, person, column, cells) { cells.append_value("") } else { cells.append_null() }
        }
    }
    let columns = columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
    let columns = names.iter().zip(columns).map(|(name, column)| (name.as_str(), column, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("all columns are of one length")
}

/// A number that looks random: one round of splitmix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
