//! Contact criteria: a tree of `and`, `or` and `criteria`, checked and evaluated.

use serde_json::Value;

use super::super::{
    catalog::{Catalog, OPT_IN, StoredField},
    store::Store,
    value::{self, Stored, canonical_number},
};

const BEHAVIOUR: [&str; 5] =
    ["response_open_click", "response_click", "bounce", "noresponse_open_click", "noresponse_click"];
const TIME_RESTRICTIONS: [&str; 3] = ["between_dates", "between_days", "last_days"];

/// What a contact must be like.
#[derive(Clone, Debug)]
pub(super) enum Criteria {
    All(Vec<Criteria>),
    Any(Vec<Criteria>),
    Field {
        field: u32,
        test: Test,
    },
    /// Criteria about behaviour, which the sandbox knows nothing of.
    Behaviour,
    /// Criteria that make no sense and came in through the back door.
    Impossible,
}

/// What the value of a field must be like. A field without a value passes none of them.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Equal, whatever the case. A single choice equals its id and its label; a multiple choice must have this choice
    /// alone.
    Equals(String),
    /// With this text in it, whatever the case. A multiple choice must have this choice among others.
    Contains(String),
    NotEmpty,
    /// At least this number or date.
    AtLeast(String),
}

/// Reads a tree; the error is what comes after `Validation error: `.
pub(super) fn parse(catalog: &Catalog, node: &Value) -> Result<Criteria, String> {
    let Some(node) = node.as_object() else { return Err("Criteria should be an object.".to_owned()) };
    let children = node.get("children");
    match node.get("type").and_then(Value::as_str) {
        None => Err("Required field is missing: type.".to_owned()),
        Some("criteria") if children.is_some() => Err("Criteria cannot have children.".to_owned()),
        Some("criteria") if node.contains_key("criteria") => {
            let known = |name: &str, all: &[&str]| {
                node.get(name).is_none_or(|sent| sent.as_str().is_some_and(|sent| all.contains(&sent)))
            };
            if !known("criteria", &BEHAVIOUR) {
                return Err("Criteria should be a valid behaviour criteria.".to_owned());
            }
            if !known("time_restriction", &TIME_RESTRICTIONS) {
                return Err("Criteria should specify a valid time restriction.".to_owned());
            }
            Ok(Criteria::Behaviour)
        }
        Some("criteria") => {
            let named = |name: &str| node.get(name).filter(|sent| !sent.is_null());
            let required =
                |name: &str| named(name).ok_or_else(|| format!("Required field is missing: {name}."));
            let field = required("field")?.as_str().filter(|name| !name.is_empty());
            let field = catalog.fields().iter().find(|known| Some(known.string_id()) == field);
            let field = field.ok_or("Criteria must point to a valid field.")?.id;
            let operator = required("operator")?.as_str().unwrap_or_default();
            if named("value").is_some_and(|sent| value::text(sent).is_none()) {
                return Err("Criteria values should be scalar.".to_owned());
            }
            let expected = || required("value").map(|sent| value::text(sent).unwrap_or_default());
            let test = match operator {
                "equals" => Test::Equals(expected()?),
                "contains" => Test::Contains(expected()?),
                "not_empty" => Test::NotEmpty,
                "greater_or_equal" => Test::AtLeast(expected()?),
                _ => return Err("Criteria should specify a valid operator.".to_owned()),
            };
            Ok(Criteria::Field { field, test })
        }
        Some(kind @ ("and" | "or")) => {
            let children = children.ok_or("Children are missing.")?;
            let children = children.as_array().ok_or("Children should be an array.")?;
            if children.is_empty() {
                return Err("Children are missing.".to_owned());
            }
            let children = children.iter().map(|child| parse(catalog, child)).collect::<Result<_, _>>()?;
            Ok(if kind == "and" { Criteria::All(children) } else { Criteria::Any(children) })
        }
        Some(_) => Err("Invalid type.".to_owned()),
    }
}

impl Criteria {
    pub(super) fn are_met(&self, store: &Store, contact: u64) -> bool {
        match self {
            Self::All(children) => children.iter().all(|child| child.are_met(store, contact)),
            Self::Any(children) => children.iter().any(|child| child.are_met(store, contact)),
            Self::Field { field, test } => store.value(contact, *field).is_some_and(|value| {
                store.catalog.field(*field).is_some_and(|field| test.passes(&store.catalog, field, value))
            }),
            Self::Behaviour => true,
            Self::Impossible => false,
        }
    }

    /// Whether a field is among them.
    pub(super) fn use_field(&self, wanted: u32) -> bool {
        match self {
            Self::All(children) | Self::Any(children) => children.iter().any(|child| child.use_field(wanted)),
            Self::Field { field, .. } => *field == wanted,
            Self::Behaviour | Self::Impossible => false,
        }
    }
}

impl Test {
    fn passes(&self, catalog: &Catalog, field: &StoredField, value: &Stored) -> bool {
        let is_choice = |choice: u64, expected: &str| {
            choice.to_string() == expected
                || label(catalog, field, choice).is_some_and(|label| same(&label, expected))
        };
        match (self, value) {
            (Self::NotEmpty, Stored::Text(text)) => !text.is_empty(),
            (Self::NotEmpty, Stored::Choices(choices)) => !choices.is_empty(),
            (Self::Equals(expected), Stored::Choices(choices)) => match choices.as_slice() {
                [choice] => is_choice(*choice, expected),
                _ => false,
            },
            (Self::Contains(expected), Stored::Choices(choices)) => {
                choices.iter().any(|choice| is_choice(*choice, expected))
            }
            (Self::Equals(expected), Stored::Text(text)) => {
                let number =
                    |text: &str| canonical_number(text).and_then(|number| number.parse::<f64>().ok());
                same(text, expected)
                    || text.parse().is_ok_and(|choice| is_choice(choice, expected))
                    || (field.application_type() == "numeric"
                        && number(text).is_some_and(|one| number(expected) == Some(one)))
            }
            (Self::Contains(expected), Stored::Text(text)) => {
                let label = text.parse().ok().and_then(|choice| label(catalog, field, choice));
                label.as_ref().unwrap_or(text).to_lowercase().contains(&expected.to_lowercase())
            }
            (Self::AtLeast(least), Stored::Text(text)) => match (text.parse::<f64>(), least.parse::<f64>()) {
                (Ok(number), Ok(least)) => number >= least,
                // Dates are written so that the later one is the greater text.
                _ => matches!(field.application_type(), "date" | "birthdate") && text >= least,
            },
            (Self::AtLeast(_), Stored::Choices(_)) => false,
        }
    }
}

/// What a choice of a field is called; the opt-in has two, although it is no choice field.
fn label(catalog: &Catalog, field: &StoredField, choice: u64) -> Option<String> {
    match (field.id, choice) {
        (OPT_IN, 1) => Some("true".to_owned()),
        (OPT_IN, 2) => Some("false".to_owned()),
        _ => catalog.choices(field.id)?.get(&choice).cloned(),
    }
}

fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}
