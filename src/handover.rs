//! Handing over: what a thread makes, one after the other, to a task that waits for it.

use std::{
    panic::{self, AssertUnwindSafe},
    thread,
};

use futures::{SinkExt, Stream, StreamExt, channel::mpsc, executor::block_on, stream};

use crate::{Error, ErrorKind, Result};

/// The side of the thread.
pub(crate) struct Giver<T>(mpsc::Sender<Given<T>>);

/// `None` is the end: whoever ends without saying so has failed, and what is missing must not look like rows that are gone.
type Given<T> = thread::Result<Result<Option<T>>>;

/// Both sides; so many things may wait to be taken.
pub(crate) fn handover<T>(waiting_max: usize) -> (Giver<T>, impl Stream<Item = Result<T>>) {
    let (to_task, from_thread) = mpsc::channel::<Given<T>>(waiting_max);
    let things = stream::unfold(Some(from_thread), async |from_thread| {
        let mut from_thread = from_thread?;
        match from_thread.next().await {
            Some(Ok(Ok(thing))) => thing.map(|thing| (Ok(thing), Some(from_thread))),
            Some(Ok(Err(error))) => Some((Err(error), None)),
            Some(Err(panicked)) => panic::resume_unwind(panicked),
            None => Some((Err(ended()), None)),
        }
    });
    (Giver(to_task), things)
}

impl<T> Giver<T> {
    /// Waits until there is room for one thing more. False if nobody wants it.
    pub(crate) fn give(&mut self, thing: T) -> bool {
        block_on(self.0.send(Ok(Ok(Some(thing))))).is_ok()
    }

    /// Whether anybody still wants things.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }

    /// Has the things made and given, and then says how that ended.
    pub(crate) fn run(mut self, make: impl FnOnce(&mut Self) -> Result<()>) {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| make(&mut self)));
        // Nobody waits for it if the plan was given up.
        let _ = block_on(self.0.send(ended.map(|ended| ended.map(|()| None))));
    }
}

/// The error of a thread that is not there any more, or never was.
pub(crate) fn ended() -> Error {
    Error::new(
        ErrorKind::Io,
        "a thread that makes or reads the plan has ended, or could not be started: plan again",
    )
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on_stream;

    use super::*;

    fn taken(give: impl FnOnce(Giver<u8>)) -> Vec<std::result::Result<u8, ErrorKind>> {
        let (giver, things) = handover(4);
        give(giver);
        block_on_stream(Box::pin(things)).map(|thing| thing.map_err(|error| error.kind())).collect()
    }

    fn failed() -> Error {
        Error::new(ErrorKind::Source, "it cannot be read")
    }

    #[test]
    fn only_a_thread_that_says_so_has_given_everything() {
        let all = |giver: &mut Giver<u8>| {
            assert!(giver.give(1) && giver.give(2));
            Ok(())
        };
        assert_eq!(taken(|giver| giver.run(all)), [Ok(1), Ok(2)]);
        assert_eq!(taken(|mut giver| all(&mut giver).unwrap()), [Ok(1), Ok(2), Err(ErrorKind::Io)]);
        let some = |giver: &mut Giver<u8>| all(giver).and(Err(failed()));
        assert_eq!(taken(|giver| giver.run(some)), [Ok(1), Ok(2), Err(ErrorKind::Source)]);
        let caught = panic::catch_unwind(|| taken(|giver| giver.run(|_| panic!("it is broken"))));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "it is broken");
    }

    #[test]
    fn a_thread_is_told_when_nobody_wants_any_more() {
        let (mut giver, things) = handover(4);
        drop(things);
        assert!(!giver.give(1));
        giver.run(|_| Err(failed()));
    }
}
