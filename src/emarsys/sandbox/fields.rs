//! `field`: listing, creating and deleting fields, and their choices.

use serde_json::{Map, Value, json};

use super::{
    catalog::{STRING_ID_MAX, StoredField, same_name},
    context::Context,
    endpoint::Route,
    reply::{Data, Failure},
    segments, value,
};

const LANGUAGES: &str = " ar bg bp cn cz de dk el en es et fi fr he hi hr hu it jp ko lt lv mk mo mx nl no pl pr ro \
                         ru sc sk sl sr sv th tr uk vi ";

/// Characters of a field's name.
const NAME_MAX: usize = 200;

/// Types that can be created by a request.
const CREATABLE: [&str; 6] = ["shorttext", "longtext", "largetext", "date", "url", "numeric"];

/// How many custom fields an account has room for, by the types that share a quota.
const QUOTAS: [(&[&str], usize); 5] = [
    (&["numeric", "date", "singlechoice"], 123),
    (&["shorttext", "voucher"], 163),
    (&["longtext"], 21),
    (&["largetext", "url"], 30),
    (&["multichoice"], 40),
];

pub(super) fn list(cx: &Context<'_>, route: &Route) -> Data {
    check_language(route.language.as_deref())?;
    let print = |field: &StoredField| {
        json!({
            "id": field.id,
            "name": field.name(),
            "application_type": field.application_type(),
            "string_id": field.string_id(),
        })
    };
    Ok(cx.catalog().fields().iter().map(print).collect())
}

pub(super) fn create(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let (Some(name), Some(kind)) =
        (body.get("name").and_then(value::text), body.get("application_type").and_then(value::text))
    else {
        return Err(Failure::bad(9005, "Parameters name and application_type are required."));
    };
    if name.trim().is_empty() || name.chars().count() > NAME_MAX {
        return Err(Failure::bad(9001, "Invalid field name"));
    }
    let string_id = body.get("string_id").filter(|sent| !sent.is_null());
    let string_id = match string_id.map(|sent| value::text(sent).unwrap_or_default()) {
        Some(id) if !is_string_id(&id, cx.switches.string_id_nine_digits) => {
            return Err(Failure::bad(9001, "Invalid field string ID"));
        }
        id => id,
    };
    if !CREATABLE.contains(&kind.as_str()) {
        return Err(Failure::bad(9006, "This type of field cannot be created via the API."));
    }
    let taken = |what: &str, is: &dyn Fn(&StoredField) -> bool| match cx
        .catalog()
        .fields()
        .iter()
        .find(|field| is(field))
    {
        Some(field) if field.is_custom() => {
            Err(Failure::bad(9002, format!("A field with this {what} already exists.")))
        }
        Some(_) => Err(Failure::bad(9003, format!("Reserved {what}."))),
        None => Ok(()),
    };
    taken("name", &|field| same_name(field.name(), &name))?;
    taken("string ID", &|field| string_id.as_deref() == Some(field.string_id()))?;
    check_quota(cx, &kind)?;
    let id = cx.store.catalog.add(&name, &kind, string_id.as_deref());
    Ok(json!({ "id": id }))
}

pub(super) fn delete(cx: &mut Context<'_>, id: u64) -> Data {
    let Some(field) = known(cx, id) else { return Err(Failure::without_code(404, "No such field")) };
    if !field.is_custom() {
        return Err(Failure::bad(263, "System fields cannot be deleted or edited."));
    }
    if field.application_type() == "voucher" {
        return Err(Failure::bad(9006, "This type of field cannot be deleted via the API."));
    }
    let field = field.id;
    let segments = segments::with_field(cx.store, field);
    if !segments.is_empty() {
        let text = format!("This field cannot be deleted. It is used in segments: {}", segments.join(", "));
        return Err(Failure::bad(261, text));
    }
    cx.store.delete_field(field);
    Ok(json!(""))
}

pub(super) fn choices(cx: &Context<'_>, route: &Route) -> Data {
    check_language(route.language.as_deref())?;
    let field = known(cx, route.id).ok_or_else(|| no_such_field(&route.id.to_string()))?;
    Ok(print_choices(cx, field))
}

/// `GET field/choices?fields=5,9&language=en`
pub(super) fn many_choices(cx: &Context<'_>, route: &Route) -> Data {
    check_language(route.query.get("language"))?;
    let mut answer = Map::new();
    if route.query.get("fields").is_none_or(str::is_empty) {
        return Err(Failure::bad(1006, "Empty parameter(s): fields."));
    }
    for name in route.query.get("fields").unwrap_or_default().split(',').map(str::trim) {
        let field = name.parse().ok().and_then(|id| known(cx, id)).ok_or_else(|| no_such_field(name))?;
        answer.insert(field.id.to_string(), print_choices(cx, field));
    }
    Ok(Value::Object(answer))
}

fn print_choices(cx: &Context<'_>, field: &StoredField) -> Value {
    let several = field.application_type() == "multichoice";
    let choices = cx.catalog().choices(field.id).into_iter().flatten().enumerate();
    let print = |(position, (id, label)): (usize, (&u64, &String))| {
        // The bit of a multiple choice is something else than its id.
        let bit = several.then_some(position);
        json!({ "id": id.to_string(), "choice": label, "bit_position": bit })
    };
    choices.map(print).collect()
}

fn known<'a>(cx: &'a Context<'_>, id: u64) -> Option<&'a StoredField> {
    u32::try_from(id).ok().and_then(|id| cx.catalog().field(id))
}

fn no_such_field(name: &str) -> Failure {
    Failure::bad(1007, format!("No such field: {name}."))
}

pub(super) fn check_language(code: Option<&str>) -> Result<(), Failure> {
    match code {
        Some(code) if code.trim().is_empty() || !LANGUAGES.contains(&format!(" {code} ")) => {
            Err(Failure::language())
        }
        _ => Ok(()),
    }
}

fn is_string_id(id: &str, nine_digits: bool) -> bool {
    if nine_digits {
        return id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_digit());
    }
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=STRING_ID_MAX).contains(&id.len()) && id.bytes().all(letter)
}

fn check_quota(cx: &Context<'_>, kind: &str) -> Result<(), Failure> {
    let custom = || cx.catalog().fields().iter().filter(|field| field.is_custom());
    let full = QUOTAS.iter().filter(|(kinds, _)| kinds.contains(&kind)).any(|(kinds, slots)| {
        custom().filter(|field| kinds.contains(&field.application_type())).count() >= *slots
    });
    if full || custom().count() >= cx.field_slots {
        let text = "No more slots to create the field, please contact account manager.";
        return Err(Failure::new(cx.switches.creation_error_status, 9004, text));
    }
    Ok(())
}
