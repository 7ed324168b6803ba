//! Fields of a destination: what they are, and how a source's value becomes one of theirs.
//!
//! A value is converted to its **canonical form** before anything else is done with it: what would be sent. So the
//! same number from a CSV file and from a database is the same value, and a changed conversion is a changed value.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use chrono::NaiveDate;

use crate::record::{Key, Value, ValueRef};

/// What a field takes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// Anything that JSON can carry, as it is: no number that is not finite, or has more than 64 bits.
    Any,
    /// Text.
    Text {
        /// The longest text, in characters.
        chars_max: usize,
    },
    /// Text without emoji and other characters outside the Basic Multilingual Plane, which the field would lose.
    BasicText {
        /// The longest text, in characters.
        chars_max: usize,
    },
    /// A decimal number, kept as digits: no rounding.
    Number {
        /// The most digits before and after the point together.
        digits_max: usize,
    },
    /// A day, `YYYY-MM-DD`.
    Date,
    /// An e-mail address.
    Email,
    /// One of several choices, by label or by id.
    Choice(Choices),
    /// Any of several choices; several of them as a list, or as text with `;` between them.
    MultiChoice(Choices),
}

/// The choices of a field: labels, and the ids that are sent for them.
///
/// A value is compared with the labels first, without regard to case and surrounding blanks, and with the ids after:
/// where `1` is the label of choice 2, it means choice 2.
#[derive(Clone, Default, PartialEq)]
pub struct Choices(Arc<BTreeMap<String, String>>);

impl Choices {
    /// Choices from pairs of label and id. A label may stand for an id under several spellings.
    pub fn new<L: AsRef<str>, I: Into<String>>(choices: impl IntoIterator<Item = (L, I)>) -> Self {
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        let choices: Vec<_> =
            choices.into_iter().map(|(label, id)| (fold(label.as_ref()).into_owned(), id.into())).collect();
        for (_, id) in &choices {
            ids.insert(fold(id).into_owned(), id.clone());
        }
        ids.extend(choices);
        Self(Arc::new(ids))
    }

    fn id(&self, text: &str) -> Option<&str> {
        self.0.get(&*fold(text)).map(String::as_str)
    }
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Choices({} spellings)", self.0.len())
    }
}

fn fold(text: &str) -> Cow<'_, str> {
    lower_case(text.trim())
}

/// Why a value does not fit its field; never says what the value is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(Cow<'static, str>);

impl Mismatch {
    /// A reason in words that follow the name of the field, such as "is not a date".
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }
}

impl FieldKind {
    /// The value in the form in which a field of this kind takes it.
    ///
    /// A blank text is null for every kind that has no blank value of its own.
    ///
    /// ```
    /// use reverse_etl::{FieldKind, Value};
    ///
    /// let number = FieldKind::Number { digits_max: 24 };
    /// assert!(number.convert(Value::from(" 007.50 ").as_ref()).unwrap().into_owned() == Value::from("7.5"));
    /// assert!(number.convert(Value::from("").as_ref()).unwrap().into_owned() == Value::Null);
    /// let reason = number.convert(Value::from("seven").as_ref()).unwrap_err();
    /// assert_eq!(reason.to_string(), "is not a decimal number such as -12.5");
    /// ```
    ///
    /// # Errors
    /// A [`Mismatch`] that says what the field takes.
    pub fn convert<'v>(&'v self, value: ValueRef<'v>) -> Result<ValueRef<'v>, Mismatch> {
        if value == ValueRef::Null {
            return Ok(value);
        }
        match self {
            Self::Any => sendable(value),
            Self::Text { chars_max } => limited(plain(value)?, *chars_max),
            Self::BasicText { chars_max } => {
                let text = plain(value)?;
                if text.chars().any(|char| u32::from(char) > 0xffff) {
                    return Err(Mismatch::new(
                        "has an emoji or another character that this field would lose",
                    ));
                }
                limited(text, *chars_max)
            }
            Self::Number { digits_max } => blank_is_null(plain(value)?, |text| number(text, *digits_max)),
            Self::Date => match value {
                ValueRef::Date(day) => Ok(ValueRef::Text(day.to_string().into())),
                other => blank_is_null(plain(other)?, date),
            },
            Self::Email => blank_is_null(plain(value)?, email),
            Self::Choice(choices) => match plain(value)? {
                blank if blank.trim().is_empty() => Ok(ValueRef::Null),
                text => Ok(ValueRef::Text(choice(choices, &text)?.into())),
            },
            Self::MultiChoice(choices) => several(choices, value),
        }
    }

    /// Whether this text is sure to be in canonical form; if not, it may be all the same.
    #[inline]
    pub(crate) fn takes_as_it_is(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => true,
            // A character has at least one byte.
            Self::Text { chars_max } => text.len() <= *chars_max,
            Self::BasicText { chars_max } => text.len() <= *chars_max && text.is_ascii(),
            _ => false,
        }
    }

    /// The key in canonical form; `None` if the value is null or blank.
    ///
    /// # Errors
    /// A [`Mismatch`] that says what the field takes.
    pub fn key(&self, value: ValueRef<'_>) -> Result<Option<Key>, Mismatch> {
        Ok(self.key_text(value)?.map(Key::new))
    }

    /// The text of the key.
    pub(crate) fn key_text<'v>(&'v self, value: ValueRef<'v>) -> Result<Option<Cow<'v, str>>, Mismatch> {
        Ok(match self.convert(value)? {
            ValueRef::Null => None,
            canonical => Some(trimmed(plain(canonical)?)).filter(|text| !text.is_empty()),
        })
    }
}

/// The value as it is, if JSON can carry it.
fn sendable(value: ValueRef<'_>) -> Result<ValueRef<'_>, Mismatch> {
    match &value {
        ValueRef::Float(number) if !number.is_finite() => Err(Mismatch::new("is not a finite number")),
        ValueRef::Int(number) if i64::try_from(*number).is_err() && u64::try_from(*number).is_err() => {
            Err(Mismatch::new("is a whole number of more than 64 bits: send it as text"))
        }
        ValueRef::List(values) => {
            for value in values.iter() {
                sendable(value.as_ref())?;
            }
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// The value as text.
fn plain(value: ValueRef<'_>) -> Result<Cow<'_, str>, Mismatch> {
    Ok(match value {
        ValueRef::Text(text) => text,
        ValueRef::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        ValueRef::Int(value) => value.to_string().into(),
        ValueRef::Float(value) if value.is_finite() => value.to_string().into(),
        ValueRef::Float(_) => return Err(Mismatch::new("is not a finite number")),
        ValueRef::Date(day) => day.to_string().into(),
        ValueRef::Null => Cow::Borrowed(""),
        ValueRef::List(_) => return Err(Mismatch::new("is a list, and the field takes one value")),
    })
}

fn limited(text: Cow<'_, str>, chars_max: usize) -> Result<ValueRef<'_>, Mismatch> {
    // A character has at least one byte: short texts, which is nearly all of them, need no counting.
    if text.len() > chars_max {
        let chars = text.chars().count();
        if chars > chars_max {
            return Err(Mismatch::new(format!("has {chars} characters, and the field takes {chars_max}")));
        }
    }
    Ok(ValueRef::Text(text))
}

/// The text without blanks around it; what is borrowed stays so.
fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => text.trim().into(),
        Cow::Owned(text) if text.trim().len() == text.len() => text.into(),
        Cow::Owned(text) => text.trim().to_owned().into(),
    }
}

fn blank_is_null(
    text: Cow<'_, str>,
    convert: impl FnOnce(&str) -> Result<Cow<'_, str>, Mismatch>,
) -> Result<ValueRef<'_>, Mismatch> {
    let text = trimmed(text);
    if text.is_empty() {
        return Ok(ValueRef::Null);
    }
    let canonical = match &text {
        Cow::Borrowed(text) => convert(text)?,
        Cow::Owned(text) => convert(text)?.into_owned().into(),
    };
    Ok(ValueRef::Text(canonical))
}

/// Digits without leading and trailing zeros, with a point only before decimals and a minus only before a number that
/// is not zero.
fn number(text: &str, digits_max: usize) -> Result<Cow<'_, str>, Mismatch> {
    const SHAPE: &str = "is not a decimal number such as -12.5";
    let (minus, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !is_digits(whole) || !is_digits(decimals) {
        return Err(Mismatch::new(SHAPE));
    }
    let (whole, decimals) = (whole.trim_start_matches('0'), decimals.trim_end_matches('0'));
    let digits = whole.len() + decimals.len();
    if digits > digits_max {
        return Err(Mismatch::new(format!("has {digits} digits, and the field takes {digits_max}")));
    }
    let sign = if minus && digits > 0 { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let parts = if decimals.is_empty() { [sign, whole, "", ""] } else { [sign, whole, ".", decimals] };
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    // Most numbers are in this form, and need no text of their own.
    let is_canonical =
        length == text.len() && parts.iter().try_fold(text, |rest, part| rest.strip_prefix(part)).is_some();
    Ok(if is_canonical { text.into() } else { parts.concat().into() })
}

/// A day, also where a time of day follows it.
fn date(text: &str) -> Result<Cow<'_, str>, Mismatch> {
    let day = match text.char_indices().nth(10) {
        Some((end, 'T' | ' ')) => &text[..end],
        _ => text,
    };
    let is_day = || {
        let [year @ .., b'-', m1, m2, b'-', d1, d2] = day.as_bytes() else { return None };
        let number = |digits: &[u8]| {
            let is_number = digits.iter().all(u8::is_ascii_digit);
            is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
        };
        let year = i32::try_from(number(year).filter(|_| year.len() == 4)?).ok()?;
        NaiveDate::from_ymd_opt(year, number(&[*m1, *m2])?, number(&[*d1, *d2])?)
    };
    match is_day() {
        Some(_) => Ok(day.into()),
        None => Err(Mismatch::new("is not a day of the calendar in the form YYYY-MM-DD")),
    }
}

/// Lower case, and possible: something before and after one `@`, a domain of letters, digits, dots and hyphens, and
/// nothing that only a quoted address could hold.
fn email(text: &str) -> Result<Cow<'_, str>, Mismatch> {
    const CHARS_MAX: usize = 254;
    let impossible = || Mismatch::new("is not a possible e-mail address");
    let (local, domain) = text.split_once('@').ok_or_else(impossible)?;
    let is_forbidden =
        |char: char| char.is_whitespace() || char.is_control() || "@,;:<>()[]\\\"".contains(char);
    let has_empty_part = |part: &str| part.split('.').any(str::is_empty);
    let is_domain = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-');
    let possible = !has_empty_part(local)
        && !local.contains(is_forbidden)
        && domain.contains('.')
        && !has_empty_part(domain)
        && domain.chars().all(is_domain)
        && text.chars().count() <= CHARS_MAX;
    if possible { Ok(lower_case(text)) } else { Err(impossible()) }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { text.into() } else { text.to_lowercase().into() }
}

fn choice<'c>(choices: &'c Choices, text: &str) -> Result<&'c str, Mismatch> {
    choices.id(text).ok_or_else(|| Mismatch::new("is none of the field's choices"))
}

/// The ids of the choices, each once and in one order, since the field knows none. No choice is null.
fn several<'v>(choices: &Choices, value: ValueRef<'v>) -> Result<ValueRef<'v>, Mismatch> {
    let mut ids = Vec::new();
    match value {
        ValueRef::List(values) => {
            for value in values.iter() {
                ids.push(choice(choices, &plain(value.as_ref())?)?);
            }
        }
        other => {
            for text in plain(other)?.split(';').filter(|text| !text.trim().is_empty()) {
                ids.push(choice(choices, text)?);
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(ValueRef::Null);
    }
    Ok(ValueRef::List(ids.into_iter().map(Value::from).collect::<Vec<_>>().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kind makes of a value, as text; a refusal as its reason.
    fn made(kind: &FieldKind, value: impl Into<Value>) -> String {
        match kind.convert(value.into().as_ref()) {
            Ok(value) => serde_json::to_string(&value.into_owned()).unwrap(),
            Err(reason) => reason.to_string(),
        }
    }

    #[test]
    fn a_number_is_the_same_from_every_source() {
        let number = FieldKind::Number { digits_max: 24 };
        for value in
            [Value::from("7"), Value::from(7), Value::from(7.0), Value::from(" 007.00 "), Value::from("+7")]
        {
            assert_eq!(made(&number, value), "\"7\"");
        }
        assert_eq!(made(&number, "-0.0"), "\"0\"");
        assert_eq!(made(&number, "-.50"), "\"-0.5\"");
    }

    #[test]
    fn a_number_keeps_all_its_digits_or_is_refused() {
        let number = FieldKind::Number { digits_max: 5 };
        assert_eq!(made(&number, "123.45"), "\"123.45\"");
        assert_eq!(made(&number, "123.456"), "has 6 digits, and the field takes 5");
        for text in ["1e3", "1,5", ".", "-", "0x1f", "١"] {
            assert_eq!(made(&number, text), "is not a decimal number such as -12.5", "{text}");
        }
    }

    #[test]
    fn a_date_is_a_day_that_exists() {
        assert_eq!(made(&FieldKind::Date, "2024-02-29"), "\"2024-02-29\"");
        assert_eq!(made(&FieldKind::Date, "2024-02-29T10:00:00Z"), "\"2024-02-29\"");
        assert_eq!(made(&FieldKind::Date, NaiveDate::from_ymd_opt(1815, 12, 10).unwrap()), "\"1815-12-10\"");
        for text in ["31.02.1990", "1990-13-01", "1990-02-31", "yesterday", "90-1-1", "2024-02-29x"] {
            assert_eq!(
                made(&FieldKind::Date, text),
                "is not a day of the calendar in the form YYYY-MM-DD",
                "{text}"
            );
        }
    }

    #[test]
    fn an_email_is_trimmed_and_in_lower_case() {
        assert_eq!(made(&FieldKind::Email, "  Ada@Shop.TEST "), "\"ada@shop.test\"");
        assert_eq!(made(&FieldKind::Email, "zoë+news@müller.example"), "\"zoë+news@müller.example\"");
    }

    #[test]
    fn an_impossible_email_is_refused() {
        for text in [
            "ada",
            "@shop.test",
            "ada@",
            "a@b@shop.test",
            "a da@shop.test",
            "ada@shop",
            "ada@.test",
            "ada@shop..test",
            ".ada@shop.test",
            "ada@shop.test,bob@shop.test",
            "<ada@shop.test>",
        ] {
            assert_eq!(made(&FieldKind::Email, text), "is not a possible e-mail address", "{text}");
        }
    }

    #[test]
    fn an_over_long_text_is_refused_and_characters_are_counted_not_bytes() {
        let text = FieldKind::Text { chars_max: 3 };
        assert_eq!(made(&text, "Zoë"), "\"Zoë\"");
        assert_eq!(made(&text, "Zoës"), "has 4 characters, and the field takes 3");
    }

    #[test]
    fn a_field_that_would_lose_an_emoji_refuses_it() {
        let basic = FieldKind::BasicText { chars_max: 60 };
        assert_eq!(made(&basic, "日本 Ελλάδα"), "\"日本 Ελλάδα\"");
        assert_eq!(made(&basic, "Zoë 🎉"), "has an emoji or another character that this field would lose");
        assert_eq!(made(&FieldKind::Text { chars_max: 60 }, "Zoë 🎉"), "\"Zoë 🎉\"");
    }

    #[test]
    fn a_choice_is_found_by_label_before_id() {
        let children = FieldKind::Choice(Choices::new([("0", "1"), ("1", "2"), ("> 3", "5")]));
        assert_eq!(made(&children, "1"), "\"2\"");
        assert_eq!(made(&children, "5"), "\"5\"");
        assert_eq!(made(&children, 0), "\"1\"");
        assert_eq!(made(&children, "many"), "is none of the field's choices");
    }

    #[test]
    fn several_choices_are_a_set() {
        let colours = FieldKind::MultiChoice(Choices::new([("Red", "1"), ("Green", "2"), ("Blue", "3")]));
        assert_eq!(made(&colours, "blue; red;red"), r#"["1","3"]"#);
        assert_eq!(made(&colours, vec!["Green"]), r#"["2"]"#);
        assert_eq!(made(&colours, Vec::<String>::new()), "null");
        assert_eq!(made(&colours, "red;pink"), "is none of the field's choices");
    }

    #[test]
    fn blank_is_null_where_a_kind_has_no_blank_value_and_stays_empty_text_elsewhere() {
        for kind in
            [FieldKind::Number { digits_max: 24 }, FieldKind::Date, FieldKind::Choice(Choices::default())]
        {
            assert_eq!(made(&kind, " "), "null");
        }
        assert_eq!(made(&FieldKind::Text { chars_max: 60 }, ""), "\"\"");
    }

    #[test]
    fn converting_twice_changes_nothing() {
        let choices = Choices::new([("Male", "7"), ("Female", "8")]);
        for kind in [
            FieldKind::Number { digits_max: 24 },
            FieldKind::Date,
            FieldKind::Email,
            FieldKind::Choice(choices.clone()),
            FieldKind::MultiChoice(choices),
        ] {
            for text in ["007", "2024-02-29 10:00", " Ada@Shop.Test", "male", "female;male"] {
                if let Ok(once) = kind.convert(ValueRef::Text(text.into())) {
                    assert!(kind.convert(once.clone()) == Ok(once), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_without_content_is_no_key() {
        for value in [Value::Null, Value::from("  ")] {
            assert_eq!(FieldKind::Email.key(value.as_ref()).unwrap(), None);
            assert_eq!(FieldKind::Any.key(value.as_ref()).unwrap(), None);
        }
        assert_eq!(FieldKind::Any.key(Value::from(17).as_ref()).unwrap(), Some(Key::new("17")));
    }

    #[test]
    fn no_reason_shows_the_value() {
        let secret = "s3cret-Ada-Lovelace-1815-12-10-and-more-than-sixty-characters-long";
        for kind in [
            FieldKind::BasicText { chars_max: 60 },
            FieldKind::Number { digits_max: 24 },
            FieldKind::Date,
            FieldKind::Email,
            FieldKind::Choice(Choices::default()),
            FieldKind::MultiChoice(Choices::default()),
        ] {
            assert!(
                !kind.convert(Value::from(secret).as_ref()).unwrap_err().to_string().contains("Ada"),
                "{kind:?}"
            );
        }
    }
}
