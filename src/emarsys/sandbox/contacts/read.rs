//! `GET contact`, `POST contact/checkids` and `POST contact/getdata`.

use serde_json::{Map, Value, json};

use super::super::{
    context::Context,
    endpoint::Query,
    key::{self, Key},
    limits::CONTACTS_MAX,
    reply::{Data, Failure, RowError, RowErrors, map_or_list},
    value::{self, Stored},
};

/// The internal id of the one contact with a value: `GET contact/?3=ada@shop.test`.
pub(in super::super) fn find(cx: &mut Context<'_>, query: &Query) -> Data {
    let contact = find_one(cx, query)?;
    let id = if cx.switches.found_id_as_number { json!(contact) } else { json!(contact.to_string()) };
    Ok(json!({ "id": id }))
}

pub(super) fn find_one(cx: &mut Context<'_>, query: &Query) -> Result<u64, Failure> {
    let (name, value) = query.pairs().next().unwrap_or_default();
    let key = Key::parse(cx.catalog(), cx.switches, Some(&json!(name)))?;
    let value = key.value(&json!(value))?;
    Ok(cx.resolve(key, &value, cx.horizon())?)
}

pub(in super::super) fn check_ids(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let key = Key::parse_for_read(cx.catalog(), cx.switches, body.get("key_id"))?;
    let Some(sent) = body.get("external_ids").and_then(Value::as_array) else {
        return Err(Failure::bad(2003, "Invalid datatype for the list of external ids. Array expected."));
    };
    if sent.len() > CONTACTS_MAX {
        return Err(ids_too_long());
    }
    let list = cx.contact_list(body)?;
    let all = body.get("get_multiple_ids").is_some_and(value::is_true);
    let (mut ids, mut errors) = (Map::new(), RowErrors::default());
    for value in sent {
        let text = match cx.key_text(key, value) {
            Ok(text) => text,
            Err(error) => {
                errors.insert(String::new(), error);
                continue;
            }
        };
        let found = cx.store.find(key, &text, cx.horizon());
        let answer = match found.as_slice() {
            [] => {
                errors.insert(text, nobody(key));
                continue;
            }
            [contact] if !all => json!(contact.to_string()),
            contacts if all => contacts.iter().map(u64::to_string).collect(),
            _ => {
                errors.insert(text.clone(), key.several(&text));
                continue;
            }
        };
        ids.insert(text, answer);
        for contact in found {
            if let Some(list) = list {
                cx.store.join(list, contact, cx.now);
            }
        }
    }
    Ok(json!({ "ids": map_or_list(ids), "errors": errors.into_value() }))
}

/// A call whose members are written in camel case, and whose errors are a list. With `stringids=1` in the address,
/// rows name their fields by string id.
pub(in super::super) fn get_data(cx: &mut Context<'_>, body: &Map<String, Value>, query: &Query) -> Data {
    let string_ids = query.get("stringids") == Some("1");
    let key = Key::parse_for_read(cx.catalog(), cx.switches, body.get("keyId"))?;
    let sent = match body.get("keyValues") {
        None => return Err(Failure::bad(10_001, "Missing parameter: keyValues")),
        Some(Value::Array(sent)) if sent.len() > CONTACTS_MAX => return Err(ids_too_long()),
        Some(Value::Array(sent)) => sent,
        Some(_) => return Err(Failure::bad(2003, "Invalid data format. Array expected")),
    };
    let fields = wanted(cx, body.get("fields"))?;
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for value in sent {
        let text = cx.key_text(key, value);
        let found = match &text {
            Ok(text) => cx.resolve(key, text, cx.horizon()),
            Err(error) => Err(error.clone()),
        };
        match found {
            Ok(contact) => rows.push(row(cx, contact, &fields, string_ids)),
            Err(error) => {
                let error = if error.code == 2008 { nobody(key) } else { error };
                let code = if cx.switches.getdata_codes_as_text {
                    json!(error.code.to_string())
                } else {
                    json!(error.code)
                };
                let entry =
                    json!({ "key": text.unwrap_or_default(), "errorCode": code, "errorMsg": error.text });
                errors.push(entry);
            }
        }
    }
    if !cx.switches.getdata_rows_in_order {
        rows.reverse();
    }
    match (rows.is_empty(), cx.switches.getdata_result_left_out) {
        (false, _) => Ok(json!({ "errors": errors, "result": rows })),
        (true, false) => Ok(json!({ "errors": errors, "result": false })),
        (true, true) => Ok(json!({ "errors": errors })),
    }
}

/// The fields to read; all of them if the request names none.
fn wanted(cx: &Context<'_>, sent: Option<&Value>) -> Result<Vec<u32>, Failure> {
    let named = match sent {
        None | Some(Value::Null) => &[],
        Some(Value::Array(named)) => named.as_slice(),
        Some(_) => return Err(Failure::bad(10_001, "Fields must be an array")),
    };
    if named.is_empty() {
        return Ok(cx.catalog().fields().iter().map(|field| field.id).collect());
    }
    let mut fields = Vec::with_capacity(named.len());
    for name in named {
        let name = value::text(name).unwrap_or_default();
        // Every row has these two, asked for or not.
        if name == "id" || name == "uid" {
            continue;
        }
        let known = key::field_id(&name).filter(|id| cx.catalog().field(*id).is_some());
        fields.push(known.ok_or_else(|| Failure::bad(2006, format!("Invalid field id: {name}")))?);
    }
    Ok(fields)
}

fn row(cx: &Context<'_>, contact: u64, fields: &[u32], string_ids: bool) -> Value {
    let mut row = Map::new();
    row.insert("id".to_owned(), json!(contact.to_string()));
    row.insert("uid".to_owned(), json!(cx.store.uid(contact)));
    for field in fields {
        let value = cx.store.value(contact, *field).map_or(Value::Null, Stored::to_json);
        // Some fields have no string id.
        let named = cx.catalog().field(*field).filter(|field| string_ids && !field.string_id().is_empty());
        row.insert(named.map_or_else(|| field.to_string(), |field| field.string_id().to_owned()), value);
    }
    Value::Object(row)
}

/// The reads leave out the value.
fn nobody(key: Key) -> RowError {
    RowError::new(2008, format!("No contact found with the external id: {key}"))
}

fn ids_too_long() -> Failure {
    Failure::bad(2002, "The list of external ids exceeds the maximum size.")
}
