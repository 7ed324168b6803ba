//! The rows of a call that carries many: cut into requests, and told what became of each.
//!
//! Success is nowhere stated per row: a reply names the rows that failed, and counts the others at best. So a row
//! counts as done only if the reply accounts for all rows of its request.

use std::{collections::HashMap, fmt, io, ops::Range, sync::Arc, vec};

use serde::Serialize;
use serde_json::Value;

use super::{
    refusal::{Refusal, Rejection},
    reply::{RowErrors, key_text, number},
};
use crate::{Delivery, Error, ErrorKind, Result};

/// The most bytes that the rows of one request may have. Emarsys takes bodies of 8 MB; the rest is left for what
/// stands around the rows.
const ROWS_BYTES_MAX: usize = 7_900_000;

/// What became of one row of a write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RowResult {
    /// It was done.
    Done,
    /// It was not done, and the reply says why for this row.
    Rejected(Rejection),
    /// Nothing was said about this row. [`Error::delivery`] tells whether it may have been done; rows of the same
    /// request share the error.
    Failed(Arc<Error>),
}

impl RowResult {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

impl<T> Lookup<T> {
    /// What was found, if it was.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Rejected(_) | Self::Failed(_) => None,
        }
    }
}

/// In one line, without anything about a person.
impl fmt::Display for RowResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Rejected(rejection) => write!(f, "rejected with {rejection}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// What became of one key of a read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lookup<T> {
    /// The contact with this key.
    Found(T),
    /// No contact has this key.
    Missing,
    /// The reply gives another reason for this key, such as that several contacts have it.
    Rejected(Rejection),
    /// Nothing was said about this key.
    Failed(Arc<Error>),
}

/// The key values of a call's rows, each of them once. Personal data: no `Debug`.
pub(crate) struct Keys {
    rows: HashMap<String, usize>,
}

impl Keys {
    /// Refuses keys that are empty or, apart from case and surrounding blanks, equal: a reply could not be matched
    /// to their rows.
    pub(crate) fn new<'a>(endpoint: &str, keys: impl IntoIterator<Item = Option<&'a str>>) -> Result<Self> {
        let mut rows = HashMap::new();
        for (row, key) in keys.into_iter().enumerate() {
            let Some(key) = key.map(lenient).filter(|key| !key.is_empty()) else {
                return Err(Error::config(format!(
                    "{endpoint}: row {row} (the first is 0) has no usable value in the key field"
                )));
            };
            if let Some(other) = rows.insert(key, row) {
                return Err(Error::config(format!(
                    "{endpoint}: rows {other} and {row} (the first is 0) have the same key, apart from case and \
                     surrounding blanks; send each contact once"
                )));
            }
        }
        Ok(Self { rows })
    }

    /// The row with this key, within one request.
    pub(crate) fn row(&self, key: &str, request: &Range<usize>) -> Option<usize> {
        self.rows.get(&lenient(key)).copied().filter(|row| request.contains(row))
    }
}

/// Keys in whatever form, as text.
pub(crate) fn texts(keys: &[impl AsRef<str>]) -> Vec<&str> {
    keys.iter().map(AsRef::as_ref).collect()
}

/// How Emarsys compares keys, and whether it echoes them as they were sent, is not known.
fn lenient(key: &str) -> String {
    key.trim().to_lowercase()
}

/// The text by which a reply will know this key value; `None` if it can be no key.
pub(crate) fn usable_key(value: &Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Number(_) => Some(key_text(value)),
        _ => None,
    }
}

/// Cuts rows into requests of at most `rows_max` rows and a body that Emarsys takes.
pub(crate) fn split<T: Serialize>(endpoint: &str, rows: &[T], rows_max: usize) -> Result<Vec<Range<usize>>> {
    let mut requests = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        let size = json_bytes(row)? + 1;
        if size > ROWS_BYTES_MAX {
            return Err(Error::config(format!(
                "{endpoint}: row {index} (the first is 0) alone has {size} bytes, and a request has room for \
                 {ROWS_BYTES_MAX} bytes of rows"
            )));
        }
        if index - start == rows_max || bytes + size > ROWS_BYTES_MAX {
            requests.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < rows.len() {
        requests.push(start..rows.len());
    }
    Ok(requests)
}

/// The length of `value` as JSON.
fn json_bytes(value: &impl Serialize) -> Result<usize> {
    struct Counter(usize);

    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value)
        .map_err(|_| Error::config("a row cannot be written as JSON"))?;
    Ok(counter.0)
}

/// The requests of one call, sent one after the other, and what became of their rows so far.
///
/// If the first request fails, nothing is known of any row, and that is the error of the call. If a later one does,
/// its rows share the error, and the rows after it are not sent.
pub(crate) struct Parts<T> {
    requests: vec::IntoIter<Range<usize>>,
    results: Vec<T>,
    failed: fn(Arc<Error>) -> T,
    failure: Option<Arc<Error>>,
}

impl<T> Parts<T> {
    /// `failed` is the result of a row whose request failed.
    pub(crate) fn new(requests: Vec<Range<usize>>, failed: fn(Arc<Error>) -> T) -> Self {
        Self { requests: requests.into_iter(), results: Vec::new(), failed, failure: None }
    }

    /// The rows of the next request to be sent.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        if self.failure.is_some() { None } else { self.requests.next() }
    }

    /// What became of the request of these rows.
    pub(crate) fn settle(&mut self, rows: Range<usize>, outcome: Result<Vec<T>>) -> Result<()> {
        match outcome {
            Ok(results) => self.results.extend(results),
            Err(error) if self.results.is_empty() => return Err(error),
            Err(error) => {
                let error = Arc::new(error);
                self.results.extend(rows.map(|_| (self.failed)(Arc::clone(&error))));
                self.failure = Some(error);
            }
        }
        Ok(())
    }

    /// The results of all rows, in their order.
    pub(crate) fn finish(mut self) -> Vec<T> {
        if let Some(failure) = self.failure {
            let text = "not sent, because the request before it failed";
            let not_sent =
                Error::new(failure.kind(), text).with_delivery(Delivery::NotSent).with_source(failure);
            let not_sent = Arc::new(not_sent);
            let rest = self.requests.flatten().map(|_| (self.failed)(Arc::clone(&not_sent)));
            self.results.extend(rest);
        }
        self.results
    }
}

/// One request of a write and what its reply says about its rows.
pub(crate) struct Account<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) status: u16,
    pub(crate) keys: &'a Keys,
    pub(crate) rows: Range<usize>,
    pub(crate) done: Done,
}

/// How many rows a reply says were done.
#[derive(Clone, Copy)]
pub(crate) enum Done {
    /// It does not say.
    Unsaid,
    /// So many at least: of those that are as they should be, it may not count those that were so before.
    AtLeast(usize),
    /// So many.
    Exactly(usize),
}

impl Done {
    /// The count of a reply that has one or not, and that means so many at least.
    pub(crate) fn at_least(count: &Value) -> Self {
        number(count).and_then(|count| count.try_into().ok()).map_or(Self::Unsaid, Self::AtLeast)
    }

    fn is_some(self) -> bool {
        matches!(self, Self::AtLeast(1..) | Self::Exactly(1..))
    }

    /// Whether it can be so many of all.
    fn fits(self, rows: usize) -> bool {
        match self {
            Self::Unsaid => true,
            Self::AtLeast(done) => done <= rows,
            Self::Exactly(done) => done == rows,
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => f.write_str("an unstated number"),
            Self::AtLeast(done) | Self::Exactly(done) => done.fmt(f),
        }
    }
}

impl Account<'_> {
    /// The result of each row.
    ///
    /// A row without an error is done only if all are accounted for: every error belongs to a row, and the rows
    /// said to be done and those with an error together are the rows that were sent.
    pub(crate) fn settle(self, errors: &RowErrors) -> Result<Vec<RowResult>> {
        let (mut rejections, whole) = self.rejections(errors);
        if whole.is_some() && !self.done.is_some() {
            return Err(self.refusal(whole));
        }
        let matched = rejections.len();
        let all_matched = matched == errors.0.len();
        let accounted = all_matched && self.done.fits(self.rows.len() - matched);
        let silent = if accounted { None } else { Some(self.unaccounted(matched)) };
        let results = self.rows.clone().map(|row| match (rejections.remove(&row), &silent) {
            (Some(result), _) => result,
            (None, None) => RowResult::Done,
            (None, Some(error)) => RowResult::Failed(Arc::clone(error)),
        });
        Ok(results.collect())
    }

    /// The rows that have an error of their own, and the error about the request as a whole, if there is one. A
    /// second error for the same row is left out, so that the rows no longer add up.
    fn rejections<'e>(
        &self,
        errors: &'e RowErrors,
    ) -> (HashMap<usize, RowResult>, Option<&'e super::reply::RowError>) {
        let mut rejections = HashMap::new();
        for error in &errors.0 {
            let Some(row) = self.keys.row(&error.key, &self.rows) else { continue };
            let result = match Rejection::new(error) {
                Some(rejection) => RowResult::Rejected(rejection),
                None => RowResult::Failed(Arc::new(
                    Error::new(
                        ErrorKind::Undecodable,
                        format!("{}: the reply has an error for this row, but without a code", self.endpoint),
                    )
                    .with_delivery(Delivery::Unknown),
                )),
            };
            rejections.entry(row).or_insert(result);
        }
        (rejections, errors.0.iter().find(|error| error.is_of_the_request()))
    }

    fn refusal(&self, whole: Option<&super::reply::RowError>) -> Error {
        let refusal = Refusal {
            endpoint: self.endpoint.to_owned(),
            status: self.status,
            code: whole.and_then(|error| error.code),
            field: whole.and_then(|error| error.field),
            exists: false,
        };
        Error::refused(refusal.to_string()).with_source(refusal)
    }

    fn unaccounted(&self, matched: usize) -> Arc<Error> {
        let sent = self.rows.len();
        let done = self.done;
        let text = format!(
            "{}: the reply does not account for all {sent} rows ({done} done, {matched} with an error), so which \
             of the others were done is unknown",
            self.endpoint
        );
        Arc::new(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::Unknown))
    }
}

/// The errors of a reply about one thing: an error of a row inside a success is a refusal.
pub(crate) fn none_rejected(endpoint: &str, status: u16, errors: &RowErrors) -> Result<()> {
    let Some(error) = errors.0.first() else { return Ok(()) };
    let exists = Rejection::new(error).is_some_and(|rejection| rejection.is_existing());
    let refusal =
        Refusal { endpoint: endpoint.to_owned(), status, code: error.code, field: error.field, exists };
    Err(Error::refused(refusal.to_string()).with_source(refusal))
}

/// The result of each key of a read: found, or what the reply's errors say.
pub(crate) fn look_up<T>(
    endpoint: &str,
    status: u16,
    keys: &Keys,
    rows: Range<usize>,
    found: Vec<(String, T)>,
    errors: &RowErrors,
) -> Result<Vec<Lookup<T>>> {
    let account = Account { endpoint, status, keys, rows: rows.clone(), done: Done::Unsaid };
    let (rejections, whole) = account.rejections(errors);
    if whole.is_some() && found.is_empty() {
        return Err(account.refusal(whole));
    }
    let silent = |what: &str| {
        let text = format!("{endpoint}: the reply {what}");
        Lookup::Failed(Arc::new(Error::new(ErrorKind::Undecodable, text)))
    };
    let mut results: Vec<Option<Lookup<T>>> = rows.clone().map(|_| None).collect();
    for (key, found) in found {
        if let Some(row) = keys.row(&key, &rows) {
            let slot = &mut results[row - rows.start];
            *slot = Some(match slot {
                None => Lookup::Found(found),
                Some(_) => silent("has two contacts for this key; merge the duplicates in Emarsys"),
            });
        }
    }
    for (row, result) in rejections {
        results[row - rows.start] = Some(match result {
            RowResult::Rejected(rejection) if rejection.is_missing() => Lookup::Missing,
            RowResult::Rejected(rejection) => Lookup::Rejected(rejection),
            RowResult::Done => continue,
            RowResult::Failed(error) => Lookup::Failed(error),
        });
    }
    Ok(results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| silent("does not mention this key")))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Results in one letter each: done, rejected with a code, failed.
    fn settle(keys: &[&str], done: Option<usize>, errors: Value) -> Result<String> {
        let known = Keys::new("PUT contact", keys.iter().copied().map(Some))?;
        let errors = serde_json::from_value(errors).unwrap();
        let account = Account {
            endpoint: "PUT contact",
            status: 200,
            keys: &known,
            rows: 0..keys.len(),
            done: done.map_or(Done::Unsaid, Done::Exactly),
        };
        let letters = account.settle(&errors)?.into_iter().map(|result| match result {
            RowResult::Done => "done".to_owned(),
            RowResult::Rejected(rejection) => rejection.code().to_string(),
            RowResult::Failed(error) => {
                assert_eq!(error.delivery(), Delivery::Unknown);
                "unknown".to_owned()
            }
        });
        Ok(letters.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn rows_that_add_up_are_done_or_have_their_error() {
        assert_eq!(settle(&["a", "b"], Some(2), json!([])).unwrap(), "done done");
        assert_eq!(settle(&["a", "b"], Some(2), Value::Null).unwrap(), "done done");
        assert_eq!(settle(&["a", "b"], Some(1), json!({"a": {"2008": ""}})).unwrap(), "2008 done");
        assert_eq!(
            settle(&["a", "b"], Some(0), json!({"a": {"2007": ""}, "b": {"2010": ""}})).unwrap(),
            "2007 2010"
        );
    }

    #[test]
    fn rows_that_do_not_add_up_are_unknown_unless_they_have_an_error() {
        assert_eq!(settle(&["a", "b"], Some(1), json!([])).unwrap(), "unknown unknown");
        assert_eq!(settle(&["a", "b"], Some(3), json!([])).unwrap(), "unknown unknown");
        assert_eq!(
            settle(&["a", "b", "c"], Some(1), json!({"a": {"2008": ""}})).unwrap(),
            "2008 unknown unknown"
        );
    }

    #[test]
    fn error_that_belongs_to_no_row_makes_the_others_unknown() {
        assert_eq!(settle(&["a", "b"], Some(1), json!({"z": {"2008": ""}})).unwrap(), "unknown unknown");
        assert_eq!(settle(&["a", "b"], Some(2), json!({"z": {"2008": ""}})).unwrap(), "unknown unknown");
        assert_eq!(settle(&["a", "b"], None, json!({"z": {"2008": ""}})).unwrap(), "unknown unknown");
    }

    #[test]
    fn second_error_for_a_row_is_one_too_many() {
        let errors = json!({"A": {"2008": ""}, "a": {"2010": ""}});
        assert_eq!(settle(&["a", "b", "c"], Some(1), errors).unwrap(), "2008 unknown unknown");
    }

    #[test]
    fn errors_are_matched_whatever_their_case_and_blanks() {
        let errors = json!({" ADA@Shop.test ": {"2008": ""}});
        assert_eq!(settle(&["ada@shop.test", "b"], Some(1), errors).unwrap(), "2008 done");
    }

    #[test]
    fn list_reply_without_errors_means_done() {
        assert_eq!(settle(&["a", "b"], None, json!([])).unwrap(), "done done");
        assert_eq!(settle(&["a", "b"], None, json!({"b": {"2008": ""}})).unwrap(), "done 2008");
    }

    #[test]
    fn error_without_a_code_leaves_its_row_unknown() {
        assert_eq!(settle(&["a", "b"], Some(1), json!({"a": []})).unwrap(), "unknown done");
    }

    #[test]
    fn error_about_the_key_field_refuses_the_request() {
        for key in ["<NO_KEY_ID>", ""] {
            let error =
                settle(&["a"], Some(0), json!({key: {"2004": "Invalid key field id: 999"}})).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
            let refusal = error.cause::<Refusal>().unwrap();
            assert_eq!((refusal.status, refusal.code), (200, Some(2004)));
            assert_eq!(refusal.field.map(super::super::FieldId::get), Some(999));
        }
    }

    #[test]
    fn error_about_the_request_beside_successes_leaves_rows_unknown() {
        let errors = json!({"<NO_KEY_ID>": {"2004": ""}});
        assert_eq!(settle(&["a", "b"], Some(1), errors).unwrap(), "unknown unknown");
    }

    #[test]
    fn keys_that_a_reply_could_not_tell_apart_are_refused_before_sending() {
        let error = Keys::new("PUT contact", [Some("ada@shop.test"), Some("b"), Some(" Ada@shop.TEST")]);
        let error = error.err().unwrap();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        assert!(error.to_string().contains("rows 0 and 2"), "{error}");
        assert!(!format!("{error:?}").to_lowercase().contains("ada"));
        assert!(Keys::new("PUT contact", [Some("  ")]).is_err());
        assert!(Keys::new("PUT contact", [None]).is_err());
    }

    #[test]
    fn rows_are_cut_by_count_and_by_bytes() {
        assert_eq!(split("", &vec!["x"; 2001], 1000).unwrap(), [0..1000, 1000..2000, 2000..2001]);
        assert_eq!(split("", &vec!["x"; 2000], 1000).unwrap(), [0..1000, 1000..2000]);
        assert!(split::<&str>("", &[], 1000).unwrap().is_empty());
        let long = "x".repeat(3_000_000);
        assert_eq!(split("", &[&long, &long, &long], 1000).unwrap(), [0..2, 2..3]);
        let error = split("", &["x".repeat(8_000_000)], 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn failure_of_the_first_request_is_the_error_of_the_call() {
        let mut parts = Parts::<Result<usize, Arc<Error>>>::new(vec![0..2, 2..3], Err);
        let rows = parts.next().unwrap();
        let error = parts.settle(rows, Err(Error::refused("no"))).unwrap_err();
        assert_eq!(error.delivery(), Delivery::Refused);
    }

    #[test]
    fn failure_of_a_later_request_is_the_state_of_its_rows_and_the_rest_is_not_sent() {
        let mut parts = Parts::new(vec![0..2, 2..4, 4..5], Err);
        assert_eq!(parts.next(), Some(0..2));
        parts.settle(0..2, Ok(vec![Ok(0), Ok(1)])).unwrap();
        assert_eq!(parts.next(), Some(2..4));
        parts.settle(2..4, Err(Error::no_answer("lost", "reset"))).unwrap();
        assert_eq!(parts.next(), None);
        let results = parts.finish();
        let states: Vec<_> =
            results.iter().map(|result| result.as_ref().map_err(|error| error.delivery())).collect();
        assert_eq!(
            states,
            [Ok(&0), Ok(&1), Err(Delivery::Unknown), Err(Delivery::Unknown), Err(Delivery::NotSent)]
        );
    }

    fn look(keys: &[&str], found: &[(&str, u64)], errors: Value) -> Result<String> {
        let known = Keys::new("POST contact/checkids", keys.iter().copied().map(Some))?;
        let found = found.iter().map(|(key, id)| ((*key).to_owned(), *id)).collect();
        let errors = serde_json::from_value(errors).unwrap();
        let results = look_up("POST contact/checkids", 200, &known, 0..keys.len(), found, &errors)?;
        let words = results.into_iter().map(|result| match result {
            Lookup::Found(id) => id.to_string(),
            Lookup::Missing => "missing".to_owned(),
            Lookup::Rejected(rejection) => format!("rejected:{}", rejection.code()),
            Lookup::Failed(_) => "failed".to_owned(),
        });
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn keys_are_found_missing_or_rejected_in_their_order() {
        let errors = json!({"b": {"2008": ""}, "c": {"2010": ""}});
        assert_eq!(look(&["c", "b", "A "], &[("a", 7)], errors).unwrap(), "rejected:2010 missing 7");
    }

    #[test]
    fn key_that_a_reply_does_not_mention_is_not_taken_for_missing() {
        assert_eq!(look(&["a", "b"], &[("a", 7)], json!([])).unwrap(), "7 failed");
    }

    #[test]
    fn two_contacts_for_one_key_are_no_answer() {
        assert_eq!(look(&["a"], &[("a", 7), ("A", 8)], json!([])).unwrap(), "failed");
    }

    #[test]
    fn look_up_by_an_invalid_key_field_is_refused() {
        assert!(look(&["a"], &[], json!({"<NO_KEY_ID>": {"2004": ""}})).is_err());
    }
}
