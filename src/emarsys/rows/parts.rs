//! The rows of one call, cut into requests.

use std::{io, ops::Range, sync::Arc};

use serde::Serialize;

use crate::{Delivery, Error, Result};

/// The most bytes that the rows of one request may have. Emarsys takes bodies of 8 MB; the rest is left for what
/// stands around the rows.
const ROWS_BYTES_MAX: usize = 7_900_000;

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

/// Sends the requests of one call, one after the other, and gives the results of all rows, in their order.
///
/// If the first request fails, nothing is known of any row, and that is the error of the call. If a later one does,
/// its rows share the error (`failed` makes it their result), and the rows after it are not sent.
pub(crate) async fn in_parts<T, F: Future<Output = Result<Vec<T>>>>(
    requests: Vec<Range<usize>>,
    failed: fn(Arc<Error>) -> T,
    mut send: impl FnMut(Range<usize>) -> F,
) -> Result<Vec<T>> {
    let mut results = Vec::new();
    let mut requests = requests.into_iter();
    while let Some(rows) = requests.next() {
        let error = match send(rows.clone()).await {
            Ok(part) => {
                results.extend(part);
                continue;
            }
            Err(error) if results.is_empty() => return Err(error),
            Err(error) => Arc::new(error),
        };
        results.extend(rows.map(|_| failed(Arc::clone(&error))));
        let text = "not sent, because the request before it failed";
        let not_sent = Error::new(error.kind(), text).with_delivery(Delivery::NotSent).with_source(error);
        let not_sent = Arc::new(not_sent);
        results.extend(requests.by_ref().flatten().map(|_| failed(Arc::clone(&not_sent))));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

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

    /// Sends five rows in three requests, of which the one that begins with `bad` fails.
    async fn send(bad: usize) -> Result<Vec<Result<usize, Delivery>>> {
        let failed = |error: Arc<Error>| Err(error.delivery());
        in_parts(vec![0..2, 2..4, 4..5], failed, |rows: Range<usize>| async move {
            if rows.start == bad {
                Err(Error::no_answer("lost", "reset"))
            } else {
                Ok(rows.map(Ok).collect())
            }
        })
        .await
    }

    #[tokio::test]
    async fn failure_of_the_first_request_is_the_error_of_the_call() {
        assert_eq!(send(0).await.unwrap_err().delivery(), Delivery::Unknown);
    }

    #[tokio::test]
    async fn failure_of_a_later_request_is_the_state_of_its_rows_and_the_rest_is_not_sent() {
        let (lost, not_sent) = (Err(Delivery::Unknown), Err(Delivery::NotSent));
        assert_eq!(send(2).await.unwrap(), [Ok(0), Ok(1), lost, lost, not_sent]);
        assert_eq!(send(4).await.unwrap(), [Ok(0), Ok(1), Ok(2), Ok(3), lost]);
        assert_eq!(send(9).await.unwrap(), [Ok(0), Ok(1), Ok(2), Ok(3), Ok(4)]);
    }
}
