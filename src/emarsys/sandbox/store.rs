//! What the account holds: contacts, their values, and contact lists. It knows no request, reply or rule of the API.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use serde_json::Value;

use super::{
    campaigns::Campaigns,
    catalog::{Catalog, EMAIL, OPT_IN, StoredField},
    events::{self, StoredTrigger},
    exports::Exports,
    key::Key,
    named::Named,
    relational::Tables,
    segments::Segments,
    sources,
    switches::EmailMatch,
    value::{self, Stored, canonical_number},
};
use crate::emarsys::ids::{ContactId, FieldId, ListId};

const FIRST_CONTACT_ID: u64 = 700_001;
const FIRST_LIST_ID: u64 = 4_711;

/// A contact as it is kept.
///
/// Two snapshots are equal if they hold the same contacts with the same values in the same lists. `Debug` shows the
/// values: whoever fills a sandbox with real people should not print it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredContact {
    id: ContactId,
    values: BTreeMap<FieldId, Value>,
    lists: BTreeSet<ListId>,
}

impl StoredContact {
    /// The internal id.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The value of a field as it reads back: text, an array of choice ids, or null if it has none.
    pub fn value(&self, field: FieldId) -> &Value {
        self.values.get(&field).unwrap_or(&Value::Null)
    }

    /// Every field that has a value.
    pub fn values(&self) -> &BTreeMap<FieldId, Value> {
        &self.values
    }

    /// The ids of the lists that it is in.
    pub fn lists(&self) -> &BTreeSet<ListId> {
        &self.lists
    }
}

/// A contact list as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredList {
    id: ListId,
    name: String,
    members: BTreeSet<ContactId>,
}

impl StoredList {
    /// The id.
    pub fn id(&self) -> ListId {
        self.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ids of the contacts in it.
    pub fn members(&self) -> &BTreeSet<ContactId> {
        &self.members
    }
}

/// The account's data.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) catalog: Catalog,
    pub(super) segments: Segments,
    pub(super) exports: Exports,
    /// The moment of the request that is carried out, which is when a value changes.
    now: SystemTime,
    email_match: EmailMatch,
    contacts: BTreeMap<u64, Contact>,
    uids: HashMap<String, u64>,
    /// For each field that was used as a key: form of the value → contacts. The one of the e-mail is always there.
    indexes: HashMap<u32, HashMap<String, BTreeSet<u64>>>,
    lists: BTreeMap<u64, List>,
    next_contact: u64,
    next_list: u64,
    /// Fields by which `contact/query` can filter, besides the e-mail.
    indexed: BTreeSet<u32>,
    pub(super) sources: Named,
    pub(super) events: Named,
    pub(super) triggers: Vec<StoredTrigger>,
    pub(super) campaigns: Campaigns,
    pub(super) tables: Tables,
}

#[derive(Debug)]
struct Contact {
    uid: String,
    created: SystemTime,
    changed: Changed,
    values: BTreeMap<u32, Stored>,
}

/// When a value of a contact became another one for the last time; its creation is no change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    pub(super) any: Option<SystemTime>,
    pub(super) email_or_opt_in: Option<SystemTime>,
}

#[derive(Debug)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) created: SystemTime,
    /// Contact → when it came in.
    members: BTreeMap<u64, SystemTime>,
}

/// How far a read sees: only what was there at a moment, or everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon(pub(super) Option<SystemTime>);

impl Horizon {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn shows(self, created: SystemTime) -> bool {
        self.0.is_none_or(|moment| created <= moment)
    }
}

impl Store {
    pub(super) fn new(email_match: EmailMatch) -> Self {
        Self {
            catalog: Catalog::new(),
            segments: Segments::default(),
            exports: Exports::default(),
            now: SystemTime::UNIX_EPOCH,
            email_match,
            contacts: BTreeMap::new(),
            uids: HashMap::new(),
            indexes: HashMap::from([(EMAIL, HashMap::new())]),
            lists: BTreeMap::new(),
            next_contact: FIRST_CONTACT_ID,
            next_list: FIRST_LIST_ID,
            indexed: BTreeSet::new(),
            sources: Named::new(sources::FIRST_ID),
            events: Named::new(events::FIRST_ID),
            triggers: Vec::new(),
            campaigns: Campaigns::default(),
            tables: Tables::default(),
        }
    }

    /// Says what time it is.
    pub(super) fn set_clock(&mut self, now: SystemTime) {
        self.now = now;
    }

    pub(super) fn contact_count(&self) -> usize {
        self.contacts.len()
    }

    pub(super) fn add_contact(
        &mut self,
        created: SystemTime,
        values: impl IntoIterator<Item = (u32, Stored)>,
    ) -> u64 {
        let id = self.next_contact;
        self.next_contact += 1;
        let uid = uid(id);
        self.uids.insert(uid.clone(), id);
        self.contacts
            .insert(id, Contact { uid, created, changed: Changed::default(), values: BTreeMap::new() });
        for (field, value) in values {
            self.set(id, field, Some(value));
        }
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.changed = Changed::default();
        }
        id
    }

    /// Writes or clears a value; nothing happens if there is no such contact.
    pub(super) fn set(&mut self, contact: u64, field: u32, value: Option<Stored>) -> bool {
        let Some(kept) = self.contacts.get_mut(&contact) else { return false };
        if kept.values.get(&field) != value.as_ref() {
            kept.changed.any = Some(self.now);
            if matches!(field, EMAIL | OPT_IN) {
                kept.changed.email_or_opt_in = Some(self.now);
            }
        }
        let form = value.as_ref().and_then(Stored::as_text).map(str::to_owned);
        let before = match value {
            Some(value) => kept.values.insert(field, value),
            None => kept.values.remove(&field),
        };
        if self.indexes.contains_key(&field) {
            let before = before.as_ref().and_then(Stored::as_text).map(|text| self.key_form(field, text));
            let after = form.map(|text| self.key_form(field, &text));
            if let Some(index) = self.indexes.get_mut(&field) {
                if let Some(form) = before
                    && let Some(contacts) = index.get_mut(&form)
                {
                    contacts.remove(&contact);
                    if contacts.is_empty() {
                        index.remove(&form);
                    }
                }
                if let Some(form) = after {
                    index.entry(form).or_default().insert(contact);
                }
            }
        }
        true
    }

    pub(super) fn delete_contact(&mut self, contact: u64) -> bool {
        let Some(kept) = self.contacts.get(&contact) else { return false };
        let fields: Vec<u32> = kept.values.keys().copied().collect();
        for field in fields {
            self.set(contact, field, None);
        }
        for list in self.lists.values_mut() {
            list.members.remove(&contact);
        }
        if let Some(kept) = self.contacts.remove(&contact) {
            self.uids.remove(&kept.uid);
        }
        true
    }

    pub(super) fn value(&self, contact: u64, field: u32) -> Option<&Stored> {
        self.contacts.get(&contact)?.values.get(&field)
    }

    /// The contacts that a read sees, ascending.
    pub(super) fn contacts(&self, horizon: Horizon) -> impl Iterator<Item = u64> + '_ {
        self.contacts.iter().filter(move |(_, contact)| horizon.shows(contact.created)).map(|(id, _)| *id)
    }

    pub(super) fn created(&self, contact: u64) -> Option<SystemTime> {
        self.contacts.get(&contact).map(|contact| contact.created)
    }

    pub(super) fn changed(&self, contact: u64) -> Changed {
        self.contacts.get(&contact).map(|contact| contact.changed).unwrap_or_default()
    }

    pub(super) fn uid(&self, contact: u64) -> Option<&str> {
        self.contacts.get(&contact).map(|contact| contact.uid.as_str())
    }

    /// The contacts with this key value, ascending.
    pub(super) fn find(&mut self, key: Key, value: &str, horizon: Horizon) -> Vec<u64> {
        let mut found: Vec<u64> = match key {
            Key::Id => value.parse().into_iter().filter(|id| self.contacts.contains_key(id)).collect(),
            Key::Uid => self.uids.get(value).copied().into_iter().collect(),
            Key::Field(field) if self.catalog.field(field).is_some_and(StoredField::holds_several) => {
                let wanted = value::choices(value).map(Stored::Choices);
                let has =
                    |contact: &Contact| wanted.is_some() && contact.values.get(&field) == wanted.as_ref();
                self.contacts.iter().filter(|(_, contact)| has(contact)).map(|(id, _)| *id).collect()
            }
            Key::Field(field) => {
                let form = self.key_form(field, value);
                self.index(field).get(&form).into_iter().flatten().copied().collect()
            }
        };
        found.retain(|id| self.contacts.get(id).is_some_and(|contact| horizon.shows(contact.created)));
        found
    }

    pub(super) fn add_index(&mut self, field: u32) {
        self.indexed.insert(field);
    }

    /// Whether `contact/query` can filter by a field.
    pub(super) fn is_indexed(&self, field: u32) -> bool {
        field == EMAIL || self.indexed.contains(&field)
    }

    /// The form in which two values of a key field are compared.
    pub(super) fn key_form(&self, field: u32, text: &str) -> String {
        if field == EMAIL {
            return match self.email_match {
                EmailMatch::IgnoreCase => text.to_lowercase(),
                EmailMatch::IgnoreCaseAndBlanks => text.trim().to_lowercase(),
                EmailMatch::Exact => text.to_owned(),
            };
        }
        let numeric = self.catalog.field(field).is_some_and(|field| field.application_type() == "numeric");
        numeric.then(|| canonical_number(text)).flatten().unwrap_or_else(|| text.to_owned())
    }

    fn index(&mut self, field: u32) -> &HashMap<String, BTreeSet<u64>> {
        if !self.indexes.contains_key(&field) {
            let mut index: HashMap<String, BTreeSet<u64>> = HashMap::new();
            for (id, contact) in &self.contacts {
                if let Some(text) = contact.values.get(&field).and_then(Stored::as_text) {
                    index.entry(self.key_form(field, text)).or_default().insert(*id);
                }
            }
            self.indexes.insert(field, index);
        }
        self.indexes.entry(field).or_default()
    }

    /// Deletes a field with all its values.
    pub(super) fn delete_field(&mut self, field: u32) -> bool {
        for contact in self.contacts.values_mut() {
            contact.values.remove(&field);
        }
        if let Some(index) = self.indexes.get_mut(&field) {
            index.clear();
        }
        self.indexed.remove(&field);
        self.catalog.remove(field)
    }

    pub(super) fn add_list(&mut self, created: SystemTime, name: &str) -> u64 {
        let id = self.next_list;
        self.next_list += 1;
        self.lists.insert(id, List { name: name.to_owned(), created, members: BTreeMap::new() });
        id
    }

    pub(super) fn delete_list(&mut self, list: u64) -> bool {
        self.lists.remove(&list).is_some()
    }

    pub(super) fn list(&self, list: u64) -> Option<&List> {
        self.lists.get(&list)
    }

    pub(super) fn rename_list(&mut self, list: u64, name: &str) {
        if let Some(list) = self.lists.get_mut(&list) {
            name.clone_into(&mut list.name);
        }
    }

    pub(super) fn lists(&self) -> impl DoubleEndedIterator<Item = (u64, &List)> {
        self.lists.iter().map(|(id, list)| (*id, list))
    }

    /// Puts a contact into a list; whether it was not in it before.
    pub(super) fn join(&mut self, list: u64, contact: u64, now: SystemTime) -> bool {
        let known = self.contacts.contains_key(&contact);
        let Some(list) = self.lists.get_mut(&list).filter(|_| known) else { return false };
        match list.members.entry(contact) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }

    /// Takes a contact out of a list; whether it was in it.
    pub(super) fn leave(&mut self, list: u64, contact: u64) -> bool {
        self.lists.get_mut(&list).is_some_and(|list| list.members.remove(&contact).is_some())
    }

    pub(super) fn snapshot(&self, contact: u64) -> Option<StoredContact> {
        let kept = self.contacts.get(&contact)?;
        let values =
            kept.values.iter().map(|(field, value)| (FieldId::new(*field), value.to_json())).collect();
        let inside = |list: &List| list.members.contains_key(&contact);
        let lists =
            self.lists.iter().filter(|(_, list)| inside(list)).map(|(id, _)| ListId::new(*id)).collect();
        Some(StoredContact { id: ContactId::new(contact), values, lists })
    }

    pub(super) fn contact_snapshots(&self) -> Vec<StoredContact> {
        self.contacts.keys().filter_map(|id| self.snapshot(*id)).collect()
    }

    pub(super) fn list_snapshots(&self) -> Vec<StoredList> {
        let snapshot = |(id, list): (&u64, &List)| StoredList {
            id: ListId::new(*id),
            name: list.name.clone(),
            members: list.members.keys().copied().map(ContactId::new).collect(),
        };
        self.lists.iter().map(snapshot).collect()
    }
}

impl List {
    pub(super) fn has_member(&self, contact: u64) -> bool {
        self.members.contains_key(&contact)
    }

    pub(super) fn members(&self, horizon: Horizon) -> impl Iterator<Item = u64> + '_ {
        self.members.iter().filter(move |(_, since)| horizon.shows(**since)).map(|(contact, _)| *contact)
    }
}

/// A text of ten letters and digits that looks random, differs for every id and is the same in every sandbox.
fn uid(id: u64) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const RANGE: u128 = 62_u128.pow(10);
    // The factor shares no divisor with the range, so no two ids below it get the same text.
    let mut rest = u128::from(id) * 0x9E37_79B9_7F4A_7C15 % RANGE;
    let mut text = String::with_capacity(10);
    for _ in 0..10 {
        let digit = usize::try_from(rest % 62).unwrap_or_default();
        text.push(char::from(ALPHABET[digit]));
        rest /= 62;
    }
    text
}
