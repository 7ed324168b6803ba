//! The exports of an account, as data.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};

use super::{super::switches::Switches, csv::File};

const FIRST_EXPORT_ID: u64 = 2_140;

/// Every export that was asked for.
#[derive(Debug)]
pub(in super::super) struct Exports {
    by_id: BTreeMap<u64, Export>,
    next: u64,
}

/// One export, with the file that it makes.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) kind: &'static str,
    pub(super) created: SystemTime,
    /// The request as it came in, by which the same export is known again.
    pub(super) body: Map<String, Value>,
    /// Whether its file can be downloaded.
    pub(super) local: bool,
    /// Whether it comes to nothing.
    pub(super) fails: bool,
    pub(super) file: File,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Scheduled,
    Running,
    /// Its file is made, and can be downloaded.
    Ready,
    Done,
    /// Done, and its file is not kept any more.
    Gone,
    /// There is no file and never will be.
    Failed,
}

impl Default for Exports {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), next: FIRST_EXPORT_ID }
    }
}

impl Exports {
    pub(super) fn add(&mut self, export: Export) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_id.insert(id, export);
        id
    }

    pub(super) fn get(&self, id: u64) -> Option<&Export> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Export> {
        self.by_id.values()
    }
}

impl Export {
    pub(super) fn progress(&self, now: SystemTime, switches: &Switches) -> Progress {
        let age = now.duration_since(self.created).unwrap_or(Duration::ZERO);
        let duration = switches.export_duration;
        let Some(since) = age.checked_sub(duration) else {
            return if age < duration / 2 { Progress::Scheduled } else { Progress::Running };
        };
        if self.fails {
            Progress::Failed
        } else if since >= switches.exports_kept {
            Progress::Gone
        } else if since < switches.export_ready_for {
            Progress::Ready
        } else {
            Progress::Done
        }
    }
}
