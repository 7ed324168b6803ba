//! Values: what a field accepts, how it is kept and how it reads back.

use chrono::{NaiveDate, NaiveDateTime};
use serde_json::{Value, json};

use super::{
    catalog::{Catalog, EMAIL, OPT_IN, StoredField},
    reply::RowError,
    switches::Switches,
};

/// A value of a contact; a cleared field has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// Everything but multiple choices: text as it was sent.
    Text(String),
    /// The choices of a `multichoice` or `interests` field, ascending.
    Choices(Vec<u64>),
}

impl Stored {
    /// A value as it is, without any check; null is nothing.
    pub(super) fn unchecked(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Array(choices) => Some(Self::Choices(choices.iter().filter_map(choice_id).collect())),
            scalar => text(scalar).map(Self::Text),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Choices(choices) => json!(choices),
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Choices(_) => None,
        }
    }
}

/// A scalar as text; null, arrays and objects are none.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A yes, in the spellings that requests use.
pub(super) fn is_true(value: &Value) -> bool {
    matches!(text(value).as_deref(), Some("true" | "1"))
}

/// Choices as the query of an address names them, such as `1,2`; ascending.
pub(super) fn choices(text: &str) -> Option<Vec<u64>> {
    let mut ids: Vec<u64> = text.split(',').map(|id| id.trim().parse().ok()).collect::<Option<_>>()?;
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

/// What a field would keep of a value that was sent; `Ok(None)` clears it.
pub(super) fn check(
    catalog: &Catalog,
    switches: &Switches,
    field: &StoredField,
    value: &Value,
) -> Result<Option<Stored>, RowError> {
    let refused = |why: &str| RowError::new(2007, format!("Invalid {why} for field id: {}", field.id));
    let expected = |shape| RowError::new(2007, format!("{}. {shape} expected", refused("data format").text));
    if field.application_type == "voucher" {
        let text = "Invalid field type: voucher. The value of vouchers cannot be changed.";
        return Err(RowError::new(2007, text));
    }
    let kind = Kind::of(field);
    match value {
        Value::Null => return Ok(None),
        Value::String(empty) if empty.is_empty() => {
            let kept = switches.empty_text_kept && matches!(kind, Kind::Text(_));
            return Ok(kept.then(|| Stored::Text(String::new())));
        }
        Value::Array(choices) if choices.is_empty() && kind == Kind::MultiChoice => {
            return Err(RowError::new(2007, format!("No choice provided for field id: {}", field.id)));
        }
        Value::Array(choices) if kind == Kind::MultiChoice => {
            let known = |choice: &Value| choice_id(choice).filter(|id| catalog.has_choice(field.id, *id));
            let mut ids: Vec<u64> =
                choices.iter().map(known).collect::<Option<_>>().ok_or_else(|| refused("choice id"))?;
            ids.sort_unstable();
            ids.dedup();
            return Ok(Some(Stored::Choices(ids)));
        }
        _ => {}
    }
    let Some(sent) = text(value).filter(|_| kind != Kind::MultiChoice) else {
        return Err(expected(if kind == Kind::MultiChoice { "Array" } else { "Scalar" }));
    };
    let kept = match kind {
        Kind::Text(chars_max) => {
            if switches.texts_checked && !(sent.chars().count() <= chars_max && plausible(field, &sent)) {
                return Err(refused("value"));
            }
            if switches.long_texts_cut { sent.chars().take(chars_max).collect() } else { sent }
        }
        Kind::Number => {
            let number = canonical_number(&sent).ok_or_else(|| refused("numeric format"))?;
            if switches.texts_checked && number.chars().filter(char::is_ascii_digit).count() > DIGITS_MAX {
                return Err(refused("value"));
            }
            number
        }
        Kind::Date if is_date(&sent) || (switches.dates_with_time && is_date_with_time(&sent)) => sent,
        Kind::Date => return Err(refused("date format")),
        Kind::SingleChoice => {
            let choice = choice_id(value).filter(|id| catalog.has_choice(field.id, *id));
            choice.ok_or_else(|| refused("choice id"))?.to_string()
        }
        Kind::OptIn => {
            let consent = choice_id(value).filter(|id| (1..=2).contains(id));
            consent.ok_or_else(|| refused("choice id"))?.to_string()
        }
        Kind::MultiChoice => return Err(expected("Array")),
    };
    Ok(Some(Stored::Text(kept)))
}

/// How values of a field are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Text of at most so many characters.
    Text(usize),
    Number,
    Date,
    SingleChoice,
    MultiChoice,
    OptIn,
}

/// Digits of a numeric field.
const DIGITS_MAX: usize = 24;

impl Kind {
    fn of(field: &StoredField) -> Self {
        match field.application_type.as_str() {
            _ if field.id == OPT_IN => Self::OptIn,
            "shorttext" | "fax" => Self::Text(60),
            "longtext" => Self::Text(255),
            "numeric" => Self::Number,
            "date" | "birthdate" => Self::Date,
            "singlechoice" => Self::SingleChoice,
            "multichoice" | "interests" => Self::MultiChoice,
            _ => Self::Text(usize::MAX),
        }
    }
}

/// A number in the form in which a numeric field keeps it: without leading zeros. `None` if it is not a decimal one.
pub(super) fn canonical_number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let decimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !decimal(whole) || !decimal(fraction) {
        return None;
    }
    let trimmed = digits.trim_start_matches('0');
    let zero = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    Some(format!("{sign}{zero}{trimmed}"))
}

fn choice_id(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == "YYYY-MM-DD".len() && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

fn is_date_with_time(text: &str) -> bool {
    ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .any(|form| NaiveDateTime::parse_from_str(text, form).is_ok())
}

fn plausible(field: &StoredField, text: &str) -> bool {
    let email =
        || text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
    field.id != EMAIL || email()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(field: u32, value: &Value) -> Result<Option<Value>, String> {
        checked_with(&Switches::default(), field, value)
    }

    /// 10601 is numeric, 10602 a multiple choice of 1 and 2, 10603 a voucher.
    fn checked_with(switches: &Switches, field: u32, value: &Value) -> Result<Option<Value>, String> {
        let mut catalog = Catalog::new();
        catalog.add("Points", "numeric", None);
        let sports = catalog.add("Sports", "multichoice", None);
        catalog.add("Voucher", "voucher", None);
        catalog.add_choice(sports, 1, "Running");
        catalog.add_choice(sports, 2, "Swimming");
        let field = catalog.field(field).unwrap();
        let kept = check(&catalog, switches, field, value).map_err(|error| error.text)?;
        Ok(kept.map(|stored| stored.to_json()))
    }

    #[test]
    fn values_are_kept_as_their_type_keeps_them() {
        for (field, sent, kept) in [
            (1, json!(" Ada "), json!(" Ada ")),
            (1, json!(7), json!("7")),
            (1, json!(true), json!("true")),
            (4, json!("1815-12-10"), json!("1815-12-10")),
            (5, json!(2), json!("2")),
            (5, json!("2"), json!("2")),
            (31, json!("1"), json!("1")),
            (31, json!(2), json!("2")),
            (10_601, json!(12.5), json!("12.5")),
            (10_601, json!("007"), json!("7")),
            (10_601, json!("-00.50"), json!("-0.50")),
            (10_601, json!("0"), json!("0")),
            (10_602, json!(["2", 1, 2]), json!([1, 2])),
        ] {
            assert_eq!(checked(field, &sent), Ok(Some(kept)), "{field} {sent}");
        }
    }

    #[test]
    fn null_and_empty_text_clear_every_type() {
        for field in [1, 4, 5, 31, 10_601, 10_602] {
            assert_eq!(checked(field, &json!(null)), Ok(None));
            assert_eq!(checked(field, &json!("")), Ok(None));
        }
        let kept = checked_with(&Switches::default().empty_text_kept(true), 1, &json!(""));
        assert_eq!(kept, Ok(Some(json!(""))));
    }

    #[test]
    fn bad_values_are_refused_in_the_words_of_their_type() {
        for (field, sent, text) in [
            (1, json!(["a"]), "Invalid data format for field id: 1. Scalar expected"),
            (1, json!({"a": 1}), "Invalid data format for field id: 1. Scalar expected"),
            (4, json!("10.12.1815"), "Invalid date format for field id: 4"),
            (4, json!("1815-2-3"), "Invalid date format for field id: 4"),
            (4, json!("1815-02-30"), "Invalid date format for field id: 4"),
            (4, json!("1815-12-10 08:00"), "Invalid date format for field id: 4"),
            (5, json!("Female"), "Invalid choice id for field id: 5"),
            (5, json!(9), "Invalid choice id for field id: 5"),
            (31, json!(true), "Invalid choice id for field id: 31"),
            (31, json!(3), "Invalid choice id for field id: 31"),
            (10_601, json!("1,5"), "Invalid numeric format for field id: 10601"),
            (10_601, json!("1e3"), "Invalid numeric format for field id: 10601"),
            (10_602, json!("1"), "Invalid data format for field id: 10602. Array expected"),
            (10_602, json!([]), "No choice provided for field id: 10602"),
            (10_602, json!([3]), "Invalid choice id for field id: 10602"),
            (10_603, json!("x"), "Invalid field type: voucher. The value of vouchers cannot be changed."),
        ] {
            assert_eq!(checked(field, &sent), Err(text.to_owned()), "{field} {sent}");
        }
    }

    #[test]
    fn lengths_emails_and_times_are_a_matter_of_switches() {
        let long = json!("x".repeat(61));
        assert!(checked(1, &long).is_ok());
        assert!(checked(3, &json!("abcde")).is_ok());
        let strict = Switches::default().texts_checked(true).dates_with_time(true);
        assert!(checked_with(&strict, 1, &long).is_err());
        assert!(checked_with(&strict, 3, &json!("abcde")).is_err());
        assert!(checked_with(&strict, 10_601, &json!("1234567890123456789012345")).is_err());
        assert!(checked_with(&strict, 4, &json!("1815-12-10 08:00")).is_ok());
        let cutting = Switches::default().long_texts_cut(true);
        assert_eq!(checked_with(&cutting, 1, &long), Ok(Some(json!("x".repeat(60)))));
    }
}
