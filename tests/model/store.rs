//! The store in memory, watched: every commit is checked, and the process may die before or after it.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use reverse_etl::{
    Commit, Error, ErrorKind, Header, KeyHash, MemoryStore, PriorState, Result, RowState, ScannedRows,
    StateStore,
    state::record::{Doubt, Mark, RowRecord},
};
use serde_json::Value as Json;

use crate::{
    host::yield_once,
    world::{Refused, Shared, World},
};

#[derive(Clone)]
pub(crate) struct WatchedStore {
    pub(crate) inner: MemoryStore,
    pub(crate) shared: Shared,
}

impl fmt::Debug for WatchedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedStore")
    }
}

/// A moment at which the process may die.
pub(crate) async fn crash_point(shared: &Shared) {
    let is_dead = {
        let mut world = shared.lock();
        world.between_steps();
        let is_dead = world.rarely(8);
        if is_dead {
            world.log(|| "CRASH".to_owned());
            world.crashed = true;
        }
        is_dead
    };
    if is_dead {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl PriorState for WatchedStore {
    async fn header(&self) -> Result<Option<Header>> {
        crash_point(&self.shared).await;
        self.inner.header().await
    }

    async fn load(&self, keys: &[KeyHash]) -> Result<Vec<Option<RowState>>> {
        crash_point(&self.shared).await;
        self.inner.load(keys).await
    }

    fn scan(&self) -> BoxStream<'_, Result<ScannedRows>> {
        self.inner.scan()
    }
}

#[async_trait]
impl StateStore for WatchedStore {
    async fn commit(&self, commit: &Commit) -> Result<()> {
        crash_point(&self.shared).await;
        if self.shared.lock().choose.one_in(3) {
            yield_once().await;
        }
        let fails = || Error::new(ErrorKind::Io, "the disk is full");
        if self.shared.lock().rarely(12) {
            self.shared.lock().log(|| "a commit fails".to_owned());
            return Err(fails());
        }
        self.inner.commit(commit).await?;
        let header = self.inner.header().await?;
        {
            let mut world = self.shared.lock();
            if world.planning {
                world.violate("promise 7: planning wrote to the state");
            }
            if let Some(header) = header {
                learn_slots(&mut world, &header);
                check_header(&mut world, &header, commit);
            }
            world.step += 1;
            crate::check::state(&mut world);
        }
        crash_point(&self.shared).await;
        if self.shared.lock().rarely(12) {
            self.shared.lock().log(|| "a commit is stored and fails".to_owned());
            return Err(fails());
        }
        Ok(())
    }
}

fn learn_slots(world: &mut World, header: &Header) {
    let bytes = header.to_bytes().unwrap_or_default();
    let header: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    let slots = header["slots"]["active"].as_array().cloned().unwrap_or_default();
    world.slots = slots
        .iter()
        .filter_map(|slot| {
            let number = u16::try_from(slot["slot"].as_u64()?).ok()?;
            let field = slot["field"].as_str()?.strip_prefix('f')?.parse().ok()?;
            let id = slot["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
            Some((number, (field, id)))
        })
        .collect();
}

/// Takes note of what a commit changed.
fn check_header(world: &mut World, header: &Header, commit: &Commit) {
    for (hash, row) in commit.rows() {
        let Some(key) = world.hashes.iter().position(|known| *known == hash) else {
            world.violate("a row is written that no source had");
            continue;
        };
        let old = world.records[key].clone();
        let new = row.map(|row| {
            RowRecord::from_bytes(row.fingerprint(), row.as_bytes()).expect("a record can be read back")
        });
        world.log(|| format!("  commit {key}: {}", row_shown(new.as_ref())));
        note_row(world, key, old.as_ref(), new.as_ref());
        world.records[key] = new;
    }
    let json: Json = serde_json::from_slice(&header.to_bytes().unwrap_or_default()).unwrap_or_default();
    let records = world.records.iter().flatten();
    let in_doubt = records.clone().filter(|record| record.is_in_doubt()).count() as u64;
    let count = records.count() as u64;
    if json["in_doubt"].as_u64() != Some(in_doubt) || json["rows"].as_u64() != Some(count) {
        world.violate(format!(
            "the header counts {} rows, {} of them in doubt; there are {count} and {in_doubt}",
            json["rows"], json["in_doubt"]
        ));
    }
}

fn note_row(world: &mut World, key: usize, old: Option<&RowRecord>, new: Option<&RowRecord>) {
    let Some(new) = new else {
        world.learnt.retain(|(known, _), _| *known != key);
        world.forgotten[key].clear();
        world.refused[key] = None;
        return;
    };
    let slots: Vec<u16> = world.slots.keys().copied().collect();
    let is_announced = new.mark().is_some() && old.and_then(RowRecord::mark) != new.mark();
    if is_announced {
        // Whoever is not known there any more was deleted by others, and who comes next is theirs.
        world.removable[key] = old.is_some_and(|old| (old.is_ours() && old.is_known()) || old.is_in_doubt());
        let before = |slot: &u16| old.and_then(|old| old.field(*slot)).map(|print| (*slot, print));
        world.forgotten[key] =
            slots.iter().filter(|slot| new.field(**slot).is_none()).filter_map(before).collect();
        if matches!(new.mark().map(Mark::doubt), Some(Doubt::Exists { place: Some(_) })) {
            let met = world.last_nobody[key].filter(|met| *met > world.run_began);
            world.nobody_before_insert[key] = met.or(world.nobody_before_insert[key]);
        }
        if new.is_in_doubt() && new.sealed_key().is_none() {
            world.violate(format!("row {key} is in doubt and its key is not sealed"));
        }
    }
    for slot in slots {
        match new.field(slot) {
            None => {
                world.learnt.remove(&(key, slot));
            }
            print if print != old.and_then(|old| old.field(slot)) => {
                world.learnt.insert((key, slot), world.acknowledged_at[key]);
            }
            Some(_) => {}
        }
    }
    if new.row().is_some() && new.row() != old.and_then(RowRecord::row) {
        world.settled_at[key] = world.acknowledged_at[key];
    }
    note_rejection(world, key, old, new);
}

/// Keeps what was refused, and until when it is not worth another try, apart from the engine.
fn note_rejection(world: &mut World, key: usize, old: Option<&RowRecord>, new: &RowRecord) {
    let Some(rejection) = new.rejection() else {
        world.refused[key] = None;
        return;
    };
    if old.and_then(RowRecord::rejection) == Some(rejection) {
        return;
    }
    let sent = world.last_sent[key].clone();
    let attempts = match &world.refused[key] {
        Some(last) if last.sent == sent => last.attempts + 1,
        _ => 1,
    };
    if rejection.attempts() < attempts {
        world.violate(format!("the attempts of the rejected row {key} fall back"));
    }
    let next = world.heard_at[key] + 3 * u64::from(attempts.min(2));
    world.refused[key] = Some(Refused { sent, next, attempts });
}

fn row_shown(record: Option<&RowRecord>) -> String {
    let Some(record) = record else { return "deleted".to_owned() };
    let fields: Vec<u16> = (0..64).filter(|slot| record.field(*slot).is_some()).collect();
    format!(
        "settled {} fields {fields:?} known {} ours {} mark {:?} held {:?}",
        record.row().is_some(),
        record.is_known(),
        record.is_ours(),
        record.mark(),
        record.held()
    )
}
