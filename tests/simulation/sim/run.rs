//! One run of one process: it plans, perhaps writes the plan to a file, applies it, and what comes of it is looked at.

use std::time::Duration;

use futures::stream;
use reverse_etl::{Activation, Error, ErrorKind, Plan, Record, Report, Source, host::Host as _};

use super::{
    story::{told_counts, told_tally},
    world::{Kept, Shared, World},
};

/// A run that was begun.
pub(crate) struct Run {
    pub(crate) shared: Shared,
    pub(crate) process: usize,
    pub(crate) activation: Activation,
    pub(crate) records: Vec<Record>,
    pub(crate) rows_a_chunk: usize,
    /// The source breaks off after so many rows.
    pub(crate) breaks_off: Option<usize>,
    /// The plan goes through a file, and is applied once more afterwards.
    pub(crate) is_copied: bool,
    /// The plan is kept in its file, and applied by a later run or never.
    pub(crate) is_for_later: bool,
    /// A plan of an earlier run, which is applied instead of a new one.
    pub(crate) kept: Option<Kept>,
    /// The run is told to stop so long after it was begun.
    pub(crate) stops_after: Option<Duration>,
}

/// How a run ended.
pub(crate) enum Ran {
    /// Its plan was kept for later.
    Planned,
    Done(Box<Report>),
    /// A guard refused its plan.
    Refused(Error),
    Failed(Error),
}

impl Run {
    pub(crate) async fn go(mut self) -> Ran {
        if let Some(kept) = self.kept.take() {
            return self.go_on_with(kept).await;
        }
        let (before, commits) = {
            let world = &mut *self.shared.lock();
            world.processes[self.process].planning = true;
            (world.written_by(self.process), world.commits())
        };
        let planned = self.activation.plan(self.source()).await;
        self.shared.lock().processes[self.process].planning = false;
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return self.not_planned(error),
        };
        self.look_at(&plan);
        let (plan, copy) = if self.is_copied { self.twice(&plan, commits) } else { (plan, None) };
        if self.is_for_later {
            return Ran::Planned;
        }
        let applied = self.apply(plan).await;
        // A run that stored nothing has left the plan as good as it was.
        let has_begun = self.shared.lock().written_by(self.process).1 > before.1;
        if let Some(copy) = copy.filter(|_| has_begun) {
            self.again(copy).await;
        }
        self.end(applied, before)
    }

    /// Applies a plan, as one does who is told to stop some time.
    async fn apply(&self, plan: Plan) -> Result<Report, Error> {
        let machine = self.shared.machine();
        let stops_after = self.stops_after;
        let stop = async move {
            match stops_after {
                Some(span) => machine.sleep(span).await,
                None => std::future::pending().await,
            }
        };
        self.activation.apply_until(plan, stop).await
    }

    fn end(&self, applied: Result<Report, Error>, before: (u64, u64)) -> Ran {
        match applied {
            Ok(report) => Ran::Done(Box::new(report)),
            Err(error) if error.kind() == ErrorKind::Guard => {
                let world = &mut *self.shared.lock();
                world.checked("promise 7: a plan that a guard refuses causes no write");
                if world.written_by(self.process) != before {
                    world.violate("promise 7: a plan that a guard refused has caused a write");
                }
                Ran::Refused(error)
            }
            Err(error) => Ran::Failed(error),
        }
    }

    /// Promise 7: a plan is applied to the state that it was made for, or not at all.
    async fn go_on_with(self, kept: Kept) -> Ran {
        let plan = Plan::read_from(&*kept.file).expect("a plan can be read back");
        let (before, has_moved) = {
            let world = &mut *self.shared.lock();
            (world.written_by(self.process), world.commits() > kept.commits)
        };
        let applied = self.apply(plan).await;
        {
            let world = &mut *self.shared.lock();
            world.checked("promise 7: a plan is applied to the state that it was made for");
            world.meet(match (has_moved, &applied) {
                (true, _) => "plan: kept too long",
                (false, Ok(_)) => "plan: kept, and applied",
                (false, Err(_)) => "plan: kept, and not applied",
            });
            if has_moved && (applied.is_ok() || world.written_by(self.process) != before) {
                world.violate("promise 7: a plan was applied to another state than it was made for");
            }
        }
        self.end(applied, before)
    }

    fn source(&self) -> Source<'_> {
        match self.breaks_off {
            None => Source::chunks(stream::iter(
                self.records.chunks(self.rows_a_chunk).map(|chunk| Ok::<_, Error>(chunk.to_vec())),
            )),
            Some(rows) => {
                let whole = self.records.iter().take(rows).map(Ok);
                Source::stream(stream::iter(whole.chain([Err("the file ends in the middle of a row")])))
            }
        }
    }

    /// A source that breaks off is an error, and nothing else is one of the source.
    fn not_planned(&self, error: Error) -> Ran {
        let world = &mut *self.shared.lock();
        if error.kind() == ErrorKind::Source {
            world.meet("fault: a source breaks off");
            if self.breaks_off.is_none() {
                world.violate(format!("promise 10: {error}"));
            }
        }
        Ran::Failed(error)
    }

    /// Promise 6: every row of the source is counted once.
    fn look_at(&self, plan: &Plan) {
        let counts = plan.counts();
        let rows = self.records.len() as u64;
        let counted = counts.unchanged
            + counts.held
            + counts.added
            + counts.changed
            + counts.invalid
            + counts.duplicate;
        let world = &mut *self.shared.lock();
        world.tell(|| format!("planned: {}", told_counts(counts)));
        world.checked("promise 6: every source row is counted");
        if counts.rows != rows || counts.rows != counted {
            world.violate(format!("promise 6: {rows} source rows, counted as {counts:?}"));
        }
        if self.breaks_off.is_some() {
            world.violate("promise 10: a source that broke off was planned");
        }
    }

    /// A plan that was written to a file, read twice. The file is kept if nothing was committed since the plan was begun.
    fn twice(&self, plan: &Plan, commits: u64) -> (Plan, Option<Plan>) {
        let mut file = Vec::new();
        plan.write_to(&mut file).expect("a plan can be written");
        let read = || Plan::read_from(&*file).expect("a plan can be read back");
        let plans = (read(), Some(read()));
        let world = &mut *self.shared.lock();
        let run = &world.processes[self.process];
        if world.commits() == commits {
            world.kept = Some(Kept { file, rows: run.rows.clone(), setup: run.setup.clone(), commits });
        }
        plans
    }

    /// Promise 7: a plan is applied once.
    async fn again(&self, copy: Plan) {
        self.shared.lock().checked("promise 7: a plan is applied once");
        let before = self.shared.lock().written_by(self.process);
        let applied = self.activation.apply(copy).await;
        let world = &mut *self.shared.lock();
        let after = world.written_by(self.process);
        match applied {
            Err(error) if before == after => {
                world.tell(|| format!("the second application of the plan ended: {error}"));
            }
            _ => world.violate("promise 7: a plan was applied twice"),
        }
    }
}

impl World {
    /// The write requests and commits of a process so far.
    fn written_by(&self, process: usize) -> (u64, u64) {
        (self.processes[process].writes, self.processes[process].commits)
    }

    pub(crate) fn look_at_end(&mut self, process: usize, end: &Ran) {
        let (report, error) = match end {
            Ran::Planned => return self.meet("run: planned, and nothing else"),
            Ran::Done(report) => (Some(&**report), None),
            Ran::Refused(error) | Ran::Failed(error) => (error.report(), Some(error)),
        };
        match error {
            None => self.meet("run: done"),
            Some(error) => {
                self.meet(format!("run: {:?}", error.kind()));
                self.tell(|| format!("the run of process {process} ended: {error}"));
                if self.quiet {
                    self.violate(format!("promise 3: a run without faults fails: {error}"));
                }
                if error.kind() == ErrorKind::StateDamaged {
                    self.violate(format!("promise 10: {error}"));
                }
                self.check_hides_keys(&format!("{error} {error:?}"));
            }
        }
        if let Some(report) = report {
            self.check_hides_keys(&format!("{report} {report:?}"));
            self.look_at_report(process, report);
        }
    }

    fn look_at_report(&mut self, process: usize, report: &Report) {
        let counts = &report.counts;
        let (outcomes, resolved) = (told_tally(&report.outcomes), told_tally(&report.resolved));
        self.tell(|| format!("report of process {process}: {outcomes}; of rows in doubt: {resolved}"));
        self.checked("promise 6: every planned row has its outcome");
        if report.outcomes.total() != counts.planned() {
            self.violate(format!("promise 6: {:?} of {counts:?}", report.outcomes));
        }
        for (count, name) in [
            (counts.unchanged, "unchanged"),
            (counts.held, "held"),
            (counts.added, "added"),
            (counts.changed, "changed"),
            (counts.invalid, "invalid"),
            (counts.duplicate, "duplicate"),
            (report.outcomes.applied, "applied"),
            (report.outcomes.no_match, "no match"),
            (report.outcomes.rejected, "rejected"),
            (report.outcomes.unknown, "unknown"),
            (report.outcomes.not_attempted, "not attempted"),
            (report.resolved.total(), "resolved"),
            (report.created, "created"),
        ] {
            if count > 0 {
                self.meet(format!("count: {name}"));
            }
        }
    }

    /// Promise 8.
    fn check_hides_keys(&mut self, shown: &str) {
        self.checked("promise 8: errors and reports show no key");
        if shown.to_lowercase().contains("@shop") {
            self.violate(format!("promise 8: a key is shown: {shown}"));
        }
    }
}
