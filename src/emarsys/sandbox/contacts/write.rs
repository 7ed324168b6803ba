//! `POST contact`, `PUT contact` and `POST contact/delete`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::super::{
    catalog::EMAIL,
    context::Context,
    endpoint::Query,
    faults::Twist,
    key::{self, Key},
    limits::CONTACTS_MAX,
    reply::{Data, Failure, RowError, RowErrors},
    store::Horizon,
    switches::{Duplicates, Scope},
    value::{self, Stored},
};

/// What is done about a contact that exists, and about one that does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Update,
    Upsert,
}

/// A row that was carried out.
struct Written {
    contact: u64,
    created: bool,
}

impl Written {
    /// The id of a contact that existed is a string, that of a new one a number.
    fn id(&self) -> Value {
        if self.created { json!(self.contact) } else { json!(self.contact.to_string()) }
    }
}

pub(in super::super) fn create(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    write(cx, body, Mode::Create)
}

pub(in super::super) fn update(cx: &mut Context<'_>, body: &Map<String, Value>, query: &Query) -> Data {
    let upsert = query.get("create_if_not_exists") == Some("1");
    write(cx, body, if upsert { Mode::Upsert } else { Mode::Update })
}

fn write(cx: &mut Context<'_>, body: &Map<String, Value>, mode: Mode) -> Data {
    let batch = match body.get("contacts") {
        None => None,
        Some(Value::Array(rows)) if rows.len() > CONTACTS_MAX => return Err(Failure::batch_too_long()),
        Some(Value::Array(rows)) => {
            let rows: Option<Vec<_>> = rows.iter().map(Value::as_object).collect();
            Some(rows.ok_or_else(Failure::parameters)?)
        }
        Some(_) => return Err(Failure::parameters()),
    };
    let key = match Key::parse(cx.catalog(), cx.switches, body.get("key_id")) {
        Ok(key) => key,
        Err(_) if batch.is_some() && cx.switches.invalid_key == Scope::Row => {
            let sent = body.get("key_id").and_then(value::text).unwrap_or_default();
            let error = json!({ "2004": format!("Invalid key field id: {sent}") });
            return Ok(json!({ "ids": [], "errors": { "<NO_KEY_ID>": error } }));
        }
        Err(failure) => return Err(failure),
    };
    if mode == Mode::Create && !matches!(key, Key::Field(_)) {
        return Err(internal_key().into());
    }
    let list = cx.contact_list(body)?;
    for row in batch.as_deref().unwrap_or(&[body]) {
        refuse_request(cx, row)?;
    }
    let mut writer = Writer { cx, key, mode, list, seen: HashSet::new(), created: HashSet::new() };
    match batch {
        Some(mut rows) => {
            if writer.cx.twist == Some(Twist::Half) {
                rows.truncate(rows.len() / 2);
            }
            Ok(writer.batch(&rows))
        }
        None => writer.single(body),
    }
}

/// What is wrong with a row and, as switched, brings the whole request down.
fn refuse_request(cx: &Context<'_>, row: &Map<String, Value>) -> Result<(), Failure> {
    if cx.switches.unknown_field == Scope::Request {
        let mut fields = row.keys().filter_map(|name| key::field_id(name));
        if let Some(unknown) = fields.find(|id| cx.catalog().field(*id).is_none()) {
            return Err(Failure::bad(2006, format!("Invalid field id: {unknown}")));
        }
    }
    if cx.switches.invalid_source == Scope::Request {
        check_source(cx, row)?;
    }
    Ok(())
}

fn check_source(cx: &Context<'_>, row: &Map<String, Value>) -> Result<(), RowError> {
    let Some(source) = row.get("source_id").filter(|source| !source.is_null()) else { return Ok(()) };
    let source = value::text(source).unwrap_or_default();
    if source.parse().is_ok_and(|id| cx.store.sources.has(id)) {
        return Ok(());
    }
    Err(RowError::new(2013, format!("Invalid source id: {source}")))
}

/// The state of one request while its rows are carried out.
struct Writer<'a, 'b> {
    cx: &'a mut Context<'b>,
    key: Key,
    mode: Mode,
    list: Option<u64>,
    /// Key values met so far, in the form in which they are compared.
    seen: HashSet<String>,
    created: HashSet<u64>,
}

impl Writer<'_, '_> {
    fn batch(&mut self, rows: &[&Map<String, Value>]) -> Value {
        let (mut ids, mut errors) = (Vec::new(), RowErrors::default());
        for row in rows {
            match self.row(row) {
                Ok(written) => ids.push(written.id()),
                Err(error) => {
                    let sent = self.key.value_in(row).unwrap_or_default();
                    errors.insert(sent, error);
                }
            }
        }
        if !self.cx.switches.ids_in_order {
            ids.reverse();
        }
        // Full success has no `errors` at all, it seems.
        if errors.is_empty() && !self.cx.switches.empty_errors_shown {
            return json!({ "ids": ids });
        }
        json!({ "ids": ids, "errors": errors.into_value() })
    }

    fn single(&mut self, row: &Map<String, Value>) -> Data {
        let written = self.row(row).map_err(|error| match error.code {
            2009 => RowError { code: self.cx.switches.exists_code, ..error },
            _ => error,
        })?;
        Ok(json!({ "id": written.id() }))
    }

    /// Carries out one row: all of it or nothing.
    fn row(&mut self, row: &Map<String, Value>) -> Result<Written, RowError> {
        let sent = self.key.value_in(row)?;
        let form = match self.key {
            Key::Field(field) => self.cx.store.key_form(field, &sent),
            Key::Id | Key::Uid => sent.clone(),
        };
        if !self.seen.insert(form) && self.cx.switches.duplicates == Duplicates::FirstWins {
            return Err(self.key.several(&sent));
        }
        self.interfere(&sent);
        let found = self.cx.store.find(self.key, &sent, Horizon::NONE);
        let written = match (found.as_slice(), self.mode) {
            ([], Mode::Update) => return Err(self.key.nobody(&sent)),
            ([], Mode::Create | Mode::Upsert) => self.create(row)?,
            (existing, Mode::Create) => {
                if let [contact] = existing
                    && self.cx.switches.existing_joins_list
                {
                    self.join(*contact);
                }
                return Err(already_exists(self.key));
            }
            ([contact], Mode::Update | Mode::Upsert) => {
                let values = self.values(row)?;
                for (field, value) in values {
                    // The key only says who is meant; it is not written back in another spelling.
                    if self.key != Key::Field(field) {
                        self.cx.store.set(*contact, field, value);
                    }
                }
                Written { contact: *contact, created: false }
            }
            (_, Mode::Update | Mode::Upsert) => return Err(self.key.several(&sent)),
        };
        if !(written.created && self.cx.twist == Some(Twist::SkipList)) {
            self.join(written.contact);
        }
        Ok(written)
    }

    /// What somebody else does just before, if a fault says so.
    fn interfere(&mut self, sent: &str) {
        let twist = self.cx.twist;
        if !matches!(twist, Some(Twist::Overtake | Twist::Vanish)) {
            return;
        }
        let found = self.cx.store.find(self.key, sent, Horizon::NONE);
        if twist == Some(Twist::Vanish) {
            for contact in found {
                self.cx.store.delete_contact(contact);
            }
        } else if let Key::Field(field) = self.key
            && found.is_empty()
            && self.mode != Mode::Update
        {
            self.cx.store.add_contact(self.cx.now, [(field, Stored::Text(sent.to_owned()))]);
        }
    }

    fn create(&mut self, row: &Map<String, Value>) -> Result<Written, RowError> {
        if !matches!(self.key, Key::Field(_)) {
            return Err(internal_key());
        }
        if row.contains_key("id") {
            return Err(RowError::new(2007, "Cannot set id or uid on contact creation"));
        }
        let values = self.values(row)?;
        if self.cx.twist == Some(Twist::Race) {
            return Err(already_exists(self.key));
        }
        self.refuse_known_email(&values)?;
        let values = values.into_iter().filter_map(|(field, value)| Some((field, value?)));
        let contact = self.cx.store.add_contact(self.cx.now, values);
        self.created.insert(contact);
        Ok(Written { contact, created: true })
    }

    /// The e-mail is checked for somebody who has it, also when another field is the key.
    fn refuse_known_email(&mut self, values: &[(u32, Option<Stored>)]) -> Result<(), RowError> {
        let email = values.iter().find(|(field, _)| *field == EMAIL).and_then(|(_, value)| value.as_ref());
        let Some(email) = email.and_then(Stored::as_text).filter(|email| !email.is_empty()) else {
            return Ok(());
        };
        if !self.cx.switches.email_unique_on_create || self.key == Key::Field(EMAIL) {
            return Ok(());
        }
        let owners = self.cx.store.find(Key::Field(EMAIL), email, Horizon::NONE);
        if owners.is_empty() {
            Ok(())
        } else if owners.iter().any(|owner| self.created.contains(owner)) {
            Err(RowError::new(2010, format!("Contacts with the external id already exist: {EMAIL}")))
        } else {
            Err(already_exists(Key::Field(EMAIL)))
        }
    }

    /// The values of a row, checked; `None` clears.
    fn values(&self, row: &Map<String, Value>) -> Result<Vec<(u32, Option<Stored>)>, RowError> {
        check_source(self.cx, row)?;
        let mut values = Vec::with_capacity(row.len());
        for (name, value) in row {
            // Members that are no numbers are ignored, as the real service does: also a misspelt `keyId`.
            let Some(id) = key::field_id(name) else { continue };
            let invalid = || RowError::new(2007, format!("Invalid field id: {id}"));
            let field = self.cx.catalog().field(id).ok_or_else(invalid)?;
            if field.is_read_only() && field.application_type() != "voucher" {
                if self.cx.switches.read_only_refused {
                    return Err(invalid());
                }
                continue;
            }
            values.push((id, value::check(self.cx.catalog(), self.cx.switches, field, value)?));
        }
        Ok(values)
    }

    fn join(&mut self, contact: u64) {
        if let Some(list) = self.list {
            self.cx.store.join(list, contact, self.cx.now);
        }
    }
}

fn already_exists(key: Key) -> RowError {
    RowError::new(2009, format!("Contact with the external id already exists: {key}"))
}

fn internal_key() -> RowError {
    RowError::new(2004, "Cannot use id or uid as key on contact creation")
}

pub(in super::super) fn delete(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let key = Key::parse(cx.catalog(), cx.switches, body.get("key_id"))?;
    // What the list does here is not documented: it must exist, and has no effect.
    cx.contact_list(body)?;
    let sent = body.get(&key.member()).unwrap_or(&Value::Null);
    let (contacts, errors) = if let Value::Array(sent) = sent {
        if sent.len() > CONTACTS_MAX {
            return Err(Failure::batch_too_long());
        }
        cx.resolve_all(key, sent, Horizon::NONE)
    } else {
        let value = key.value(sent)?;
        let contact = cx.resolve(key, &value, Horizon::NONE).map_err(|error| match error.code {
            2008 => Failure::new(cx.switches.delete_missing_status, error.code, error.text),
            _ => error.into(),
        })?;
        (vec![contact], RowErrors::default())
    };
    for contact in &contacts {
        cx.store.delete_contact(*contact);
    }
    match (cx.switches.deleted_counted, errors.is_empty()) {
        (true, _) => Ok(json!({ "errors": errors.into_value(), "deleted_contacts": contacts.len() })),
        (false, true) => Ok(json!({})),
        (false, false) => Ok(json!({ "errors": errors.into_value() })),
    }
}
