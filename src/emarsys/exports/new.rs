//! An export to be started: of whom, which fields, in which form.

use std::fmt;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Serialize, Serializer};

use super::super::{
    ids::{FieldId, ListId, SegmentId},
    words::words,
};
use crate::{Error, Result};

/// The most fields of one export.
const FIELDS_MAX: usize = 20;

/// Fields that Emarsys does not export.
const NOT_EXPORTED: [FieldId; 5] = [
    FieldId::VISIT_DURATION,
    FieldId::PAGE_VIEWS,
    FieldId::DAYS_SINCE_EMAIL,
    FieldId::STATUS,
    FieldId::SOURCE,
];

/// An export to be started by [`Exports::start`](super::Exports::start). It has a header line and, unless set
/// otherwise, is made for download.
///
/// Its `Debug` does not show the notification URL, which may hold a secret.
#[derive(Clone, Serialize)]
pub struct NewExport {
    #[serde(skip)]
    pub(super) kind: Kind,
    distribution_method: Distribution,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_range: Option<TimeRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contactlist: Option<ListId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<SegmentId>,
    #[serde(serialize_with = "numbers_as_texts")]
    contact_fields: Vec<FieldId>,
    delimiter: Delimiter,
    /// Without the line, nothing would tell what a column is.
    add_field_names_header: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_url: Option<String>,
}

/// Whom an export is of; each is an endpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Changes,
    Registrations,
    List,
    Segment,
}

/// From when to when, in Emarsys' own time, which is that of Vienna whatever the account's time zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    from: NaiveDateTime,
    to: NaiveDateTime,
    days: bool,
}

/// What stands between the columns of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Delimiter {
    /// `,`
    #[default]
    #[serde(rename = ",")]
    Comma,
    /// `;`
    #[serde(rename = ";")]
    Semicolon,
}

words! {
    /// Where the changes of an export came from.
    Origin {
        /// From anywhere.
        All = "all",
        /// From a form.
        Form = "form",
        /// From the API.
        Api = "api",
    }
}

words! {
    /// Where the file of an export goes.
    Distribution {
        /// It stays at Emarsys, to be downloaded.
        Local = "local",
    }
}

impl TimeRange {
    /// From one day to another, sent as days. Whether the last one is included is not documented.
    pub fn days(from: NaiveDate, to: NaiveDate) -> Self {
        let start = |day: NaiveDate| day.and_time(NaiveTime::MIN);
        Self { from: start(from), to: start(to), days: true }
    }

    /// From one time to another, in whole seconds, sent as `YYYY-MM-DD HH:MM:SS`: the form in which Emarsys writes
    /// times. The documentation has an example of days only.
    pub fn times(from: NaiveDateTime, to: NaiveDateTime) -> Self {
        Self { from, to, days: false }
    }
}

impl Serialize for TimeRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = if self.days { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M:%S" };
        [self.from, self.to].map(|time| time.format(form).to_string()).serialize(serializer)
    }
}

impl NewExport {
    /// The contacts that were changed in a time (Emarsys API: Export contact changes).
    ///
    /// Whether all changes that were made through the API are in it, or only those of e-mail address and opt-in,
    /// Emarsys documents in two ways: do not depend on it.
    pub fn changes(range: TimeRange, fields: &[FieldId]) -> Self {
        let new = Self::new(Kind::Changes, fields);
        Self { time_range: Some(range), origin: Some(Origin::All), ..new }
    }

    /// The contacts that were registered in a time (Emarsys API: Export contact registrations).
    pub fn registrations(range: TimeRange, fields: &[FieldId]) -> Self {
        Self { time_range: Some(range), ..Self::new(Kind::Registrations, fields) }
    }

    /// The contacts of a list (Emarsys API: Export a contact list).
    pub fn list(list: ListId, fields: &[FieldId]) -> Self {
        Self { contactlist: Some(list), ..Self::new(Kind::List, fields) }
    }

    /// The contacts of a segment (Emarsys API: Export a segment). The documentation that is known does not name the
    /// member for the segment; it is sent as `filter`.
    pub fn segment(segment: SegmentId, fields: &[FieldId]) -> Self {
        Self { filter: Some(segment), ..Self::new(Kind::Segment, fields) }
    }

    fn new(kind: Kind, fields: &[FieldId]) -> Self {
        Self {
            kind,
            distribution_method: Distribution::Local,
            origin: None,
            origin_id: None,
            time_range: None,
            contactlist: None,
            filter: None,
            contact_fields: fields.to_vec(),
            delimiter: Delimiter::default(),
            add_field_names_header: 1,
            language: None,
            notification_url: None,
        }
    }

    /// Where changes, or registrations, have to come from; default of changes: [`Origin::All`].
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// The number of the form, or of the source of the API, that they have to come from; with
    /// [`Origin::Api`], 0 stands for any.
    #[must_use]
    pub fn origin_id(mut self, id: u64) -> Self {
        self.origin_id = Some(id);
        self
    }

    /// What stands between the columns; default: a comma.
    #[must_use]
    pub fn delimiter(mut self, delimiter: Delimiter) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The language of the export, such as `en`; default: chosen by Emarsys.
    #[must_use]
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// An address that Emarsys calls once the export is ready, up to 5 times more if that fails, a minute apart.
    #[must_use]
    pub fn notification_url(mut self, url: impl Into<String>) -> Self {
        self.notification_url = Some(url.into());
        self
    }

    /// Where the file goes; default: [`Distribution::Local`], the only one that can be downloaded. For others the
    /// account needs settings of its own.
    #[must_use]
    pub fn distribution(mut self, distribution: Distribution) -> Self {
        self.distribution_method = distribution;
        self
    }

    /// The fields, in the order of the columns.
    pub fn fields(&self) -> &[FieldId] {
        &self.contact_fields
    }

    pub(super) fn is_local(&self) -> bool {
        self.distribution_method == Distribution::Local
    }

    pub(super) fn check(&self) -> Result<()> {
        let count = self.contact_fields.len();
        if count == 0 || count > FIELDS_MAX {
            return Err(Error::config(format!(
                "an export has 1 to {FIELDS_MAX} fields, and this one has {count}"
            )));
        }
        let twice = |(at, field): (usize, _)| self.contact_fields[..at].contains(field).then_some(*field);
        if let Some(field) = self.contact_fields.iter().enumerate().find_map(twice) {
            return Err(Error::config(format!("an export has the field {field} twice: leave one out")));
        }
        if let Some(field) = self.contact_fields.iter().find(|field| NOT_EXPORTED.contains(field)) {
            return Err(Error::config(format!("Emarsys does not export the field {field}: leave it out")));
        }
        if self.time_range.is_some_and(|range| range.from > range.to) {
            return Err(Error::config("the time range of an export ends before it begins"));
        }
        Ok(())
    }
}

impl fmt::Debug for NewExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewExport")
            .field("kind", &self.kind)
            .field("list", &self.contactlist)
            .field("segment", &self.filter)
            .field("time_range", &self.time_range)
            .field("fields", &self.contact_fields)
            .finish_non_exhaustive()
    }
}

/// The form in which the ids of fields are sent elsewhere.
fn numbers_as_texts<S: Serializer>(fields: &[FieldId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fields.iter().map(FieldId::to_string))
}
