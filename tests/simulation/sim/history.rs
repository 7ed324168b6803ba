//! A history: a few runs with trouble, then the trouble stops and everything has to be in order.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::Duration,
};

use reverse_etl::{
    Activation, Guards, Limits, MemoryStore, MissingPolicy, PlanOptions, Record, RejectedPolicy, Share,
    emarsys::{Client, ContactsDestination, Credentials, Limiter},
    host::Host,
    state::record::Backoff,
};

use super::{
    choices::{Choices, Script, Stream},
    clock::{AHEAD, CLOCK_MARGIN, Machine},
    delivery,
    executor::{self, Work},
    fate::LATE,
    flight::Wire,
    run::{Ran, Run},
    source::{Row, Setup},
    store,
    switches::{Switch, Switches},
    world::{Counts, KEYS, Kept, LISTS, Process, Shared, World, secret},
};

/// What came of a history.
pub(crate) struct End {
    pub(crate) violation: Option<String>,
    pub(crate) choices: Script,
    pub(crate) story: Vec<String>,
    pub(crate) met: Counts,
    pub(crate) checks: Counts,
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
    let rows_a_batch = 1 + world.choices.on(Stream::Sync).below(3);
    let limits = Limits::rows(rows_a_batch)
        .in_flight(1 + world.choices.on(Stream::Sync).below(3))
        .late(LATE)
        .send_within(Duration::from_secs(send_within))
        .clock_margin(CLOCK_MARGIN);
    let timeout = Duration::from_secs(world.choices.on(Stream::Sync).of(&[30, 5, 12]));
    let rows = vec![Row::Absent; world.keys.len()];
    let shared = Shared::new(world);
    let store = MemoryStore::with_host(shared.machine());
    let rejected = {
        let short = Duration::from_secs(30);
        let policies = [
            (RejectedPolicy::Backoff(Backoff::new(short, 2 * short)), short),
            (RejectedPolicy::Backoff(Backoff::default()), Duration::from_secs(3_600)),
            (RejectedPolicy::EveryRun, Duration::ZERO),
            (RejectedPolicy::Never, Duration::ZERO),
        ];
        let world = &mut *shared.lock();
        let (policy, first_pause) = world.choices.on(Stream::Sync).of(&policies);
        world.first_pause = first_pause;
        policy
    };
    let missing = if shared.lock().choices.on(Stream::Sync).one_in(6) {
        MissingPolicy::Send
    } else {
        MissingPolicy::Ask
    };
    {
        let world = &mut *shared.lock();
        let (version, limit) = (if world.temper.is_v2 { 2 } else { 3 }, world.temper.rate_limit);
        let says = if world.temper.tells_limit { "say" } else { "do not say" };
        world.tell(|| {
            format!(
                "API version {version}, {limit} requests a minute, of which replies {says} how many are left; batches of \
                 {rows_a_batch} rows, {} at once, sent within {send_within} s; no answer after {} s; rejected rows {rejected:?}, \
                 missing ones {missing:?}",
                limits.in_flight_max(),
                timeout.as_secs()
            )
        });
    }
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
    let played = panic::catch_unwind(AssertUnwindSafe(|| history.play()));
    drop(history);
    let world = &mut *shared.lock();
    if played.is_err() {
        world.violate("promise 10: a panic");
    }
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
        for (key, row) in rows.iter().enumerate() {
            world.tell(|| format!("the source has of k{key}: {}", row.told(setup)));
        }
        world.tell(|| format!("the sync {}", setup.told()));
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
        let ahead = world.choices.on(Stream::Rounds).of(&[Duration::ZERO, Duration::ZERO, AHEAD]);
        if !ahead.is_zero() {
            world.meet("fault: a clock is wrong");
            world.tell(|| format!("the wall clock of process {process} is ahead"));
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

    fn activation(&self, process: usize, client: &Client, setup: &Setup) -> Activation {
        let mut contacts = ContactsDestination::new(client.clone()).limits(self.limits);
        if setup.inserts {
            contacts = contacts.insert_into(LISTS[setup.list]);
        }
        let shared = self.shared.clone();
        let policy = self.rejected;
        let contacts = delivery::Watched { inner: contacts, shared: shared.clone(), process, policy };
        let store = store::Watched { inner: self.store.clone(), shared, process };
        let mut guards = Guards::default().rows_min(0);
        if setup.is_guarded && !self.shared.lock().quiet {
            guards = guards.added_max(Share::Rows(0));
        }
        let host: Arc<dyn Host> = Arc::new(self.shared.lock().processes[process].machine.clone());
        let mut options = PlanOptions::default()
            .secret(secret())
            .host(host)
            .guards(guards)
            .duplicates(setup.duplicates)
            .missing(self.missing)
            .rejected(self.rejected);
        if setup.leaves_late && !self.shared.lock().quiet {
            options = options.leave_late();
        }
        Activation::new(setup.mapping(), contacts, store).options(options)
    }

    /// Perhaps a plan that was kept is applied instead of a new one.
    fn kept(&self) -> Option<Kept> {
        let world = &mut *self.shared.lock();
        let is_taken = world.choices.on(Stream::Rounds).one_in(3) && !world.quiet;
        if is_taken { world.kept.take() } else { None }
    }

    /// One process makes one run.
    fn begin(&mut self) -> (usize, Work<Ran>) {
        let records = self.records();
        let (process, client) = self.process();
        let kept = self.kept();
        let (rows, setup) = match &kept {
            Some(kept) => (kept.rows.clone(), kept.setup.clone()),
            None => (self.rows.clone(), self.setup.clone()),
        };
        let activation = self.activation(process, &client, &setup);
        let shared = self.shared.clone();
        let world = &mut *shared.lock();
        let keys = world.keys.len();
        let run = &mut world.processes[process];
        run.rows = rows;
        run.setup = setup;
        run.commits_before = run.commits;
        run.met_nobody = vec![None; keys];
        run.limited = 0;
        run.suspended_for = 0;
        let is_quiet = world.quiet;
        let can_stop = !is_quiet && !world.switches.has(Switch::NoStops);
        let can_be_two = !is_quiet && !world.switches.has(Switch::OneRunner);
        let rounds = world.choices.on(Stream::Rounds);
        let is_copied = rounds.one_in(4) && can_be_two && kept.is_none();
        let is_for_later = rounds.one_in(4) && is_copied;
        let stops_after = (rounds.one_in(12) && can_stop).then(|| rounds.of(&[1, 20, 400]));
        let breaks_off = (rounds.one_in(20) && !is_quiet).then(|| rounds.below(records.len() + 1));
        let rows_a_chunk = rounds.of(&[100, 1, 2]);
        let stops_after = stops_after.map(Duration::from_millis);
        world.tell(|| {
            let what = match &kept {
                Some(_) => "which applies a plan that was kept".to_owned(),
                None => format!("{} rows", records.len()),
            };
            let through = match (is_copied, is_for_later) {
                (_, true) => ", its plan is written to a file for later",
                (true, false) => ", its plan goes through a file",
                (false, false) => "",
            };
            let stop = stops_after.map(|span| format!(", told to stop after {} ms", span.as_millis()));
            format!("RUN of process {process}, {what}{through}{}", stop.unwrap_or_default())
        });
        let shared = self.shared.clone();
        let run = Run {
            shared,
            process,
            activation,
            records,
            rows_a_chunk,
            breaks_off,
            is_copied,
            is_for_later,
            kept,
            stops_after,
        };
        (process, Box::pin(run.go()))
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
            // The second may know more than the first, which goes on with what it has.
            if self.shared.lock().choices.on(Stream::Rounds).one_in(2) {
                self.edit();
            }
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
                Some(end) => self.shared.lock().look_at_end(process, &end),
            }
        }
    }
}
