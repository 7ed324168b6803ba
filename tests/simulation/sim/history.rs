//! A history: a few runs with trouble, then the trouble stops and everything has to be in order.

use std::{sync::Arc, time::Duration};

use reverse_etl::{
    Activation, Error, ErrorKind, Guards, Limits, MemoryStore, MissingPolicy, Plan, PlanOptions, Record,
    RejectedPolicy, Report, Share, Source,
    emarsys::{Client, ContactsDestination, Credentials, Limiter},
    host::Host,
    state::record::Backoff,
};

use super::{
    choices::{Choices, Script, Stream},
    clock::Machine,
    delivery,
    executor::{self, Work},
    flight::{CLOCK_MARGIN, LATE, Wire},
    source::{Row, Setup},
    store,
    switches::{Switch, Switches},
    world::{Counts, KEYS, LISTS, Process, Shared, World, secret},
};

/// What came of a history.
pub(crate) struct End {
    pub(crate) violation: Option<String>,
    pub(crate) choices: Script,
    pub(crate) story: Vec<String>,
    pub(crate) met: Counts,
    pub(crate) checks: Counts,
}

/// How one run ended.
enum Ran {
    Refused(Error),
    Done(Box<Report>),
    Failed(Error),
}

pub(crate) struct History {
    pub(super) shared: Shared,
    store: MemoryStore,
    pub(super) setup: Setup,
    pub(super) rows: Vec<Row>,
    limits: Limits,
    timeout: Duration,
    pub(super) rejected: RejectedPolicy,
    pub(super) missing: MissingPolicy,
    /// Programs that live longer than a run keep their client.
    client: Option<(usize, Client)>,
}

/// Plays the history that these choices make.
pub(crate) fn play(choices: Choices, switches: &Switches, is_told: bool) -> End {
    let mut world = World::new(choices, switches, is_told);
    // A deadline has to be longer than a window of the limit, if there are windows to wait for.
    let send_within = match world.temper.rate_limit {
        1_000 => world.choices.on(Stream::Sync).of(&[90, 2, 10, 2]),
        _ => world.choices.on(Stream::Sync).of(&[90, 65]),
    };
    let limits = Limits::rows(1 + world.choices.on(Stream::Sync).below(3))
        .in_flight(1 + world.choices.on(Stream::Sync).below(3))
        .late(LATE)
        .send_within(Duration::from_secs(send_within))
        .clock_margin(CLOCK_MARGIN);
    let timeout = Duration::from_secs(world.choices.on(Stream::Sync).of(&[30, 5, 12]));
    let rows = vec![Row::Absent; world.keys.len()];
    let shared = Shared::new(world);
    let store = MemoryStore::with_host(shared.machine());
    let rejected = {
        let short = Backoff::new(Duration::from_secs(30), Duration::from_secs(60));
        let policies = [
            RejectedPolicy::Backoff(short),
            RejectedPolicy::Backoff(Backoff::default()),
            RejectedPolicy::EveryRun,
            RejectedPolicy::Never,
        ];
        shared.lock().choices.on(Stream::Sync).of(&policies)
    };
    let missing = if shared.lock().choices.on(Stream::Sync).one_in(6) {
        MissingPolicy::Send
    } else {
        MissingPolicy::Ask
    };
    let mut setup = Setup::default();
    setup.inserts &= !switches.has(Switch::UpdateOnly);
    let mut history = History {
        shared: shared.clone(),
        store,
        setup,
        rows,
        limits,
        timeout,
        rejected,
        missing,
        client: None,
    };
    history.play();
    drop(history);
    let world = &mut *shared.lock();
    End {
        violation: world.violation.take(),
        choices: world.choices.made(),
        story: world.story.take().unwrap_or_default(),
        met: std::mem::take(&mut world.met),
        checks: std::mem::take(&mut world.checks),
    }
}

impl History {
    pub(super) fn is_over(&self) -> bool {
        self.shared.lock().is_over()
    }

    fn play(&mut self) {
        let rounds = 2 + self.shared.lock().choices.on(Stream::Rounds).below(4);
        for _ in 0..rounds {
            self.edit();
            self.round();
            if self.is_over() {
                return;
            }
            let world = &mut *self.shared.lock();
            let pause = world.choices.on(Stream::Rounds).of(&[1, 1, 2, 10, 40, 200, 4_000]);
            world.tell(|| format!("{pause} s pass"));
            world.pass(Duration::from_secs(pause));
            world.others_act();
        }
        self.edit();
        self.come_to_rest();
    }

    /// The owner of the source and the sync edits them.
    fn edit(&mut self) {
        let world = &mut *self.shared.lock();
        for at in 0..KEYS {
            let mut row = self.rows.get(at).cloned().unwrap_or(Row::Absent);
            row.edit(world.choices.on(Stream::Source));
            if let Some(known) = self.rows.get_mut(at) {
                *known = row;
            }
        }
        self.setup.edit(world.choices.on(Stream::Setup), &world.switches);
        let (rows, setup) = (&self.rows, &self.setup);
        world.tell(|| {
            let rows: Vec<String> =
                rows.iter().enumerate().map(|(key, row)| format!("k{key} {row:?}")).collect();
            format!("the source has {}", rows.join(", "))
        });
        world.tell(|| {
            let mode = if setup.inserts {
                format!("inserts into `{}`", LISTS[setup.list])
            } else {
                "updates only".to_owned()
            };
            format!("the sync {mode}, maps {:?}", setup.names())
        });
    }

    fn records(&self) -> Vec<Record> {
        let world = &mut *self.shared.lock();
        let mut records = Vec::new();
        for (key, row) in self.rows.iter().enumerate() {
            let spelled = world.choices.on(Stream::Rounds).one_in(8);
            records.extend(row.records(key, &self.setup, spelled));
        }
        records
    }

    /// A new process. It has a client of its own, unless the one before it lives on.
    fn process(&mut self) -> (usize, Client) {
        let world = &mut *self.shared.lock();
        if let Some((process, client)) = &self.client
            && !world.choices.on(Stream::Rounds).one_in(3)
        {
            return (*process, client.clone());
        }
        let process = world.processes.len();
        // Any two clocks differ by less than the margin.
        let ahead = Duration::from_millis(world.choices.on(Stream::Rounds).of(&[0, 0, 900]));
        if !ahead.is_zero() {
            world.meet("fault: a clock is wrong");
        }
        let machine = Machine::new(&world.clock, ahead);
        world.processes.push(Process::new(machine.clone(), world.keys.len()));
        if process > 0 {
            world.alone = false;
        }
        let credentials = if world.temper.is_v2 {
            Credentials::wsse(world.sandbox.username(), world.sandbox.wsse_secret())
        } else {
            Credentials::oauth2(world.sandbox.client_id(), world.sandbox.client_secret())
        };
        let host: Arc<dyn Host> = Arc::new(machine);
        let wire = Wire { shared: self.shared.clone(), process };
        let client = Client::builder(credentials)
            .host(host)
            .network(wire)
            .timeout(self.timeout)
            .limiter(Limiter::new())
            .build()
            .expect("these settings are valid");
        self.client = Some((process, client.clone()));
        (process, client)
    }

    fn activation(&self, process: usize, client: &Client) -> Activation {
        let mut contacts = ContactsDestination::new(client.clone()).limits(self.limits);
        if self.setup.inserts {
            contacts = contacts.insert_into(LISTS[self.setup.list]);
        }
        let shared = self.shared.clone();
        let policy = self.rejected;
        let contacts = delivery::Watched { inner: contacts, shared: shared.clone(), process, policy };
        let store = store::Watched { inner: self.store.clone(), shared, process };
        let mut guards = Guards::default().rows_min(0);
        if self.setup.is_guarded && !self.shared.lock().quiet {
            guards = guards.added_max(Share::Rows(0));
        }
        let host: Arc<dyn Host> = Arc::new(self.shared.lock().processes[process].machine.clone());
        let mut options = PlanOptions::default()
            .secret(secret())
            .host(host)
            .guards(guards)
            .duplicates(self.setup.duplicates)
            .missing(self.missing)
            .rejected(self.rejected);
        if self.setup.leaves_late && !self.shared.lock().quiet {
            options = options.leave_late();
        }
        Activation::new(self.setup.mapping(), contacts, store).options(options)
    }

    /// One process makes one run.
    fn begin(&mut self) -> (usize, Work<Ran>) {
        let records = self.records();
        let (process, client) = self.process();
        let activation = self.activation(process, &client);
        let shared = self.shared.clone();
        let list = LISTS[self.setup.list];
        let (copied, stopped) = {
            let world = &mut *shared.lock();
            let list = world.list(list).filter(|_| self.setup.inserts);
            let keys = world.keys.len();
            let run = &mut world.processes[process];
            run.rows.clone_from(&self.rows);
            run.setup = self.setup.clone();
            run.mapped = self.setup.names();
            run.list = list;
            run.commits_before = run.commits;
            run.met_nobody = vec![None; keys];
            run.limited = 0;
            run.was_suspended = false;
            world.tell(|| format!("RUN of process {process}, {} rows", records.len()));
            let quiet = world.quiet;
            let copied = world.choices.on(Stream::Rounds).one_in(4)
                && !quiet
                && !world.switches.has(Switch::OneRunner);
            let stopped =
                world.choices.on(Stream::Rounds).one_in(12) && !quiet && !world.switches.has(Switch::NoStops);
            (copied, stopped.then(|| world.choices.on(Stream::Rounds).of(&[1_u64, 20, 400])))
        };
        let machine = shared.machine();
        let stop = async move {
            match stopped {
                Some(after) => machine.sleep(Duration::from_millis(after)).await,
                None => std::future::pending().await,
            }
        };
        let rows = records.len() as u64;
        let work = async move {
            let before = {
                let world = &mut *shared.lock();
                world.processes[process].planning = true;
                (world.processes[process].writes, world.processes[process].commits)
            };
            let planned = activation.plan(Source::iter(&records)).await;
            let plan = {
                let world = &mut *shared.lock();
                world.processes[process].planning = false;
                match planned {
                    Ok(plan) => plan,
                    Err(error) => return Ran::Failed(error),
                }
            };
            let plan = look_at(&shared, plan, rows);
            let (plan, copy) = if copied { twice(&plan) } else { (plan, None) };
            match activation.apply_until(plan, stop).await {
                Ok(report) => {
                    if let Some(copy) = copy {
                        again(&shared, &activation, copy).await;
                    }
                    Ran::Done(Box::new(report))
                }
                Err(error) if error.kind() == ErrorKind::Guard => {
                    let world = &mut *shared.lock();
                    let after = (world.processes[process].writes, world.processes[process].commits);
                    if after != before {
                        world.violate("promise 7: a plan that a guard refused has caused a write");
                    }
                    Ran::Refused(error)
                }
                Err(error) => Ran::Failed(error),
            }
        };
        (process, Box::pin(work))
    }

    /// One run, or two at once.
    pub(super) fn round(&mut self) {
        let mut all = vec![self.begin()];
        let is_crowded = {
            let world = &mut *self.shared.lock();
            world.choices.on(Stream::Rounds).one_in(6)
                && !world.quiet
                && !world.switches.has(Switch::OneRunner)
        };
        if is_crowded {
            self.shared.lock().meet("run: two at once");
            let first = self.client.take();
            all.push(self.begin());
            self.client = first;
        }
        let processes: Vec<usize> = all.iter().map(|(process, _)| *process).collect();
        let ends = executor::run(&self.shared, all);
        for (process, end) in processes.into_iter().zip(ends) {
            match end {
                None => {
                    if self.client.as_ref().is_some_and(|(living, _)| *living == process) {
                        self.client = None;
                    }
                }
                Some(end) => self.look_at_end(process, &end),
            }
        }
    }

    fn look_at_end(&self, process: usize, end: &Ran) {
        let world = &mut *self.shared.lock();
        let (report, error) = match end {
            Ran::Done(report) => (Some(&**report), None),
            Ran::Refused(error) | Ran::Failed(error) => (error.report(), Some(error)),
        };
        match error {
            None => world.meet("run: done"),
            Some(error) => {
                world.meet(format!("run: {:?}", error.kind()));
                world.tell(|| format!("the run of process {process} ended: {error}"));
                let is_refusal = matches!(end, Ran::Refused(_));
                if world.quiet && !is_refusal {
                    world.violate(format!("promise 3: a run without faults fails: {error}"));
                }
                if matches!(error.kind(), ErrorKind::StateDamaged | ErrorKind::Source) {
                    world.violate(format!("promise 10: {error}"));
                }
                world.checked("promise 8: errors and reports show no key");
                let shown = format!("{error} {error:?}");
                if shown.contains("@shop") || shown.contains("@SHOP") {
                    world.violate("promise 8: an error shows a key");
                }
            }
        }
        let Some(report) = report else { return };
        let counts = &report.counts;
        world.tell(|| {
            format!("report of process {process}: {:?}, resolved {:?}", report.outcomes, report.resolved)
        });
        world.checked("promise 6: every planned row has its outcome");
        if report.outcomes.total() != counts.planned() {
            world.violate(format!("promise 6: {:?} of {counts:?}", report.outcomes));
        }
        let shown = format!("{report:?}");
        if shown.contains("@shop") || shown.contains("@SHOP") {
            world.violate("promise 8: a report shows a key");
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
                world.meet(format!("count: {name}"));
            }
        }
    }
}

/// Promise 6: every row of the source is counted once.
fn look_at(shared: &Shared, plan: Plan, rows: u64) -> Plan {
    let counts = plan.counts();
    let counted =
        counts.unchanged + counts.held + counts.added + counts.changed + counts.invalid + counts.duplicate;
    let world = &mut *shared.lock();
    world.tell(|| format!("plan {counts:?}"));
    world.checked("promise 6: every source row is counted");
    if counts.rows != rows || counts.rows != counted {
        world.violate(format!("promise 6: {rows} source rows, counted as {counts:?}"));
    }
    plan
}

/// A plan that was written to a file, read twice.
fn twice(plan: &Plan) -> (Plan, Option<Plan>) {
    let mut file = Vec::new();
    plan.write_to(&mut file).expect("a plan can be written");
    let read = || Plan::read_from(&*file).expect("a plan can be read back");
    (read(), Some(read()))
}

/// Promise 7: a plan is applied once.
async fn again(shared: &Shared, activation: &Activation, copy: Plan) {
    shared.lock().checked("promise 7: a plan is applied once");
    let Err(error) = activation.apply(copy).await else {
        shared.lock().violate("promise 7: a plan was applied twice");
        return;
    };
    if !matches!(error.kind(), ErrorKind::StateMoved) {
        shared.lock().tell(|| format!("the second application of the plan ended: {error}"));
    }
}
