//! Which field of the account a mapping means, what it takes, and as what a missing one is created.

use super::{fold, joined};
use crate::{
    Choices, Error, FieldKind, Result,
    emarsys::{ApplicationType, Choice, Client, Field, FieldId},
};

/// Characters of short texts (Emarsys: custom fields, field types).
const SHORT_TEXT: usize = 60;
/// Characters of long texts.
const LONG_TEXT: usize = 255;
/// Characters of large texts and addresses, of which Emarsys states no limit: so many fit into 64 KiB whatever they are.
const LARGE_TEXT: usize = 16_383;
/// Digits of numbers.
const DIGITS: usize = 24;
/// Characters of a field's name.
const NAME_CHARS: usize = 200;

/// The last of the fields that have the same number in every account.
const LAST_SYSTEM_FIELD: u32 = 48;

/// The fields of the account.
pub(super) struct Catalog(Vec<Field>);

impl Catalog {
    pub(super) async fn read(client: &Client) -> Result<Self> {
        client.fields().list().await.map(Self)
    }

    /// The field that a mapping means by `name`: a number is the field's id, a text its name, and after that its string
    /// id, both without regard to case and surrounding blanks.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if several fields bear the name.
    pub(super) fn find(&self, name: &str) -> Result<Option<&Field>> {
        if let Some(field) = self.0.iter().find(|field| field.id.to_string() == name.trim()) {
            return Ok(Some(field));
        }
        let wanted = fold(name);
        let bears = |text: &Option<String>| text.as_deref().is_some_and(|text| fold(text) == wanted);
        let by_name: Vec<&Field> = self.0.iter().filter(|field| bears(&field.name)).collect();
        let found = if by_name.is_empty() {
            self.0.iter().filter(|field| bears(&field.string_id)).collect()
        } else {
            by_name
        };
        match found.as_slice() {
            [] => Ok(None),
            [field] => Ok(Some(field)),
            several => {
                let ids: Vec<FieldId> = several.iter().map(|field| field.id).collect();
                Err(Error::config(format!(
                    "several fields of the account are called `{name}` (ids {}): map the id instead of the name",
                    joined(&ids)
                )))
            }
        }
    }

    /// What to say about a name that no field has.
    pub(super) fn unknown(&self, name: &str) -> Error {
        const SHOWN: usize = 3;
        let wanted = fold(name);
        let similar: Vec<&str> = self
            .0
            .iter()
            .filter_map(|field| field.name.as_deref())
            .filter(|known| is_similar(&wanted, &fold(known)))
            .take(SHOWN)
            .collect();
        let hint = if similar.is_empty() {
            String::new()
        } else {
            format!(", perhaps to `{}`", similar.join("` or `"))
        };
        Error::config(format!(
            "the account has no field `{name}`: correct its name or id{hint}, or map it with `custom`, which creates it"
        ))
    }
}

/// Whether one name may be meant by the other: it begins like it, or differs in one or two letters.
fn is_similar(one: &str, other: &str) -> bool {
    const PREFIX_MIN: usize = 3;
    const EDITS_MAX: usize = 2;
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let shared = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let shorter = one.len().min(other.len());
    (shared == shorter && shorter >= PREFIX_MIN)
        || (shorter > EDITS_MAX
            && one.len().abs_diff(other.len()) <= EDITS_MAX
            && edits(&one, &other) <= EDITS_MAX)
}

/// The letters to put in, take out or replace.
fn edits(one: &[char], other: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.iter().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column].min(diagonal) + 1);
        }
    }
    row[other.len()]
}

/// Refuses a field that is not written to, with its name.
pub(super) fn check_writable(name: &str, field: &Field) -> Result<()> {
    let id = field.id;
    let refused = |why: &str| Err(Error::config(format!("the field `{name}` (id {id}) {why}")));
    if id == FieldId::EMAIL {
        return refused(
            "is the e-mail, by which rows and contacts are matched: name its column in `Mapping::new`, and leave it out \
             of the mapped fields",
        );
    }
    if field.application_type == ApplicationType::Voucher {
        return refused("holds vouchers, which Emarsys lets nobody change: leave it out of the mapping");
    }
    let of_its_type = match field.application_type {
        ApplicationType::Interests => true,
        ApplicationType::Special => id != FieldId::OPT_IN,
        _ => false,
    };
    if of_its_type || id.system().is_some_and(|field| field.read_only) {
        return refused("is read-only in Emarsys: leave it out of the mapping");
    }
    Ok(())
}

/// Whether the choices of the field have to be read before its values can be converted.
pub(super) fn has_choices(field: &Field) -> bool {
    let types = [ApplicationType::SingleChoice, ApplicationType::MultiChoice];
    field.id != FieldId::OPT_IN && types.contains(&field.application_type)
}

/// What the field takes. `choices` are those of a field that [has some](has_choices).
pub(super) fn kind(field: &Field, choices: &[Choice]) -> FieldKind {
    if field.id == FieldId::OPT_IN {
        return FieldKind::Choice(opt_in());
    }
    match &field.application_type {
        // A fax number has room in what a phone number has.
        ApplicationType::ShortText | ApplicationType::Fax => text(field, SHORT_TEXT),
        ApplicationType::LongText => text(field, LONG_TEXT),
        ApplicationType::LargeText | ApplicationType::Url => text(field, LARGE_TEXT),
        ApplicationType::Numeric => FieldKind::Number { digits_max: DIGITS },
        ApplicationType::Date | ApplicationType::BirthDate => FieldKind::Date,
        ApplicationType::SingleChoice => FieldKind::Choice(labelled(choices)),
        ApplicationType::MultiChoice | ApplicationType::Interests => {
            FieldKind::MultiChoice(labelled(choices))
        }
        // Of a type that is not known, nothing is known but that values are mostly short texts.
        ApplicationType::Special | ApplicationType::Voucher | ApplicationType::Other(_) => {
            text(field, LONG_TEXT)
        }
    }
}

/// System fields lose characters of four bytes.
fn text(field: &Field, chars_max: usize) -> FieldKind {
    if field.id.get() <= LAST_SYSTEM_FIELD {
        FieldKind::BasicText { chars_max }
    } else {
        FieldKind::Text { chars_max }
    }
}

/// Yes is 1 and no is 2. A 0 is refused: in the data of somebody it may be a no, and in that of others nothing at all.
fn opt_in() -> Choices {
    Choices::new([("true", "1"), ("yes", "1"), ("false", "2"), ("no", "2")])
}

/// A label that two choices have is left out: such a choice is only known by its id.
fn labelled(choices: &[Choice]) -> Choices {
    let is_unique = |choice: &&Choice| {
        let label = fold(&choice.label);
        choices.iter().filter(|other| fold(&other.label) == label).count() == 1
    };
    let labels = choices.iter().filter(is_unique).map(|choice| (choice.label.clone(), choice.id.to_string()));
    let ids = choices.iter().map(|choice| (choice.id.to_string(), choice.id.to_string()));
    // Labels come last: where a label is the number of another choice, it means the label's.
    Choices::new(ids.chain(labels))
}

/// The type as which a missing field is created.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config), with the field's name, if the API creates no such field.
pub(super) fn type_to_create(name: &str, kind: &FieldKind) -> Result<ApplicationType> {
    let refused = |why: &str| Err(Error::config(format!("the field `{name}` cannot be created: {why}")));
    if name.trim().is_empty() || name.trim().chars().count() > NAME_CHARS {
        return refused("the name of a field has between 1 and 200 characters");
    }
    match *kind {
        FieldKind::Text { chars_max } | FieldKind::BasicText { chars_max } => {
            Ok(if chars_max <= SHORT_TEXT {
                ApplicationType::ShortText
            } else if chars_max <= LONG_TEXT {
                ApplicationType::LongText
            } else {
                ApplicationType::LargeText
            })
        }
        FieldKind::Number { digits_max } if digits_max <= DIGITS => Ok(ApplicationType::Numeric),
        FieldKind::Number { .. } => refused("Emarsys keeps numbers of up to 24 digits; create it as a text"),
        FieldKind::Date => Ok(ApplicationType::Date),
        FieldKind::Any | FieldKind::Email | FieldKind::Choice(_) | FieldKind::MultiChoice(_) => refused(
            "programs create texts, numbers and dates only; create it in Emarsys by hand, or give it another kind",
        ),
    }
}

/// Whether a field that exists by now takes the values that were converted for one of this kind, in the same form.
pub(super) fn fits(wanted: &FieldKind, field: &Field) -> bool {
    match (wanted, kind(field, &[])) {
        (
            FieldKind::Text { chars_max: wanted } | FieldKind::BasicText { chars_max: wanted },
            FieldKind::Text { chars_max },
        ) => (*wanted).min(LARGE_TEXT) <= chars_max,
        (FieldKind::Number { digits_max: wanted }, FieldKind::Number { digits_max }) => *wanted <= digits_max,
        (FieldKind::Date, FieldKind::Date) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn field(id: u32, name: &str, string_id: &str, application_type: ApplicationType) -> Field {
        Field {
            id: FieldId::new(id),
            name: Some(name.to_owned()),
            string_id: Some(string_id.to_owned()),
            application_type,
        }
    }

    fn catalog() -> Catalog {
        Catalog(vec![
            field(1, "First Name", "first_name", ApplicationType::ShortText),
            field(7, "Children", "children", ApplicationType::SingleChoice),
            field(9001, "7", "seven", ApplicationType::ShortText),
            field(9002, "Points", "points", ApplicationType::Numeric),
            field(9003, "points ", "points_2", ApplicationType::Numeric),
            field(9004, "seven", "x", ApplicationType::ShortText),
            field(9005, "2024", "y2024", ApplicationType::ShortText),
        ])
    }

    fn found(name: &str) -> Option<u32> {
        catalog().find(name).unwrap().map(|field| field.id.get())
    }

    #[test]
    fn field_is_found_by_id_then_name_then_string_id() {
        assert_eq!(found("7"), Some(7), "an id goes before a name");
        assert_eq!(found("2024"), Some(9005), "a number that is no id may be a name");
        assert_eq!(found(" first NAME "), Some(1));
        assert_eq!(found("FIRST_NAME"), Some(1));
        assert_eq!(found("Seven"), Some(9004), "a name goes before a string id");
        assert_eq!(found("points_2"), Some(9003));
        assert_eq!(found("007"), None);
        assert_eq!(found("shoe size"), None);
    }

    #[test]
    fn name_of_two_fields_is_refused_with_their_ids() {
        let error = catalog().find("Points").unwrap_err().to_string();
        assert!(error.contains("`Points` (ids 9002, 9003)"), "{error}");
    }

    #[test]
    fn unknown_field_is_named_with_what_may_be_meant() {
        for name in ["frist name", "First Nam", "first name (legal)"] {
            let error = catalog().unknown(name).to_string();
            assert!(
                error.contains(&format!("no field `{name}`")) && error.contains("`First Name`"),
                "{error}"
            );
        }
        assert!(!catalog().unknown("shoe size").to_string().contains("perhaps"));
    }

    #[test]
    fn edits_are_counted() {
        let count = |one: &str, other: &str| {
            edits(&one.chars().collect::<Vec<_>>(), &other.chars().collect::<Vec<_>>())
        };
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("kitten", "sitting"), 3);
        assert_eq!(count("same", "same"), 0);
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_its_name() {
        use ApplicationType::{Interests, LongText, ShortText, Special, Voucher};
        for (id, kind, expected) in [
            (0, Interests, Some("read-only")),
            (3, LongText, Some("matched")),
            (31, Special, None),
            (32, Special, Some("read-only")),
            (47, ShortText, Some("read-only")),
            (9000, Special, Some("read-only")),
            (9000, Voucher, Some("voucher")),
            (9000, ShortText, None),
        ] {
            let refused =
                check_writable("X", &field(id, "X", "x", kind)).err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), expected.is_some(), "{id}: {refused:?}");
            if let (Some(refused), Some(expected)) = (refused, expected) {
                assert!(refused.contains("`X`") && refused.contains(expected), "{refused}");
            }
        }
    }

    #[test]
    fn system_texts_lose_emoji_and_custom_ones_do_not() {
        let short = ApplicationType::ShortText;
        assert_eq!(kind(&field(1, "", "", short.clone()), &[]), FieldKind::BasicText { chars_max: 60 });
        assert_eq!(kind(&field(9000, "", "", short), &[]), FieldKind::Text { chars_max: 60 });
    }

    fn made(kind: &FieldKind, value: impl Into<Value>) -> Option<Value> {
        kind.convert(value.into().as_ref()).ok().map(crate::ValueRef::into_owned)
    }

    #[test]
    fn opt_in_is_1_or_2_and_nothing_else() {
        let opt_in = kind(&field(31, "Opt-In", "optin", ApplicationType::Special), &[]);
        for (value, expected) in [
            (Value::from(true), "1"),
            ("YES".into(), "1"),
            (1.into(), "1"),
            (false.into(), "2"),
            ("no".into(), "2"),
            ("2".into(), "2"),
        ] {
            assert!(made(&opt_in, value) == Some(expected.into()), "{expected}");
        }
        assert!(made(&opt_in, Value::Null) == Some(Value::Null));
        assert!(made(&opt_in, 0).is_none());
    }

    #[test]
    fn label_of_two_choices_is_none() {
        let choice = |id, label: &str| Choice { id, label: label.to_owned(), bit_position: None };
        let choices = [choice(1, "0"), choice(2, "1"), choice(3, "Same"), choice(4, "same ")];
        let kind = kind(&field(7, "", "", ApplicationType::SingleChoice), &choices);
        assert!(made(&kind, "1") == Some("2".into()), "the label goes before the id");
        assert!(made(&kind, "same").is_none());
        assert!(made(&kind, 4) == Some("4".into()));
    }

    #[test]
    fn missing_field_is_created_as_what_it_is_said_to_be() {
        let created = |kind| type_to_create("x", &kind).map_err(|error| error.to_string());
        assert_eq!(created(FieldKind::Text { chars_max: 60 }), Ok(ApplicationType::ShortText));
        assert_eq!(created(FieldKind::Text { chars_max: 61 }), Ok(ApplicationType::LongText));
        assert_eq!(created(FieldKind::Text { chars_max: 256 }), Ok(ApplicationType::LargeText));
        assert_eq!(created(FieldKind::Number { digits_max: 24 }), Ok(ApplicationType::Numeric));
        assert_eq!(created(FieldKind::Date), Ok(ApplicationType::Date));
        for kind in [FieldKind::Any, FieldKind::Email, FieldKind::Choice(Choices::default())] {
            assert!(created(kind).unwrap_err().contains("`x`"));
        }
        assert!(created(FieldKind::Number { digits_max: 25 }).is_err());
        assert!(type_to_create(&"x".repeat(201), &FieldKind::Date).is_err());
    }

    #[test]
    fn field_made_by_somebody_else_fits_if_it_takes_the_same_form() {
        let custom = |kind| field(9000, "x", "x", kind);
        let text = FieldKind::Text { chars_max: 60 };
        assert!(fits(&text, &custom(ApplicationType::LongText)));
        assert!(!fits(&FieldKind::Text { chars_max: 61 }, &custom(ApplicationType::ShortText)));
        assert!(fits(&FieldKind::Text { chars_max: usize::MAX }, &custom(ApplicationType::LargeText)));
        assert!(!fits(&text, &custom(ApplicationType::Numeric)));
        assert!(!fits(&text, &custom(ApplicationType::SingleChoice)));
        assert!(fits(&FieldKind::Date, &custom(ApplicationType::Date)));
    }
}
