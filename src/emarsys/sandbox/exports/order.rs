//! The calls that ask for an export: what is wrong with them, and what the export holds.

use serde_json::{Map, Value, json};

use super::{
    super::{
        catalog::{Catalog, OPT_IN, StoredField},
        context::Context,
        endpoint::Endpoint,
        faults::Twist,
        fields, key,
        reply::{Data, Failure},
        segments,
        store::Store,
        value::{self, Stored},
    },
    book::{Export, Progress},
    csv::{self, File},
    time_range::TimeRange,
};

/// Fields in one export.
const FIELDS_MAX: usize = 20;
/// Fields that cannot be exported.
const REFUSED: [u32; 5] = [27, 28, 29, 32, 33];

const METHODS: [&str; 4] = ["local", "sftp", "ftp", "mail"];
const ORIGINS: [&str; 3] = ["form", "api", "all"];

/// How the file is to look.
struct Form {
    fields: Vec<StoredField>,
    delimiter: char,
    header: bool,
    choice_ids: bool,
}

pub(super) fn place(cx: &mut Context<'_>, endpoint: Endpoint, body: Map<String, Value>) -> Data {
    let method = required(&body, "distribution_method")?;
    let method = one_of(&METHODS, method).map_err(|sent| invalid(&format!("distribution method: {sent}")))?;
    let form = Form::parse(cx, &body)?;
    let (kind, contacts) = match endpoint {
        Endpoint::ExportChanges => {
            ("changes", changed(cx, &TimeRange::parse(required(&body, "time_range")?)?))
        }
        Endpoint::ExportRegistrations => {
            ("registrations", registered(cx, &TimeRange::parse(required(&body, "time_range")?)?))
        }
        Endpoint::ExportList => ("contactlist", members(cx, required(&body, "contactlist")?)?),
        Endpoint::ExportSegment => ("filter", inside(cx, required(&body, "filter")?)?),
        other => return Err(Failure::not_served(other)),
    };
    let is_same = |export: &Export| export.kind == kind && export.body == body;
    let is_running = |export: &Export| {
        matches!(export.progress(cx.now, cx.switches), Progress::Scheduled | Progress::Running)
    };
    if cx.store.exports.iter().any(|export| is_same(export) && is_running(export)) {
        let text = "An export with the same setting is currently running. It is not possible to run the same export \
                    more than once simultaneously.";
        return Err(Failure::bad(4001, text));
    }
    let file = form.file(cx.store, &contacts);
    let fails = cx.twist == Some(Twist::FailExport);
    let export = Export { kind, created: cx.now, body, local: method == "local", fails, file };
    Ok(json!({ "id": cx.store.exports.add(export) }))
}

fn changed(cx: &Context<'_>, range: &TimeRange) -> Vec<u64> {
    let moment = |contact| {
        let changed = cx.store.changed(contact);
        if cx.switches.changes_only_of_email_and_opt_in { changed.email_or_opt_in } else { changed.any }
    };
    let contacts = cx.store.contacts(cx.horizon());
    contacts.filter(|contact| moment(*contact).is_some_and(|moment| range.holds(moment))).collect()
}

fn registered(cx: &Context<'_>, range: &TimeRange) -> Vec<u64> {
    let inside = |contact| cx.store.created(contact).is_some_and(|created| range.holds(created));
    cx.store.contacts(cx.horizon()).filter(|contact| inside(*contact)).collect()
}

fn members(cx: &Context<'_>, list: &Value) -> Result<Vec<u64>, Failure> {
    let list = value::text(list).and_then(|id| cx.store.list(id.parse().ok()?)).ok_or_else(parameters)?;
    Ok(list.members(cx.horizon()).collect())
}

fn inside(cx: &Context<'_>, segment: &Value) -> Result<Vec<u64>, Failure> {
    let segment = value::text(segment).and_then(|id| id.parse().ok());
    let segment = segment.filter(|id| cx.store.segments.exists(*id)).ok_or_else(parameters)?;
    Ok(segments::contacts(cx.store, segment, cx.horizon()))
}

impl Form {
    fn parse(cx: &Context<'_>, body: &Map<String, Value>) -> Result<Self, Failure> {
        let sent = |name: &str| body.get(name).filter(|sent| !sent.is_null());
        let fields = exported(cx.catalog(), required(body, "contact_fields")?)?;
        let wrong = |name: &str, sent: &str| invalid(&format!("value for {name}: {sent}"));
        let delimiter = sent("delimiter").map_or(Ok(","), |sent| one_of(&[",", ";"], sent));
        let delimiter = delimiter.map_err(|sent| wrong("delimiter", &sent))?;
        let header = sent("add_field_names_header").map_or(Ok("1"), |sent| one_of(&["0", "1"], sent));
        let header = header.map_err(|sent| wrong("add_field_names_header", &sent))? == "1";
        fields::check_language(sent("language").and_then(value::text).as_deref())?;
        if let Some(origin) = sent("origin") {
            one_of(&ORIGINS, origin).map_err(|sent| invalid(&format!("origin: {sent}")))?;
        }
        let delimiter = if delimiter == ";" { ';' } else { ',' };
        Ok(Self { fields, delimiter, header, choice_ids: cx.switches.export_choice_ids })
    }

    fn file(&self, store: &Store, contacts: &[u64]) -> File {
        let names = self.fields.iter().map(|field| field.name().to_owned());
        let header = std::iter::once("user_id".to_owned()).chain(names);
        let header = self.header.then(|| csv::line(header, self.delimiter));
        let cell = |contact: u64, field: &StoredField| {
            store.value(contact, field.id).map_or_else(String::new, |value| self.cell(store, field, value))
        };
        let row = |contact: &u64| {
            let cells = self.fields.iter().map(|field| cell(*contact, field));
            csv::line(std::iter::once(contact.to_string()).chain(cells), self.delimiter)
        };
        File { header, rows: contacts.iter().map(row).collect() }
    }

    /// A value as an export shows it: choices by their labels, unless switched.
    fn cell(&self, store: &Store, field: &StoredField, value: &Stored) -> String {
        let choice = |id: u64| {
            let label = store.catalog.choices(field.id).and_then(|choices| choices.get(&id));
            label.filter(|_| !self.choice_ids).cloned().unwrap_or_else(|| id.to_string())
        };
        match value {
            Stored::Choices(choices) => choices.iter().map(|id| choice(*id)).collect::<Vec<_>>().join(","),
            Stored::Text(text) if field.id == OPT_IN && !self.choice_ids => match text.as_str() {
                "1" => "True".to_owned(),
                "2" => "False".to_owned(),
                other => other.to_owned(),
            },
            Stored::Text(text) if field.application_type() == "singlechoice" => {
                text.parse().map_or_else(|_| text.clone(), choice)
            }
            Stored::Text(text) => text.clone(),
        }
    }
}

fn exported(catalog: &Catalog, sent: &Value) -> Result<Vec<StoredField>, Failure> {
    let sent = sent.as_array().ok_or_else(|| invalid("data format for contact_fields. Array expected"))?;
    if sent.is_empty() || sent.len() > FIELDS_MAX {
        return Err(invalid("number of fields"));
    }
    let (mut fields, mut wrong) = (Vec::new(), Vec::new());
    for name in sent.iter().map(|name| value::text(name).unwrap_or_default()) {
        match key::field_id(&name).filter(|id| !REFUSED.contains(id)).and_then(|id| catalog.field(id)) {
            Some(field) => fields.push(field.clone()),
            None => wrong.push(name),
        }
    }
    if wrong.is_empty() {
        Ok(fields)
    } else {
        Err(invalid(&format!("contact field id: {}", wrong.join(", "))))
    }
}

fn required<'a>(body: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Failure> {
    let sent = body.get(name).filter(|sent| !sent.is_null());
    sent.ok_or_else(|| Failure::bad(10_001, format!("Missing parameter: {name}")))
}

/// Which of some words a value is; the error is the value.
fn one_of<'a>(words: &[&'a str], sent: &Value) -> Result<&'a str, String> {
    let sent = value::text(sent).unwrap_or_default();
    words.iter().find(|word| **word == sent).copied().ok_or(sent)
}

pub(super) fn invalid(what: &str) -> Failure {
    Failure::bad(10_001, format!("Invalid {what}"))
}

fn parameters() -> Failure {
    Failure::bad(4000, "One or more parameters are invalid.")
}
