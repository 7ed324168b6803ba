//! The model of a destination: it takes real batches, and the world decides what becomes of them.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use reverse_etl::{
    Batch, Change, Delivery, Destination, Error, ErrorKind, FieldKind, FieldName, FieldSpec, Key, Limits,
    Operation, Outcome, Outcomes, Record, Result, Target, Value,
};

use crate::{
    host::yield_once,
    store::crash_point,
    world::{LATE, Request, RequestRow, Said, Sent, Service, Shared, What, World},
};

#[derive(Clone)]
pub(crate) struct ModelDestination {
    pub(crate) shared: Shared,
    pub(crate) limits: Limits,
}

impl fmt::Debug for ModelDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelDestination")
    }
}

pub(crate) fn limits(rows: usize, in_flight: usize, send_within: u64) -> Limits {
    Limits::rows(rows)
        .in_flight(in_flight)
        .late(Duration::from_secs(LATE))
        .send_within(Duration::from_secs(send_within))
        .clock_margin(Duration::ZERO)
}

fn field_number(name: &FieldName) -> Option<usize> {
    name.as_str().strip_prefix('f')?.parse().ok()
}

fn key_number(key: &Key) -> usize {
    key.as_str().as_bytes().get(1).map_or(0, |digit| usize::from(digit - b'0'))
}

#[async_trait]
impl Destination for ModelDestination {
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        crash_point(&self.shared).await;
        let world = self.shared.lock();
        let mut target = Target::new("model/people", FieldKind::Email, self.limits);
        target = match world.service {
            Service::Contacts if world.setup.inserts => target
                .offers([Operation::Update, Operation::Insert])
                .inserts_into(world.setup.list.to_string()),
            Service::Contacts => target.offers([Operation::Update]),
            Service::Records if world.offers_update => {
                target.offers([Operation::Update, Operation::Upsert, Operation::Remove])
            }
            Service::Records | Service::Members => target.offers([Operation::Upsert, Operation::Remove]),
        };
        target = target.finds();
        for spec in wanted {
            let id = field_number(spec.name()).map_or(900, |field| world.field_ids[field]);
            target = if id == 0 {
                target.creates(spec)
            } else {
                target.field(spec, FieldKind::Text { chars_max: 3 }, Some(&id.to_string()))
            };
        }
        Ok(target)
    }

    async fn prepare(&self, mut target: Target) -> Result<Target> {
        for spec in target.missing().to_vec() {
            crash_point(&self.shared).await;
            let mut world = self.shared.lock();
            if world.planning {
                world.violate("promise 7: planning created a field");
            }
            let field = field_number(spec.name()).unwrap_or_default();
            world.create_field(field);
            let id = world.field_ids[field].to_string();
            target = target.field(&spec, FieldKind::Text { chars_max: 3 }, Some(&id));
        }
        crash_point(&self.shared).await;
        Ok(target)
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        let request = self.request(batch);
        self.may_die_and_still_send(&request, batch).await;
        if self.shared.lock().choose.one_in(3) {
            yield_once().await;
        }
        if batch.is_expired() {
            return Err(Error::new(ErrorKind::Expired, "the time to send has passed"));
        }
        let said = match self.send(&request) {
            Ok(said) => said,
            Err(error) => {
                let said = if error.delivery() == Delivery::Unknown { Some(Said::Unknown) } else { None };
                self.hear(&request, |_| said);
                crash_point(&self.shared).await;
                return Err(error);
            }
        };
        self.hear(&request, |index| Some(said[index]));
        crash_point(&self.shared).await;
        let mut outcomes = batch.outcomes(|index, _| outcome(said[index]));
        for (place, rows) in batch.in_doubt(&outcomes) {
            self.add_to_list(batch, place, &rows, &mut outcomes).await;
        }
        Ok(outcomes)
    }

    async fn find(&self, keys: &[Key], _: &[FieldName]) -> Result<Vec<Option<Record>>> {
        crash_point(&self.shared).await;
        let world = self.shared.lock();
        let is_there = |key: &Key| world.held[key_number(key)].exists;
        Ok(keys.iter().map(|key| is_there(key).then(Record::new)).collect())
    }
}

fn outcome(said: Said) -> Outcome {
    match said {
        Said::Applied { created: true } => Outcome::created(),
        Said::Applied { created: false } => Outcome::applied(),
        Said::NoMatch => Outcome::NoMatch,
        Said::AlreadyExists => Outcome::AlreadyExists,
        Said::Rejected => Outcome::rejected("2007", "a value does not fit"),
        Said::Unknown => Outcome::Unknown,
    }
}

impl ModelDestination {
    fn request(&self, batch: &Batch) -> Request {
        let mut world = self.shared.lock();
        let what = match batch.operation() {
            Operation::Update => What::Update,
            Operation::Insert => What::Insert,
            Operation::Remove => What::Remove,
            _ => What::Upsert,
        };
        if what == What::Insert && !world.setup.inserts {
            world.violate("promise 5: an insert is sent with insert mode off");
        }
        let rows: Vec<RequestRow> = batch.changes().iter().map(|change| row(&world, change)).collect();
        for (row, change) in rows.iter().zip(batch.changes()) {
            check_row(&mut world, what, row, change);
        }
        let list = batch.place().and_then(|place| place.parse().ok()).unwrap_or(0);
        Request { what, rows, list }
    }

    /// The process may die and its request go out all the same.
    async fn may_die_and_still_send(&self, request: &Request, batch: &Batch) {
        let dies = {
            let mut world = self.shared.lock();
            let dies = world.rarely(16);
            if dies {
                world.log(|| format!("CRASH, and {:?} may still be sent", request.what));
                let expires = world.now + deadline_in(batch, &world) + LATE;
                world.send_late(request.clone(), expires);
                world.crashed = true;
            }
            dies
        };
        if dies {
            std::future::pending::<()>().await;
        }
        crash_point(&self.shared).await;
    }

    /// Sends a request; what becomes of it is chance.
    fn send(&self, request: &Request) -> Result<Vec<Said>> {
        let mut world = self.shared.lock();
        world.writes += 1;
        if world.planning {
            world.violate("promise 7: planning sent a write request");
        }
        let is_bad = |row: &RequestRow| row.fields.iter().any(|(_, _, value)| *value == Value::from("BAD"));
        if world.one_bad_row_refuses_all && request.what != What::Remove && request.rows.iter().any(is_bad) {
            let now = world.now;
            request.rows.iter().for_each(|row| world.heard_at[row.key] = now);
            world.log(|| format!("{:?} refused as a whole for one row", request.what));
            return Err(Error::refused_for_a_row("2006", "the request was refused for one of its rows"));
        }
        let fate = world.fate(8);
        world.log(|| {
            let what = request.what;
            let fates = [
                "",
                "lost",
                "applied, answer lost",
                "late",
                "refused",
                "a row refused",
                "half told",
                "forbidden",
            ];
            format!("send {what:?}: {}", fates[fate])
        });
        let no_answer = || Error::no_answer("the model", std::io::Error::other("gone"));
        match fate {
            1 => Err(no_answer()),
            2 => {
                world.effect(request, true, None);
                Err(no_answer())
            }
            3 => {
                let expires = world.now + LATE;
                world.send_late(request.clone(), expires);
                Err(no_answer())
            }
            4 => Err(Error::new(ErrorKind::Server, "overloaded").with_delivery(Delivery::Refused)),
            5 => {
                let refused = world.choose.below(request.rows.len());
                Ok(world.effect(request, false, Some(refused)))
            }
            6 => {
                let mut said = world.effect(request, true, None);
                for said in &mut said {
                    if matches!(said, Said::Applied { .. }) {
                        *said = Said::Unknown;
                    }
                }
                Ok(said)
            }
            7 if world.choose.one_in(4) => Err(Error::new(ErrorKind::Forbidden, "a permission is missing")),
            _ => Ok(world.effect(request, false, None)),
        }
    }

    /// The process hears what became of its request.
    fn hear(&self, request: &Request, said: impl Fn(usize) -> Option<Said>) {
        let mut world = self.shared.lock();
        for (index, row) in request.rows.iter().enumerate() {
            let Some(said) = said(index) else { continue };
            world.said.insert(row.key, said);
            world.heard_at[row.key] = world.now;
            if matches!(said, Said::Applied { .. }) {
                world.acknowledged_at[row.key] = world.edits[row.key];
            }
        }
    }

    async fn add_to_list(&self, batch: &Batch, place: &str, rows: &[usize], outcomes: &mut Outcomes) {
        let keys: Vec<usize> = rows.iter().map(|index| key_number(batch.changes()[*index].key())).collect();
        let result = if batch.is_expired() {
            Err(Error::new(ErrorKind::Expired, "the time to send has passed"))
        } else {
            let row = |key: &usize| RequestRow {
                key: *key,
                fields: Vec::new(),
                is_refused_at_creation: false,
                met_nobody: None,
            };
            let list = place.parse().unwrap_or(0);
            self.send(&Request { what: What::AddToList, rows: keys.iter().map(row).collect(), list })
        };
        let unknown: Vec<usize> = match &result {
            Err(_) => rows.to_vec(),
            Ok(said) => {
                let pairs = rows.iter().zip(said);
                pairs.filter(|(_, said)| !matches!(said, Said::Applied { .. })).map(|(row, _)| *row).collect()
            }
        };
        for index in &unknown {
            self.shared.lock().said.insert(key_number(batch.changes()[*index].key()), Said::Unknown);
        }
        match result {
            Err(error) => outcomes.interrupt(rows, error),
            Ok(_) => unknown.iter().for_each(|index| outcomes.set(*index, Outcome::Unknown)),
        }
        crash_point(&self.shared).await;
    }
}

/// How many seconds are left to send a batch.
fn deadline_in(batch: &Batch, world: &World) -> u64 {
    let now = crate::host::wall(world.now);
    batch.deadline().wall().duration_since(now).unwrap_or_default().as_secs()
}

fn row(world: &World, change: &Change) -> RequestRow {
    let key = key_number(change.key());
    let fields = change
        .fields()
        .iter()
        .filter_map(|field| {
            let id = field.id().and_then(|id| id.parse().ok()).unwrap_or(0);
            Some((field_number(field.name())?, id, field.value().into_owned()))
        })
        .collect();
    let is_refused_at_creation =
        change.on_create().iter().any(|field| field.value() == Value::from("bad").as_ref());
    let met_nobody = world.last_nobody[key].filter(|met| *met > world.run_began);
    RequestRow { key, fields, is_refused_at_creation, met_nobody }
}

/// Promise 4 and the rules of back-off, as the destination sees them.
fn check_row(world: &mut World, what: What, row: &RequestRow, change: &Change) {
    let key = row.key;
    let mut fields: Vec<(Option<u16>, Value)> =
        row.fields.iter().map(|(field, _, value)| (world.slot(*field), value.clone())).collect();
    fields.sort_by_key(|(slot, _)| *slot);
    let is_empty = fields.is_empty();
    let creation_refused = (!change.on_create().is_empty()).then_some(row.is_refused_at_creation);
    let sent = Sent { fields, creation_refused, is_removal: what == What::Remove };
    if matches!(what, What::Update | What::Upsert) {
        for (field, id, value) in &row.fields {
            let slots = world.slots.iter().filter(|(_, named)| **named == (*field, *id));
            let unchanged: Vec<u16> = slots
                .map(|(slot, _)| *slot)
                .filter(|slot| world.forgotten[key].get(slot) == Some(&world.print(*slot, Some(value))))
                .collect();
            if !unchanged.is_empty() {
                world.violate(format!(
                    "promise 4: field {field} of {key} is sent although it has not changed"
                ));
            }
        }
    }
    for (field, ..) in &row.fields {
        if !world.setup.mapped[*field] {
            world.violate(format!("promise 4: field {field} of {key} is sent and not mapped"));
        }
    }
    let is_in_source = change.row().is_some();
    if let Some(refused) = world.refused[key].clone()
        && is_in_source
        && !is_empty
        && refused.sent == sent
        && world.now < refused.next
    {
        world.violate(format!("the rejected row {key} is sent unchanged before its back-off ends"));
    }
    if what == What::Remove && !world.removable[key] {
        world.violate(format!("{key} is removed, and is neither ours nor in doubt"));
    }
    // A row that is resolved by its key alone carries nothing that could be refused in place of what was.
    let is_in_doubt =
        world.records[key].as_ref().is_some_and(reverse_etl::state::record::RowRecord::is_in_doubt);
    let is_resolved = is_empty && what == What::Update && is_in_doubt && world.refused[key].is_some();
    if !is_resolved {
        world.last_sent[key] = sent;
    }
}
