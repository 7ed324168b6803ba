//! Names and numbers that must not be mixed up: of a field, a contact, a list, a segment and so on.
//!
//! Emarsys prints the same id as a JSON number in one reply and as a string in the next; reading accepts both.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};
use serde_json::Value;

use crate::{Error, FieldName, Result};

/// The number of a contact field (Emarsys API: Fields).
///
/// The fields from 0 to 48 have the same number in every account and are constants here; all others, those made by
/// the account included, are found by [`Fields::list`](super::Fields::list).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Digits")]
pub struct FieldId(u32);

/// Numbers that are read from a JSON number or a string of digits, and written as a number.
macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident, $what:literal;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "Digits")]
        pub struct $name(u64);

        impl $name {
            /// The one of this number.
            pub const fn new(id: u64) -> Self {
                Self(id)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let wrong = || Error::config(concat!("the id of ", $what, " is a number"));
                digits(text).map(Self).ok_or_else(wrong)
            }
        }

        impl From<Digits> for $name {
            fn from(id: Digits) -> Self {
                Self(id.0)
            }
        }
    )+};
}

ids! {
    /// The internal number of a contact (Emarsys API: Contacts). It is never used again for another one.
    ContactId, "a contact";
    /// The number of a contact list (Emarsys API: Contact lists).
    ListId, "a contact list";
    /// The number of a segment, combined or not (Emarsys API: Segments).
    SegmentId, "a segment";
    /// The number of a contact source (Emarsys API: Contact sources). Not a value of the field
    /// [`SOURCE`](FieldId::SOURCE).
    SourceId, "a contact source";
    /// The number of an external event (Emarsys API: External events).
    EventId, "an external event";
    /// The number of an export (Emarsys API: Exports).
    ExportId, "an export";
    /// The number of an e-mail campaign (Emarsys API: E-mails).
    EmailId, "an e-mail campaign";
}

/// As a text, which is how Emarsys sends the value of a key: `Contact::new(KeyField::Id, id)`.
impl From<ContactId> for Value {
    fn from(id: ContactId) -> Self {
        Self::String(id.to_string())
    }
}

impl SegmentId {
    /// All contacts of the account. It stands for a segment where contacts are counted and read; it has no criteria.
    pub const ALL_CONTACTS: Self = Self(0);
}

/// The evaluation of a segment that was asked for (Emarsys API: Segments).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(#[serde(deserialize_with = "text")] String);

impl RunId {
    /// The run of this id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What tells contacts apart in a call: a field, or one of the ids that every contact has (Emarsys API: Concepts).
///
/// A field other than the e-mail needs an index, which Emarsys makes on request. No field is unique: a value that
/// several contacts have is rejected with code 2010.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyField {
    /// The value of a field, mostly [`FieldId::EMAIL`].
    Field(FieldId),
    /// The internal number, a [`ContactId`]. No contact can be created with it.
    Id,
    /// The internal text id. No contact can be created with it.
    Uid,
    /// The external id, which few accounts are set up for.
    Eid,
}

impl From<FieldId> for KeyField {
    fn from(field: FieldId) -> Self {
        Self::Field(field)
    }
}

impl fmt::Display for KeyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Id => f.write_str("id"),
            Self::Uid => f.write_str("uid"),
            Self::Eid => f.write_str("eid"),
        }
    }
}

/// Always as a string: the form that every endpoint takes.
impl Serialize for KeyField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FieldId {
    /// Interests; read-only.
    pub const INTERESTS: Self = Self(0);
    /// First name, short text.
    pub const FIRST_NAME: Self = Self(1);
    /// Last name, short text.
    pub const LAST_NAME: Self = Self(2);
    /// E-mail address, long text.
    pub const EMAIL: Self = Self(3);
    /// Date of birth.
    pub const BIRTH_DATE: Self = Self(4);
    /// Gender, single choice.
    pub const GENDER: Self = Self(5);
    /// Marital status, single choice.
    pub const MARITAL_STATUS: Self = Self(6);
    /// Children, single choice.
    pub const CHILDREN: Self = Self(7);
    /// Education, single choice.
    pub const EDUCATION: Self = Self(8);
    /// Title, single choice.
    pub const TITLE: Self = Self(9);
    /// Street address, long text.
    pub const ADDRESS: Self = Self(10);
    /// City, short text.
    pub const CITY: Self = Self(11);
    /// State, short text.
    pub const STATE: Self = Self(12);
    /// Postal code, short text.
    pub const ZIP_CODE: Self = Self(13);
    /// Country or region, single choice.
    pub const COUNTRY: Self = Self(14);
    /// Phone, short text.
    pub const PHONE: Self = Self(15);
    /// Fax.
    pub const FAX: Self = Self(16);
    /// Position in the company, single choice.
    pub const JOB_POSITION: Self = Self(17);
    /// Name of the company, long text.
    pub const COMPANY: Self = Self(18);
    /// Department, single choice.
    pub const DEPARTMENT: Self = Self(19);
    /// Industry, single choice.
    pub const INDUSTRY: Self = Self(20);
    /// Phone of the company, short text.
    pub const COMPANY_PHONE: Self = Self(21);
    /// Fax of the company.
    pub const COMPANY_FAX: Self = Self(22);
    /// Number of employees, single choice.
    pub const COMPANY_EMPLOYEES: Self = Self(23);
    /// Annual revenue, single choice.
    pub const COMPANY_REVENUE: Self = Self(24);
    /// Web address.
    pub const URL: Self = Self(25);
    /// Preferred e-mail format, single choice.
    pub const EMAIL_FORMAT: Self = Self(26);
    /// Average length of a visit; read-only.
    pub const VISIT_DURATION: Self = Self(27);
    /// Page views per day; read-only.
    pub const PAGE_VIEWS: Self = Self(28);
    /// Days since the last e-mail was sent; read-only.
    pub const DAYS_SINCE_EMAIL: Self = Self(29);
    /// Response rate; read-only and absent from most accounts.
    pub const RESPONSE_RATE: Self = Self(30);
    /// Consent to be written to: 1 yes, 2 no, null unknown.
    pub const OPT_IN: Self = Self(31);
    /// Status of the user; read-only.
    pub const STATUS: Self = Self(32);
    /// Where the contact came from; read-only.
    pub const SOURCE: Self = Self(33);
    /// The form the contact came by; read-only.
    pub const FORM: Self = Self(34);
    /// Language of the registration, single choice.
    pub const LANGUAGE: Self = Self(35);
    /// Newsletter; read-only.
    pub const NEWSLETTER: Self = Self(36);
    /// Mobile phone, short text.
    pub const MOBILE: Self = Self(37);
    /// First name of the partner, short text.
    pub const PARTNER_FIRST_NAME: Self = Self(38);
    /// Date of birth of the partner.
    pub const PARTNER_BIRTH_DATE: Self = Self(39);
    /// Anniversary, date.
    pub const ANNIVERSARY: Self = Self(40);
    /// Address of the company, long text.
    pub const COMPANY_ADDRESS: Self = Self(41);
    /// Postal code of the company, short text.
    pub const COMPANY_ZIP_CODE: Self = Self(42);
    /// City of the company, short text.
    pub const COMPANY_CITY: Self = Self(43);
    /// State of the company, short text.
    pub const COMPANY_STATE: Self = Self(44);
    /// Country or region of the company, single choice.
    pub const COMPANY_COUNTRY: Self = Self(45);
    /// Salutation, single choice.
    pub const SALUTATION: Self = Self(46);
    /// Whether the e-mail address is valid; read-only.
    pub const EMAIL_VALID: Self = Self(47);
    /// Date of the first registration; read-only.
    pub const REGISTRATION_DATE: Self = Self(48);

    /// The field of this number.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number as the name of a field in a mapping: `Mapping::map("first_name", FieldId::FIRST_NAME)`.
impl From<FieldId> for FieldName {
    fn from(id: FieldId) -> Self {
        id.to_string().into()
    }
}

impl FromStr for FieldId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        digits(text)
            .and_then(|id| u32::try_from(id).ok())
            .map(Self)
            .ok_or_else(|| Error::config("the id of a field is a number of up to 9 digits"))
    }
}

/// An id as a reply may print it: a number, or a string of digits.
struct Digits(u64);

/// The number that `text` prints, if it is digits and nothing else (so `+7` is none).
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl TryFrom<Digits> for FieldId {
    type Error = &'static str;

    fn try_from(id: Digits) -> Result<Self, Self::Error> {
        u32::try_from(id.0).map(Self).map_err(|_| "the id of a field is out of range")
    }
}

/// A text id, which PHP may print as a number.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Number(u64),
        Text(String),
    }

    Ok(match Text::deserialize(deserializer)? {
        Text::Number(number) => number.to_string(),
        Text::Text(text) => text,
    })
}

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DigitsVisitor;

        impl Visitor<'_> for DigitsVisitor {
            type Value = Digits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string of digits")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Digits, E> {
                Ok(Digits(id))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digits, E> {
                digits(text).map(Digits).ok_or_else(|| E::custom("not a string of digits"))
            }
        }

        deserializer.deserialize_any(DigitsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_from_a_number_and_from_a_string() {
        assert_eq!(
            serde_json::from_str::<ContactId>("968000111222").unwrap(),
            ContactId::new(968_000_111_222)
        );
        assert_eq!(serde_json::from_str::<ContactId>("\"700001\"").unwrap(), ContactId::new(700_001));
        assert_eq!(serde_json::from_str::<FieldId>("\"3\"").unwrap(), FieldId::EMAIL);
    }

    #[test]
    fn what_is_not_a_plain_number_is_no_id() {
        for text in ["\"\"", "\"+7\"", "\"7a\"", "-7", "7.5", "null", "[]", "true"] {
            assert!(serde_json::from_str::<ListId>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<FieldId>("4294967296").is_err());
        assert!("".parse::<ListId>().is_err());
        assert_eq!("4711".parse::<ListId>().unwrap(), ListId::new(4711));
    }
}
