//! A plan's file: JSON Lines, sealed with the secret of the state that the plan is for.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    Error, ErrorKind, Result,
    change::{Entry, Step},
    fingerprint::Secret,
    host::SystemHost,
    plan::{
        Head, Plan, PlanOptions,
        spool::{Spooler, spooling},
    },
    state::header::Bytes,
};

/// How a file is written in this version.
pub(super) const FORMAT: u32 = 1;

/// A line of a plan's file, after the first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Entry(Box<Entry>),
    /// There is nothing more: a file that was cut lacks it.
    End(End),
}

#[derive(Serialize, Deserialize)]
struct End {
    entries: u64,
    /// Over all lines before, keyed with the state's secret.
    seal: Bytes<16>,
}

/// A plan as it was read from a file: a digest of its lines, and the seal that they should have.
pub(crate) struct Written {
    digest: String,
    seal: Bytes<16>,
}

impl Written {
    fn seal(digest: &str, secret: &Secret) -> Result<Bytes<16>> {
        secret.derive(&format!("plan/{digest}")).map(Bytes)
    }

    /// Refuses a file that is not as it was written: other values than those that were planned would be remembered as
    /// those that were.
    pub(crate) fn check(&self, secret: &Secret) -> Result<()> {
        if Self::seal(&self.digest, secret)? == self.seal {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Source, "the plan's file was altered after it was written: plan again"))
    }
}

impl Plan {
    /// Writes the plan as JSON Lines: a first line about the plan, then an entry a line, and a last line that seals them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if `out` cannot be written to; [`ErrorKind::Config`] if the plan was read from a file and
    /// changed, and its state's secret is not known.
    pub fn write_to(&self, out: impl Write) -> Result<()> {
        let mut out = HashingWriter { out: io::BufWriter::new(out), digest: Sha256::new() };
        write_line(&mut out, &self.head)?;
        let mut entries = 0;
        for entry in self.spool.entries() {
            write_line(&mut out, &Line::Entry(Box::new(entry?)))?;
            entries += 1;
        }
        let digest = hex::encode(out.digest.finalize());
        let seal = match &self.written {
            Some(written) if written.digest == digest => written.seal,
            _ => Written::seal(&digest, &self.known_secret()?)?,
        };
        write_line(&mut out.out, &Line::End(End { entries, seal }))?;
        out.out.flush().map_err(spooling)
    }

    fn known_secret(&self) -> Result<Secret> {
        let generated = self.head.secret.map(|secret| Secret::new(secret.0));
        self.sealing.clone().or_else(|| self.secret.clone()).or(generated).ok_or_else(|| {
            Error::config(
                "a plan that was read from a file and changed cannot be written without `Plan::secret`",
            )
        })
    }

    /// Reads a plan that [`write_to`](Self::write_to) wrote.
    ///
    /// That it was not altered shows when it is [started](Self::start), since it is sealed with the state's secret.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] if it is not a plan, or was cut.
    pub fn read_from(input: impl Read) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::Source, "this is not a plan of this version: plan again");
        let cut = || Error::new(ErrorKind::Source, "the plan was cut: entries are missing; plan again");
        let mut lines = io::BufReader::new(input);
        let mut digest = Sha256::new();
        let first = next_line(&mut lines)?.ok_or_else(damaged)?;
        digest.update(&first);
        let head: Head = parse(&first)?;
        let sums = [head.counts.added, head.counts.changed, head.counts.removed];
        let planned_by_head = sums.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
        if head.format != FORMAT {
            return Err(damaged());
        }
        let options = PlanOptions::default();
        let mut spooler = Spooler::new(options.memory_max);
        let (mut planned, mut entries) = (0, 0_u64);
        let end = loop {
            let line = next_line(&mut lines)?.ok_or_else(cut)?;
            match parse(&line)? {
                Line::Entry(entry) => {
                    digest.update(&line);
                    planned += u64::from(entry.step == Step::Send);
                    entries += 1;
                    spooler.push(&entry)?;
                }
                Line::End(end) => break end,
            }
        };
        if end.entries != entries || Some(planned) != planned_by_head || next_line(&mut lines)?.is_some() {
            return Err(cut());
        }
        Ok(Self {
            head,
            spool: spooler.finish()?,
            secret: None,
            sealing: None,
            written: Some(Written { digest: hex::encode(digest.finalize()), seal: end.seal }),
            observer: None,
            host: SystemHost::shared(),
            memory_max: options.memory_max,
        })
    }
}

/// Writes on, and takes a digest of what it writes.
struct HashingWriter<W> {
    out: W,
    digest: Sha256,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_line(mut out: impl Write, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut out, line).map_err(spooling)?;
    out.write_all(b"\n").map_err(spooling)
}

/// The next line, with its end; `None` at the end of the file.
fn next_line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = lines.read_until(b'\n', &mut line).map_err(spooling)?;
    Ok((length > 0).then_some(line))
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    // serde quotes values in its messages, so the cause stays out.
    serde_json::from_slice(line).map_err(|_| {
        Error::new(
            ErrorKind::Source,
            "a line of the plan cannot be read: the file was cut or altered; plan again",
        )
    })
}
