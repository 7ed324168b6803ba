//! How a story words what happens: fields by the names of their columns, wherever they are met.

use reverse_etl::{
    Counts, Tally,
    emarsys::FieldId,
    state::record::{Doubt, Held, Mark, RowRecord},
};
use serde_json::Value as Json;

use super::{source::FIELDS, world::World};

/// The column whose values are for creation.
pub(crate) const ORIGIN: &str = "origin";

impl World {
    /// The column of a field, whatever id it has.
    fn column(&self, id: FieldId) -> String {
        let by_id = (0..FIELDS.len()).find(|field| self.field_id(*field) == Some(id));
        let by_slot = || {
            let (name, _) = self.slot_of.keys().find(|(_, known)| *known == id)?;
            FIELDS.iter().position(|(_, field)| field == name)
        };
        match by_id.or_else(by_slot) {
            Some(field) => FIELDS[field].0.to_owned(),
            None if id == FieldId::CITY => ORIGIN.to_owned(),
            None => format!("field {id}"),
        }
    }

    /// A row of a request.
    pub(crate) fn told_sent(&self, (email, row): &(String, Json)) -> String {
        let key = email.split('@').next().unwrap_or_default();
        let fields = row.as_object().into_iter().flatten();
        let fields = fields.filter_map(|(id, value)| Some((FieldId::new(id.parse().ok()?), value)));
        let fields = fields.filter(|(id, _)| *id != FieldId::EMAIL);
        let fields: Vec<String> = fields.map(|(id, value)| format!("{} {value}", self.column(id))).collect();
        format!("{key} ({})", fields.join(", "))
    }

    /// What the account has of a key.
    pub(crate) fn told_contacts(&self, key: usize) -> String {
        let lists = self.sandbox.lists();
        let ids = self.sandbox.fields();
        let contacts = self.contacts(key).into_iter().map(|contact| {
            let values = ids.iter().map(|field| (field.id(), contact.value(field.id())));
            let values =
                values.filter(|(id, value)| *id != FieldId::EMAIL && !value.is_null() && **value != "");
            let values: Vec<String> =
                values.map(|(id, value)| format!("{} {value}", self.column(id))).collect();
            let is_in =
                |list: &&reverse_etl::emarsys::sandbox::StoredList| contact.lists().contains(&list.id());
            let lists: Vec<&str> =
                lists.iter().filter(is_in).map(reverse_etl::emarsys::sandbox::StoredList::name).collect();
            let lists =
                if lists.is_empty() { String::new() } else { format!(", in {}", lists.join(" and ")) };
            format!("({}){lists}", values.join(", "))
        });
        let contacts: Vec<String> = contacts.collect();
        if contacts.is_empty() { "nobody".to_owned() } else { contacts.join(" and ") }
    }

    /// What the state has of a key.
    pub(crate) fn told_record(&self, record: Option<&RowRecord>) -> String {
        let Some(record) = record else { return "no record".to_owned() };
        let slots = self.slots.iter().filter(|(slot, _)| record.field(**slot).is_some());
        let fields: Vec<String> = slots.map(|(_, id)| self.column(*id)).collect();
        let mut text = format!("acknowledged [{}]", fields.join(", "));
        for (is_so, word) in [
            (record.row().is_some(), "settled"),
            (record.is_known(), "known to exist"),
            (record.held() == Some(Held::Missing), "missing there when last asked for"),
            (record.held() == Some(Held::Rejected), "refused"),
        ] {
            if is_so {
                text.push_str(", ");
                text.push_str(word);
            }
        }
        match record.mark().map(Mark::doubt) {
            None => {}
            Some(Doubt::Exists { place: Some(place) }) => {
                text.push_str(", in doubt: perhaps created for ");
                text.push_str(self.list_name(place.parse().ok()));
            }
            Some(Doubt::Exists { place: None }) => text.push_str(", in doubt"),
            Some(_) => text.push_str(", something was sent"),
        }
        text
    }
}

fn nonzero(counts: &[(&str, u64)]) -> String {
    let counts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}

pub(crate) fn told_counts(counts: &Counts) -> String {
    nonzero(&[
        ("unchanged", counts.unchanged),
        ("held", counts.held),
        ("added", counts.added),
        ("changed", counts.changed),
        ("invalid", counts.invalid),
        ("duplicate", counts.duplicate),
        ("to be resolved", counts.resolved),
        ("fields", counts.fields),
    ])
}

pub(crate) fn told_tally(tally: &Tally) -> String {
    nonzero(&[
        ("applied", tally.applied),
        ("no match", tally.no_match),
        ("rejected", tally.rejected),
        ("unknown", tally.unknown),
        ("not attempted", tally.not_attempted),
    ])
}
