//! Batches: changes that the state has been told about, on their way to a destination and back.
//!
//! A batch exists only after the store has durably forgotten the fields in it, and comes back only through its
//! outcomes. One that is dropped on the way is unknown: nobody can say how far it came.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    Error, ErrorKind,
    change::Change,
    destination::{Destination, Operation},
    error::Delivery,
    host::{Deadline, Host},
    outcome::{Outcome, Outcomes},
};

/// Changes of one operation, announced in the state and ready to be sent. No key is in it twice.
///
/// Hand it to a [`Destination`] with [`deliver`](Self::deliver), or execute it yourself and
/// [`settle`](Self::settle) it. Dropped without either, its rows are unknown.
#[must_use = "a batch that is dropped leaves its rows unknown"]
pub struct Batch {
    number: u64,
    operation: Operation,
    place: Option<Arc<str>>,
    changes: Vec<Change>,
    deadline: Deadline,
    host: Arc<dyn Host>,
    ledger: Arc<Ledger>,
}

impl Batch {
    pub(crate) fn new(
        operation: Operation,
        place: Option<Arc<str>>,
        changes: Vec<Change>,
        deadline: Deadline,
        host: Arc<dyn Host>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { number: ledger.number(), operation, place, changes, deadline, host, ledger }
    }

    /// Somebody gets it.
    pub(crate) fn hand_out(&mut self) {
        self.changes.iter_mut().for_each(|change| change.handed_out += 1);
    }

    /// What is to be done with the rows.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The rows, in the order of their key hashes.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Where an insert puts its records, such as the id of a list.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The moment after which nothing of the batch may be sent.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Whether nothing of the batch may be sent any more: its deadline has passed, or its run has had to stop.
    pub fn is_expired(&self) -> bool {
        self.deadline.passed(&*self.host) || self.ledger.is_halted()
    }

    /// The outcome of each row, as `verdict` gives it for its index and change.
    pub fn outcomes(&self, mut verdict: impl FnMut(usize, &Change) -> Outcome) -> Outcomes {
        let rows = self.changes.iter().enumerate().map(|(index, change)| verdict(index, change));
        Outcomes::new(self.number, rows.collect())
    }

    /// The same outcome for each row.
    pub fn all(&self, outcome: &Outcome) -> Outcomes {
        self.outcomes(|_, _| outcome.clone())
    }

    /// The rows that were applied and perhaps exist because of an earlier insert whose answer was lost, by the place
    /// where that insert would have put them. They are to be put there by a separate call; if it fails,
    /// [`Outcomes::interrupt`] says so.
    pub fn in_doubt(&self, outcomes: &Outcomes) -> Vec<(&str, Vec<usize>)> {
        let mut places: Vec<(&str, Vec<usize>)> = Vec::new();
        for (index, (change, outcome)) in self.changes.iter().zip(outcomes.iter()).enumerate() {
            let Some(place) = change.in_doubt().filter(|_| matches!(outcome, Outcome::Applied { .. })) else {
                continue;
            };
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, rows)) => rows.push(index),
                None => places.push((place, vec![index])),
            }
        }
        places
    }

    /// Gives the rows their outcomes. Those of another batch are none: then the rows are unknown.
    pub fn settle(mut self, outcomes: Outcomes) {
        self.give_back(outcomes);
    }

    /// Gives all rows the outcome that an error of the whole batch means: not attempted if certainly none of it took
    /// effect, else unknown. An error that will not go away by itself ends the run.
    pub fn fail(mut self, error: Error) {
        let outcome = match error.delivery() {
            Delivery::NotSent | Delivery::Refused => Outcome::NotAttempted,
            Delivery::Unknown => Outcome::Unknown,
        };
        let mut outcomes = self.all(&outcome);
        outcomes.interrupted = Some(error);
        self.give_back(outcomes);
    }

    /// Two batches of the halves of this one; the second is empty if there is one row or none.
    pub fn split(mut self) -> (Self, Self) {
        let rest = self.changes.split_off(self.changes.len().div_ceil(2));
        // An empty batch is never counted: it has nothing to come back with.
        self.ledger.open(usize::from(!rest.is_empty()));
        let rest = Self::new(
            self.operation,
            self.place.clone(),
            rest,
            self.deadline,
            Arc::clone(&self.host),
            Arc::clone(&self.ledger),
        );
        // Outcomes that were made for the whole are none of a half.
        self.number = self.ledger.number();
        (self, rest)
    }

    /// Sends the batch to a destination and settles it.
    ///
    /// If the destination refuses it as a whole for something that one row may be guilty of
    /// ([`Error::refused_for_a_row`]), it is halved until the guilty rows are alone and rejected. Two rows refused
    /// alone for the same reason while no other one was accepted are not the guilty ones: then the reason is the
    /// error of the run.
    pub async fn deliver(self, destination: &dyn Destination) {
        let mut parts = VecDeque::from([self]);
        let mut accepted = false;
        let mut given_up = false;
        let mut alone: Vec<(Self, String, Error)> = Vec::new();
        // After a row was refused alone, a part from the other end tells soonest whether it is the row's fault.
        while !given_up
            && let Some(part) =
                if alone.is_empty() || accepted { parts.pop_back() } else { parts.pop_front() }
        {
            if part.is_expired() {
                part.fail(Error::new(ErrorKind::Expired, "the time to send a batch has passed"));
                continue;
            }
            let error = match destination.apply(&part).await {
                Ok(outcomes) => {
                    accepted |= outcomes.iter().any(|outcome| *outcome != Outcome::NotAttempted);
                    part.settle(outcomes);
                    continue;
                }
                Err(error) => error,
            };
            match error.row_code().map(str::to_owned) {
                Some(_) if part.changes.len() > 1 => {
                    let (first, second) = part.split();
                    parts.push_back(second);
                    parts.push_back(first);
                }
                Some(code) if accepted || alone.iter().all(|(_, other, _)| *other != code) => {
                    alone.push((part, code, error));
                }
                Some(_) | None => {
                    given_up = error.ends_run();
                    part.fail(error);
                }
            }
        }
        for part in parts {
            let outcomes = part.all(&Outcome::NotAttempted);
            part.settle(outcomes);
        }
        for (part, code, error) in alone {
            let is_guilty = accepted || !given_up;
            let outcome =
                if is_guilty { Outcome::rejected(code, error.to_string()) } else { Outcome::NotAttempted };
            let outcomes = part.all(&outcome);
            part.settle(outcomes);
        }
    }

    fn give_back(&mut self, mut outcomes: Outcomes) {
        if outcomes.batch != self.number {
            outcomes = self.all(&Outcome::Unknown);
            outcomes.set_error(Error::config(
                "a batch was settled with the outcomes of another one: take those that its own `outcomes` gave",
            ));
        }
        let changes = mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        self.ledger.close(Settled { operation: self.operation, changes, outcomes });
    }
}

/// A batch that nobody settled may have been sent.
impl Drop for Batch {
    fn drop(&mut self) {
        let outcomes = self.all(&Outcome::Unknown);
        self.give_back(outcomes);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("operation", &self.operation)
            .field("rows", &self.changes.len())
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// What became of a batch, on its way back to its run.
pub(crate) struct Settled {
    pub(crate) operation: Operation,
    pub(crate) changes: Vec<Change>,
    pub(crate) outcomes: Outcomes,
}

/// Where a run and its batches meet.
#[derive(Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    batches: u64,
    open: usize,
    settled: Vec<Settled>,
    halted: bool,
}

impl Ledger {
    /// The number of one more batch.
    fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.batches += 1;
        inner.batches
    }

    /// So many more batches are under way.
    pub(crate) fn open(&self, batches: usize) {
        self.lock().open += batches;
    }

    /// How many batches are under way.
    pub(crate) fn count_open(&self) -> usize {
        self.lock().open
    }

    /// What has come back since the last time.
    pub(crate) fn take_settled(&self) -> Vec<Settled> {
        mem::take(&mut self.lock().settled)
    }

    /// Nothing more is to be sent.
    pub(crate) fn halt(&self) {
        self.lock().halted = true;
    }

    /// Returns after something came back.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn is_halted(&self) -> bool {
        self.lock().halted
    }

    fn close(&self, settled: Settled) {
        let mut inner = self.lock();
        inner.open = inner.open.saturating_sub(1);
        inner.settled.push(settled);
        drop(inner);
        self.changed.notify_one();
    }

    // Nothing panics while the lock is held, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
