//! The rows of a call that carries many: cut into requests, and told what became of each.
//!
//! Success is nowhere stated per row: a reply names the rows that failed, and counts the others at best. So a row
//! counts as done only if the reply accounts for all rows of its request.

use std::{collections::HashMap, io, ops::Range, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{
    refusal::{Refusal, Rejection},
    reply::{RowErrors, key_text},
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
                "{endpoint}: row {index} (the first is 0) alone has {size} bytes, and a request has at most 8 MB"
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

/// Runs one request after the other. `Err` only if nothing is known of any row: the first one failed. If a later
/// one does, its rows share the error, and the rows after it are not sent.
pub(crate) async fn in_turn<T>(
    requests: Vec<Range<usize>>,
    mut run: impl AsyncFnMut(Range<usize>) -> Result<Vec<T>>,
    failed: impl Fn(Arc<Error>) -> T,
) -> Result<Vec<T>> {
    let mut results: Vec<T> = Vec::new();
    let mut stopped: Option<Arc<Error>> = None;
    for rows in requests {
        if let Some(error) = &stopped {
            results.extend(rows.map(|_| failed(Arc::clone(error))));
            continue;
        }
        match run(rows.clone()).await {
            Ok(part) => results.extend(part),
            Err(error) if results.is_empty() => return Err(error),
            Err(error) => {
                let error = Arc::new(error);
                let text = "not sent, because the request before it failed";
                let not_sent = Error::new(error.kind(), text).with_source(Arc::clone(&error));
                results.extend(rows.map(|_| failed(Arc::clone(&error))));
                stopped = Some(Arc::new(not_sent));
            }
        }
    }
    Ok(results)
}

/// One request of a write and what its reply says about its rows.
pub(crate) struct Account<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) status: u16,
    pub(crate) keys: &'a Keys,
    pub(crate) rows: Range<usize>,
    /// How many rows the reply says were done; `None` if this endpoint does not say.
    pub(crate) done: Option<usize>,
}

impl Account<'_> {
    /// The result of each row.
    ///
    /// A row without an error is done only if all are accounted for: every error belongs to a row, and the rows
    /// said to be done and those with an error together are the rows that were sent.
    pub(crate) fn settle(self, errors: &RowErrors) -> Result<Vec<RowResult>> {
        let (mut rejections, whole) = self.rejections(errors);
        if whole.is_some() && self.done.is_none_or(|done| done == 0) {
            return Err(self.refusal(whole));
        }
        let matched = rejections.len();
        let all_matched = matched == errors.0.len();
        let accounted = all_matched && self.done.is_none_or(|done| done + matched == self.rows.len());
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
        };
        Error::refused(refusal.to_string()).with_source(refusal)
    }

    fn unaccounted(&self, matched: usize) -> Arc<Error> {
        let sent = self.rows.len();
        let done = self.done.map_or("an unstated number".to_owned(), |done| done.to_string());
        let text = format!(
            "{}: the reply does not account for all {sent} rows ({done} done, {matched} with an error), so which \
             of the others were done is unknown",
            self.endpoint
        );
        Arc::new(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::Unknown))
    }
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
    let account = Account { endpoint, status, keys, rows: rows.clone(), done: None };
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
