//! Runs: sorted stretches of a temporary file, written on a thread of their own.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    panic,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use super::{Kept, spooling};
use crate::Result;

/// Bytes that are written at once.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

/// A file that no directory names.
pub(super) struct Runs {
    file: File,
    runs: Vec<Run>,
}

/// A sorted stretch of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    start: u64,
    end: u64,
}

/// One run of a file, read through a handle that others read as well.
pub(super) struct Stretch {
    file: Arc<File>,
    run: Run,
}

impl Runs {
    fn create() -> Result<Self> {
        Ok(Self { file: tempfile::tempfile().map_err(spooling)?, runs: Vec::new() })
    }

    /// Writes the entries in order, and leaves none.
    fn add(&mut self, kept: &mut Kept) -> Result<()> {
        kept.sort();
        let start = self.file.seek(SeekFrom::End(0)).map_err(spooling)?;
        let mut out = BufWriter::with_capacity(WRITTEN_AT_ONCE, &mut self.file);
        for span in &kept.spans {
            let bytes = kept.bytes_of(span);
            let length = u32::try_from(bytes.len()).map_err(spooling)?;
            out.write_all(&length.to_le_bytes()).and_then(|()| out.write_all(bytes)).map_err(spooling)?;
        }
        out.flush().map_err(spooling)?;
        drop(out);
        let end = self.file.stream_position().map_err(spooling)?;
        self.runs.push(Run { start, end });
        kept.clear();
        Ok(())
    }

    /// The file, and where its runs are.
    pub(super) fn into_parts(self) -> (Arc<File>, Vec<Run>) {
        (Arc::new(self.file), self.runs)
    }
}

/// Writes runs.
pub(super) enum Writer {
    OnThread(Thread),
    /// The machine has no thread left.
    Here(Runs),
}

/// A thread that is given what is full, and gives back what is free again.
pub(super) struct Thread {
    full: mpsc::Sender<Kept>,
    free: mpsc::Receiver<Kept>,
    runs: JoinHandle<Result<Runs>>,
}

impl Writer {
    pub(super) fn start() -> Result<Self> {
        let (full, todo) = mpsc::channel::<Kept>();
        let (done, free) = mpsc::channel();
        let work = move || {
            let mut runs = Runs::create()?;
            // While the first is written, the second is filled.
            let mut freed = done.send(Kept::default());
            while freed.is_ok()
                && let Ok(mut kept) = todo.recv()
            {
                runs.add(&mut kept)?;
                freed = done.send(kept);
            }
            Ok(runs)
        };
        let thread = thread::Builder::new().name("reverse-etl spool".to_owned()).spawn(work);
        Ok(match thread {
            Ok(runs) => Self::OnThread(Thread { full, free, runs }),
            Err(_) => Self::Here(Runs::create()?),
        })
    }

    /// Writes the entries, or begins to. Where it could not write those before them, it says so now.
    pub(super) fn write(mut self, mut kept: Kept) -> Result<(Self, Kept)> {
        match &mut self {
            Self::Here(runs) => {
                runs.add(&mut kept)?;
                Ok((self, kept))
            }
            Self::OnThread(Thread { full, free, .. }) => {
                let free = full.send(kept).ok().and_then(|()| free.recv().ok());
                match free {
                    Some(free) => Ok((self, free)),
                    // It ends of itself only with an error.
                    None => self.finish().and_then(|_| Err(spooling("a thread has ended"))),
                }
            }
        }
    }

    /// The runs, once all of them are written.
    pub(super) fn finish(self) -> Result<Runs> {
        match self {
            Self::Here(runs) => Ok(runs),
            Self::OnThread(Thread { full, runs, .. }) => {
                drop(full);
                runs.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            }
        }
    }
}

impl Stretch {
    pub(super) fn new(file: &Arc<File>, run: Run) -> Self {
        Self { file: Arc::clone(file), run }
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> u64 {
        self.run.end - self.run.start
    }
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = read_at(&self.file, &mut buffer[..wanted], self.run.start)?;
        if read == 0 && wanted > 0 {
            // The end of the file is not the end of the run: entries would be missing, and nobody would know.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.run.start += read as u64;
        Ok(read)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[test]
    fn what_could_not_be_written_fails_the_next_write_and_the_end() {
        let failing = || {
            let ((full, _), (_, free)) = (mpsc::channel(), mpsc::channel());
            let runs = thread::spawn(|| Err(Error::new(ErrorKind::Io, "the disk is full")));
            Writer::OnThread(Thread { full, free, runs })
        };
        let of_write = failing().write(Kept::default()).map(drop).unwrap_err();
        let of_end = failing().finish().map(drop).unwrap_err();
        assert_eq!([of_write.to_string(), of_end.to_string()], ["the disk is full", "the disk is full"]);
    }
}
