//! Exports (Emarsys API: Exports): many contacts at once, made by Emarsys and downloaded as CSV.

mod download;
mod new;
mod rows;

use std::ops::ControlFlow::{Break, Continue};

use chrono::NaiveDateTime;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use self::new::Kind;
pub use self::{
    new::{Delimiter, Distribution, NewExport, Origin, TimeRange},
    rows::ExportRow,
};
use super::{
    client::Client,
    ids::{ExportId, FieldId},
    path::Path,
    polling::Polling,
    reply,
    request::{Effect, Method, Request, endpoint},
    words::words,
};
use crate::{Delivery, Error, ErrorKind, Result};

/// The calls about exports; made by [`Client::exports`].
///
/// ```no_run
/// use reverse_etl::{
///     Mapping, Source,
///     emarsys::{Client, ExportId, FieldId, NewExport, Polling, SegmentId},
/// };
///
/// # async fn export(client: Client) -> reverse_etl::Result<()> {
/// let exports = client.exports();
/// let fields = [FieldId::EMAIL, FieldId::CITY];
/// let rows = exports.fetch(&NewExport::segment(SegmentId::new(123), &fields), Polling::default()).await?;
/// // Its rows can be the source of a plan, with the numbers of the fields for columns.
/// let source = Source::stream(rows);
/// let mapping = Mapping::new(FieldId::EMAIL).map(FieldId::CITY, "home_town");
///
/// // Of an export that was started by somebody else, the columns have the names that its header line gives them.
/// let source = Source::stream(exports.download(ExportId::new(4711)));
/// let mapping = Mapping::new("E-Mail").map("City", "home_town");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Exports<'a>(pub(crate) &'a Client);

/// An export that was started, and its fields if they are known. It may be kept and used later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRef {
    id: ExportId,
    fields: Option<Vec<FieldId>>,
}

impl ExportRef {
    /// The export of this number, made with these fields, in this order.
    pub fn new(id: ExportId, fields: &[FieldId]) -> Self {
        Self { id, fields: Some(fields.to_vec()) }
    }

    /// Its number.
    pub fn id(&self) -> ExportId {
        self.id
    }

    /// The fields that it was made with, if they are known.
    pub fn fields(&self) -> Option<&[FieldId]> {
        self.fields.as_deref()
    }
}

impl From<ExportId> for ExportRef {
    fn from(id: ExportId) -> Self {
        Self { id, fields: None }
    }
}

impl From<&ExportRef> for ExportRef {
    fn from(export: &ExportRef) -> Self {
        export.clone()
    }
}

/// How far an export is, and what was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportState {
    /// Its number.
    pub id: ExportId,
    /// How far it is.
    pub status: ExportStatus,
    /// When it was started, in Vienna time.
    pub created: Option<NaiveDateTime>,
    /// What sort of export it is, as Emarsys calls it.
    pub export_type: Option<String>,
    /// The name of its file.
    pub file_name: Option<String>,
    /// The server that its file goes to, unless it is downloaded.
    pub ftp_host: Option<String>,
    /// The folder on that server.
    pub ftp_dir: Option<String>,
}

words! {
    /// How far an export is.
    ExportStatus {
        /// It has not begun.
        Scheduled = "scheduled",
        /// It is being made.
        InProgress = "in progress",
        /// Its file is made.
        Ready = "ready",
        /// All of it is done.
        Done = "done",
        /// It failed.
        Error = "error",
    }
}

impl Exports<'_> {
    /// Starts an export (Emarsys API: Exports). If the error leaves it unknown whether it was started, start it again:
    /// an export changes nothing, and while the same one is running the second is refused with 4001.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with nothing sent, if it has no field, more than 20, one twice, or one that Emarsys does not
    /// export: [`VISIT_DURATION`](FieldId::VISIT_DURATION), [`PAGE_VIEWS`](FieldId::PAGE_VIEWS),
    /// [`DAYS_SINCE_EMAIL`](FieldId::DAYS_SINCE_EMAIL), [`STATUS`](FieldId::STATUS) and [`SOURCE`](FieldId::SOURCE);
    /// else as [`Client::send`], with the codes 4000 and 10001 (a parameter is not valid) and 4001.
    pub async fn start(&self, export: &NewExport) -> Result<ExportRef> {
        export.check()?;
        let Started { id } = match export.kind {
            Kind::Changes => self.0.send(&StartChanges(export)).await?,
            Kind::Registrations => self.0.send(&StartRegistrations(export)).await?,
            Kind::List => self.0.send(&StartList(export)).await?,
            Kind::Segment => self.0.send(&StartSegment(export)).await?,
        };
        Ok(ExportRef::new(id, export.fields()))
    }

    /// How far an export is (Emarsys API: Get the status of an export).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn status(&self, export: ExportId) -> Result<ExportState> {
        self.0.send(&ReadStatus { export }).await.map(|reply| reply.state(export))
    }

    /// Waits until an export is ready, or done.
    ///
    /// # Errors
    /// As [`status`](Self::status); [`ErrorKind::Server`] if the export failed, or is not ready in the time that
    /// `polling` gives it.
    pub async fn wait(&self, export: ExportId, polling: Polling) -> Result<ExportState> {
        let error = &|what: &str| {
            let text = format!("{}: the export {export} {what}", endpoint::<ReadStatus>());
            Error::new(ErrorKind::Server, text).with_delivery(Delivery::NotSent)
        };
        let ask = || async move {
            let state = self.status(export).await?;
            match state.status {
                ExportStatus::Ready | ExportStatus::Done => Ok(Break(state)),
                ExportStatus::Error => Err(error("failed at Emarsys (status `error`); start it again")),
                ExportStatus::Scheduled | ExportStatus::InProgress | ExportStatus::Other(_) => {
                    Ok(Continue(error("is still in progress; wait for it again later")))
                }
            }
        };
        self.0.ask(polling, ask).await
    }

    /// The rows of an export (Emarsys API: Download an export), read in pages as the stream is asked for them. The
    /// export has to be ready, made for download ([`Distribution::Local`]), and have a header line.
    ///
    /// [`ExportRow::field`] works with what [`start`](Self::start) gives, or [`ExportRef::new`]; of a mere
    /// [`ExportId`], the columns are known by their names only.
    ///
    /// # Errors
    /// An item of the stream, its last; as [`Client::send`], with the codes 4003 (status 410: the file is gone), 4004
    /// (not made for download), 4005 (still in progress), 4006 and 4007; [`ErrorKind::Undecodable`] if a page of 10,000
    /// rows is longer than 64 MiB (leave long texts out of the export), not whole, or does not join the one before, or if
    /// the export has no header line or not the columns that were asked for.
    pub fn download(&self, export: impl Into<ExportRef>) -> BoxStream<'static, Result<ExportRow>> {
        download::rows(self.0.clone(), export.into(), None)
    }

    /// Starts an export, waits for it, and gives its rows as [`download`](Self::download) does.
    ///
    /// # Errors
    /// As [`start`](Self::start), with [`ErrorKind::Config`] if it is not made for download, and as
    /// [`wait`](Self::wait), whose errors name the number of the export: with it one can go on later.
    pub async fn fetch(
        &self,
        export: &NewExport,
        polling: Polling,
    ) -> Result<BoxStream<'static, Result<ExportRow>>> {
        if !export.is_local() {
            return Err(Error::config("an export is downloaded only with the distribution `local`"));
        }
        let export = self.start(export).await?;
        self.wait(export.id(), polling).await?;
        // A file may be said to be ready a moment before it can be read.
        Ok(download::rows(self.0.clone(), export, Some(polling)))
    }
}

#[derive(Deserialize)]
struct Started {
    id: ExportId,
}

/// An export changes nothing about contacts, but a second one is not the same as one.
macro_rules! starts {
    ($($name:ident = $endpoint:literal;)+) => {$(
        #[derive(Serialize)]
        #[serde(transparent)]
        struct $name<'a>(&'a NewExport);

        impl Request for $name<'_> {
            type Reply = Started;
            const METHOD: Method = Method::Post;
            const ENDPOINT: &'static str = $endpoint;
            const EFFECT: Effect = Effect::Write;
        }
    )+};
}

starts! {
    StartChanges = "contact/getchanges";
    StartRegistrations = "contact/getregistrations";
    StartList = "email/getcontacts";
    StartSegment = "export/filter";
}

#[derive(Serialize)]
struct ReadStatus {
    export: ExportId,
}

impl Request for ReadStatus {
    type Reply = StatusReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "export/{id}";
    const EFFECT: Effect = Effect::Read;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.export])
    }
}

#[derive(Deserialize)]
struct StatusReply {
    status: ExportStatus,
    #[serde(default, deserialize_with = "reply::optional_text")]
    created: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "reply::optional_text")]
    export_type: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    file_name: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    ftp_host: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    ftp_dir: Option<String>,
}

impl StatusReply {
    fn state(self, id: ExportId) -> ExportState {
        ExportState {
            id,
            status: self.status,
            created: self.created.as_deref().and_then(reply::local_time),
            export_type: self.export_type,
            file_name: self.file_name,
            ftp_host: self.ftp_host,
            ftp_dir: self.ftp_dir,
        }
    }
}

#[cfg(test)]
mod tests;
