//! The world outside the engine: what the destination holds, what is still on its way to it, and what other people do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use reverse_etl::{
    KeyHash, Secret, Value,
    fingerprint::{Fingerprinter, Pairs},
    state::record::RowRecord,
};

/// Keys in a world at most.
pub(crate) const KEYS: usize = 3;

/// How long a request may still take effect after it was sent, in seconds.
pub(crate) const LATE: u64 = 2;

/// The secret that the state's fingerprints are keyed with.
pub(crate) fn secret() -> Secret {
    Secret::new([7; 32])
}

pub(crate) fn email(key: usize) -> String {
    format!("k{key}@shop.test")
}

/// What sort of destination it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Update and, with insert mode, insert into a list; a contact may be anywhere.
    Contacts,
    /// Upsert and remove.
    Records,
    /// Members of a list: upsert and remove, of contacts that exist.
    Members,
}

/// Choices from a seed.
pub(crate) struct Choose(u64);

impl Choose {
    pub(crate) fn new(seed: u64) -> Self {
        let mut choose = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            choose.next();
        }
        choose
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }

    /// 0 with a probability of 1 − p/1024, else any other number below `n`.
    pub(crate) fn pick(&mut self, n: usize, p: u64) -> usize {
        if n <= 1 || self.next() % 1024 >= p { 0 } else { 1 + self.below(n - 1) }
    }

    /// Any number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the destination holds under one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) exists: bool,
    pub(crate) values: [Option<Value>; 2],
    pub(crate) is_member: bool,
    /// The lists that the contact is in, as bits.
    pub(crate) lists: u8,
    /// Whether our write made it.
    pub(crate) by_us: bool,
    /// The list that our insert named.
    pub(crate) made_for: u8,
    /// The step at which it was made.
    pub(crate) created: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Update,
    Insert,
    Upsert,
    Remove,
    AddToList,
}

/// One row of a request as the destination gets it.
#[derive(Clone, Debug)]
pub(crate) struct RequestRow {
    pub(crate) key: usize,
    /// Number of the field, id that the request names it by, value.
    pub(crate) fields: Vec<(usize, u32, Value)>,
    pub(crate) is_refused_at_creation: bool,
    /// The step at which an update of the same run found nobody.
    pub(crate) met_nobody: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) rows: Vec<RequestRow>,
    pub(crate) list: u8,
}

/// What the destination says about one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Applied { created: bool },
    NoMatch,
    AlreadyExists,
    Rejected,
    Unknown,
}

/// A request that was sent and may take effect until it expires.
struct OnItsWay {
    request: Request,
    expires: u64,
}

/// What was sent for a row: its fields, the value that only a creation looks at, or a removal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    /// The slot of each field, and the value.
    pub(crate) fields: Vec<(Option<u16>, Value)>,
    /// Whether the value for creation is one that is refused; `None` if it was not sent.
    pub(crate) creation_refused: Option<bool>,
    pub(crate) is_removal: bool,
}

/// What is remembered about a rejection beside the engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) sent: Sent,
    pub(crate) next: u64,
    pub(crate) attempts: u32,
}

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) inserts: bool,
    pub(crate) list: u8,
    pub(crate) removes: bool,
    pub(crate) mapped: [bool; 2],
}

#[expect(clippy::struct_excessive_bools, reason = "each is one independent property of a world")]
pub(crate) struct World {
    pub(crate) choose: Choose,
    pub(crate) service: Service,
    pub(crate) keys: usize,
    pub(crate) now: u64,
    /// Counts what happens.
    pub(crate) step: u64,
    pub(crate) timers: Vec<(u64, u64, Waker)>,
    timer: u64,
    pub(crate) crashed: bool,
    /// Faults have stopped.
    pub(crate) quiet: bool,
    pub(crate) planning: bool,
    pub(crate) held: Vec<Held>,
    /// The ids of the two fields; 0 if there is no such field.
    pub(crate) field_ids: [u32; 2],
    next_field: u32,
    on_its_way: Vec<OnItsWay>,
    pub(crate) setup: Setup,
    /// How often others have changed what the destination holds under a key.
    pub(crate) edits: Vec<u64>,
    /// `edits` at the last acknowledged effect of ours.
    pub(crate) acknowledged_at: Vec<u64>,
    pub(crate) last_nobody: Vec<Option<u64>>,
    /// When nobody was found before the last insert that was announced.
    pub(crate) nobody_before_insert: Vec<Option<u64>>,
    pub(crate) run_began: u64,
    pub(crate) writes: u64,
    /// What was last said about each row in this run.
    pub(crate) said: BTreeMap<usize, Said>,
    /// When the last answer about each key was heard.
    pub(crate) heard_at: Vec<u64>,
    pub(crate) refused: Vec<Option<Refused>>,
    pub(crate) last_sent: Vec<Sent>,
    /// Number and id of the field that each slot of the state stands for.
    pub(crate) slots: BTreeMap<u16, (usize, u32)>,
    /// The state's records, as the last commit left them.
    pub(crate) records: Vec<Option<RowRecord>>,
    /// `edits` when the state last learnt the value of a field, or that a row is settled.
    pub(crate) learnt: BTreeMap<(usize, u16), u64>,
    pub(crate) settled_at: Vec<u64>,
    /// Fingerprints that the last announcement of a key forgot.
    pub(crate) forgotten: Vec<BTreeMap<u16, u64>>,
    /// Whether a row was ours or in doubt before its last announcement.
    pub(crate) removable: Vec<bool>,
    pub(crate) hashes: Vec<KeyHash>,
    prints: Fingerprinter,
    pub(crate) violation: Option<String>,
    trace: bool,
    /// How often things go wrong, of 1024.
    pub(crate) trouble: u64,
    others: bool,
    others_edit_mapped: bool,
    pub(crate) creates_whole: bool,
    existing_joins_list: bool,
    refused_in_part: bool,
    pub(crate) removal_of_nobody_is_told: bool,
    pub(crate) one_bad_row_refuses_all: bool,
    /// Records are offered updates as well.
    pub(crate) offers_update: bool,
}

/// The world, for all who live in it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new(seed: u64, service: Service, trace: bool) -> Self {
        let mut choose = Choose::new(seed);
        let keys = 1 + choose.below(KEYS);
        let others = choose.one_in(2);
        let prints = Fingerprinter::new(&secret()).expect("a secret of 32 bytes gives fingerprints");
        let world = World {
            service,
            keys,
            now: 0,
            step: 1,
            timers: Vec::new(),
            timer: 0,
            crashed: false,
            quiet: false,
            planning: false,
            held: vec![Held::default(); keys],
            field_ids: [1, 2],
            next_field: 3,
            on_its_way: Vec::new(),
            setup: Setup { inserts: true, list: 1, removes: true, mapped: [true, true] },
            edits: vec![0; keys],
            acknowledged_at: vec![0; keys],
            last_nobody: vec![None; keys],
            nobody_before_insert: vec![None; keys],
            run_began: 0,
            writes: 0,
            said: BTreeMap::new(),
            heard_at: vec![0; keys],
            refused: vec![None; keys],
            last_sent: vec![Sent::default(); keys],
            slots: BTreeMap::new(),
            records: vec![None; keys],
            learnt: BTreeMap::new(),
            settled_at: vec![0; keys],
            forgotten: vec![BTreeMap::new(); keys],
            removable: vec![false; keys],
            hashes: (0..keys).map(|key| prints.key(&email(key))).collect(),
            prints,
            violation: None,
            trace,
            trouble: [180, 60, 350][choose.below(3)],
            others,
            others_edit_mapped: others && choose.one_in(4),
            creates_whole: choose.one_in(2),
            existing_joins_list: choose.one_in(2),
            refused_in_part: choose.one_in(2),
            removal_of_nobody_is_told: choose.one_in(2),
            one_bad_row_refuses_all: choose.one_in(3),
            offers_update: choose.one_in(3),
            choose,
        };
        Self(Arc::new(Mutex::new(world)))
    }
}

impl World {
    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("[{:>3}] {}", self.now, text());
        }
    }

    pub(crate) fn violate(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.log(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    pub(crate) fn next_timer(&mut self) -> u64 {
        self.timer += 1;
        self.timer
    }

    /// A second passes. What has to happen by now happens or never does.
    pub(crate) fn tick(&mut self) {
        let (due, rest) =
            std::mem::take(&mut self.on_its_way).into_iter().partition(|way| way.expires <= self.now);
        self.on_its_way = rest;
        let due: Vec<OnItsWay> = due;
        for OnItsWay { request, .. } in due {
            if self.choose.one_in(2) {
                self.log(|| "a late request takes effect".to_owned());
                self.effect(&request, true, None);
            }
        }
        self.now += 1;
    }

    /// Everything that is still on its way arrives, or never does.
    pub(crate) fn drain(&mut self) {
        for OnItsWay { request, .. } in std::mem::take(&mut self.on_its_way) {
            if self.choose.one_in(2) {
                self.log(|| "a late request takes effect".to_owned());
                self.effect(&request, true, None);
            }
        }
    }

    pub(crate) fn send_late(&mut self, request: Request, expires: u64) {
        self.on_its_way.push(OnItsWay { request, expires });
    }

    /// Something may happen between two steps of the engine.
    pub(crate) fn between_steps(&mut self) {
        let (n, p) = match (self.quiet, self.others) {
            (true, _) => (4, 100),
            (false, true) => (10, 200),
            (false, false) => (4, 200),
        };
        match self.choose.pick(n, p) {
            1 if !self.quiet => self.tick(),
            2 | 3 if !self.on_its_way.is_empty() => {
                let at = self.choose.below(self.on_its_way.len());
                let OnItsWay { request, .. } = self.on_its_way.remove(at);
                if self.choose.one_in(2) {
                    self.log(|| "a late request takes effect".to_owned());
                    self.effect(&request, true, None);
                }
            }
            4 | 5 => self.others_create(),
            6 => {
                let key = self.choose.below(self.keys);
                if self.held[key].exists {
                    self.step += 1;
                    self.held[key] = Held::default();
                    self.edits[key] += 1;
                    self.log(|| format!("others delete {key}"));
                }
            }
            7 => self.others_edit(),
            8 | 9 if self.service != Service::Members => {
                let field = self.choose.below(2);
                if self.field_ids[field] != 0 {
                    self.field_ids[field] = 0;
                    for held in &mut self.held {
                        held.values[field] = None;
                    }
                    self.log(|| format!("others delete field {field}"));
                }
                if self.choose.one_in(2) {
                    self.create_field(field);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn create_field(&mut self, field: usize) {
        if self.field_ids[field] == 0 {
            self.field_ids[field] = self.next_field;
            self.next_field += 1;
            self.log(|| format!("field {field} is made anew"));
        }
    }

    fn others_create(&mut self) {
        let key = self.choose.below(self.keys);
        if self.held[key].exists {
            return;
        }
        self.step += 1;
        let values = [0, 1].map(|field| {
            let value = ["a", "b", ""][self.choose.below(3)];
            (self.field_ids[field] != 0 && !value.is_empty()).then(|| Value::from(value))
        });
        self.held[key] = Held { exists: true, values, created: self.step, ..Held::default() };
        if self.service == Service::Records {
            self.edits[key] += 1;
        }
        self.log(|| format!("others create {key}"));
    }

    fn others_edit(&mut self) {
        let (key, field) = (self.choose.below(self.keys), self.choose.below(2));
        if !self.held[key].exists {
            return;
        }
        if self.service == Service::Members {
            let held = &mut self.held[key];
            held.is_member = !held.is_member;
            held.by_us = false;
            self.edits[key] += 1;
            self.log(|| format!("others change the membership of {key}"));
            return;
        }
        let is_mapped = self.setup.mapped[field] || self.slots.values().any(|(mapped, _)| *mapped == field);
        if self.field_ids[field] == 0 || (is_mapped && !self.others_edit_mapped) {
            return;
        }
        self.held[key].values[field] = Some(Value::from(["a", "b"][self.choose.below(2)]));
        self.edits[key] += u64::from(is_mapped);
        self.log(|| format!("others edit field {field} of {key}"));
    }

    /// What goes wrong at a step: 0 is nothing.
    pub(crate) fn fate(&mut self, n: usize) -> usize {
        if self.quiet { 0 } else { self.choose.pick(n, self.trouble) }
    }

    /// Whether something that is rarer by this factor goes wrong.
    pub(crate) fn rarely(&mut self, factor: u64) -> bool {
        !self.quiet && self.choose.pick(2, (self.trouble / factor).max(1)) == 1
    }

    /// The slot that stands for a field.
    pub(crate) fn slot(&self, field: usize) -> Option<u16> {
        self.slots.iter().find(|(_, (named, _))| *named == field).map(|(slot, _)| *slot)
    }

    /// The fingerprint of a value in a slot.
    pub(crate) fn print(&self, slot: u16, value: Option<&Value>) -> u64 {
        let mut pair = Pairs::new();
        pair.push(slot, &value.unwrap_or(&Value::Null).as_ref());
        self.prints.field(&pair)
    }

    /// A request takes effect, and the destination knows what it would say. `is_lost`: nobody will hear it.
    pub(crate) fn effect(&mut self, request: &Request, is_lost: bool, refused: Option<usize>) -> Vec<Said> {
        self.step += 1;
        let said = request
            .rows
            .iter()
            .enumerate()
            .map(|(index, row)| self.effect_of_row(request, row, is_lost, refused == Some(index)))
            .collect();
        self.log(|| format!("  effect of {:?} on {:?}: {said:?}", request.what, keys(request)));
        crate::check::state(self);
        said
    }

    fn effect_of_row(&mut self, request: &Request, row: &RequestRow, is_lost: bool, refused: bool) -> Said {
        let key = row.key;
        let has_field = |field: usize, id: u32| id != 0 && self.field_ids[field] == id;
        let is_bad = |value: &Value| *value == Value::from("BAD");
        let fits = row.fields.iter().all(|(field, id, value)| has_field(*field, *id) && !is_bad(value));
        let is_refused = refused || !fits;
        let write = |held: &mut Held| {
            for (field, _, value) in &row.fields {
                held.values[*field] = Some(value.clone()).filter(|value| *value != Value::Null);
            }
        };
        let exists = self.held[key].exists;
        match request.what {
            What::Update if !exists => {
                self.last_nobody[key] = Some(self.step);
                Said::NoMatch
            }
            What::Update if is_refused => {
                let first =
                    row.fields.iter().find(|(field, id, value)| has_field(*field, *id) && !is_bad(value));
                if let Some((field, _, value)) = first.filter(|_| self.refused_in_part) {
                    self.held[key].values[*field] = Some(value.clone()).filter(|value| *value != Value::Null);
                }
                Said::Rejected
            }
            What::Insert => self.insert(request, row, is_lost, is_refused),
            What::AddToList if !exists => Said::NoMatch,
            What::AddToList => {
                let held = &self.held[key];
                let is_ours = self.nobody_before_insert[key].is_some_and(|met| met < held.created);
                if !is_ours && held.lists & request.list == 0 {
                    self.violate(format!(
                        "promise 5: contact {key}, which existed before, is put into the list"
                    ));
                }
                self.held[key].lists |= request.list;
                Said::Applied { created: false }
            }
            What::Upsert if self.service == Service::Members => {
                if !exists {
                    Said::NoMatch
                } else if is_refused {
                    Said::Rejected
                } else {
                    let held = &mut self.held[key];
                    held.by_us |= !held.is_member;
                    held.is_member = true;
                    Said::Applied { created: false }
                }
            }
            What::Upsert if is_refused => Said::Rejected,
            What::Update | What::Upsert => {
                if !exists {
                    self.held[key] =
                        Held { exists: true, by_us: true, created: self.step, ..Held::default() };
                }
                write(&mut self.held[key]);
                Said::Applied { created: !exists }
            }
            What::Remove
                if !exists && (self.removal_of_nobody_is_told || self.service == Service::Members) =>
            {
                Said::NoMatch
            }
            What::Remove if refused => Said::Rejected,
            What::Remove => {
                if self.service == Service::Members {
                    self.held[key].is_member = false;
                    self.held[key].by_us = false;
                } else {
                    self.held[key] = Held::default();
                }
                Said::Applied { created: false }
            }
        }
    }

    fn insert(&mut self, request: &Request, row: &RequestRow, is_lost: bool, is_refused: bool) -> Said {
        let key = row.key;
        let Some(met) = row.met_nobody else {
            self.violate(format!("promise 5: {key} is inserted although no update of this run found nobody"));
            return Said::Rejected;
        };
        if self.held[key].exists {
            if self.existing_joins_list {
                if self.held[key].created < met {
                    self.violate(format!("promise 5: contact {key}, which existed before, joins the list"));
                }
                self.held[key].lists |= request.list;
            }
            return Said::AlreadyExists;
        }
        if is_refused || row.is_refused_at_creation {
            return Said::Rejected;
        }
        let mut held = Held {
            exists: true,
            by_us: true,
            made_for: request.list,
            created: self.step,
            lists: if self.creates_whole || !is_lost { request.list } else { 0 },
            ..Held::default()
        };
        for (field, _, value) in &row.fields {
            held.values[*field] = Some(value.clone()).filter(|value| *value != Value::Null);
        }
        self.held[key] = held;
        Said::Applied { created: true }
    }
}

fn keys(request: &Request) -> Vec<(usize, Vec<String>)> {
    let value = |value: &Value| serde_json::to_string(value).unwrap_or_default();
    let fields =
        |row: &RequestRow| row.fields.iter().map(|(field, _, v)| format!("{field}={}", value(v))).collect();
    request.rows.iter().map(|row| (row.key, fields(row))).collect()
}
