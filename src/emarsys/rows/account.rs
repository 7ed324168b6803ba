//! What a reply says about the rows of its request.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use serde_json::Value;

use super::{
    super::{
        refusal::{Refusal, Rejection},
        reply::{RowError, RowErrors, number},
    },
    Keys, Lookup, RowResult,
};
use crate::{Delivery, Error, ErrorKind, Result};

/// One request of a write and what its reply says about its rows.
pub(crate) struct Account<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) status: u16,
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
    fn rejections<'e>(&self, errors: &'e RowErrors) -> (HashMap<usize, RowResult>, Option<&'e RowError>) {
        let mut rejections = HashMap::new();
        for error in &errors.0 {
            let Some(row) = self.keys.row(&error.key, &self.rows) else { continue };
            let result = match Rejection::new(error) {
                Some(rejection) => RowResult::Rejected(rejection),
                None => RowResult::Failed(Arc::new(
                    Error::new(
                        ErrorKind::Undecodable,
                        format!(
                            "{}: the reply has an error for this row, but without a code",
                            self.keys.endpoint
                        ),
                    )
                    .with_delivery(Delivery::Unknown),
                )),
            };
            rejections.entry(row).or_insert(result);
        }
        (rejections, errors.0.iter().find(|error| error.is_of_the_request()))
    }

    fn refusal(&self, whole: Option<&RowError>) -> Error {
        let refusal = Refusal {
            endpoint: self.keys.endpoint.clone(),
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
            self.keys.endpoint
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
    keys: &Keys,
    status: u16,
    rows: Range<usize>,
    found: Vec<(String, T)>,
    errors: &RowErrors,
) -> Result<Vec<Lookup<T>>> {
    let account = Account { keys, status, rows: rows.clone(), done: Done::Unsaid };
    let (rejections, whole) = account.rejections(errors);
    if whole.is_some() && found.is_empty() {
        return Err(account.refusal(whole));
    }
    let silent = |what: &str| {
        let text = format!("{}: the reply {what}", keys.endpoint);
        Lookup::Failed(Arc::new(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent)))
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
            RowResult::Failed(_) => silent("has an error for this key, but without a code"),
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
    use crate::emarsys::FieldId;

    /// Results in one letter each: done, rejected with a code, failed.
    fn settle(keys: &[&str], done: Option<usize>, errors: Value) -> Result<String> {
        let known = Keys::new("PUT contact".to_owned(), FieldId::EMAIL.into(), keys)?;
        let errors = serde_json::from_value(errors).unwrap();
        let account = Account {
            keys: &known,
            status: 200,
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
            assert_eq!(refusal.field.map(FieldId::get), Some(999));
        }
    }

    #[test]
    fn error_about_the_request_beside_successes_leaves_rows_unknown() {
        let errors = json!({"<NO_KEY_ID>": {"2004": ""}});
        assert_eq!(settle(&["a", "b"], Some(1), errors).unwrap(), "unknown unknown");
    }

    fn look(keys: &[&str], found: &[(&str, u64)], errors: Value) -> Result<String> {
        let known = Keys::new("POST contact/checkids".to_owned(), FieldId::EMAIL.into(), keys)?;
        let found = found.iter().map(|(key, id)| ((*key).to_owned(), *id)).collect();
        let errors = serde_json::from_value(errors).unwrap();
        let results = look_up(&known, 200, 0..keys.len(), found, &errors)?;
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
