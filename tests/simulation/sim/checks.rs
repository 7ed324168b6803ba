//! What has to hold at every step.

use reverse_etl::{
    emarsys::{
        FieldId, ListId,
        sandbox::{Answer, Endpoint, StoredContact},
    },
    host::Host as _,
    state::record::{Doubt, RowRecord},
};
use serde_json::Value as Json;

use super::{
    clock::CLOCK_MARGIN,
    fate::{Fate, LATE},
    flight::only,
    source::{FIELDS, ORIGINS},
    world::{LISTS, Made, Process, World, email},
};

impl World {
    /// Promises 2, 4, 5 and 7, when a request is sent.
    pub(crate) fn check_departure(
        &mut self,
        process: usize,
        endpoint: Endpoint,
        rows: &[(String, Json)],
        keys: &[usize],
        list: Option<ListId>,
    ) {
        if endpoint.is_write() {
            self.checked("promise 7: planning writes nothing");
            self.processes[process].writes += 1;
            self.writes_without_keys += u64::from(rows.is_empty());
            if self.processes[process].planning {
                self.violate(format!("promise 7: planning sends {endpoint}"));
            }
        }
        if rows.len() != keys.len() {
            self.violate("promise 4: somebody is written to who is in no source");
            return;
        }
        for key in keys {
            self.keys[*key].writes += 1;
            self.checked("promise 2: what is sent is announced, and nothing is sent after its deadline");
            let now = self.processes[process].machine.wall();
            let mark = self.keys[*key].record.as_ref().and_then(RowRecord::mark).cloned();
            let Some(mark) = mark else {
                self.violate(format!("promise 2: {endpoint} for k{key} is sent and was not announced"));
                continue;
            };
            if now > mark.until() - LATE - CLOCK_MARGIN {
                self.violate(format!("promise 2: {endpoint} for k{key} is sent after its deadline"));
            }
            self.keys[*key].is_unanswered = true;
            if endpoint == Endpoint::AddToList {
                self.check_doubt(*key, list, mark.doubt());
            }
        }
        match endpoint {
            Endpoint::UpdateContacts => {
                for ((_, row), key) in rows.iter().zip(keys) {
                    self.check_update(process, *key, row);
                }
            }
            Endpoint::CreateContacts if !self.processes[process].setup.inserts => {
                self.violate("promise 5: contacts are created with insert mode off");
            }
            Endpoint::CreateContacts => {
                for ((_, row), key) in rows.iter().zip(keys) {
                    self.check_creation(process, *key, row);
                }
            }
            _ => {}
        }
    }

    /// Promise 5: only who may have been created for a list is put into it.
    fn check_doubt(&mut self, key: usize, list: Option<ListId>, doubt: &Doubt) {
        self.checked("promise 5: who is in doubt is put into the list of that doubt");
        let place: Option<ListId> = match doubt {
            Doubt::Exists { place } => place.as_deref().and_then(|place| place.parse().ok()),
            _ => None,
        };
        if place.is_none() || place != list {
            let (list, place) = (self.list_name(list), self.list_name(place));
            self.violate(format!(
                "promise 5: k{key} is put into {list}, and may have been created in {place}"
            ));
        }
    }

    /// Promise 5: in which list contacts are created.
    pub(crate) fn check_list(&mut self, process: usize, list: Option<ListId>) {
        self.checked("promise 5: in which list contacts are created, and with which values");
        let chosen = LISTS[self.processes[process].setup.list];
        let is_chosen = |list: &ListId| self.list_ids.get(chosen).is_some_and(|ids| ids.contains(list));
        if !list.as_ref().is_some_and(is_chosen) {
            let list = self.list_name(list);
            self.violate(format!("promise 5: contacts are created in {list}, and not in {chosen}"));
        }
    }

    /// Promise 5: who is created is known not to exist, and gets all that the row has.
    fn check_creation(&mut self, process: usize, key: usize, row: &Json) {
        if self.processes[process].met_nobody[key].is_none() {
            self.violate(format!("promise 5: k{key} is created although no update of this run found nobody"));
        }
        let setup = self.processes[process].setup.clone();
        let origin = row.get(FieldId::CITY.to_string()).and_then(Json::as_str);
        if origin != setup.on_create.map(|origin| ORIGINS[origin]) {
            self.violate(format!("k{key} is created with other values for creation than the row has"));
        }
        self.check_values(process, key, row);
        let expected = self.processes[process].rows[key].expected(&setup).unwrap_or_default();
        let is_left_out = |(field, _): &(usize, Json)| {
            self.field_id(*field)
                .is_some_and(|id| row.get(id.to_string()).is_none() && self.slot(id).is_some())
        };
        if expected.iter().any(is_left_out) {
            self.violate(format!("promise 3: k{key} is created without all of its fields"));
        }
    }

    /// What is sent is what the source has. A row that is withheld or invalid is not sent.
    fn check_values(&mut self, process: usize, key: usize, row: &Json) {
        self.checked("what is sent is what the source has");
        let Process { rows, setup, .. } = &self.processes[process];
        let expected = rows[key].expected(setup);
        // By any of the ids that a field has had: it may have been deleted, or made anew.
        let field_of = |id: &str| {
            let id: FieldId = FieldId::new(id.parse().ok()?);
            let has_had = |name: &str| self.field_ids.get(name).is_some_and(|ids| ids.contains(&id));
            (0..FIELDS.len()).find(|field| self.field_id(*field) == Some(id) || has_had(FIELDS[*field].1))
        };
        let sent = row.as_object().into_iter().flatten();
        let sent = sent.filter_map(|(id, value)| Some((field_of(id)?, value)));
        let wrong = sent.filter(|(field, value)| {
            let is_of_the_row = |(known, wanted): &(usize, Json)| known == field && wanted == *value;
            !expected.as_ref().is_some_and(|expected| expected.iter().any(is_of_the_row))
        });
        let wrong: Vec<usize> = wrong.map(|(field, _)| field).collect();
        for field in wrong {
            let (_, name) = FIELDS[field];
            self.violate(format!(
                "field `{name}` of k{key} is sent, and is not what the source has, or is to be withheld"
            ));
        }
    }

    /// Promise 4: the key and what changed, nothing else.
    fn check_update(&mut self, process: usize, key: usize, row: &Json) {
        self.check_values(process, key, row);
        let fields = row.as_object().into_iter().flatten().filter(|(id, _)| *id != "3");
        self.checked("promise 4: an update has the key and what changed");
        for (id, value) in fields {
            let field = id.parse().map_or(FieldId::EMAIL, FieldId::new);
            let is_mapped = self.is_mapped(process, field);
            if !is_mapped {
                self.violate(format!("promise 4: field {field} of k{key} is sent and not mapped"));
            }
            let slots = self.slots.iter().filter(|(_, known)| **known == field);
            let is_unchanged = slots
                .filter_map(|(slot, _)| Some((*slot, *self.keys[key].forgotten.get(slot)?)))
                .any(|(slot, print)| print == self.print_of_sent(slot, value));
            if is_unchanged {
                self.violate(format!(
                    "promise 4: field {field} of k{key} is sent although it has not changed"
                ));
            }
        }
    }

    fn is_mapped(&self, process: usize, field: FieldId) -> bool {
        let mapped = self.processes[process].setup.names();
        mapped.contains(&field.to_string())
            || mapped.iter().any(|name| self.field_ids.get(name).is_some_and(|ids| ids.contains(&field)))
    }

    /// Promise 5, when a request takes effect: who was created, and who got into a list.
    #[expect(clippy::too_many_arguments, reason = "one request and what it changed")]
    pub(crate) fn check_arrival(
        &mut self,
        endpoint: Endpoint,
        fate: Fate,
        keys: &[usize],
        met_nobody: &[Option<u64>],
        list: Option<ListId>,
        before: &[Vec<StoredContact>],
        after: &[Vec<StoredContact>],
    ) {
        self.checked("promise 5: who is created, and who gets into a list");
        for (at, key) in keys.iter().enumerate() {
            let (before, after) = (&before[at], &after[at]);
            let is_new = before.is_empty() && !after.is_empty();
            if is_new && endpoint != Endpoint::CreateContacts {
                self.violate(format!("promise 5: {endpoint} creates k{key}"));
            }
            let joined = joined(before, after);
            if joined.iter().any(|joined| Some(*joined) != list) {
                self.violate(format!("promise 5: {endpoint} puts k{key} into a list that it does not name"));
            }
            if is_new && fate != Fate::IsOvertaken {
                if let (Some(contact), Some(list)) = (only(after), list) {
                    self.made.push(Made { key: *key, contact, list });
                    self.meet("effect: a contact is created");
                }
                continue;
            }
            if joined.is_empty() {
                continue;
            }
            let born =
                only(after).and_then(|contact| self.born.get(&(contact, *key)).copied()).unwrap_or(self.step);
            if met_nobody[at].is_none_or(|since| born < since) {
                self.violate(format!("promise 5: k{key}, who existed before, is put into a list"));
            }
        }
    }

    /// A process hears what became of its request. Only a reply that has no error for a row acknowledges it.
    pub(crate) fn hear(&mut self, id: u64, answer: &Answer) {
        let Some(about) = self.flights.about(id).filter(|about| !about.keys.is_empty()) else { return };
        if let Answer::Unreachable = answer {
            about.keys.iter().for_each(|key| self.keys[*key].is_unanswered = false);
        }
        let Answer::Whole(response) = answer else { return };
        let reply: Json = serde_json::from_str(response.body()).unwrap_or_default();
        let code = reply["replyCode"].as_i64();
        let now = self.processes[about.process].machine.wall();
        about.keys.iter().for_each(|key| self.keys[*key].heard = Some(now));
        if code.is_some() || (400..500).contains(&response.status()) {
            about.keys.iter().for_each(|key| self.keys[*key].is_unanswered = false);
        }
        for (key, edits) in about.keys.iter().zip(about.edits) {
            let error = reply["data"]["errors"].get(email(*key));
            let is_missing = error.is_some_and(|error| error.get("2008").is_some())
                || (code == Some(2008) && about.keys.len() == 1);
            if is_missing && about.endpoint == Endpoint::UpdateContacts {
                self.processes[about.process].met_nobody[*key] = Some(about.step);
            }
            if response.status() == 200 && code == Some(0) && error.is_none() {
                // That somebody was put into a list says nothing of the fields, which others may have edited meanwhile.
                if about.endpoint != Endpoint::AddToList {
                    self.keys[*key].acknowledged_at = edits;
                    self.keys[*key].acknowledgements += 1;
                }
            }
        }
    }

    /// Promise 9: who is alone on the budget never meets its end, and who meets it waits.
    pub(crate) fn note_limited(&mut self, process: usize) {
        self.checked("promise 9: a limit that is met is waited for");
        self.processes[process].limited += 1;
        if self.alone {
            self.violate("promise 9: the limit was exceeded by a client that is alone on it");
        }
        if self.processes[process].limited > 40 {
            self.violate("promise 9: a process asks on and on against the limit");
        }
    }

    /// Promises 1 and 2: the state claims nothing that the account does not hold, unless others changed it since.
    pub(crate) fn check_state(&mut self) {
        self.checked("promises 1 and 2: the state says what the account has");
        for key in 0..self.keys.len() {
            let Some(record) = &self.keys[key].record else { continue };
            if let Some(violation) = self.check_fields(key, record).or_else(|| self.check_row(key, record)) {
                self.violate(violation);
            }
        }
    }

    fn check_fields(&self, key: usize, record: &RowRecord) -> Option<String> {
        let known = &self.keys[key];
        let claimed: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(slot, field)| Some((*slot, *field, record.field(*slot)?)))
            .filter(|(slot, ..)| known.learnt.get(slot) == Some(&known.edits))
            .collect();
        if claimed.is_empty() {
            return None;
        }
        let contacts = self.contacts(key);
        let fields = self.sandbox.fields();
        claimed.into_iter().find_map(|(slot, field, print)| {
            if !fields.iter().any(|known| known.id() == field) {
                return None;
            }
            let is_so = contacts.first().is_some_and(|contact| self.is_of(print, slot, contact.value(field)));
            (!is_so).then(|| {
                let held = contacts.first().map_or("nobody".to_owned(), |contact| contact.value(field).to_string());
                format!(
                    "promises 1 and 2: the state has another value of field {field} of k{key} than the account, which \
                     holds {held}"
                )
            })
        })
    }

    fn check_row(&self, key: usize, record: &RowRecord) -> Option<String> {
        record.row()?;
        if record.mark().is_some() || record.held().is_some() {
            return Some(format!("row k{key} is settled although it is marked or held"));
        }
        let known = &self.keys[key];
        let is_untouched = known.settled_at == known.edits;
        (is_untouched && self.contacts(key).is_empty())
            .then(|| format!("promises 1 and 2: row k{key} is settled, and nobody is there"))
    }
}

/// The lists that a contact was put into.
fn joined(before: &[StoredContact], after: &[StoredContact]) -> Vec<ListId> {
    let lists = |contacts: &[StoredContact]| -> Vec<ListId> {
        contacts.iter().flat_map(|contact| contact.lists().iter().copied().collect::<Vec<_>>()).collect()
    };
    let before = lists(before);
    lists(after).into_iter().filter(|list| !before.contains(list)).collect()
}
