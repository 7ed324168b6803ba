//! A history: a few runs with trouble, then the trouble stops and everything has to be in order.

use std::{future::Future, sync::Arc, task::Poll, time::Duration};

use reverse_etl::{
    Activation, Column, ErrorKind, FieldKind, Guards, Mapping, MemoryStore, Plan, PlanOptions,
    PriorState as _, Record, RejectedPolicy, Report, Source, Value,
    state::record::{Backoff, Held as HeldBack, RowRecord},
};

use crate::{
    destination::{ModelDestination, limits},
    host::{SimulatedHost, block_on},
    store::WatchedStore,
    world::{Held, Said, Service, Setup, Shared, World, email, secret},
};

/// What the source has under one key.
#[derive(Clone, Debug, PartialEq)]
enum Row {
    Absent,
    /// A value that does not fit.
    Invalid,
    Valid(Values),
    /// Two equal rows.
    Twice(Values),
    /// Two rows with other values.
    Conflict(Values),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Values {
    fields: [Option<Value>; 2],
    is_refused_at_creation: bool,
}

struct History {
    shared: Shared,
    store: MemoryStore,
    setup: Setup,
    source: Vec<Row>,
    batch_rows: usize,
    in_flight: usize,
    send_within: u64,
    /// Of which keys the state has to have a sealed one, since a run that removes what is absent has dealt with them.
    kept: Vec<bool>,
}

pub(crate) fn play(seed: u64, service: Service, trace: bool) -> Result<(), String> {
    let shared = Shared::new(seed, service, trace);
    let mut world = shared.lock();
    let setup = world.setup;
    let (batch_rows, in_flight) = (1 + world.choose.below(2), 1 + world.choose.below(2));
    let send_within = 1 + world.choose.below(2) as u64;
    for key in 0..world.keys {
        if service == Service::Members || (service == Service::Contacts && world.choose.one_in(2)) {
            world.held[key] = Held { exists: true, created: 1, ..Held::default() };
        }
    }
    let source = vec![Row::Absent; world.keys];
    drop(world);
    let store = MemoryStore::with_host(Arc::new(SimulatedHost(shared.clone())));
    let kept = vec![true; source.len()];
    let mut history =
        History { shared: shared.clone(), store, setup, source, batch_rows, in_flight, send_within, kept };
    history.play();
    let violation = shared.lock().violation.take();
    violation.map_or(Ok(()), Err)
}

impl History {
    fn is_over(&self) -> bool {
        self.shared.lock().violation.is_some()
    }

    fn play(&mut self) {
        let runs = 2 + self.shared.lock().choose.below(4);
        for _ in 0..runs {
            self.draw_source();
            self.draw_setup();
            self.run();
            if self.is_over() {
                return;
            }
            let mut world = self.shared.lock();
            world.between_steps();
            world.between_steps();
        }
        let jump = {
            let mut world = self.shared.lock();
            world.quiet = true;
            // Two bad rows alone in a batch make their refusal the error of the run, which is a fault as well.
            world.one_bad_row_refuses_all = false;
            world.log(|| "FAULTS STOP".to_owned());
            world.choose.one_in(2)
        };
        self.draw_source();
        if self.service() == Service::Contacts {
            self.setup.inserts = self.shared.lock().choose.below(3) != 1;
        }
        self.setup.removes = true;
        self.pass(if jump { 12 } else { 0 });
        self.run();
        self.shared.lock().drain();
        if self.is_over() {
            return;
        }
        self.check_converged(jump);
        self.check_silent();
        if jump {
            self.check_settled();
        }
    }

    fn service(&self) -> Service {
        self.shared.lock().service
    }

    fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.shared.lock().tick();
        }
    }

    fn draw_source(&mut self) {
        let world = &mut *self.shared.lock();
        for row in &mut self.source {
            let mut values = Values::default();
            for field in &mut values.fields {
                *field = match world.choose.pick(9, 480) {
                    0 | 8 => Some(Value::from("a")),
                    1..=4 => Some(Value::from("b")),
                    5 => None,
                    6 => Some(Value::from("BAD")),
                    _ => Some(Value::Null),
                };
            }
            values.is_refused_at_creation =
                world.service == Service::Contacts && world.choose.pick(2, 150) == 1;
            match world.choose.below(10) {
                0 => *row = Row::Absent,
                1 if world.service != Service::Members && world.choose.one_in(2) => *row = Row::Invalid,
                1 => {}
                2 if world.choose.one_in(3) => *row = Row::Twice(values),
                3 if world.service != Service::Members && world.choose.one_in(3) => {
                    *row = Row::Conflict(values);
                }
                _ => *row = Row::Valid(values),
            }
        }
    }

    fn draw_setup(&mut self) {
        let world = &mut *self.shared.lock();
        match world.service {
            Service::Contacts => {
                self.setup.inserts = world.choose.pick(3, 350) != 1;
                self.setup.list = 1 + u8::from(world.choose.pick(2, 200) == 1);
            }
            Service::Records | Service::Members => self.setup.removes = world.choose.pick(2, 200) == 0,
        }
        if world.service != Service::Members {
            self.setup.mapped[1] = world.choose.pick(2, 300) == 0;
        }
    }

    fn mapping(&self) -> Mapping {
        let service = self.service();
        let mut mapping = Mapping::new("email");
        for (number, name) in ["f0", "f1"].into_iter().enumerate() {
            if self.setup.mapped[number] && service != Service::Members {
                mapping = mapping.column(Column::new(name, name).create(FieldKind::Text { chars_max: 3 }));
            }
        }
        if service == Service::Contacts {
            mapping = mapping.column(Column::new("origin", "origin").on_create());
        }
        mapping
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (key, row) in self.source.iter().enumerate() {
            let record = |values: &Values| {
                let mut record = Record::new().with("email", email(key));
                for (name, value) in ["f0", "f1"].into_iter().zip(&values.fields) {
                    if let Some(value) = value {
                        record = record.with(name, value.clone());
                    }
                }
                record.with("origin", if values.is_refused_at_creation { "bad" } else { "ok" })
            };
            match row {
                Row::Absent => {}
                Row::Invalid => records.push(record(&Values::default()).with("f0", "does not fit")),
                Row::Valid(values) => records.push(record(values)),
                Row::Twice(values) => records.extend([record(values), record(values)]),
                Row::Conflict(values) => records.extend([record(values), record(values).with("f0", "c")]),
            }
        }
        records
    }

    fn activation(&self) -> Activation {
        let shared = self.shared.clone();
        let destination = ModelDestination {
            shared: shared.clone(),
            limits: limits(self.batch_rows, self.in_flight, self.send_within),
        };
        let store = WatchedStore { inner: self.store.clone(), shared: shared.clone() };
        let backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(6));
        let mut options = PlanOptions::default()
            .secret(secret())
            .host(Arc::new(SimulatedHost(shared.clone())))
            .guards(Guards::default().rows_min(0))
            .rejected(RejectedPolicy::Backoff(backoff));
        if self.setup.removes && self.service() != Service::Contacts {
            options = options.remove_absent();
        }
        if shared.lock().rarely(2) {
            options = options.leave_late();
        }
        Activation::new(self.mapping(), destination, store).options(options)
    }

    /// One run, which may end in a crash.
    fn run(&mut self) {
        let records = self.records();
        {
            let mut world = self.shared.lock();
            world.setup = self.setup;
            world.run_began = world.step;
            world.writes = 0;
            world.said.clear();
            world.planning = true;
            world.log(|| format!("RUN {:?} {:?}", self.setup, shown(&self.source)));
        }
        let header = futures::executor::block_on(self.store.header()).ok().flatten();
        let json = header.and_then(|header| serde_json::from_slice(&header.to_bytes().ok()?).ok());
        let keeps_all = json.is_some_and(|header: serde_json::Value| header["seals"] == true);
        if !self.setup.removes && !keeps_all {
            self.kept.fill(false);
        }
        let activation = self.activation();
        let planned = block_on(&self.shared, activation.plan(Source::iter(&records)));
        self.shared.lock().planning = false;
        match planned {
            None => self.after_crash(),
            Some(Err(error)) => {
                self.shared.lock().violate(format!("planning failed: {error}"));
            }
            Some(Ok(plan)) => self.apply(&activation, plan, records.len()),
        }
    }

    fn apply(&mut self, activation: &Activation, plan: Plan, rows: usize) {
        let counts = plan.counts().clone();
        self.shared.lock().log(|| format!("plan {counts:?}"));
        let counted = counts.unchanged
            + counts.held
            + counts.added
            + counts.changed
            + counts.invalid
            + counts.duplicate;
        if counts.rows != rows as u64 || counts.rows != counted {
            self.shared.lock().violate(format!("promise 6: {rows} source rows, counted as {counts:?}"));
        }
        let mut file = Vec::new();
        let (plan, copy) = if self.shared.lock().choose.one_in(4) {
            plan.write_to(&mut file).expect("a plan can be written");
            let read = || Plan::read_from(&*file).expect("a plan can be read back");
            (read(), Some(read()))
        } else {
            (plan, None)
        };
        let stop = self.stop();
        let Some(result) = block_on(&self.shared, activation.apply_until(plan, stop)) else {
            self.after_crash();
            return;
        };
        let report = match &result {
            Ok(report) => Some(report),
            Err(error) => {
                let is_expected = matches!(
                    error.kind(),
                    ErrorKind::Forbidden
                        | ErrorKind::Io
                        | ErrorKind::NoAnswer
                        | ErrorKind::Server
                        | ErrorKind::Refused
                        | ErrorKind::StateMoved
                );
                self.shared.lock().log(|| format!("the run ended with: {error}"));
                if !is_expected || self.shared.lock().quiet {
                    self.shared.lock().violate(format!("the run failed: {error}"));
                }
                error.report()
            }
        };
        if let Some(report) = report {
            self.check_report(report);
        }
        if result.as_ref().is_ok_and(|report| !report.stopped) && self.setup.removes {
            for (kept, row) in self.kept.iter_mut().zip(&self.source) {
                *kept |= *row != Row::Absent;
            }
        }
        // A run that failed may have left its hold behind, as one whose last commit could not be stored.
        if result.is_err() {
            self.store = self.store.snapshot();
        } else if let Some(copy) = copy {
            let again = block_on(&self.shared, activation.apply(copy));
            match again {
                None => self.after_crash(),
                Some(Err(error)) if matches!(error.kind(), ErrorKind::StateMoved | ErrorKind::Io) => {
                    if error.kind() == ErrorKind::Io {
                        self.store = self.store.snapshot();
                    }
                }
                Some(other) => {
                    let what = other.map_or_else(|error| error.to_string(), |_| "applied twice".to_owned());
                    self.shared.lock().violate(format!("promise 7: a plan was {what}"));
                }
            }
        }
    }

    /// Ready after some polls, or never.
    fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut world = self.shared.lock();
        let mut polls = if world.rarely(3) { 1 + world.choose.below(6) } else { usize::MAX };
        std::future::poll_fn(move |_| {
            polls = polls.saturating_sub(1);
            if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// The process is gone, and with it whatever it held.
    fn after_crash(&mut self) {
        let mut world = self.shared.lock();
        world.crashed = false;
        world.timers.clear();
        drop(world);
        self.store = self.store.snapshot();
    }

    /// Promise 6: the counts add up, and say what the destination said.
    fn check_report(&self, report: &Report) {
        let mut world = self.shared.lock();
        world.log(|| format!("report {:?} resolved {:?}", report.outcomes, report.resolved));
        if report.outcomes.total() != report.counts.planned() {
            world.violate(format!("promise 6: {:?} of {:?}", report.outcomes, report.counts));
        }
        let count =
            |wanted: fn(&Said) -> bool| world.said.values().filter(|said| wanted(said)).count() as u64;
        let applied = count(|said| matches!(said, Said::Applied { .. }));
        let unknown = count(|said| *said == Said::Unknown);
        let told = (
            report.outcomes.applied + report.resolved.applied,
            report.outcomes.unknown + report.resolved.unknown,
        );
        // The removal of a row that is not there counts as no match, and was acknowledged all the same.
        if told != (applied, unknown) {
            world.violate(format!(
                "promise 6: {applied} rows were applied and {unknown} unknown, the report says {told:?}"
            ));
        }
    }

    /// Promises 3 and 5, after a run without faults.
    fn check_converged(&self, jump: bool) {
        let world = &mut *self.shared.lock();
        for (key, row) in self.source.iter().enumerate() {
            let violation = match row {
                Row::Valid(values) | Row::Twice(values) => self.check_row(world, key, values, jump),
                Row::Absent => self.check_absent(world, key),
                Row::Invalid | Row::Conflict(_) => None,
            };
            let held = &world.held[key];
            // Of a row in doubt that was rejected, the next run finds out by its key alone.
            let is_pending = world.records[key]
                .as_ref()
                .is_some_and(|record| record.is_in_doubt() && record.held() == Some(HeldBack::Rejected));
            let is_contact = world.service == Service::Contacts;
            let is_lost = is_contact && held.by_us && held.lists & held.made_for == 0 && !is_pending;
            let violation = violation.or_else(|| {
                is_lost.then(|| {
                    format!("promise 5: contact {key} was created and is not in list {}", held.made_for)
                })
            });
            if let Some(violation) = violation {
                world.violate(violation);
            }
        }
    }

    fn check_row(&self, world: &World, key: usize, values: &Values, jump: bool) -> Option<String> {
        let mapped = |field: usize| self.setup.mapped[field] && world.service != Service::Members;
        let is_bad = |field: usize| mapped(field) && values.fields[field] == Some(Value::from("BAD"));
        if is_bad(0) || is_bad(1) {
            return None;
        }
        let Some(record) = &world.records[key] else {
            return Some(format!("promise 3: row {key} has no record"));
        };
        if !jump && record.rejection().is_some() {
            return self.check_withheld(world, key, values, record);
        }
        let held = &world.held[key];
        let is_touched = world.edits[key] > 0;
        let is_noticed = is_touched && record.held() == Some(HeldBack::Missing);
        let is_outdated = |slot: &u16| {
            record.field(*slot).is_some() && world.learnt.get(&(key, *slot)) != Some(&world.edits[key])
        };
        let is_edited = world.slots.keys().any(is_outdated)
            || (record.is_known() && world.acknowledged_at[key] != world.edits[key]);
        if is_edited || is_noticed {
            return None;
        }
        if world.service == Service::Members {
            let is_missing = held.exists && !held.is_member && !is_touched;
            return is_missing.then(|| format!("promise 3: {key} is not a member"));
        }
        if !held.exists {
            let is_not_created =
                world.service == Service::Contacts && (!self.setup.inserts || values.is_refused_at_creation);
            let is_excused = is_not_created || (is_touched && !record.is_known());
            return (!is_excused).then(|| format!("promise 3: {key} does not exist"));
        }
        for (field, value) in values.fields.iter().enumerate() {
            let Some(value) = value.as_ref().filter(|_| mapped(field)) else { continue };
            let there = held.values[field].clone().unwrap_or(Value::Null);
            if there != *value {
                return Some(format!("promise 3: field {field} of {key} is another one than in the source"));
            }
        }
        None
    }

    /// A row is withheld only while what would be sent is what was refused.
    fn check_withheld(
        &self,
        world: &World,
        key: usize,
        values: &Values,
        record: &RowRecord,
    ) -> Option<String> {
        let refused = world.refused[key].as_ref()?;
        let is_missing = record.held() == Some(HeldBack::Missing);
        let is_just_missing =
            is_missing && (!self.setup.inserts || world.said.get(&key) == Some(&Said::NoMatch));
        // Resolved by its key alone in this run, as one that might have had to be created.
        let is_resolved = matches!(world.said.get(&key), Some(Said::Applied { .. }));
        if refused.sent.is_removal || is_just_missing || is_resolved {
            return None;
        }
        let mut sent = Vec::new();
        for (slot, (field, _)) in &world.slots {
            let Some(value) = &values.fields[*field] else { continue };
            if record.field(*slot) != Some(world.print(*slot, Some(value))) {
                sent.push((Some(*slot), value.clone()));
            }
        }
        sent.sort_by_key(|(slot, _)| *slot);
        let has_creation = world.service == Service::Contacts && !record.is_known() && self.setup.inserts;
        let creation = has_creation.then_some(values.is_refused_at_creation);
        let is_same = refused.sent.fields == sent && refused.sent.creation_refused == creation;
        let is_done = sent.is_empty() && record.is_known();
        (!is_same && !is_done).then(|| format!("row {key} is withheld although its values changed"))
    }

    fn check_absent(&self, world: &World, key: usize) -> Option<String> {
        let held = &world.held[key];
        let record = world.records[key].as_ref();
        if record.is_some_and(|record| record.rejection().is_some()) {
            return None;
        }
        let has_key = record.is_none_or(|record| record.sealed_key().is_some());
        if !has_key {
            let why = format!("the key of {key} was not kept");
            return (self.kept[key] && world.service != Service::Contacts).then_some(why);
        }
        let is_left = match world.service {
            Service::Contacts => false,
            Service::Records => held.exists && held.by_us,
            Service::Members => held.is_member && held.by_us,
        };
        is_left.then(|| format!("promise 3: {key} left the source and is still there"))
    }

    /// Promise 3: the run after a run without faults sends no write request.
    fn check_silent(&mut self) {
        let is_rejected =
            |world: &World| world.records.iter().flatten().any(|record| record.rejection().is_some());
        let was_rejected = is_rejected(&self.shared.lock());
        self.run();
        let world = &mut *self.shared.lock();
        let is_excused = was_rejected || is_rejected(world) || world.edits.iter().any(|edits| *edits > 0);
        if world.writes > 0 && !is_excused {
            let writes = world.writes;
            world.violate(format!(
                "promise 3: the run after a run without faults sends {writes} write requests"
            ));
        }
    }

    /// Rows that are in order are settled in the end, so that planning passes them by.
    fn check_settled(&mut self) {
        self.pass(12);
        self.run();
        let world = &mut *self.shared.lock();
        if world.edits.iter().any(|edits| *edits > 0) {
            return;
        }
        for (key, row) in self.source.iter().enumerate() {
            let (Row::Valid(values) | Row::Twice(values), Some(record)) = (row, world.records[key].clone())
            else {
                continue;
            };
            let is_bad = (0..2)
                .any(|field| self.setup.mapped[field] && values.fields[field] == Some(Value::from("BAD")));
            let is_missing = record.held() == Some(HeldBack::Missing);
            let is_excused =
                is_bad || is_missing || (values.is_refused_at_creation && !world.held[key].exists);
            if record.row().is_none() && !is_excused {
                world.violate(format!("row {key} is in order and never becomes settled"));
            }
        }
    }
}

fn shown(source: &[Row]) -> Vec<String> {
    let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), crate::check::shown);
    let values = |values: &Values| {
        format!("{} {} {}", text(&values.fields[0]), text(&values.fields[1]), values.is_refused_at_creation)
    };
    let row = |row: &Row| match row {
        Row::Absent => "absent".to_owned(),
        Row::Invalid => "invalid".to_owned(),
        Row::Valid(row) => values(row),
        Row::Twice(row) => format!("twice {}", values(row)),
        Row::Conflict(row) => format!("conflict {}", values(row)),
    };
    source.iter().map(row).collect()
}
