//! `combinedsegments`: segments made of others.

use serde_json::{Map, Value, json};

use super::{
    super::{
        context::{self, Context},
        reply::{Data, Failure},
        value,
    },
    book::{Definition, Kind, Part, Segment, Segments},
};

pub(super) fn list(cx: &Context<'_>) -> Value {
    cx.store.segments.combined().map(|(id, name, definition)| print(id, name, definition)).collect()
}

pub(super) fn read(cx: &Context<'_>, id: u64) -> Data {
    let found = cx.store.segments.combined().find(|(known, ..)| *known == id);
    found.map(|(id, name, definition)| print(id, name, definition)).ok_or_else(unknown)
}

pub(super) fn create(cx: &mut Context<'_>, body: &[u8]) -> Data {
    let (name, definition) = parse(&cx.store.segments, body, None)?;
    let shown = (name.clone(), print_definition(&definition));
    let id = cx.store.segments.add(name, Kind::Combined(definition));
    Ok(json!({ "id": id, "name": shown.0, "definition": shown.1 }))
}

pub(super) fn update(cx: &mut Context<'_>, id: u64, body: &[u8]) -> Data {
    if !cx.store.segments.combined().any(|(known, ..)| known == id) {
        return Err(unknown());
    }
    let (name, definition) = parse(&cx.store.segments, body, Some(id))?;
    let reply = print(id, &name, &definition);
    if let Some(segment) = cx.store.segments.change(id) {
        *segment = Segment { name, kind: Kind::Combined(definition) };
    }
    Ok(reply)
}

fn print(id: u64, name: &str, definition: &Definition) -> Value {
    json!({ "id": id, "name": name, "definition": print_definition(definition) })
}

fn print_definition(definition: &Definition) -> Value {
    let part = |part: &Part| {
        let ids: Vec<String> = part.segments.iter().map(u64::to_string).collect();
        json!({ "relation": if part.all { "AND" } else { "OR" }, "segment_ids": ids })
    };
    let mut shown = Map::from_iter([("include".to_owned(), part(&definition.include))]);
    shown.extend(definition.exclude.as_ref().map(|exclude| ("exclude".to_owned(), part(exclude))));
    Value::Object(shown)
}

/// The body of a call that makes or changes a combined segment.
fn parse(segments: &Segments, body: &[u8], changed: Option<u64>) -> Result<(String, Definition), Failure> {
    let body = context::object(body).map_err(|_| Failure::bad(13_002, "Invalid JSON input."))?;
    let name = body.get("name").and_then(value::text).unwrap_or_default();
    if name.trim().is_empty() {
        return Err(Failure::bad(13_003, "No name provided."));
    }
    if segments.is_taken(&name, true, changed) {
        return Err(Failure::bad(13_004, "Name already exists."));
    }
    let definition = body.get("definition").and_then(Value::as_object);
    let definition = definition.and_then(|sent| {
        let include = part(sent.get("include")?).filter(|part| !part.segments.is_empty())?;
        let exclude = match sent.get("exclude") {
            None | Some(Value::Null) => None,
            Some(Value::Array(nothing)) if nothing.is_empty() => None,
            Some(sent) => Some(part(sent)?),
        };
        Some(Definition { include, exclude })
    });
    let usable = |definition: &Definition| {
        definition.segments().all(|used| segments.get(used).is_some() && !leads_to(segments, used, changed))
    };
    let invalid = || Failure::bad(13_005, "Definition is invalid.");
    let definition = definition.filter(usable).ok_or_else(invalid)?;
    Ok((name, definition))
}

fn part(sent: &Value) -> Option<Part> {
    let all = match sent.get("relation")?.as_str()? {
        "AND" => true,
        "OR" => false,
        _ => return None,
    };
    let ids = sent.get("segment_ids")?.as_array()?;
    let segments = ids.iter().map(|id| value::text(id)?.parse().ok()).collect::<Option<_>>()?;
    Some(Part { all, segments })
}

/// Whether a segment is the one that is changed, or made of it: it cannot be made of itself.
fn leads_to(segments: &Segments, from: u64, changed: Option<u64>) -> bool {
    if Some(from) == changed {
        return true;
    }
    match segments.get(from).map(|segment| &segment.kind) {
        Some(Kind::Combined(definition)) => {
            definition.segments().any(|used| leads_to(segments, used, changed))
        }
        _ => false,
    }
}

fn unknown() -> Failure {
    Failure::new(404, 13_001, "No combined segment found with the specified ID.")
}
