//! The world of a history: an account of Emarsys, a network, other people, and what is known of all of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use reverse_etl::{
    KeyHash, Secret, Value,
    emarsys::{
        ContactId, FieldId, ListId,
        sandbox::{Sandbox, StoredContact},
    },
    fingerprint::{Fingerprinter, Pairs},
    state::record::RowRecord,
};
use serde_json::Value as Json;

use super::{
    choices::{Choices, Stream},
    clock::{Clock, Machine, nanos},
    flight::Flights,
    people::{CUSTOM, Others, Temper},
    source::{FIELDS, Row, Setup},
    switches::{Switch, Switches},
};

/// Keys in a world at most.
pub(crate) const KEYS: usize = 4;

/// The lists that contacts are created in.
pub(crate) const LISTS: [&str; 2] = ["Customers", "Guests"];

/// The secret that the state's fingerprints are keyed with.
pub(crate) fn secret() -> Secret {
    Secret::new([7; 32])
}

pub(crate) fn email(key: usize) -> String {
    format!("k{key}@shop.test")
}

/// How often each of several things happened.
pub(crate) type Counts = BTreeMap<Cow<'static, str>, u64>;

/// What is known of one key beside the account and the state.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// How often others changed what the account holds under it.
    pub(crate) edits: u64,
    /// Something of its last announcement was sent and not answered, so that it may still take effect.
    pub(crate) is_unanswered: bool,
    /// How many acknowledgements of its fields were heard, and how many when it was last announced.
    pub(crate) acknowledgements: u64,
    pub(crate) before_announcement: u64,
    /// `edits` when the last effect that was acknowledged took place.
    pub(crate) acknowledged_at: u64,
    /// `edits` when the state last learnt that the row is settled.
    pub(crate) settled_at: u64,
    /// `edits` when the state last learnt the fingerprint in a slot.
    pub(crate) learnt: BTreeMap<u16, u64>,
    /// Fingerprints that the last announcement forgot.
    pub(crate) forgotten: BTreeMap<u16, u64>,
    /// The step at which an update found nobody, before the last insert that was announced; `None` when the row is not in
    /// doubt any more.
    pub(crate) nobody_before_insert: Option<u64>,
    /// How many writes were about it.
    pub(crate) writes: u64,
    /// When a reply about it was last heard, by the clock of who heard it.
    pub(crate) heard: Option<SystemTime>,
    /// What was last handed out with fields, and what of it was last refused.
    pub(crate) handed_out: Option<HandedOut>,
    pub(crate) refused: Option<HandedOut>,
    pub(crate) record: Option<RowRecord>,
    /// The run that announced it last: its process, and the commits of that before.
    pub(crate) announced_by: Option<(usize, u64)>,
}

/// What a batch has of a row.
#[derive(Clone)]
pub(crate) struct HandedOut {
    /// The values that were sent, with those for creation.
    pub(crate) sent: Vec<(Option<u16>, Value)>,
    /// What the source had, and how the sync was set up.
    pub(crate) row: Row,
    pub(crate) setup: Setup,
    /// When its refusal was heard, if it was refused.
    pub(crate) heard: Option<SystemTime>,
}

/// A contact that was created by a request of ours.
pub(crate) struct Made {
    pub(crate) key: usize,
    pub(crate) contact: ContactId,
    pub(crate) list: ListId,
}

/// A plan in a file, and what it was made from.
pub(crate) struct Kept {
    pub(crate) file: Vec<u8>,
    pub(crate) rows: Vec<Row>,
    pub(crate) setup: Setup,
    /// How many commits there had been when it was made.
    pub(crate) commits: u64,
}

/// One process that runs a sync.
pub(crate) struct Process {
    pub(crate) machine: Machine,
    pub(crate) planning: bool,
    /// For how many seconds it was suspended in its present run.
    pub(crate) suspended_for: u64,
    /// Its present run: what the source has, and how it is set up.
    pub(crate) rows: Vec<Row>,
    pub(crate) setup: Setup,
    /// For each key the step at which an update of its present run found nobody.
    pub(crate) met_nobody: Vec<Option<u64>>,
    pub(crate) writes: u64,
    pub(crate) commits: u64,
    /// What the commits were when its present run began.
    pub(crate) commits_before: u64,
    pub(crate) limited: u64,
}

impl Process {
    pub(crate) fn new(machine: Machine, keys: usize) -> Self {
        Self {
            machine,
            planning: false,
            suspended_for: 0,
            rows: Vec::new(),
            setup: Setup::default(),
            met_nobody: vec![None; keys],
            writes: 0,
            commits: 0,
            commits_before: 0,
            limited: 0,
        }
    }
}

pub(crate) struct World {
    pub(crate) choices: Choices,
    pub(crate) switches: Switches,
    pub(crate) clock: Arc<Clock>,
    pub(crate) sandbox: Sandbox,
    pub(crate) flights: Flights,
    pub(crate) others: Others,
    pub(crate) temper: Temper,
    /// Faults have stopped.
    pub(crate) quiet: bool,
    pub(crate) step: u64,
    pub(crate) keys: Vec<Known>,
    pub(crate) processes: Vec<Process>,
    pub(crate) made: Vec<Made>,
    /// How many writes were about no key.
    pub(crate) writes_without_keys: u64,
    /// A plan that somebody has kept in a file.
    pub(crate) kept: Option<Kept>,
    /// The ids that each list has had, by name.
    pub(crate) list_ids: BTreeMap<String, BTreeSet<ListId>>,
    /// The ids that each field has had, by name.
    pub(crate) field_ids: BTreeMap<String, BTreeSet<FieldId>>,
    /// When each contact came to be, or came to have a key.
    pub(crate) born: BTreeMap<(ContactId, usize), u64>,
    /// The field that each slot of the state stands for.
    pub(crate) slots: BTreeMap<u16, FieldId>,
    /// The slot that each field has had since it is mapped, by name and id.
    pub(crate) slot_of: BTreeMap<(String, FieldId), u16>,
    /// Nobody but a single client has used the request budget, and all of its answers were heard.
    pub(crate) alone: bool,
    pub(crate) hashes: Vec<KeyHash>,
    prints: Fingerprinter,
    /// How long a row that is refused waits at least, if it waits.
    pub(crate) first_pause: Duration,
    pub(crate) violation: Option<String>,
    pub(crate) story: Option<Vec<String>>,
    /// How often each thing was met that a history can meet.
    pub(crate) met: Counts,
    /// How often each promise was checked.
    pub(crate) checks: Counts,
}

/// The world, for all who live in it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine whose clocks are right.
    pub(crate) fn machine(&self) -> Arc<Machine> {
        Arc::new(Machine::new(&self.lock().clock, Duration::ZERO))
    }
}

impl World {
    pub(crate) fn new(mut choices: Choices, switches: &Switches, is_told: bool) -> Self {
        let clock = Arc::new(Clock::default());
        let temper = Temper::draw(choices.on(Stream::Account), switches);
        let sandbox = temper.sandbox(Arc::new(Machine::new(&clock, Duration::ZERO)));
        let drawn = 1 + choices.on(Stream::Sync).below(KEYS);
        let count = if switches.has(Switch::OneKey) { 1 } else { drawn };
        let prints = Fingerprinter::new(&secret()).expect("a secret of 32 bytes gives fingerprints");
        let mut world = Self {
            clock,
            sandbox,
            flights: Flights::default(),
            others: Others::draw(choices.on(Stream::Account), switches),
            quiet: false,
            step: 1,
            keys: vec![Known::default(); count],
            processes: Vec::new(),
            made: Vec::new(),
            writes_without_keys: 0,
            kept: None,
            list_ids: BTreeMap::new(),
            field_ids: BTreeMap::new(),
            born: BTreeMap::new(),
            slots: BTreeMap::new(),
            slot_of: BTreeMap::new(),
            alone: temper.tells_limit,
            hashes: (0..count).map(|key| prints.key(&email(key))).collect(),
            prints,
            first_pause: Duration::ZERO,
            violation: None,
            story: is_told.then(Vec::new),
            met: BTreeMap::new(),
            checks: BTreeMap::new(),
            temper,
            switches: switches.clone(),
            choices,
        };
        world.furnish();
        world
    }

    /// A line of the story.
    pub(crate) fn tell(&mut self, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let now = Duration::from_nanos(self.clock.now());
            story.push(format!("{:>9.3} s  {}", now.as_secs_f64(), text()));
        }
    }

    pub(crate) fn violate(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.tell(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// How many commits there have been.
    pub(crate) fn commits(&self) -> u64 {
        self.processes.iter().map(|process| process.commits).sum()
    }

    /// A list by its name, whether it still exists or not.
    pub(crate) fn list_name(&self, list: Option<ListId>) -> &str {
        let is_of = |ids: &BTreeSet<ListId>| list.is_some_and(|list| ids.contains(&list));
        self.list_ids.iter().find(|(_, ids)| is_of(ids)).map_or("no list", |(name, _)| name)
    }

    /// Something that a history can meet was met.
    pub(crate) fn meet(&mut self, what: impl Into<Cow<'static, str>>) {
        *self.met.entry(what.into()).or_default() += 1;
    }

    /// A promise was checked.
    pub(crate) fn checked(&mut self, what: &'static str) {
        *self.checks.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.violation.is_some()
    }

    /// The key of an e-mail.
    pub(crate) fn key_of(&self, email: &str) -> Option<usize> {
        let digit =
            email.trim().to_lowercase().strip_prefix('k')?.strip_suffix("@shop.test")?.parse().ok()?;
        (digit < self.keys.len()).then_some(digit)
    }

    /// The contacts of a key; mostly one or none.
    pub(crate) fn contacts(&self, key: usize) -> Vec<StoredContact> {
        self.sandbox.contacts_with(FieldId::EMAIL, &email(key))
    }

    /// The id of one of the fields that can be mapped, if it exists.
    pub(crate) fn field_id(&self, field: usize) -> Option<FieldId> {
        let (_, name) = FIELDS[field];
        let id = name.parse().ok().map(FieldId::new);
        id.or_else(|| self.sandbox.field(name).map(|field| field.id()))
    }

    /// The slot that stands for a field.
    pub(crate) fn slot(&self, id: FieldId) -> Option<u16> {
        self.slots.iter().find(|(_, known)| **known == id).map(|(slot, _)| *slot)
    }

    /// Whether a value in the account is what has this fingerprint in a slot.
    pub(crate) fn is_of(&self, print: u64, slot: u16, stored: &Json) -> bool {
        let print_of = |value: &Value| {
            let mut pair = Pairs::new();
            pair.push(slot, &value.as_ref());
            self.prints.field(&pair)
        };
        let value = match stored {
            Json::String(text) if text.is_empty() => Value::Null,
            Json::String(text) => Value::from(text.as_str()),
            _ => Value::Null,
        };
        print_of(&value) == print
    }

    /// The fingerprint of a value as it is sent, in a slot.
    pub(crate) fn print_of_sent(&self, slot: u16, sent: &Json) -> u64 {
        let value = match sent {
            Json::String(text) => Value::from(text.as_str()),
            Json::Number(number) => Value::from(number.to_string()),
            _ => Value::Null,
        };
        let mut pair = Pairs::new();
        pair.push(slot, &value.as_ref());
        self.prints.field(&pair)
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn next_moment(&self) -> Option<u64> {
        self.clock.next_timer().into_iter().chain(self.flights.next()).min()
    }

    /// Moves the time to a moment at which something happens, and lets it happen.
    pub(crate) fn advance(&mut self, to: u64) {
        self.clock.set(to);
        while let Some(event) = self.flights.due(to) {
            self.happen(event);
        }
    }

    /// Lets a time pass in which nobody runs.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.clock.now() + nanos(span);
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            self.advance(next);
        }
        self.clock.set(end);
    }

    /// Whoever exists from now on was born now, and so with lists and fields.
    pub(crate) fn note_births(&mut self) {
        for list in self.sandbox.lists() {
            self.list_ids.entry(list.name().to_owned()).or_default().insert(list.id());
        }
        for (name, _) in CUSTOM {
            if let Some(field) = self.sandbox.field(name) {
                self.field_ids.entry(name.to_owned()).or_default().insert(field.id());
            }
        }
        for key in 0..self.keys.len() {
            let contacts = self.contacts(key);
            self.born
                .retain(|(id, known), _| *known != key || contacts.iter().any(|contact| contact.id() == *id));
            for contact in contacts {
                let step = self.step;
                self.born.entry((contact.id(), key)).or_insert(step);
            }
        }
    }
}
