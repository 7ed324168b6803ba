//! Ahead: the entries of a plan are read and made ready before their turn, those of a long plan on a thread of their own.
//!
//! What is done here needs nothing of what the run goes through: a merge of the plan's stretches, fingerprints, sealed keys.

use std::{iter, sync::Arc, thread, vec};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::{
    Error, ErrorKind, Result,
    change::{Entry, Step},
    fingerprint::{Fingerprinter, KeyHash, Pairs},
    handover::handover,
    plan::{Entries, Head, Spool},
    record::FieldName,
    seal::Sealer,
};

/// Entries that are handed over at once.
const ENTRIES_AT_ONCE: usize = 256;

/// So many times that many wait for the run, at most.
const WAITING_MAX: usize = 8;

/// The entries of a plan in their order, each made ready.
pub(super) struct Ahead {
    taken: vec::IntoIter<Result<Ready>>,
    left: BoxStream<'static, Result<Vec<Result<Ready>>>>,
}

/// An entry whose turn may come.
pub(super) struct Ready {
    pub(super) entry: Entry,
    /// The row's key, wherever the step may have the state keep it and it does not yet.
    pub(super) sealed: Option<Vec<u8>>,
}

impl Ahead {
    pub(super) fn new(spool: &Spool, head: &Head, prints: &Fingerprinter, sealer: &Sealer) -> Self {
        let creation: Arc<[FieldName]> = head.creation.iter().map(|(name, _)| name.clone()).collect();
        let reader = || Reader {
            entries: spool.entries(),
            creation: Arc::clone(&creation),
            seals: head.seals,
            seals_anew: head.seals_anew,
            prints: prints.clone(),
            sealer: sealer.clone(),
            scratch: Pairs::new(),
            last: None,
        };
        let on_thread = if spool.is_long() { read_on_thread(reader()) } else { None };
        let left = on_thread.unwrap_or_else(|| stream::iter(reader().into_parts().map(Ok)).boxed());
        Self { taken: Vec::new().into_iter(), left }
    }

    /// The next entry. What is given up while it waits is not lost.
    pub(super) async fn next(&mut self) -> Option<Result<Ready>> {
        loop {
            if let Some(ready) = self.taken.next() {
                return Some(ready);
            }
            match self.left.next().await? {
                Ok(part) => self.taken = part.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// `None` where the machine has no thread left.
fn read_on_thread(reader: Reader) -> Option<BoxStream<'static, Result<Vec<Result<Ready>>>>> {
    let (giver, parts) = handover(WAITING_MAX);
    let work = move || {
        giver.run(|giver| {
            // It ends early if nobody wants any more.
            reader.into_parts().all(|part| giver.give(part));
            Ok(())
        });
    };
    let started = thread::Builder::new().name("reverse-etl read".to_owned()).spawn(work);
    started.ok().map(|_| parts.boxed())
}

struct Reader {
    entries: Entries,
    creation: Arc<[FieldName]>,
    seals: bool,
    seals_anew: bool,
    prints: Fingerprinter,
    sealer: Sealer,
    scratch: Pairs,
    last: Option<(KeyHash, Step)>,
}

impl Reader {
    fn into_parts(mut self) -> impl Iterator<Item = Vec<Result<Ready>>> + Send {
        iter::from_fn(move || {
            let part: Vec<_> = iter::from_fn(|| self.advance().transpose()).take(ENTRIES_AT_ONCE).collect();
            Some(part).filter(|part| !part.is_empty())
        })
    }

    fn advance(&mut self) -> Result<Option<Ready>> {
        while let Some(entry) = self.entries.next().transpose()? {
            if self.is_wanted(&entry)? {
                return self.ready(entry).map(Some);
            }
        }
        Ok(None)
    }

    fn is_wanted(&mut self, entry: &Entry) -> Result<bool> {
        if entry.step == Step::Ask && !self.seals_anew {
            return Ok(false);
        }
        let hash = entry.hash();
        if let Some((last, step)) = self.last
            && last == hash
        {
            // A key that was met twice may be sealed more than once, and is by whatever else is done with its row.
            if entry.step == Step::Seal {
                return Ok(false);
            }
            if step != Step::Seal {
                return Err(Error::new(
                    ErrorKind::Source,
                    "the plan has two entries for one row: it was altered; plan again",
                ));
            }
        }
        self.last = Some((hash, entry.step));
        Ok(true)
    }

    fn ready(&mut self, mut entry: Entry) -> Result<Ready> {
        entry.fingerprint(&self.prints, &self.creation, &mut self.scratch);
        let has_key = entry.before.as_ref().is_some_and(|record| record.sealed_key().is_some());
        let is_sealed = match entry.step {
            // It is sent with a note in its record, by which it may have to be found again.
            Step::Send | Step::Resolve => !has_key,
            Step::Settle => self.seals,
            Step::Ask | Step::Seal => true,
            Step::Unsettle | Step::Drop => false,
        };
        let sealed = is_sealed.then(|| self.sealer.seal(entry.hash(), &entry.key)).transpose()?;
        Ok(Ready { entry, sealed })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use crate::{ErrorKind, Limits, Mapping, MemoryStore, Outcome, PlanOptions, PriorState, Record, plan};

    #[test]
    fn long_plan_that_cannot_be_read_back_ends_its_run_and_what_was_sent_is_remembered() {
        block_on(async {
            let store = MemoryStore::default();
            let people: Vec<_> =
                (0..5_000).map(|id| Record::new().with("id", id).with("name", "Ada")).collect();
            let mapping = Mapping::new("id").map("name", "full_name");
            let options = PlanOptions::default().memory_max(200_000);
            let first = plan(&people, &mapping, &store, &options).await.unwrap();
            first.spool.lose(1);
            let mut run = first.start(&store, Limits::rows(100)).await.unwrap();
            while let Some(batch) = run.next_batch().await {
                let outcomes = batch.all(&Outcome::applied());
                batch.settle(outcomes);
            }
            let error = run.finish().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            let applied = error.report().unwrap().outcomes.applied;
            assert!(applied > 0 && applied < 5_000, "{applied} rows");
            assert!(store.header().await.unwrap().unwrap().lease.is_none());
            let next = plan(&people, &mapping, &store, &options).await.unwrap();
            assert_eq!(next.counts().planned(), 5_000 - applied);
        });
    }
}
