//! Exports: asked for, looked after, and downloaded as CSV.
//!
//! The rows are those of the moment when the export is asked for, however long it then takes. `origin` and `origin_id`
//! are accepted and restrict nothing, as the account does not know where a value came from.

mod book;
mod csv;
mod order;
mod time_range;

use serde_json::json;

use super::{
    context::{self, Context},
    endpoint::{Endpoint, Query, Route},
    exchange::Request,
    reply::{Data, Failure},
    vienna,
};
use book::Progress;

pub(super) use self::{book::Exports, csv::CONTENT_TYPE as CSV_TYPE};

/// Lines in one download.
const LIMIT_MAX: usize = 10_000_000;

/// Carries out a call about exports.
pub(super) fn call(cx: &mut Context<'_>, request: &Request, route: &Route) -> Data {
    match route.endpoint {
        Endpoint::ReadExport => read(cx, route.id),
        Endpoint::DownloadExport => download(cx, route.id, &route.query),
        endpoint => order::place(cx, endpoint, context::object(&request.body)?),
    }
}

fn read(cx: &Context<'_>, id: u64) -> Data {
    let export = cx.store.exports.get(id).ok_or_else(|| Failure::bad(10_001, "Invalid export ID"))?;
    let progress = export.progress(cx.now, cx.switches);
    let status = match progress {
        Progress::Scheduled => "scheduled",
        Progress::Running => "in progress",
        Progress::Ready => "ready",
        Progress::Done | Progress::Gone => "done",
        Progress::Failed => "error",
    };
    let finished = matches!(progress, Progress::Ready | Progress::Done | Progress::Gone);
    Ok(json!({
        "id": id.to_string(),
        "created": vienna::print(export.created),
        "status": status,
        "type": export.kind,
        "file_name": finished.then(|| format!("{}_{id}.csv", export.kind)),
        "ftp_host": "",
        "ftp_dir": "",
    }))
}

fn download(cx: &Context<'_>, id: u64, query: &Query) -> Data {
    let number = |name: &str, default: usize| match query.get(name) {
        None => Ok(default),
        Some(sent) => sent
            .parse()
            .map_err(|_| Failure::bad(10_001, format!("Invalid data format for {name}. Integer expected"))),
    };
    let (offset, limit) = (number("offset", 0)?, number("limit", LIMIT_MAX)?);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Failure::bad(10_001, format!("Invalid value for limit: {limit}")));
    }
    let missing = |code, text: &str| Failure::new(404, code, text);
    let no_file = || missing(4006, "Internal error occurred. File was not found.");
    let export = cx.store.exports.get(id).ok_or_else(no_file)?;
    if !export.local {
        return Err(missing(4004, "\"distribution_method\" of this export is not compatible."));
    }
    match export.progress(cx.now, cx.switches) {
        Progress::Scheduled | Progress::Running => {
            Err(missing(4005, "Export is currently in progress. Please wait until that has finished."))
        }
        Progress::Gone => Err(Failure::new(410, 4003, "Exported data is not available.")),
        Progress::Failed => Err(no_file()),
        Progress::Ready | Progress::Done => Ok(json!(export.file.page(offset, limit, cx.switches))),
    }
}
