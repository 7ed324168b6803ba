//! Segments: listing, creating, changing, deleting. Those that are combined are listed and deleted here as well.

use serde_json::{Map, Value, json};

use super::{
    super::{
        context::Context,
        reply::{Data, Failure},
        store::Store,
        value,
    },
    book::{Kind, Segment, Standard, Tree},
    criteria::{self, Criteria},
    unknown,
};

pub(super) fn list(cx: &Context<'_>) -> Value {
    let print = |(id, segment): (u64, &Segment)| {
        let mut shown = summary(id, segment);
        shown.insert("predefinedSegmentId".to_owned(), json!("0"));
        if let Kind::Standard(standard) = &segment.kind {
            let types = [("contact", standard.contact.is_some()), ("behavior", standard.behaviour.is_some())];
            let types: Vec<_> = types.iter().filter(|(_, there)| *there).map(|(kind, _)| *kind).collect();
            shown.insert("criteriaTypes".to_owned(), json!(types));
            shown.insert("baseContactListId".to_owned(), json!(standard.base_list));
        }
        Value::Object(shown)
    };
    cx.store.segments.iter().map(print).collect()
}

pub(super) fn read(cx: &Context<'_>, id: u64) -> Data {
    let segment = cx.store.segments.get(id).ok_or_else(unknown)?;
    Ok(Value::Object(summary(id, segment)))
}

fn summary(id: u64, segment: &Segment) -> Map<String, Value> {
    let kind = match segment.kind {
        Kind::Standard(_) => "standard",
        Kind::Combined(_) => "combined",
    };
    [("id", json!(id.to_string())), ("name", json!(segment.name)), ("type", json!(kind)), ("tags", json!([]))]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(super) fn create(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let sent = |name: &str| body.get(name).filter(|sent| !sent.is_null());
    let name = sent("name").and_then(value::text).unwrap_or_default();
    if name.trim().is_empty() {
        return Err(invalid("Required field is missing: name."));
    }
    let (contact, behaviour) = (sent("contactCriteria"), sent("behaviourCriteria"));
    if contact.is_none() && behaviour.is_none() {
        return Err(invalid("Required field is missing: contactCriteria."));
    }
    if cx.store.segments.is_taken(&name, false, None) {
        return Err(invalid("The name is duplicated."));
    }
    let base_list = base_list(cx, sent("baseContactListId"))?;
    let contact = contact.map(|sent| tree(cx, sent)).transpose()?;
    let behaviour = behaviour.map(|sent| tree(cx, sent)).transpose()?.map(|tree| tree.sent);
    let kind = Kind::Standard(Standard { base_list, contact, behaviour });
    let id = cx.store.segments.add(name, kind);
    Ok(json!({ "id": id.to_string() }))
}

/// Adds a segment that nobody checks. Criteria that mean nothing are met by nobody.
pub(in super::super) fn add(store: &mut Store, name: &str, criteria: &Value) -> u64 {
    let parsed = criteria::parse(&store.catalog, criteria).unwrap_or(Criteria::Impossible);
    let contact = Some(Tree { sent: criteria.clone(), criteria: parsed });
    store.segments.add(name.to_owned(), Kind::Standard(Standard { base_list: 0, contact, behaviour: None }))
}

pub(super) fn read_criteria(cx: &Context<'_>, id: u64) -> Data {
    match &cx.store.segments.get(id).ok_or_else(unknown)?.kind {
        // An empty object is printed as PHP does it.
        Kind::Standard(standard) => {
            Ok(standard.contact.as_ref().map_or_else(|| json!([]), |tree| tree.sent.clone()))
        }
        Kind::Combined(_) => Err(wrong_type()),
    }
}

pub(super) fn update_criteria(cx: &mut Context<'_>, id: u64, body: Map<String, Value>) -> Data {
    match cx.store.segments.get(id).ok_or_else(unknown)?.kind {
        Kind::Standard(_) => {}
        Kind::Combined(_) => return Err(wrong_type()),
    }
    let tree = tree(cx, &Value::Object(body))?;
    let sent = tree.sent.clone();
    if let Some(Segment { kind: Kind::Standard(standard), .. }) = cx.store.segments.change(id) {
        standard.contact = Some(tree);
    }
    Ok(sent)
}

pub(super) fn delete(cx: &mut Context<'_>, id: u64) -> Data {
    if cx.store.segments.is_used(id) {
        return Err(Failure::bad(1008, "Filter has dependencies."));
    }
    if cx.store.segments.remove(id) { Ok(json!("")) } else { Err(unknown()) }
}

fn tree(cx: &Context<'_>, sent: &Value) -> Result<Tree, Failure> {
    if !sent.is_object() {
        return Err(Failure::bad(10_004, "The contact criteria JSON is invalid."));
    }
    let criteria = criteria::parse(cx.catalog(), sent).map_err(|why| invalid(&why))?;
    Ok(Tree { sent: sent.clone(), criteria })
}

fn base_list(cx: &Context<'_>, sent: Option<&Value>) -> Result<u64, Failure> {
    let Some(sent) = sent else { return Ok(0) };
    let list = value::text(sent).and_then(|text| text.parse().ok());
    list.filter(|list| *list == 0 || cx.store.list(*list).is_some())
        .ok_or_else(|| Failure::bad(1008, "Contact list does not exist."))
}

fn invalid(why: &str) -> Failure {
    Failure::bad(1008, format!("Validation error: {why}"))
}

fn wrong_type() -> Failure {
    Failure::bad(10_005, "The segment type is invalid.")
}
