//! Why Emarsys refused something, in numbers and in our own words.
//!
//! The server's text is not passed on: it may quote the key or the value of a person.

use std::fmt;

use super::{
    ids::FieldId,
    reply::{Envelope, RowError},
};

/// Emarsys received a request and did not accept it as a whole: the cause of an [`Error`](crate::Error).
///
/// ```
/// use reverse_etl::emarsys::Refusal;
///
/// fn is_unknown_list(error: &reverse_etl::Error) -> bool {
///     error.cause::<Refusal>().is_some_and(|refusal| refusal.code == Some(2020))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Verb and path, with names for the variable parts, such as `POST contactlist/{id}/add`.
    pub endpoint: String,
    /// The HTTP status. A request can be refused with status 200.
    pub status: u16,
    /// The reply code (Emarsys API: Error codes), if the reply had one. Some codes have other meanings under other
    /// statuses and endpoints.
    pub code: Option<i64>,
    /// The field that the reply names, if it names one.
    pub field: Option<FieldId>,
    pub(crate) exists: bool,
}

/// Why one row of a request was not accepted, while others may have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    code: i64,
    field: Option<FieldId>,
    exists: bool,
}

/// What the reply codes of single contacts mean, wherever they stand.
fn is_existing(code: i64, says_exists: bool) -> bool {
    code == 2009 || (matches!(code, 2006 | 2010) && says_exists)
}

impl Refusal {
    /// A refusal of an endpoint by a status and, if there was one, an envelope.
    pub(crate) fn new(endpoint: &str, status: u16, envelope: Option<&Envelope>) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            status,
            code: envelope.map(|envelope| envelope.code),
            field: envelope.and_then(|envelope| envelope.field),
            exists: envelope.is_some_and(|envelope| is_existing(envelope.code, envelope.says_exists)),
        }
    }

    /// Whether the reason is that no contact has the key (code 2008). With a call about several contacts, it is
    /// said of all of them.
    pub fn is_missing(&self) -> bool {
        self.code == Some(2008)
    }

    /// Whether the reason is that the contact exists (code 2009, and 2006 or 2010 in that meaning).
    pub fn is_existing(&self) -> bool {
        self.exists
    }

    /// Whether the reason is that several contacts have the key (code 2010).
    pub fn is_ambiguous(&self) -> bool {
        self.code == Some(2010) && !self.exists
    }

    /// Whether the result is not there yet and the same call is to be made again later (status 202, or code 4005 of an
    /// export in progress).
    pub fn is_not_ready(&self) -> bool {
        self.status == 202 || self.code == Some(4005)
    }

    /// Whether to ask again later: it is not ready, or something else is being computed.
    pub(crate) fn is_for_later(&self) -> bool {
        self.is_not_ready() || self.status == 423
    }

    /// Whether it is said in words what the code means.
    pub(crate) fn has_meaning(&self) -> bool {
        self.code.is_some_and(|code| !self.meaning_here(code).unwrap_or_else(|| meaning(code)).is_empty())
    }

    /// What a code means under this status and endpoint, if it means something else elsewhere.
    fn meaning_here(&self, code: i64) -> Option<&'static str> {
        let (verb, path) = self.endpoint.split_once(' ').unwrap_or_default();
        let resource = path.split('/').next().unwrap_or_default();
        Some(match (code, self.status, resource) {
            (1008, _, "filter") if path.ends_with("/delete") => {
                "something else depends on the segment; delete that first"
            }
            (1008, _, "filter") => {
                "the segment's name exists, or its criteria are not valid: check fields, operators and values, and that \
                 every `and` and `or` has children"
            }
            (7001 | 7002, 403, _) => "a limit on the sending of e-mails; ask Emarsys",
            // With other statuses it says nothing that the status does not.
            (1, status, _) if status != 400 => "",
            (7003 | 9002, 500, _) => meaning(1003),
            (1003, 400, "email") => "several contacts have this internal text id",
            (10001, _, "email") if path == "email/unsubscribe" => "a parameter is not valid",
            (9001..=9004, 403, _) => "",
            (10001, 202, _) => "the result is not ready yet",
            (10001, _, "filter") => "the limit or the offset is not valid",
            (10001, _, "export" | "email") if verb == "POST" => {
                "a parameter of the export, such as a field, is not valid"
            }
            (10001, _, "export") => "the number of the export, its offset or its limit is not valid",
            (3004, _, "contactlist") if path.contains("{id}") && !path.ends_with("/rename") => {
                "no contact list has this id; it may have been deleted"
            }
            (10001, _, _) if matches!(path, "contact/getchanges" | "contact/getregistrations") => {
                "a parameter of the export is not valid"
            }
            (10001, _, "contact") if path == "contact/merge" => "a parameter of the merge is not valid",
            (13001, _, path) if path != "combinedsegments" => "the external id was not found",
            _ => return None,
        })
    }
}

impl Rejection {
    /// The reply code of the row.
    pub fn code(&self) -> i64 {
        self.code
    }

    /// The field that the reply names, if it names one.
    pub fn field(&self) -> Option<FieldId> {
        self.field
    }

    /// Whether the reason is that no contact has this key (code 2008).
    pub fn is_missing(&self) -> bool {
        self.code == 2008
    }

    /// Whether the reason is that a contact with this key exists (code 2009, and 2006 or 2010 in that meaning).
    pub fn is_existing(&self) -> bool {
        self.exists
    }

    /// Whether the reason is that several contacts have this key (code 2010).
    pub fn is_ambiguous(&self) -> bool {
        self.code == 2010 && !self.exists
    }

    /// The reason in our own words.
    pub(crate) fn meaning(&self) -> &'static str {
        match meaning(if self.exists { 2009 } else { self.code }) {
            "" => "Emarsys gives a reason that is not known here; look the code up in its documentation",
            meaning => meaning,
        }
    }

    /// What is said of a request, said of each of its rows.
    pub(crate) fn of(refusal: &Refusal) -> Self {
        Self { code: refusal.code.unwrap_or_default(), field: refusal.field, exists: refusal.exists }
    }

    /// What an entry of a reply says; `None` if it has no code.
    pub(crate) fn new(error: &RowError) -> Option<Self> {
        let code = error.code?;
        Some(Self { code, field: error.field, exists: is_existing(code, error.says_exists) })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = if self.exists { meaning(2009) } else { meaning(self.code) };
        write_reason(f, Some(self.code), self.field, meaning)
    }
}

impl std::error::Error for Rejection {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: HTTP {}, ", self.endpoint, self.status)?;
        // With 401 the code is one that says other things elsewhere.
        let code = self.code.filter(|_| self.status != 401);
        let meaning = match code {
            _ if self.exists => meaning(2009),
            Some(code) => self.meaning_here(code).unwrap_or_else(|| meaning(code)),
            None => "",
        };
        write_reason(f, self.code, self.field, meaning)
    }
}

impl std::error::Error for Refusal {}

fn write_reason(
    f: &mut fmt::Formatter<'_>,
    code: Option<i64>,
    field: Option<FieldId>,
    meaning: &str,
) -> fmt::Result {
    match code {
        Some(code) => write!(f, "reply code {code}")?,
        None => f.write_str("no reply code")?,
    }
    if let Some(field) = field {
        write!(f, ", field {field}")?;
    }
    if !meaning.is_empty() {
        write!(f, ": {meaning}")?;
    }
    Ok(())
}

/// What a reply code means in the calls that this client makes, and what to do.
fn meaning(code: i64) -> &'static str {
    match code {
        1 => "the request was not understood, or a part of its path is not valid",
        257 => "the field cannot be deleted: a form uses it",
        259 => "the field cannot be deleted: it is not one of the account's own",
        260 => "the field cannot be deleted: an export uses it",
        261 => "the field cannot be deleted: segments use it",
        262 => "the field cannot be deleted: an import uses it",
        263 => "system fields cannot be deleted or changed",
        264 => "the field cannot be deleted: a feature of Emarsys uses it",
        265 => "the field cannot be deleted: programs use it",
        1000 => "too many contacts in one request",
        1001 | 1006 | 1016 => "a parameter is missing or not valid",
        1002 => "unknown language code",
        1003 | 2011 => "Emarsys failed on its side; try again later",
        1007 => "no such field",
        1008 => "the contact list does not exist, or a value is not valid",
        1009 => "the endpoint does not take this verb",
        1010 => "the body was not accepted as JSON",
        2001 => "Emarsys could not load the account's fields; try again later",
        2002 => "too many keys in one request",
        2003 => "the keys were expected as a list",
        2004 => "the key field does not exist or cannot be used as a key; check the field's id",
        2005 => "a key value is missing or not valid",
        2006 => "a field does not exist in the account; check the field's id",
        2007 => {
            "a value does not fit its field, or there is no such field; check its id, type, format and choice id"
        }
        2008 => "no contact has this key",
        2009 => "a contact with this key exists",
        2010 => "several contacts have this key; merge or delete the duplicates in Emarsys",
        2012 => "no contact has this internal id",
        2013 | 7002 => "no contact source has this id",
        2014 | 3007 => "no field was asked for",
        2015 => "contacts cannot be searched by this field: it has no index, which Emarsys makes on request",
        2016 => "the limit is not valid",
        2020 | 3006 => "no contact list has this id; it may have been deleted",
        3001 => "the list has no name",
        3002 => "too many keys for one call about a list",
        3003 => "the keys of the list were expected as a list",
        3004 => {
            "no contact list has this id, or its name or description is missing or has a forbidden character"
        }
        3005 => "a contact list of this name exists",
        3008 => "the contact list is used by a combined segment",
        4000 => "a parameter of the export is not valid; check the list or segment, fields and time range",
        4001 => "the same export is running already; wait for it",
        4002 => "there is no export of this kind",
        4003 => "the file of the export is gone; start the export again",
        4004 => "the export was not made for download; start one with the distribution `local`",
        4005 => "the export is still in progress; ask again later",
        4006 => "the file of the export was not found; start the export again",
        4007 => "Emarsys failed to give out the export; try again later",
        5001 => "no external event has this id",
        5008 => "the data of the event are too large",
        5009 => "the data of the event are not valid JSON",
        5010 => "the time of the event is not valid",
        5011 => "the data of the event are not an object",
        5012 => "the event is in use",
        7001 => "a contact source of this name exists",
        7003 | 15011 => "too many requests",
        8029 => "this feature is not available for the account; ask Emarsys",
        9001 => "the field's name or string id is not valid",
        9002 => "a field of this name or string id exists",
        9003 => "the field's name or string id is reserved",
        9004 => "the account has no slot left for a field of this type; delete one or ask Emarsys for more",
        9005 => "the field needs a name and a type",
        9006 => "fields of this type cannot be made or deleted through the API",
        10001 => "a parameter is not valid, or the result is not ready yet",
        10002 => "no segment has this id; it may have been deleted",
        10003 | 6028 => "another evaluation is running; try again later",
        10004 => "the contact criteria of the segment are not valid JSON",
        10005 => "the type of the segment is not valid for this call",
        10008 => "no run of a segment has this id; start another one",
        10009 => "the contact that the segment is to be evaluated for is missing",
        13001 => "no combined segment has this id; it may have been deleted",
        13002..=13005 => "the name or the definition of the combined segment is not valid",
        15002 => "too many records in one request; a request has at most 1,000",
        15004 => "no table has this name",
        15006 => "Emarsys failed on its side with the relational data; try again later",
        15007 => "records cannot be searched by this column: it has no index",
        15009 => "this is not possible with a view",
        15010 => "no connection has this name",
        15001..=15013 => "the relational data were not accepted; check table, columns and values",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_says_where_what_and_what_to_do() {
        let refusal = Refusal {
            endpoint: "POST contact".into(),
            status: 400,
            code: Some(2020),
            field: None,
            exists: false,
        };
        assert_eq!(
            refusal.to_string(),
            "POST contact: HTTP 400, reply code 2020: no contact list has this id; it may have been deleted"
        );
    }

    #[test]
    fn refused_credentials_are_not_called_a_request_that_was_not_understood() {
        let refusal = Refusal {
            endpoint: "GET settings".into(),
            status: 401,
            code: Some(1),
            field: None,
            exists: false,
        };
        assert_eq!(refusal.to_string(), "GET settings: HTTP 401, reply code 1");
    }

    #[test]
    fn rejection_names_the_field() {
        let rejection = Rejection { code: 2007, field: Some(FieldId::new(14)), exists: false };
        assert_eq!(
            rejection.to_string(),
            "reply code 2007, field 14: a value does not fit its field, or there is no such field; check its id, type, format and \
             choice id"
        );
    }

    #[test]
    fn code_means_what_it_means_under_its_status_and_endpoint() {
        let shown = |endpoint: &str, status, code| {
            let refusal =
                Refusal { endpoint: endpoint.into(), status, code: Some(code), field: None, exists: false };
            refusal.to_string()
        };
        for (endpoint, status, code, part) in [
            ("GET filter/{id}/delete", 400, 1008, "depends on the segment"),
            ("PUT filter", 400, 1008, "name exists"),
            ("POST contactlist", 400, 1008, "the contact list does not exist"),
            ("GET filter/{id}/contacts", 202, 10001, "not ready yet"),
            ("GET filter/{id}/contacts", 400, 10001, "limit or the offset"),
            ("POST export/filter", 400, 10001, "parameter of the export"),
            ("POST contact/getdata", 429, 7003, "too many requests"),
            ("POST contact/getdata", 500, 7003, "failed on its side"),
            ("POST source/create", 400, 7001, "source of this name exists"),
            ("POST source/create", 403, 7001, "sending of e-mails"),
            ("GET combinedsegments/{id}", 404, 13001, "no combined segment"),
            ("POST contact/merge", 404, 13001, "external id was not found"),
            ("GET export/{id}/data", 404, 4005, "still in progress"),
            ("GET export/{id}/data", 410, 4003, "file of the export is gone"),
        ] {
            let shown = shown(endpoint, status, code);
            assert!(shown.contains(part), "{shown}");
        }
    }
}
