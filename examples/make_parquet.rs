//! Makes two Parquet files of invented people: the rows of before, and those of today.
//!
//! ```sh
//! cargo run --release --features arrow --example make_parquet -- --rows 1000000 target/people
//! ```
//!
//! It writes `prior.parquet`, in the order of the people's numbers, and `current.parquet`, shuffled: 1 % of the rows changed in
//! one column or in two, 0.5 % gone, 0.5 % new. `expected.json` says how many of each there are.

use std::{fs::File, path::PathBuf};

use clap::Parser;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::json;

#[path = "../benches/data/mod.rs"]
mod data;

use data::{Fate, Rows, batch, fate, mix};

type Error = Box<dyn std::error::Error>;

const ROWS_A_GROUP: usize = 122_880;
const ROWS_A_PAGE: usize = 20_480;
/// A page ends with some rows that are written at once.
const ROWS_AT_ONCE: usize = 4096;

/// Makes two Parquet files of invented people.
#[derive(Parser)]
struct Arguments {
    /// Where to: a directory, made if it is missing.
    folder: PathBuf,
    /// How many people there were before.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
}

fn main() -> Result<(), Error> {
    let Arguments { folder, rows } = Arguments::parse();
    std::fs::create_dir_all(&folder)?;
    let new = rows / 200;
    write(folder.join("prior.parquet"), Rows::Prior, &(0..rows).collect::<Vec<_>>())?;

    let (mut changed, mut cells, mut removed) = (0, 0, 0);
    let mut current = Vec::new();
    for person in 0..rows {
        match fate(person) {
            Fate::Stays => {}
            Fate::Leaves => {
                removed += 1;
                continue;
            }
            Fate::Changes(first, second) => {
                changed += 1;
                cells += if first == second { 1 } else { 2 };
            }
        }
        current.push(person);
    }
    current.extend(rows..rows + new);
    for last in (1..current.len()).rev() {
        let other = mix(last as u64) % (last as u64 + 1);
        current.swap(last, usize::try_from(other)?);
    }
    write(folder.join("current.parquet"), Rows::Current, &current)?;
    let expected = json!({
        "rows": current.len(), "inserted": new, "updated": changed, "cells": cells, "removed": removed,
    });
    std::fs::write(folder.join("expected.json"), expected.to_string())?;
    println!("{expected}");
    Ok(())
}

fn write(path: PathBuf, rows: Rows, people: &[u64]) -> Result<(), Error> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(ROWS_A_GROUP))
        // The pages of all columns begin at the same rows, so that a reader may begin there, too.
        .set_data_page_row_count_limit(ROWS_A_PAGE)
        .build();
    let schema = batch(rows, []).schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for people in people.chunks(ROWS_AT_ONCE) {
        writer.write(&batch(rows, people.iter().copied()))?;
    }
    writer.close()?;
    Ok(())
}
