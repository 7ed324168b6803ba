//! `contactlist`: lists and who is in them. These calls never create a contact.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    catalog::same_name,
    context::Context,
    endpoint::{Query, Route},
    exchange::Request,
    faults::Twist,
    key::{self, Key},
    limits::{LIST_IDS_MAX, PAGE_DEFAULT, PAGE_MAX},
    reply::{Data, Failure, RowErrors, map_or_list},
    segments,
    store::{Horizon, List},
    value::{self, Stored},
    vienna,
};

/// Members in one deprecated read.
const MEMBERS_MAX: usize = 1_000_000;
/// Members in the deprecated read with values if the caller does not say.
const DATA_DEFAULT: usize = 1_000;

/// What a call does with the contacts that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Add,
    Remove,
    Replace,
}

/// Newest first.
pub(super) fn list(cx: &Context<'_>) -> Value {
    let horizon = cx.horizon();
    let print = |(id, list): (u64, &List)| {
        json!({
            "id": id.to_string(),
            "name": list.name,
            "created": vienna::print(list.created),
            "type": 0,
        })
    };
    cx.store.lists().rev().filter(|(_, list)| horizon.shows(list.created)).map(print).collect()
}

pub(super) fn create(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let refused = |code, text: &str| Failure::new(cx.switches.creation_error_status, code, text);
    let name = body.get("name").and_then(value::text).unwrap_or_default();
    if name.trim().is_empty() {
        return Err(refused(3001, "List name is not set."));
    }
    let description = body.get("description").and_then(value::text).unwrap_or_default();
    for (what, text) in [("List name", &name), ("Description", &description)] {
        if has_invalid_characters(text) {
            return Err(refused(3004, &format!("{what} contains invalid character(s).")));
        }
    }
    let members = match body.get("external_ids") {
        None => &[],
        sent => external_ids(sent, cx.switches.creation_error_status)?,
    };
    let key = Key::parse_for_read(cx.catalog(), cx.switches, body.get("key_id"));
    // The key of an empty list does not matter; clients in use send a name there.
    let key = if members.is_empty() { key.unwrap_or(Key::DEFAULT) } else { key? };
    if is_taken(cx, &name) {
        return Err(refused(3005, "Contact list with the requested name already exists."));
    }
    let (contacts, errors) = cx.resolve_all(key, members, Horizon::NONE);
    let list = cx.store.add_list(cx.now, &name);
    for contact in contacts {
        cx.store.join(list, contact, cx.now);
    }
    if members.is_empty() {
        Ok(json!({ "id": list }))
    } else {
        Ok(json!({ "id": list, "errors": errors.into_value() }))
    }
}

pub(super) fn edit(cx: &mut Context<'_>, list: u64, body: &Map<String, Value>, edit: Edit) -> Data {
    if cx.store.list(list).is_none() {
        return Err(Failure::bad(3004, format!("Invalid contact list id: {list}")));
    }
    let mut sent = external_ids(body.get("external_ids"), 400)?;
    if cx.twist == Some(Twist::Half) {
        sent = &sent[..sent.len() / 2];
    }
    let key = Key::parse_for_read(cx.catalog(), cx.switches, body.get("key_id"))?;
    let (contacts, errors) = cx.resolve_all(key, sent, Horizon::NONE);
    if edit == Edit::Replace {
        let members: Vec<u64> =
            cx.store.list(list).into_iter().flat_map(|list| list.members(Horizon::NONE)).collect();
        for member in members.into_iter().filter(|member| contacts.binary_search(member).is_err()) {
            cx.store.leave(list, member);
        }
    }
    let mut moved = 0;
    for contact in &contacts {
        let changed = match edit {
            Edit::Add | Edit::Replace => cx.store.join(list, *contact, cx.now),
            Edit::Remove => cx.store.leave(list, *contact),
        };
        moved += usize::from(changed);
    }
    let count = if cx.switches.existing_members_counted { contacts.len() } else { moved };
    Ok(answer(edit, count, errors))
}

fn answer(edit: Edit, count: usize, errors: RowErrors) -> Value {
    let errors = errors.into_value();
    match edit {
        Edit::Add | Edit::Replace => json!({ "inserted_contacts": count, "errors": errors }),
        Edit::Remove => json!({ "deleted_contacts": count, "errors": errors }),
    }
}

pub(super) fn rename(cx: &mut Context<'_>, list: u64, body: &Map<String, Value>) -> Data {
    let name = body.get("name").and_then(value::text).unwrap_or_default();
    if name.trim().is_empty() {
        return Err(Failure::bad(3004, "Parameter name is required."));
    }
    if has_invalid_characters(&name) {
        return Err(Failure::bad(3004, "List name contains invalid character(s)."));
    }
    let current = cx.store.list(list).ok_or_else(Failure::no_list)?;
    if !same_name(&current.name, &name) && is_taken(cx, &name) {
        let text = "Contact list with the requested name already exists.";
        return Err(Failure::new(cx.switches.creation_error_status, 3005, text));
    }
    cx.store.rename_list(list, &name);
    Ok(json!({ "id": list, "name": name }))
}

pub(super) fn delete(cx: &mut Context<'_>, list: u64) -> Data {
    if cx.store.list(list).is_some() && segments::uses_list(cx.store, list) {
        return Err(Failure::bad(3008, "The contact list is used in a combined segment."));
    }
    if cx.store.delete_list(list) { Ok(json!({})) } else { Err(Failure::no_list()) }
}

pub(super) fn count(cx: &Context<'_>, list: u64) -> Data {
    let list = cx.store.list(list).ok_or_else(Failure::no_list)?;
    Ok(json!(list.members(cx.horizon()).count()))
}

/// One page of members. The token is the last contact of the page before, so it holds while members come and go.
pub(super) fn contact_ids(cx: &Context<'_>, id: u64, query: &Query) -> Data {
    let list = cx.store.list(id).ok_or_else(Failure::no_list)?;
    let number = |name: &str, default: usize| match query.get(name) {
        None => Ok(default),
        Some(sent) => sent
            .parse()
            .map_err(|_| Failure::bad(10_001, format!("Invalid data format for {name}. Integer expected."))),
    };
    let page = number("$top", PAGE_DEFAULT)?;
    let after = u64::try_from(number("$skiptoken", 0)?).unwrap_or(u64::MAX);
    if page > PAGE_MAX || page == 0 {
        return Err(Failure::bad(10_001, "$top must be less than 100000"));
    }
    let mut rest = list.members(cx.horizon()).filter(|contact| *contact > after);
    let value: Vec<u64> = rest.by_ref().take(page).collect();
    let next = match (value.last().copied(), rest.next()) {
        (Some(token), Some(_)) => {
            json!(format!("/contactlist/{id}/contactIds?$skiptoken={token}&$top={page}"))
        }
        _ => Value::Null,
    };
    Ok(json!({ "value": value, "next": next }))
}

/// The deprecated read of all members. With an array of contacts as the body it says of each whether it is a member.
pub(super) fn contacts(cx: &Context<'_>, request: &Request, route: &Route) -> Data {
    if let Ok(Value::Array(asked)) = serde_json::from_slice(&request.body) {
        let list = cx.store.list(route.id).ok_or_else(no_such_list)?;
        let members: BTreeSet<u64> = list.members(cx.horizon()).collect();
        let is_member = |id: &Value| value::text(id)?.parse().ok().map(|id: u64| members.contains(&id));
        return Ok(asked.iter().map(|id| is_member(id).unwrap_or_default()).collect());
    }
    let members = deprecated_page(cx, route, MEMBERS_MAX)?;
    Ok(members.iter().map(u64::to_string).collect())
}

/// The deprecated read of all members with values.
pub(super) fn contact_data(cx: &Context<'_>, route: &Route) -> Data {
    let members = deprecated_page(cx, route, DATA_DEFAULT)?;
    let names = route.query.get("fields").unwrap_or_default();
    let names: Vec<_> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Failure::bad(3007, "Contact fields value is not set."));
    }
    let field = |name: &&str| {
        let by_number = key::field_id(name).and_then(|id| cx.catalog().field(id));
        let field = by_number.or_else(|| cx.catalog().named(name));
        let field = field.ok_or_else(|| Failure::bad(2006, format!("Invalid field id: {name}")))?;
        // A name that was asked for is the name in the reply.
        Ok(((*name).to_owned(), field.id))
    };
    let fields: Vec<(String, u32)> = names.iter().map(field).collect::<Result<_, Failure>>()?;
    let row = |contact: u64| {
        let mut row = Map::new();
        for (name, field) in &fields {
            let value = cx.store.value(contact, *field).map_or(Value::Null, Stored::to_json);
            row.insert(name.clone(), value);
        }
        row.insert("id".to_owned(), json!(contact.to_string()));
        row.insert("uid".to_owned(), json!(cx.store.uid(contact)));
        (contact.to_string(), json!({ "fields": row }))
    };
    Ok(map_or_list(members.into_iter().map(row).collect()))
}

/// Whether one contact is a member.
pub(super) fn has_contact(cx: &Context<'_>, route: &Route) -> Data {
    let list = cx.store.list(route.id).ok_or_else(Failure::no_list)?;
    Ok(json!(list.members(cx.horizon()).any(|member| member.to_string() == route.item)))
}

/// One page of members, for the reads that may be gone.
fn deprecated_page(cx: &Context<'_>, route: &Route, default: usize) -> Result<Vec<u64>, Failure> {
    let list = cx.store.list(route.id).filter(|_| cx.switches.deprecated_reads).ok_or_else(no_such_list)?;
    let number = |name: &str, default: usize| match route.query.get(name) {
        None => Ok(default),
        Some(sent) => sent.parse().map_err(|_| Failure::bad(10_001, format!("Invalid {name}"))),
    };
    let (limit, offset) = (number("limit", default)?, number("offset", 0)?);
    if limit > MEMBERS_MAX {
        return Err(Failure::bad(10_001, "Invalid limit"));
    }
    Ok(list.members(cx.horizon()).skip(offset).take(limit).collect())
}

fn no_such_list() -> Failure {
    Failure::new(404, 3006, "List does not exist")
}

/// Which characters are invalid is not known; these are likely to be.
fn has_invalid_characters(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_taken(cx: &Context<'_>, name: &str) -> bool {
    cx.store.lists().any(|(_, list)| same_name(&list.name, name))
}

fn external_ids(sent: Option<&Value>, status: u16) -> Result<&[Value], Failure> {
    let refused = |code, text: &str| Failure::new(status, code, text);
    match sent {
        Some(Value::Array(ids)) if ids.len() > LIST_IDS_MAX => {
            Err(refused(3002, "The list of external IDs exceeds the maximum size."))
        }
        Some(Value::Array(ids)) => Ok(ids),
        _ => Err(refused(3003, "Invalid datatype for the list of external IDs. Array expected.")),
    }
}
