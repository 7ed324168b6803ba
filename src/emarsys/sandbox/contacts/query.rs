//! `GET contact/query`: one field of all contacts, or of those with a value in another.

use serde_json::{Map, Value, json};

use super::{
    super::{
        context::Context,
        endpoint::Query,
        key::{self, Key},
        reply::{Data, Failure},
        value::Stored,
    },
    read,
};

/// Contacts on one page; also how many there are if the caller does not say.
const PAGE_MAX: usize = 10_000;

/// Members of the query that are no filter.
const OPTIONS: [&str; 4] = ["return", "limit", "offset", "excludeempty"];

pub(in super::super) fn query(cx: &mut Context<'_>, query: &Query) -> Data {
    let wanted = query.get("return").unwrap_or_default();
    if wanted.is_empty() {
        return without_return(cx, query);
    }
    let wanted = known_field(cx, wanted)?;
    let page = number(query.get("limit"), PAGE_MAX).filter(|limit| (1..=PAGE_MAX).contains(limit));
    let page = page.ok_or_else(|| Failure::bad(2016, "Invalid limit"))?;
    // Nothing is known about a bad offset but the code for parameters in general.
    let offset = number(query.get("offset"), 0).ok_or_else(Failure::parameters)?;
    let filled_only = query.get("excludeempty") == Some("true");
    let found = filtered(cx, query)?;
    let kept = |contact: &u64| !filled_only || !is_empty(cx.store.value(*contact, wanted));
    let row = |contact: u64| {
        let value = cx.store.value(contact, wanted).map_or(Value::Null, Stored::to_json);
        Map::from_iter([("id".to_owned(), json!(contact)), (wanted.to_string(), value)])
    };
    let rows: Vec<_> = if cx.switches.query_pages_with_gaps {
        found.into_iter().skip(offset).take(page).filter(kept).map(row).collect()
    } else {
        found.into_iter().filter(kept).skip(offset).take(page).map(row).collect()
    };
    Ok(json!({ "errors": [], "result": rows }))
}

/// One source says that this looks up one contact, another that it is an error.
fn without_return(cx: &mut Context<'_>, query: &Query) -> Data {
    if !cx.switches.query_without_return {
        return Err(Failure::bad(2014, "No field specified to return"));
    }
    Ok(json!({ "id": read::find_one(cx, query)? }))
}

/// The contacts that pass all filters, ascending.
fn filtered(cx: &mut Context<'_>, query: &Query) -> Result<Vec<u64>, Failure> {
    let horizon = cx.horizon();
    let mut passed: Option<Vec<u64>> = None;
    for (name, value) in query.pairs().filter(|(name, _)| !OPTIONS.contains(name)) {
        let field = known_field(cx, name)?;
        if !cx.store.is_indexed(field) {
            return Err(Failure::bad(2015, format!("No index on column {field}")));
        }
        let with = if value.is_empty() {
            cx.store.contacts(horizon).filter(|id| is_empty(cx.store.value(*id, field))).collect()
        } else {
            cx.store.find(Key::Field(field), value, horizon)
        };
        passed = Some(match passed {
            Some(before) => before.into_iter().filter(|id| with.binary_search(id).is_ok()).collect(),
            None => with,
        });
    }
    Ok(passed.unwrap_or_else(|| cx.store.contacts(horizon).collect()))
}

fn known_field(cx: &Context<'_>, name: &str) -> Result<u32, Failure> {
    let known = key::field_id(name).filter(|id| cx.catalog().field(*id).is_some());
    known.ok_or_else(|| Failure::bad(2006, format!("Invalid field id: {name}")))
}

fn is_empty(value: Option<&Stored>) -> bool {
    value.is_none_or(|value| value.as_text() == Some(""))
}

fn number(sent: Option<&str>, default: usize) -> Option<usize> {
    sent.map_or(Some(default), |sent| sent.parse().ok())
}
