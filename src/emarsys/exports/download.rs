//! The file of an export, page by page.

use std::ops::ControlFlow::{Break, Continue};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;

use super::{
    super::{
        client::Client,
        ids::ExportId,
        path::Path,
        polling::Polling,
        refusal::Refusal,
        request::{Effect, Method, ReplyForm, Request, endpoint},
    },
    ExportRef, ExportRow,
    rows::Pages,
};
use crate::{Error, Result};

/// Lines of one page. They are in memory together, and a reply has at most 64 MiB: 20 long texts fit into each.
const PAGE: u64 = 10_000;

/// Reads an export to its end. With `polling`, the first page is asked for again as long as the export is in progress.
pub(super) fn rows(
    client: Client,
    export: ExportRef,
    polling: Option<Polling>,
) -> BoxStream<'static, Result<ExportRow>> {
    let ExportRef { id, fields } = export;
    let pages = Pages::new(endpoint::<ReadData>(), fields);
    let download = Download { client, id, pages, offset: 0, last: None, polling };
    let pages = stream::try_unfold(download, |mut download| async {
        let rows = download.next().await?;
        Ok::<_, Error>((!rows.is_empty()).then(|| (stream::iter(rows.into_iter().map(Ok)), download)))
    });
    pages.try_flatten().boxed()
}

struct Download {
    client: Client,
    id: ExportId,
    pages: Pages,
    offset: u64,
    /// How many rows the last page had.
    last: Option<u64>,
    polling: Option<Polling>,
}

impl Download {
    /// The rows of the next page; none at the end.
    ///
    /// Whether `offset` and `limit` count the header is not documented. So a page that is short of one row is no end: one
    /// without rows is.
    async fn next(&mut self) -> Result<Vec<ExportRow>> {
        let page = match self.page().await {
            Err(error) if self.is_past_the_end(&error) => return Ok(Vec::new()),
            page => page?,
        };
        let rows = self.pages.read(page)?;
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        // With the header counted, a full page is one row short. A shorter one can only be the last: else rows are missing.
        if count > PAGE || (count > 0 && self.last.is_some_and(|last| last + 1 < PAGE)) {
            return Err(self
                .pages
                .undecodable("is on a page that does not join the one before: rows are missing"));
        }
        self.offset += PAGE;
        self.last = Some(count);
        Ok(rows)
    }

    async fn page(&self) -> Result<String> {
        let request = ReadData { export: self.id, offset: self.offset };
        let Some(polling) = self.polling.filter(|_| self.offset == 0) else {
            return self.client.send(&request).await;
        };
        let request = &request;
        let ask = || async move {
            match self.client.send(request).await {
                Err(error) if has_code(&error, 4005) => Ok(Continue(error)),
                page => page.map(Break),
            }
        };
        self.client.ask(polling, ask).await
    }

    /// Whether Emarsys refused an offset behind the last row: the page before was not full, with or without a header.
    fn is_past_the_end(&self, error: &Error) -> bool {
        self.last.is_some_and(|last| last + 1 < PAGE) && has_code(error, 10001)
    }
}

fn has_code(error: &Error, code: i64) -> bool {
    error.cause::<Refusal>().is_some_and(|refusal| refusal.code == Some(code))
}

#[derive(Serialize)]
struct ReadData {
    export: ExportId,
    offset: u64,
}

impl Request for ReadData {
    type Reply = String;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "export/{id}/data";
    const EFFECT: Effect = Effect::Read;
    const REPLY: ReplyForm = ReplyForm::Text;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.export]).query("offset", self.offset).query("limit", PAGE)
    }
}
