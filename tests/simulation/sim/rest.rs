//! The end of a history: faults stop, and everything comes to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use reverse_etl::{
    MissingPolicy, RejectedPolicy,
    host::Host as _,
    state::record::{Held, Rejection, RowRecord},
};
use serde_json::{Value as Json, json};

use super::{
    clock::CLOCK_MARGIN,
    flight::only,
    history::History,
    source::{FIELDS, Row},
    world::{Known, LISTS, World},
};

impl History {
    /// Faults stop. One more run has to bring everything in order, another one notices whom others have deleted, and the
    /// next has nothing to send.
    pub(crate) fn come_to_rest(&mut self) {
        {
            let world = &mut *self.shared.lock();
            world.quiet = true;
            world.tell(|| "FAULTS STOP".to_owned());
            for list in LISTS {
                world.restore_list(list);
            }
            // Until the last hold on the state has run out, and the last short back-off.
            world.pass(Duration::from_secs(400));
        }
        self.setup.is_guarded = false;
        self.round();
        if self.is_over() {
            return;
        }
        self.check_converged(false);
        if self.is_over() {
            return;
        }
        self.shared.lock().pass(Duration::from_secs(100));
        self.round();
        if self.is_over() {
            return;
        }
        self.check_converged(true);
        self.check_members();
        if self.is_over() {
            return;
        }
        let (before, records) = {
            let world = &mut *self.shared.lock();
            world.pass(Duration::from_secs(1));
            (writes(world), world.keys.iter().map(|known| known.record.clone()).collect::<Vec<_>>())
        };
        self.round();
        let world = &mut *self.shared.lock();
        let after = writes(world);
        // A run may wait for the limit, and meanwhile the time of a row comes.
        let now = latest(world);
        let is_tried_again = |record: &Option<RowRecord>| {
            record.as_ref().is_some_and(|record| self.is_tried_again(record, now))
        };
        let tried_again: Vec<bool> = records.iter().map(is_tried_again).collect();
        world.checked("promise 3: the run after a run without faults sends nothing");
        let is_sent = |key: &usize| !tried_again[*key] && after.1[*key] > before.1[*key];
        if let Some(key) = (0..tried_again.len()).find(is_sent) {
            world.violate(format!("promise 3: the run after a run without faults sends k{key}"));
        }
        if after.0 > before.0 {
            world.violate("promise 3: the run after a run without faults writes what is about no row");
        }
    }

    /// Whether every run asks for a row, or tries it again.
    fn is_tried_again(&self, record: &RowRecord, now: SystemTime) -> bool {
        let waits = |rejection: &Rejection| match &self.rejected {
            RejectedPolicy::Backoff(_) => rejection.holds_back(rejection.sent(), false, now),
            RejectedPolicy::Never => true,
            _ => false,
        };
        match (record.held(), record.rejection()) {
            (_, Some(rejection)) if record.is_in_doubt() => !rejection.holds_back_key(now),
            (Some(Held::Missing), _) => self.missing == MissingPolicy::Send,
            (_, Some(rejection)) => !waits(rejection),
            (_, None) => false,
        }
    }

    /// Promise 3. `is_noticed`: a run has had the time to notice whom others deleted.
    fn check_converged(&self, is_noticed: bool) {
        let world = &mut *self.shared.lock();
        for (key, row) in self.rows.iter().enumerate() {
            world.checked("promise 3: the account has what the source has");
            if let Some(violation) = self.check_row(world, key, row, is_noticed) {
                world.violate(violation);
            }
        }
    }

    fn check_row(&self, world: &World, key: usize, row: &Row, is_noticed: bool) -> Option<String> {
        let expected = row.expected(&self.setup)?;
        let known = &world.keys[key];
        let Some(record) = &known.record else {
            return Some(format!("promise 3: row k{key} has no record"));
        };
        let contacts = world.contacts(key);
        if contacts.len() > 1 || self.is_refused(world, key, row) {
            return None;
        }
        if record.is_known() && known.acknowledged_at != known.edits {
            return None;
        }
        let Some(contact) = contacts.first() else {
            // An update of some of its fields has found nobody, so that the next run has to send all of them.
            let is_just_noticed = !is_noticed && record.held() == Some(Held::Missing);
            return (self.setup.inserts && !is_just_noticed)
                .then(|| format!("promise 3: k{key} does not exist"));
        };
        for (field, value) in expected {
            let (_, name) = FIELDS[field];
            let Some(id) = world.field_id(field) else {
                return Some(format!("promise 3: there is no field `{name}`"));
            };
            // Others have changed it since.
            let is_edited =
                |slot: u16| record.field(slot).is_some() && known.learnt.get(&slot) != Some(&known.edits);
            if world.slot(id).is_some_and(is_edited) {
                continue;
            }
            let there = contact.value(id);
            let is_same = *there == value || (value.is_null() && *there == json!(""));
            if !is_same {
                return Some(format!(
                    "promise 3: field `{name}` of k{key} is {there} in the account and {value} in the source"
                ));
            }
        }
        None
    }

    /// Whether a row is held back for good reason: what would be sent of it is what the account has refused.
    fn is_refused(&self, world: &World, key: usize, row: &Row) -> bool {
        let Known { record: Some(record), refused: Some(refused), .. } = &world.keys[key] else {
            return false;
        };
        let Some(expected) = row.expected(&self.setup).filter(|_| record.rejection().is_some()) else {
            return false;
        };
        let is_to_be_sent = |(field, value): &(usize, Json)| {
            let slot = world.slot(world.field_id(*field)?)?;
            let is_acknowledged = record.field(slot).is_some_and(|print| world.is_of(print, slot, value));
            (!is_acknowledged).then_some((slot, value.clone()))
        };
        let to_be_sent: BTreeMap<u16, Json> = expected.iter().filter_map(is_to_be_sent).collect();
        let slots: BTreeSet<u16> = refused.sent.iter().filter_map(|(slot, _)| *slot).collect();
        let then = refused.row.expected(&refused.setup).unwrap_or_default();
        let is_same = to_be_sent.keys().copied().collect::<BTreeSet<_>>() == slots
            && expected.iter().filter(|pair| is_to_be_sent(pair).is_some()).all(|pair| then.contains(pair))
            && (record.is_known() || refused.setup.creation() == self.setup.creation());
        is_same && !matches!(self.rejected, RejectedPolicy::EveryRun)
    }

    /// Promise 5: whoever was created is in the list that was chosen then.
    fn check_members(&self) {
        let world = &mut *self.shared.lock();
        let lists = world.sandbox.lists();
        let mut violation = None;
        for made in &world.made {
            let Some(list) = lists.iter().find(|list| list.id() == made.list) else { continue };
            let is_alone = only(&world.contacts(made.key)) == Some(made.contact);
            // Even its key alone was refused, and has to wait.
            let is_held = |record: &RowRecord| {
                // By whichever clock: all are less than the margin apart.
                let holds_back =
                    |rejection: &Rejection| rejection.holds_back_key(latest(world) - CLOCK_MARGIN);
                record.is_in_doubt() && record.rejection().is_some_and(holds_back)
            };
            let is_held = world.keys[made.key].record.as_ref().is_some_and(is_held);
            if is_alone && !is_held && !list.members().contains(&made.contact) {
                violation =
                    Some(format!("promise 5: k{} was created and is not in {}", made.key, list.name()));
            }
        }
        world.checked("promise 5: who was created is in the list");
        if let Some(violation) = violation {
            world.violate(violation);
        }
    }
}

/// How many write requests there were about no key, and how many about each.
fn writes(world: &World) -> (u64, Vec<u64>) {
    (world.writes_without_keys, world.keys.iter().map(|known| known.writes).collect())
}

/// The time by the clock that is ahead of all others.
fn latest(world: &World) -> SystemTime {
    let all = world.processes.iter().map(|process| process.machine.wall());
    all.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
