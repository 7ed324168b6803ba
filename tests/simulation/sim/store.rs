//! The store, watched: every commit is checked, and may fail.

use std::{fmt, task::Poll};

use async_trait::async_trait;
use futures::stream::BoxStream;
use reverse_etl::{
    Commit, Error, ErrorKind, Header, KeyHash, MemoryStore, PriorState, Result, RowState, ScannedRows,
    StateStore,
    emarsys::FieldId,
    host::Host as _,
    state::record::{Doubt, Held, Mark, RowRecord},
};
use serde_json::Value as Json;

use super::{
    choices::Stream,
    clock::AHEAD,
    world::{Shared, World},
};

/// A store as one process uses it.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) inner: MemoryStore,
    pub(crate) shared: Shared,
    pub(crate) process: usize,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

/// Gives others their turn once; a process may die there.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl PriorState for Watched {
    async fn header(&self) -> Result<Option<Header>> {
        yield_once().await;
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        yield_once().await;
        self.inner.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.inner.scan()
    }
}

#[async_trait]
impl StateStore for Watched {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        yield_once().await;
        let disk = {
            let mut world = self.shared.lock();
            let p = if world.quiet { 0 } else { world.temper.disk };
            world.choices.on(Stream::Disk).pick(3, p)
        };
        let fails = || Error::new(ErrorKind::Io, "the disk is full");
        if disk == 1 {
            let world = &mut *self.shared.lock();
            world.meet("fault: a commit fails");
            world.tell(|| format!("a commit of process {} fails", self.process));
            return Err(fails());
        }
        if let Err(error) = self.inner.commit(commit).await {
            let world = &mut *self.shared.lock();
            world.note_not_admitted(self.process, &error);
            return Err(error);
        }
        let header = self.inner.header().await?;
        {
            let world = &mut *self.shared.lock();
            world.step += 1;
            world.processes[self.process].commits += 1;
            if world.processes[self.process].planning {
                world.violate("promise 7: planning wrote to the state");
            }
            if let Some(header) = header {
                world.note_commit(self.process, &header, commit);
            }
            world.check_state();
        }
        yield_once().await;
        if disk == 2 {
            let world = &mut *self.shared.lock();
            world.meet("fault: a commit is stored and fails all the same");
            world.tell(|| format!("a commit of process {} is stored, and fails", self.process));
            return Err(fails());
        }
        Ok(())
    }
}

impl World {
    /// One writer at a time: who has begun is not ended by another.
    fn note_not_admitted(&mut self, process: usize, error: &Error) {
        self.meet(format!("commit: {:?}", error.kind()));
        self.tell(|| format!("a commit of process {process} is not admitted: {error}"));
        self.checked("one writer at a time");
        let run = &self.processes[process];
        // A hold lasts for two minutes at least, and is renewed every half of one.
        if run.commits > run.commits_before && run.suspended_for < 60 {
            self.violate("one writer at a time: a run that had begun is ended by another");
        }
    }

    /// Takes note of what a commit changed.
    fn note_commit(&mut self, process: usize, header: &Header, commit: &Commit) {
        let json: Json = serde_json::from_slice(&header.to_bytes().unwrap_or_default()).unwrap_or_default();
        self.note_slots(&json);
        let bytes = header.to_bytes().unwrap_or_default();
        let shows = |bytes: &[u8]| bytes.windows(5).any(|part| part.eq_ignore_ascii_case(b"@shop"));
        if shows(&bytes) || commit.rows().any(|(_, row)| row.is_some_and(|row| shows(row.as_bytes()))) {
            self.violate("promise 8: a commit has a key in clear text");
        }
        self.checked("promise 8: commits have no key in clear text");
        for (hash, row) in commit.rows() {
            let Some(key) = self.hashes.iter().position(|known| *known == hash) else {
                self.violate("a row is written that no source had");
                continue;
            };
            let new = row.map(|row| {
                RowRecord::from_bytes(row.fingerprint(), row.as_bytes()).expect("a record can be read back")
            });
            if self.story.is_some() {
                let told = self.told_record(new.as_ref());
                self.tell(|| format!("  process {process} commits k{key}: {told}"));
            }
            self.note_row(process, key, new.as_ref());
            self.keys[key].record = new;
        }
        let records = self.keys.iter().filter_map(|known| known.record.as_ref());
        let in_doubt = records.clone().filter(|record| record.is_in_doubt()).count() as u64;
        let count = records.count() as u64;
        self.checked("the header counts what the state has");
        if json["in_doubt"].as_u64() != Some(in_doubt) || json["rows"].as_u64() != Some(count) {
            self.violate(format!(
                "the header counts {} rows, {} of them in doubt; there are {count} and {in_doubt}",
                json["rows"], json["in_doubt"]
            ));
        }
    }

    /// As long as a field is mapped it has one slot: with another one it is sent once more for every row.
    fn note_slots(&mut self, header: &Json) {
        let slots = header["slots"]["active"].as_array().into_iter().flatten();
        let read = |slot: &Json| {
            let number = u16::try_from(slot["slot"].as_u64()?).ok()?;
            let id = slot["id"].as_str().and_then(|id| id.parse().ok()).map(FieldId::new);
            Some((slot["field"].as_str()?.to_owned(), number, id))
        };
        let slots: Vec<(String, u16, Option<FieldId>)> = slots.filter_map(read).collect();
        self.slots = slots.iter().filter_map(|(_, number, id)| Some((*number, (*id)?))).collect();
        self.slot_of.retain(|(name, _), _| slots.iter().any(|(known, ..)| known == name));
        for (name, number, id) in slots {
            let Some(id) = id else { continue };
            let earlier = *self.slot_of.entry((name, id)).or_insert(number);
            if earlier != number {
                self.violate(format!(
                    "promise 4: field {id} loses its slot, so that it is sent anew for every row"
                ));
            }
        }
        self.checked("promise 4: a field keeps its slot");
    }

    fn note_row(&mut self, process: usize, key: usize, new: Option<&RowRecord>) {
        let old = self.keys[key].record.take();
        let event = event(old.as_ref(), new);
        self.meet(format!("record: {event}"));
        self.check_rejection(key, old.as_ref(), new);
        let met_nobody = self.processes[process].met_nobody[key];
        let slots: Vec<u16> = self.slots.keys().copied().collect();
        let known = &mut self.keys[key];
        let Some(new) = new else {
            known.learnt.clear();
            known.forgotten.clear();
            known.nobody_before_insert = None;
            return;
        };
        let old = old.as_ref();
        let mut unsealed = false;
        let mut too_early = false;
        let unmarked = |mark: &Mark| {
            new.mark().is_none()
                && known.is_unanswered
                // The clock may have been set back since the run looked at it.
                && mark.until() > self.processes[process].machine.wall() + AHEAD
        };
        let unmarked = old.and_then(RowRecord::mark).is_some_and(unmarked);
        if event.starts_with("announced") {
            let run = &self.processes[process];
            let announces = Some((process, run.commits_before));
            let lasts = |mark: &Mark| mark.until() > run.machine.wall() + AHEAD;
            too_early = known.announced_by != announces && old.and_then(RowRecord::mark).is_some_and(lasts);
            known.announced_by = announces;
            known.is_unanswered = false;
            known.before_announcement = known.acknowledgements;
            let before = |slot: &u16| old.and_then(|old| old.field(*slot)).map(|print| (*slot, print));
            known.forgotten =
                slots.iter().filter(|slot| new.field(**slot).is_none()).filter_map(before).collect();
            if matches!(new.mark().map(Mark::doubt), Some(Doubt::Exists { place: Some(_) })) {
                known.nobody_before_insert = met_nobody.or(known.nobody_before_insert);
            }
            unsealed = new.is_in_doubt() && new.sealed_key().is_none();
        }
        if !new.is_in_doubt() {
            known.nobody_before_insert = None;
        }
        let mut unheard = false;
        for slot in slots {
            match new.field(slot) {
                None => _ = known.learnt.remove(&slot),
                print if print != old.and_then(|old| old.field(slot)) => {
                    unheard |= known.acknowledgements == known.before_announcement;
                    known.learnt.insert(slot, known.acknowledged_at);
                }
                Some(_) => {}
            }
        }
        if new.row().is_some() && new.row() != old.and_then(RowRecord::row) {
            known.settled_at = known.acknowledged_at;
        }
        self.checked("promise 1: what is remembered was acknowledged");
        if unheard {
            self.violate(format!("promise 1: a value of k{key} is remembered that nobody has acknowledged"));
        }
        self.checked("promise 2: nothing is announced while something earlier may take effect");
        if too_early {
            self.violate(format!(
                "promise 2: k{key} is announced while something earlier may still take effect"
            ));
        }
        if unmarked {
            self.violate(format!(
                "promise 2: k{key} is no longer marked, and a request may still take effect"
            ));
        }
        self.checked("promise 5: a row in doubt has its key sealed");
        if unsealed {
            self.violate(format!("row k{key} is in doubt and its key is not sealed"));
        }
    }
}

impl World {
    /// As long as the same thing is refused, the attempts are counted on. A destination that contradicts itself is a
    /// refusal as well.
    fn check_rejection(&mut self, key: usize, old: Option<&RowRecord>, new: Option<&RowRecord>) {
        let rejection = |record: Option<&RowRecord>| {
            let rejection = record?.rejection()?;
            Some((rejection.sent(), rejection.attempts()))
        };
        if let (Some((sent, attempts)), Some((sent_now, attempts_now))) = (rejection(old), rejection(new))
            && sent == sent_now
        {
            self.checked("the attempts of a refused row are counted on");
            if attempts_now < attempts {
                self.violate(format!("the attempts of k{key} fall back from {attempts} to {attempts_now}"));
            }
        }
        if new.is_some_and(|new| new.rejection() != old.and_then(RowRecord::rejection)) {
            let known = &mut self.keys[key];
            known.refused.clone_from(&known.handed_out);
            if let Some(refused) = &mut known.refused {
                refused.heard = known.heard;
            }
        }
    }
}

/// What happened to a record, by what it looks like before and after.
fn event(old: Option<&RowRecord>, new: Option<&RowRecord>) -> &'static str {
    let Some(new) = new else { return "deleted" };
    let was_marked = old.is_some_and(|old| old.mark().is_some());
    if new.mark().is_some() && new.mark() != old.and_then(RowRecord::mark) {
        return match new.mark().map(Mark::doubt) {
            Some(Doubt::Exists { .. }) if old.is_some_and(RowRecord::is_in_doubt) => {
                "announced while in doubt"
            }
            Some(Doubt::Exists { .. }) => "announced and in doubt",
            _ if was_marked => "announced once more",
            _ => "announced",
        };
    }
    match new.held() {
        _ if new.mark().is_some() => "still marked",
        Some(Held::Rejected) => "rejected",
        Some(Held::Missing) => "not found",
        _ if new.row().is_none() => "not settled",
        _ if was_marked => "settled",
        _ => "settled without a request",
    }
}
