//! `POST contact/merge`: values of one contact go to another.
//!
//! Only the members of the request are documented. Here the rule `overwrite` copies the value of the source, an empty
//! one too; fields without a rule stay as they are, any other rule is refused with 10001, and the lists of the source
//! are not handed over.

use serde_json::{Map, Value, json};

use super::super::{
    context::Context,
    key::{self, Key},
    reply::{Data, Failure},
    store::Horizon,
    value,
};

pub(in super::super) fn merge(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let key = Key::parse(cx.catalog(), cx.switches, body.get("key_id"))?;
    let list = cx.contact_list(body)?;
    let fields = fields(cx, body.get("merge_rules"))?;
    let mut contact = |member: &str| {
        let value = cx.key_text(key, body.get(member).unwrap_or(&Value::Null))?;
        cx.resolve(key, &value, Horizon::NONE)
    };
    let (source, target) = (contact("source_key_value")?, contact("target_key_value")?);
    if source == target {
        return Err(Failure::bad(10_001, "Source and target are the same contact."));
    }
    for field in fields {
        let value = cx.store.value(source, field).cloned();
        cx.store.set(target, field, value);
    }
    if body.get("delete_source").is_some_and(value::is_true) {
        cx.store.delete_contact(source);
    }
    if let Some(list) = list {
        cx.store.join(list, target, cx.now);
    }
    Ok(json!(""))
}

/// The fields whose values are copied.
fn fields(cx: &Context<'_>, rules: Option<&Value>) -> Result<Vec<u32>, Failure> {
    let rules = match rules {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(none)) if none.is_empty() => return Ok(Vec::new()),
        Some(Value::Object(rules)) => rules,
        Some(_) => return Err(Failure::bad(10_001, "Invalid parameter: merge_rules")),
    };
    let mut fields = Vec::with_capacity(rules.len());
    for (name, rule) in rules {
        let field = key::field_id(name).and_then(|id| cx.catalog().field(id));
        let field = field.ok_or_else(|| Failure::bad(2006, format!("Invalid field id: {name}")))?;
        if rule != "overwrite" {
            return Err(Failure::bad(10_001, format!("Invalid merge rule for field id: {name}")));
        }
        if !field.is_read_only() {
            fields.push(field.id);
        } else if cx.switches.read_only_refused {
            return Err(Failure::bad(2007, format!("Invalid field id: {name}")));
        }
    }
    Ok(fields)
}
