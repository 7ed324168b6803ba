//! What comes back: outcomes become events of records, and every row gets its one count.

use crate::{
    Error, ErrorKind, FieldName, Result,
    batch::Settled,
    change::{Change, Entry, Keys, Phase, Step},
    destination::Operation,
    event::{Event, Problem, ProblemKind},
    fingerprint::KeyHash,
    outcome::Outcome,
    plan::{PROBLEMS_KEPT, Share},
    report::Tally,
    run::{Row, Run},
};

/// How often a row is handed out again after its batch came too late to be sent.
const DELAYS_MAX: u32 = 3;

/// Batches in a row without any answer, after which the run stops.
const SILENT_MAX: u32 = 3;

/// Outcomes before a share of rejected rows says anything.
const OUTCOMES_MIN: u64 = 1_000;

/// What a destination said of a batch as a whole.
struct Said<'s> {
    keys: &'s Keys,
    why: Option<&'s str>,
    /// No error says otherwise than that what was not attempted came too late to be sent.
    is_late: bool,
}

impl Run<'_> {
    /// Gives the rows that came back their outcomes.
    pub(super) fn take_settled(&mut self) {
        let settled = self.ledger.take_settled();
        if settled.is_empty() {
            return;
        }
        for settled in settled {
            if let Err(error) = self.settle(settled) {
                self.fail(error);
            }
        }
        let Tally { applied, no_match, rejected, unknown, .. } = self.outcomes;
        let done = applied + no_match + rejected + unknown;
        self.tell(&Event::Progress { done, planned: self.head.counts.planned() });
        let is_exceeded = self.head.guards.rejected_max.is_some_and(|share| {
            let is_heard = matches!(share, Share::Rows(_)) || done >= OUTCOMES_MIN;
            is_heard && share.is_exceeded(rejected, done)
        });
        if is_exceeded {
            self.fail(Error::new(
                ErrorKind::Guard,
                format!(
                    "the run stopped: {rejected} of {done} rows were rejected, more than the guard allows; look at the \
                     reasons, and mend the mapping or the source"
                ),
            ));
        }
    }

    fn settle(&mut self, settled: Settled) -> Result<()> {
        let Settled { operation, changes, outcomes } = settled;
        let is_told = |outcome: &Outcome| matches!(outcome, Outcome::Rejected { .. } | Outcome::Unknown);
        let is_quiet =
            outcomes.notes.is_empty() && outcomes.interrupted.is_none() && !outcomes.rows.iter().any(is_told);
        // Nobody looks for keys where nothing is said.
        let keys = Keys::new(if is_quiet { &[] } else { &changes });
        let notes = outcomes.notes;
        let interrupted = outcomes.interrupted.map(|error| error.map_text(|text| keys.blacked_out(text)));
        let why = interrupted.as_ref().map(ToString::to_string);
        let is_late = interrupted.as_ref().is_none_or(|error| error.kind() == ErrorKind::Expired);
        let is_silent =
            outcomes.rows.iter().all(|outcome| matches!(outcome, Outcome::Unknown | Outcome::NotAttempted));
        let is_unanswered = outcomes.rows.iter().all(|outcome| *outcome == Outcome::Unknown);
        let error = interrupted.as_ref().map(Error::kind);
        tracing::debug!(?operation, rows = changes.len(), ?error, "batch settled");
        for (index, text) in notes {
            if let Some(change) = changes.get(index) {
                let text = change.blacked_out(&text, &keys);
                self.problem(change, ProblemKind::Note, None, None, text);
            }
        }
        for (change, outcome) in changes.into_iter().zip(outcomes.rows) {
            self.settle_row(operation, change, outcome, &Said { keys: &keys, why: why.as_deref(), is_late });
        }
        match interrupted {
            Some(error) if error.ends_run() => return Err(error),
            Some(error) if error.kind() == ErrorKind::Expired => {}
            error if is_silent && (error.is_some() || is_unanswered) => {
                self.silent += 1;
                if self.silent >= SILENT_MAX {
                    return Err(error.unwrap_or_else(|| {
                        let why =
                            "several batches in a row came back without any answer: check the destination";
                        Error::new(ErrorKind::NoAnswer, why)
                    }));
                }
            }
            _ => self.silent = 0,
        }
        Ok(())
    }

    /// One row, one event of its record, and one count unless the row goes out once more.
    fn settle_row(&mut self, operation: Operation, change: Change, outcome: Outcome, said: &Said<'_>) {
        let hash = change.hash();
        let Some(mut row) = self.in_flight.remove(&hash) else { return };
        let prints = change.prints();
        let removal = operation == Operation::Remove;
        let outcome = contradiction(operation, change.phase, outcome);
        let prior = row.prior.take();
        match outcome {
            Outcome::Applied { .. } | Outcome::NoMatch if removal => {
                self.put_deleted(hash, &row);
                let tally = self.tally(&change);
                if outcome == Outcome::NoMatch {
                    tally.no_match += 1;
                } else {
                    tally.applied += 1;
                }
                return;
            }
            Outcome::Applied { created } => {
                row.record.applied(&change.sending(operation, &prints));
                self.created += u64::from(created);
                self.tally(&change).applied += 1;
            }
            Outcome::NoMatch => {
                row.record.not_found();
                if self.is_to_be_inserted(operation, &change) {
                    self.send_again(hash, change, row, Phase::Insert);
                    return;
                }
                self.tally(&change).no_match += 1;
                let text = "the destination does not know it".to_owned();
                self.problem(&change, ProblemKind::NoMatch, None, None, text);
            }
            Outcome::AlreadyExists => {
                row.record.not_found();
                self.send_again(hash, change, row, Phase::UpdateAgain);
                return;
            }
            Outcome::Rejected { code, field, message } => {
                let code = said.keys.blacked_out(&code);
                let (now, backoff) = (self.host.wall(), self.head.rejected.backoff());
                row.record.rejected(&change.sending(operation, &prints), &code, prior, now, backoff);
                self.tally(&change).rejected += 1;
                let text = change.blacked_out(&message, said.keys);
                self.problem(&change, ProblemKind::Rejected, Some(code), field, text);
            }
            Outcome::Unknown => {
                self.tally(&change).unknown += 1;
                let text = change.blacked_out(said.why.unwrap_or("no answer came for this row"), said.keys);
                self.problem(&change, ProblemKind::Unknown, None, None, text);
            }
            Outcome::NotAttempted => {
                row.record.not_attempted(prior);
                if said.is_late && change.handed_out <= DELAYS_MAX && self.failure.is_none() {
                    self.put(hash, &mut row);
                    let waiting = self.waiting(change, row);
                    self.enqueue(waiting);
                    return;
                }
            }
        }
        self.put(hash, &mut row);
    }

    /// Whether a row that an update did not find is to be created in this run: only if the update carried all of its
    /// fields, so that nothing of it is missing.
    fn is_to_be_inserted(&self, operation: Operation, change: &Change) -> bool {
        let Entry { step, known, key_only, .. } = change.entry;
        operation == Operation::Update
            && change.phase == Phase::First
            && step == Step::Send
            && !known
            && !key_only
            && self.head.operations.contains(&Operation::Insert)
    }

    fn send_again(&mut self, hash: KeyHash, mut change: Change, mut row: Row, phase: Phase) {
        (change.phase, change.handed_out) = (phase, 0);
        // Whatever doubt there was has ended: the row was not there, or somebody else's is.
        change.entry.place = None;
        self.put(hash, &mut row);
        let waiting = self.waiting(change, row);
        self.enqueue(waiting);
    }

    fn tally(&mut self, change: &Change) -> &mut Tally {
        if change.entry.step == Step::Resolve { &mut self.resolved } else { &mut self.outcomes }
    }

    fn problem(
        &mut self,
        change: &Change,
        kind: ProblemKind,
        code: Option<String>,
        field: Option<FieldName>,
        text: String,
    ) {
        let problem = Problem { row: change.row(), kind, code, column: None, field, text };
        self.tell(&Event::Problem(&problem));
        if kind != ProblemKind::NoMatch && self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(problem);
        }
    }
}

/// What an outcome means that its operation cannot have: the destination contradicts itself, and the row is rejected.
fn contradiction(operation: Operation, phase: Phase, outcome: Outcome) -> Outcome {
    match (outcome, operation, phase) {
        (Outcome::NoMatch, Operation::Insert, _) => Outcome::rejected(
            "no match",
            "the destination was to create the row, and says that it does not exist",
        ),
        (Outcome::NoMatch, _, Phase::UpdateAgain) => Outcome::rejected(
            "no match",
            "the destination says that the row exists, and then that it does not",
        ),
        (Outcome::AlreadyExists, Operation::Update | Operation::Upsert | Operation::Remove, _) => {
            Outcome::rejected(
                "already exists",
                "the destination was not to create the row, and says that it exists",
            )
        }
        (outcome, ..) => outcome,
    }
}
