//! A plan as JSON Lines.

use std::io::{BufRead, Write};

use crate::{Error, ErrorKind, Result};

pub(super) fn write_line(mut out: impl Write, line: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut out, line).map_err(unwritten)?;
    out.write_all(b"\n").map_err(unwritten)
}

/// The next line, with its end; `None` at the end of the file.
pub(super) fn next_line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = lines.read_until(b'\n', &mut line).map_err(unwritten)?;
    Ok((length > 0).then_some(line))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T> {
    // serde quotes values in its messages, so the cause stays out.
    serde_json::from_slice(line).map_err(|_| {
        Error::new(
            ErrorKind::Source,
            "a line of the plan cannot be read: the file was cut or altered; plan again",
        )
    })
}

fn unwritten(error: impl Into<crate::BoxError>) -> Error {
    Error::new(ErrorKind::Io, "the plan could not be written or read back: check the disk").with_source(error)
}
