//! The segments of an account and their evaluations, as data.

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::Value;

use super::{
    super::catalog::same_name,
    criteria::Criteria,
    runs::{Run, SingleRun},
};

const FIRST_SEGMENT_ID: u64 = 100_055_501;

/// The segment that every account has: all contacts.
pub(in super::super) const EVERYBODY: u64 = 0;

/// Everything about segments that an account keeps.
#[derive(Debug)]
pub(in super::super) struct Segments {
    by_id: BTreeMap<u64, Segment>,
    next: u64,
    /// When the evaluation that a segment's contacts are read from began.
    begun: BTreeMap<u64, SystemTime>,
    pub(super) runs: Vec<Run>,
    pub(super) single_runs: Vec<SingleRun>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Standard(Standard),
    Combined(Definition),
}

#[derive(Debug)]
pub(super) struct Standard {
    /// The list whose members are asked; 0 for all contacts.
    pub(super) base_list: u64,
    pub(super) contact: Option<Tree>,
    /// Kept, but met by everybody.
    pub(super) behaviour: Option<Value>,
}

/// Criteria as they were sent, and what they mean.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) sent: Value,
    pub(super) criteria: Criteria,
}

/// Of which segments a combined one is made.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) include: Part,
    pub(super) exclude: Option<Part>,
}

/// The contacts that are in one of some segments, or in all of them.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) all: bool,
    pub(super) segments: Vec<u64>,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            next: FIRST_SEGMENT_ID,
            begun: BTreeMap::new(),
            runs: Vec::new(),
            single_runs: Vec::new(),
        }
    }
}

impl Segments {
    pub(super) fn add(&mut self, name: String, kind: Kind) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_id.insert(id, Segment { name, kind });
        id
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.by_id.iter().map(|(id, segment)| (*id, segment))
    }

    pub(super) fn get(&self, id: u64) -> Option<&Segment> {
        self.by_id.get(&id)
    }

    /// The segment, to be changed: what was evaluated before does not hold any more.
    pub(super) fn change(&mut self, id: u64) -> Option<&mut Segment> {
        self.begun.remove(&id);
        self.by_id.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.begun.remove(&id);
        self.by_id.remove(&id).is_some()
    }

    /// Whether a request can name this segment: it is kept, or everybody.
    pub(in super::super) fn exists(&self, id: u64) -> bool {
        id == EVERYBODY || self.by_id.contains_key(&id)
    }

    /// Whether another segment of the same kind has this name.
    pub(super) fn is_taken(&self, name: &str, combined: bool, except: Option<u64>) -> bool {
        self.iter().any(|(id, segment)| {
            matches!(segment.kind, Kind::Combined(_)) == combined
                && Some(id) != except
                && same_name(&segment.name, name)
        })
    }

    /// The combined segments.
    pub(super) fn combined(&self) -> impl Iterator<Item = (u64, &str, &Definition)> {
        self.iter().filter_map(|(id, segment)| match &segment.kind {
            Kind::Combined(definition) => Some((id, segment.name.as_str(), definition)),
            Kind::Standard(_) => None,
        })
    }

    /// Whether a combined segment is made of this one.
    pub(super) fn is_used(&self, id: u64) -> bool {
        self.combined().any(|(_, _, definition)| definition.segments().any(|used| used == id))
    }

    /// When the evaluation of a segment began, if it did.
    pub(super) fn begun(&self, id: u64) -> Option<SystemTime> {
        self.begun.get(&id).copied()
    }

    /// When the evaluation of a segment began: now, if it had not begun or is to be done again.
    pub(super) fn begin(&mut self, id: u64, now: SystemTime, again: bool) -> SystemTime {
        if again {
            self.begun.remove(&id);
        }
        *self.begun.entry(id).or_insert(now)
    }
}

impl Definition {
    /// Every segment that it names.
    pub(super) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        let parts = [Some(&self.include), self.exclude.as_ref()];
        parts.into_iter().flatten().flat_map(|part| part.segments.iter().copied())
    }
}
