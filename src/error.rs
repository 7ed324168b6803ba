//! What can go wrong, in one type: a kind to act on, a sentence to read, a cause to follow.
//!
//! The sentence names the field, the row number or the code, and says what to do. It never contains a key or a
//! value of a row, nor a secret.

use std::fmt;

use crate::report::Report;

/// A boxed cause of an [`Error`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate; one pointer wide.
///
/// [`kind`](Self::kind) is for programs, the text for people, [`delivery`](Self::delivery) for whoever has to
/// know whether something may have been written.
///
/// ```
/// use reverse_etl::{Delivery, Error, ErrorKind};
///
/// let error = Error::no_answer("POST /people", std::io::Error::other("connection reset"));
/// assert_eq!(error.kind(), ErrorKind::NoAnswer);
/// assert_eq!(error.delivery(), Delivery::Unknown);
/// assert!(error.is_retryable());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    delivery: Delivery,
    text: String,
    source: Option<BoxError>,
    row_code: Option<String>,
    report: Option<Box<Report>>,
}

/// What sort of error it is: each kind is one that a caller may want to treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The mapping, an option or the destination's configuration is wrong. Change it and try again.
    Config,
    /// The source could not be read to its end.
    Source,
    /// A guard refused the plan before anything was written.
    Guard,
    /// The destination did not accept the credentials.
    Unauthorized,
    /// The credentials lack a permission.
    Forbidden,
    /// The destination's request limit is exhausted.
    RateLimited,
    /// The destination refused the request, or every row of it, and said why.
    Refused,
    /// No answer came: it may have been applied, or the destination could not be reached at all.
    /// [`Error::delivery`] tells.
    NoAnswer,
    /// The destination failed on its own side.
    Server,
    /// The destination answered something that cannot be understood.
    Undecodable,
    /// The time in which this may be sent has passed. Whether an earlier attempt may have been applied is in
    /// [`Error::delivery`].
    Expired,
    /// The state has changed since it was read: plan again.
    StateMoved,
    /// Another run holds the state.
    Busy,
    /// The state cannot be read, or belongs to another sync.
    StateDamaged,
    /// The machine failed: a file, a disk, a source of random bytes.
    Io,
}

/// Whether something may have reached the destination, as far as an error knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// Nothing was sent, or certainly nothing of it took effect.
    NotSent,
    /// It was received and refused as a whole: nothing of it was applied.
    Refused,
    /// It was sent, and whether it was applied is unknown.
    Unknown,
}

impl Error {
    /// An error of a kind.
    ///
    /// Of [`NoAnswer`](ErrorKind::NoAnswer), [`Server`](ErrorKind::Server) and [`Undecodable`](ErrorKind::Undecodable) it
    /// says that something may have been applied, of the others that nothing was sent;
    /// [`with_delivery`](Self::with_delivery) says what is known better.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let delivery = match kind {
            ErrorKind::NoAnswer | ErrorKind::Server | ErrorKind::Undecodable => Delivery::Unknown,
            _ => Delivery::NotSent,
        };
        Self(Box::new(Inner {
            kind,
            delivery,
            text: text.into(),
            source: None,
            row_code: None,
            report: None,
        }))
    }

    /// Something is set up wrongly; the text names it and says what to do.
    pub fn config(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, text)
    }

    /// A request was sent and its answer never came: it may or may not have been applied.
    pub fn no_answer(text: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::NoAnswer, text).with_delivery(Delivery::Unknown).with_source(source)
    }

    /// The destination received a request and refused it as a whole.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, text).with_delivery(Delivery::Refused)
    }

    /// The destination refused a request as a whole, with a code that one of its rows may be guilty of:
    /// [`Batch::deliver`](crate::Batch::deliver) looks for that row.
    pub fn refused_for_a_row(code: impl Into<String>, text: impl Into<String>) -> Self {
        let mut error = Self::refused(text);
        error.0.row_code = Some(code.into());
        error
    }

    /// The same error with what is known about its delivery.
    #[must_use]
    pub fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.0.delivery = delivery;
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What sort of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether something may have been applied.
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// The code of a refusal that one row may be guilty of.
    pub fn row_code(&self) -> Option<&str> {
        self.0.row_code.as_deref()
    }

    /// How far the run came that this error ended.
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_deref()
    }

    pub(crate) fn map_text(mut self, map: impl FnOnce(&str) -> String) -> Self {
        self.0.text = map(&self.0.text);
        self
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(Box::new(report));
        self
    }

    /// The cause, if it is of type `E`.
    pub fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.source.as_deref().and_then(|source| source.downcast_ref())
    }

    /// Whether the same thing may succeed later without anybody changing anything. If [`delivery`](Self::delivery) is
    /// [`Unknown`](Delivery::Unknown), it may have succeeded already: what must not happen twice is not to be repeated.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::RateLimited
            | ErrorKind::NoAnswer
            | ErrorKind::Server
            | ErrorKind::Expired
            | ErrorKind::StateMoved
            | ErrorKind::Busy => true,
            ErrorKind::Config
            | ErrorKind::Source
            | ErrorKind::Guard
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::Refused
            | ErrorKind::Undecodable
            | ErrorKind::StateDamaged
            | ErrorKind::Io => false,
        }
    }
}

impl Error {
    /// Whether nothing else is worth sending after it: the same would happen to every other batch.
    ///
    /// A reply that cannot be understood may concern its own batch only, such as one that does not add up; as long as
    /// others are understood, the run goes on.
    pub(crate) fn ends_run(&self) -> bool {
        !self.is_retryable() && self.kind() != ErrorKind::Undecodable
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("delivery", &self.0.delivery)
            .field("text", &self.0.text)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Error {
    /// The cause, unless its text is this error's own: then the cause of that. Whoever prints all causes in a row prints
    /// nothing twice.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        if source.to_string() == self.0.text { source.source() } else { Some(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_can_be_followed() {
        let error = Error::config("the file is of no use").with_source(std::io::Error::other("it is empty"));
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("it is empty"));
        assert!(std::error::Error::source(&Error::config("no cause")).is_none());
        let twin = Error::config("of no use").with_source(std::io::Error::other("of no use"));
        assert!(std::error::Error::source(&twin).is_none());
        assert!(twin.cause::<std::io::Error>().is_some());
    }

    #[test]
    fn error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
