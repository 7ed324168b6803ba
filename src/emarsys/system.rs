//! What every account has from the start: the fields from 0 to 48, and the choices of those that offer some
//! (Emarsys API: System fields). Known without asking, which an account may have changed labels of.

use std::sync::LazyLock;

use super::{fields::ApplicationType, ids::FieldId};

/// One field a line, in the order in which accounts list them; the last ones have other numbers in other accounts.
const FIELDS: &str = include_str!("data/fields.txt");
const CHOICES: &str = include_str!("data/choices.txt");

/// The last choice of [`FieldId::COUNTRY`] that [`FieldId::COMPANY_COUNTRY`] has as well.
const COMPANY_COUNTRY_MAX: u32 = 206;

const LAST: FieldId = FieldId::REGISTRATION_DATE;

/// A field that every account has, with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemField {
    /// Its number.
    pub id: FieldId,
    /// Its name in English.
    pub name: &'static str,
    /// Its name for programs; empty for [`FieldId::RESPONSE_RATE`].
    pub string_id: &'static str,
    /// What it holds.
    pub application_type: ApplicationType,
    /// Whether its values cannot be written.
    pub read_only: bool,
}

impl SystemField {
    /// All of them, by number.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        static ALL: LazyLock<Vec<SystemField>> = LazyLock::new(|| {
            let mut all: Vec<_> = typical_fields().filter(|field| field.id <= LAST).collect();
            all.sort_by_key(|field| field.id);
            all
        });
        ALL.iter()
    }
}

impl FieldId {
    /// What is known of the field in every account; `None` for fields that differ by account.
    ///
    /// ```
    /// use reverse_etl::emarsys::{ApplicationType, FieldId};
    ///
    /// let country = FieldId::COUNTRY.system().unwrap();
    /// assert_eq!((country.string_id, country.read_only), ("country", false));
    /// assert_eq!(country.application_type, ApplicationType::SingleChoice);
    /// ```
    pub fn system(self) -> Option<&'static SystemField> {
        SystemField::all().find(|field| field.id == self)
    }

    /// The choices that the field has in every account, with their labels in English; none if it has no choices, or
    /// is not the same in every account. The labels of an account may differ; the ids do not.
    ///
    /// ```
    /// use reverse_etl::emarsys::FieldId;
    ///
    /// let austria = FieldId::COUNTRY.system_choices().find(|(_, label)| *label == "Austria");
    /// assert_eq!(austria, Some((10, "Austria")));
    /// ```
    pub fn system_choices(self) -> impl Iterator<Item = (u32, &'static str)> {
        let (field, last) = match self {
            Self::COMPANY_COUNTRY => (Self::COUNTRY, COMPANY_COUNTRY_MAX),
            field => (field, u32::MAX),
        };
        let line = CHOICES.lines().filter_map(|line| line.split_once(": "));
        line.filter(move |(id, _)| id.parse() == Ok(field.get()))
            .flat_map(|(_, choices)| choices.split("; "))
            .filter_map(|choice| choice.split_once(' '))
            .filter_map(|(id, label)| Some((id.parse().ok()?, label)))
            .filter(move |(id, _)| *id <= last)
    }
}

/// The fields of an account to which nothing was added, as it lists them.
pub(super) fn typical_fields() -> impl Iterator<Item = SystemField> {
    FIELDS.lines().filter_map(|line| {
        let mut parts = line.split('|');
        Some(SystemField {
            id: FieldId::new(parts.next()?.parse().ok()?),
            name: parts.next()?,
            application_type: parts.next()?.to_owned().into(),
            string_id: parts.next()?,
            read_only: parts.next() == Some("read-only"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_from_0_to_48_is_known_with_its_type() {
        let ids: Vec<u32> = SystemField::all().map(|field| field.id.get()).collect();
        assert_eq!(ids, (0..=48).collect::<Vec<_>>());
        assert!(SystemField::all().all(|field| !matches!(field.application_type, ApplicationType::Other(_))));
        let read_only = SystemField::all().filter(|field| field.read_only).map(|field| field.id.get());
        assert_eq!(read_only.collect::<Vec<_>>(), [0, 27, 28, 29, 30, 32, 33, 34, 36, 47, 48]);
        assert_eq!(FieldId::OPT_IN.system().unwrap().application_type, ApplicationType::Special);
        assert!(FieldId::new(5261).system().is_none());
    }

    #[test]
    fn every_single_choice_has_its_choices_and_nothing_else_has_any() {
        for field in SystemField::all() {
            let choices = field.id.system_choices().count();
            let offers = field.application_type == ApplicationType::SingleChoice;
            assert_eq!(choices > 1, offers, "{}", field.name);
        }
        assert_eq!(FieldId::COUNTRY.system_choices().count(), 248);
        assert_eq!(FieldId::COMPANY_COUNTRY.system_choices().last(), Some((206, "Macau")));
        assert!(FieldId::CHILDREN.system_choices().any(|choice| choice == (5, "> 3")));
        assert_eq!(FieldId::EMAIL.system_choices().count(), 0);
    }
}
