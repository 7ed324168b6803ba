//! Resolving: the destination is asked about rows of which only it knows whether they exist.

use std::collections::HashSet;

use crate::{Error, ErrorKind, Result, change::Step, destination::Destination, plan::Plan, record::Key};

impl Plan {
    /// Asks the destination which of the added rows exist, and which of the missing ones exist by now. Only reads.
    ///
    /// A missing row that exists is added to the plan.
    ///
    /// # Errors
    /// What the destination's [`find`](Destination::find) fails with.
    pub async fn resolve(self, destination: &dyn Destination) -> Result<Self> {
        self.resolved(destination, true).await
    }

    /// Asks about the missing rows alone.
    pub(crate) async fn resolve_missing(self, destination: &dyn Destination) -> Result<Self> {
        self.resolved(destination, false).await
    }

    async fn resolved(mut self, destination: &dyn Destination, added: bool) -> Result<Self> {
        const ASKED_AT_ONCE: usize = 1000;
        if !added && self.head.asks == 0 {
            return Ok(self);
        }
        let mut found = HashSet::new();
        let mut existing = 0;
        let mut entries = self.spool.entries();
        loop {
            let mut asked: Vec<(bool, u64)> = Vec::new();
            let mut keys: Vec<Key> = Vec::new();
            for entry in entries.by_ref() {
                let entry = entry?;
                let is_missing = entry.step == Step::Ask;
                if is_missing || (added && entry.is_new()) {
                    asked.push((is_missing, entry.row));
                    keys.push(entry.key);
                    if keys.len() == ASKED_AT_ONCE {
                        break;
                    }
                }
            }
            if keys.is_empty() {
                break;
            }
            let answers = destination.find(&keys, &[]).await?;
            if answers.len() != keys.len() {
                let (given, asked) = (answers.len(), keys.len());
                return Err(Error::new(
                    ErrorKind::Undecodable,
                    format!(
                        "the destination gave {given} answers where it was asked for {asked} rows: mend its `find`"
                    ),
                ));
            }
            for (answer, (is_missing, row)) in answers.iter().zip(asked) {
                if answer.is_some() {
                    existing += u64::from(!is_missing);
                    if is_missing {
                        found.insert(row);
                    }
                }
            }
        }
        if added {
            self.head.counts.existing = Some(existing + found.len() as u64);
        }
        if found.is_empty() {
            return Ok(self);
        }
        let (mut rows, mut fields, mut cleared) = (0, 0, 0);
        self.spool = self.spool.rewritten(self.memory_max, |mut entry| {
            if entry.step == Step::Ask && found.contains(&entry.row) {
                entry.step = Step::Send;
                rows += 1;
                fields += entry.values.len() as u64;
                cleared += entry.values.cleared();
            }
            Some(entry)
        })?;
        self.head.asks = self.head.asks.saturating_sub(rows);
        let counts = &mut self.head.counts;
        counts.held = counts.held.saturating_sub(rows);
        counts.added += rows;
        counts.fields += fields;
        counts.cleared += cleared;
        self.head.guard();
        Ok(self)
    }
}
