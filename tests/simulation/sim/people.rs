//! Other people: what the account is like, and what they do to it behind the sync's back.

use std::{sync::Arc, time::Duration};

use reverse_etl::{
    emarsys::{
        FieldId,
        sandbox::{Duplicates, EmailMatch, Sandbox, Scope, StoredList, Switches},
    },
    host::Host,
};
use serde_json::json;

use super::{
    choices::{Draw, Stream},
    switches::{self, Switch},
    world::{KEYS, LISTS, World, email},
};

/// How much goes wrong in a history, and how the account answers the open questions.
pub(crate) struct Temper {
    /// Requests that something happens to, of 1024.
    pub(crate) trouble: u64,
    /// Polls after which a process dies, of 1024.
    pub(crate) crash: u64,
    /// Commits that fail, of 1024.
    pub(crate) disk: u64,
    /// Requests a minute.
    pub(crate) rate_limit: u64,
    pub(crate) token_lifetime: Duration,
    pub(crate) is_v2: bool,
    /// Replies say how much of the limit is left.
    pub(crate) tells_limit: bool,
    switches: Switches,
}

impl Temper {
    pub(crate) fn draw(choices: &mut Draw, without: &switches::Switches) -> Self {
        let mut switches = Switches::default();
        if choices.one_in(4) {
            switches = switches.existing_joins_list(false);
        }
        if choices.one_in(4) {
            switches = switches.unknown_field(Scope::Request);
        }
        if choices.one_in(4) {
            switches = switches.ids_in_order(false);
        }
        if choices.one_in(8) {
            switches = switches.duplicates(Duplicates::LastWins);
        }
        if choices.one_in(8) {
            switches = switches.email_match(EmailMatch::IgnoreCaseAndBlanks);
        }
        if choices.one_in(8) {
            switches = switches.request_error_status(200);
        }
        if choices.one_in(8) {
            switches = switches.existing_members_counted(false);
        }
        if choices.one_in(8) {
            switches = switches.exists_code(2006);
        }
        let tells_limit = !choices.one_in(8);
        switches = switches.limit_headers(tells_limit);
        let rate_limit = choices.of(&[1_000, 25, 12]);
        let is_v2 = choices.one_in(4);
        Self {
            trouble: without.unless(Switch::NoNetworkFaults, choices.of(&[120, 0, 250, 450])),
            crash: without.unless(Switch::NoCrashes, choices.of(&[0, 2, 6])),
            disk: without.unless(Switch::NoDiskFaults, choices.of(&[0, 30, 100])),
            rate_limit: if without.has(Switch::TightLimit) { 12 } else { rate_limit },
            token_lifetime: Duration::from_secs(choices.of(&[3_600, 600, 70])),
            is_v2: without.has(Switch::V2) || (is_v2 && !without.has(Switch::V3)),
            tells_limit,
            switches,
        }
    }

    pub(crate) fn sandbox(&self, host: Arc<dyn Host>) -> Sandbox {
        Sandbox::builder()
            .host(host)
            .rate_limit(self.rate_limit)
            .token_lifetime(self.token_lifetime)
            .switches(self.switches.clone())
            .without_journal()
            .build()
    }
}

/// What becomes of a process that waits for something.
pub(crate) enum Lot {
    GoesOn,
    /// Nobody waits any more for what it has sent.
    Dies,
    /// Until then it does nothing, whatever comes.
    IsSuspendedUntil(u64),
}

/// How busy the others are.
pub(crate) struct Others {
    /// Polls after which they do something, of 1024.
    busy: u64,
    /// They touch what the sync writes, too.
    edit_mapped: bool,
}

impl Others {
    pub(crate) fn draw(choices: &mut Draw, without: &switches::Switches) -> Self {
        let busy = without.unless(Switch::NoOthers, choices.of(&[0, 6, 24]));
        Self { busy, edit_mapped: choices.one_in(4) }
    }
}

/// The custom fields of the account, which the sync or others create.
pub(crate) const CUSTOM: [(&str, &str); 2] = [("Loyalty level", "shorttext"), ("Points", "numeric")];

impl World {
    /// The account as the history finds it.
    pub(crate) fn furnish(&mut self) {
        for list in LISTS {
            self.sandbox.add_list(list);
        }
        for (name, kind) in CUSTOM {
            if self.choices.on(Stream::Account).one_in(3) {
                self.sandbox.add_field(name, kind);
            }
        }
        for key in 0..KEYS {
            if self.choices.on(Stream::Account).one_in(2) && key < self.keys.len() {
                self.sandbox.add_contact([(FieldId::EMAIL, json!(email(key)))]);
            }
        }
        self.note_births();
    }

    /// What becomes of a process that waits for something.
    pub(crate) fn lot(&mut self, process: usize) -> Lot {
        self.others_act();
        let p = if self.quiet { 0 } else { self.temper.crash };
        let seconds = match self.choices.on(Stream::Deaths).pick(9, p) {
            0 => return Lot::GoesOn,
            8 => {
                self.meet("fault: a clock is set");
                self.processes[process].machine.set();
                self.tell(|| format!("the wall clock of process {process} is SET"));
                return Lot::GoesOn;
            }
            1..=3 => {
                self.meet("fault: a process dies");
                self.alone = false;
                self.tell(|| format!("process {process} DIES"));
                return Lot::Dies;
            }
            4 => 5,
            5 => 100,
            _ => 400,
        };
        let is_missed = self.choices.on(Stream::Deaths).one_in(2);
        let span = seconds * 1_000_000_000;
        self.meet("fault: a process is suspended");
        self.alone = false;
        let run = &mut self.processes[process];
        run.suspended_for += seconds;
        if is_missed {
            run.machine.miss(span);
            self.meet("fault: a monotonic clock stands still while its process is suspended");
        }
        let clock = if is_missed { ", with its monotonic clock" } else { "" };
        self.tell(|| format!("process {process} is SUSPENDED for {seconds} s{clock}"));
        Lot::IsSuspendedUntil(self.clock.now() + span)
    }

    /// Perhaps somebody else does something.
    pub(crate) fn others_act(&mut self) {
        let busy = if self.quiet { 0 } else { self.others.busy };
        let what = self.choices.on(Stream::Others).pick(12, busy);
        if what == 0 {
            return;
        }
        self.step += 1;
        let key = self.choices.on(Stream::Others).below(self.keys.len());
        let contacts = self.contacts(key);
        match what {
            1 | 2 => {
                if contacts.is_empty() {
                    self.others_did("create", key);
                    self.sandbox.add_contact([(FieldId::EMAIL, json!(email(key)))]);
                }
            }
            3 => {
                if let Some(contact) = contacts.first() {
                    self.others_did("delete", key);
                    self.keys[key].edits += 1;
                    self.sandbox.delete_contact(contact.id());
                }
            }
            4 => {
                // Of a field that no mapping has.
                if let Some(contact) = contacts.first() {
                    self.others_did("edit another field of", key);
                    self.sandbox.set_value(contact.id(), FieldId::LAST_NAME, &json!("Byron"));
                }
            }
            5 => {
                if let Some(contact) = contacts.first().filter(|_| self.others.edit_mapped) {
                    self.others_did("edit a mapped field of", key);
                    self.keys[key].edits += 1;
                    self.sandbox.set_value(contact.id(), FieldId::FIRST_NAME, &json!("Eve"));
                }
            }
            6 => {
                if contacts.len() == 1 && self.others.edit_mapped {
                    self.others_did("add a second contact for", key);
                    self.keys[key].edits += 1;
                    self.sandbox.add_contact([(FieldId::EMAIL, json!(email(key)))]);
                }
            }
            7 => {
                let second = |key: usize| Some((key, self.contacts(key).get(1)?.id()));
                if let Some((key, second)) = (0..self.keys.len()).find_map(second) {
                    self.others_did("merge the contacts of", key);
                    self.keys[key].edits += 1;
                    self.sandbox.delete_contact(second);
                }
            }
            8 => self.others_change_a_field(),
            9 => self.others_change_a_list(),
            10 => {
                if let Some(contact) = contacts.first().filter(|_| self.others.edit_mapped) {
                    // To that of another key, or to one that is in no source.
                    let other = self.choices.on(Stream::Others).below(self.keys.len() + 1);
                    let is_taken =
                        other == key || (other < self.keys.len() && !self.contacts(other).is_empty());
                    let other = if is_taken { self.keys.len() } else { other };
                    self.others_did("change the e-mail of", key);
                    self.tell(|| format!("  to {}", email(other)));
                    self.keys[key].edits += 1;
                    if let Some(known) = self.keys.get_mut(other) {
                        known.edits += 1;
                    }
                    self.sandbox.set_value(contact.id(), FieldId::EMAIL, &json!(email(other)));
                    // Whoever goes and comes back is somebody whom the sync does not know.
                    self.made.retain(|made| made.contact != contact.id());
                }
            }
            _ => {
                self.meet("others: use up the limit");
                self.tell(|| "others use up the request limit".to_owned());
                self.alone = false;
                self.sandbox.exhaust_limit();
            }
        }
        self.note_births();
        if self.story.is_some() {
            let told = self.told_contacts(key);
            self.tell(|| format!("  of k{key} the account has {told}"));
        }
        self.check_state();
    }

    fn others_did(&mut self, what: &str, key: usize) {
        self.meet(format!("others: {what} a key"));
        self.tell(|| format!("others {what} k{key}"));
    }

    fn others_change_a_field(&mut self) {
        let (name, kind) = self.choices.on(Stream::Others).of(&CUSTOM);
        let anew = self.choices.on(Stream::Others).one_in(2);
        if let Some(field) = self.sandbox.field(name) {
            self.meet("others: delete a field");
            self.tell(|| format!("others delete the field `{name}`"));
            self.sandbox.delete_field(field.id());
            if !anew {
                return;
            }
        }
        self.meet("others: create a field");
        self.tell(|| format!("others create the field `{name}`"));
        self.sandbox.add_field(name, kind);
    }

    fn others_change_a_list(&mut self) {
        let name = self.choices.on(Stream::Others).of(&LISTS);
        match self.list(name) {
            Some(list) => {
                self.meet("others: delete a list");
                self.tell(|| format!("others delete the list `{name}`"));
                self.sandbox.delete_list(list);
            }
            None => self.restore_list(name),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Option<reverse_etl::emarsys::ListId> {
        self.sandbox.lists().iter().find(|list| list.name() == name).map(StoredList::id)
    }

    /// The list exists from now on.
    pub(crate) fn restore_list(&mut self, name: &str) {
        if self.list(name).is_none() {
            self.meet("others: create a list");
            self.tell(|| format!("others create the list `{name}`"));
            self.sandbox.add_list(name);
        }
    }
}
