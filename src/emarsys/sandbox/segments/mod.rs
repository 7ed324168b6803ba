//! `filter` and `combinedsegments`: segments, who is in them, and their runs.
//!
//! A segment is evaluated when somebody asks, over the contacts as they are then. Contact criteria are really
//! evaluated; behaviour criteria are kept and shown, but everybody meets them, as nobody gets e-mails here.

mod book;
mod combined;
mod criteria;
mod evaluation;
mod members;
mod runs;
mod standard;

use super::{
    context::{self, Context},
    endpoint::{Endpoint, Route},
    exchange::Request,
    reply::{Data, Failure},
};

pub(super) use self::{
    book::Segments,
    evaluation::{contacts, uses_list, with_field},
    runs::finish as finish_runs,
    standard::add,
};

/// Carries out a call about segments.
pub(super) fn call(cx: &mut Context<'_>, request: &Request, route: &Route) -> Data {
    let object = || context::object(&request.body);
    match route.endpoint {
        Endpoint::ListSegments => Ok(standard::list(cx)),
        Endpoint::CreateSegment => standard::create(cx, &object()?),
        Endpoint::ReadSegment => standard::read(cx, route.id),
        Endpoint::ReadCriteria => standard::read_criteria(cx, route.id),
        Endpoint::UpdateCriteria => standard::update_criteria(cx, route.id, object()?),
        Endpoint::DeleteSegment => standard::delete(cx, route.id),
        Endpoint::SegmentContacts => members::list(cx, route),
        Endpoint::CountSegment => members::count(cx, route),
        Endpoint::FindInSegment => members::find(cx, route),
        Endpoint::RunForContact => runs::start_for_contact(cx, route),
        Endpoint::ReadContactRun => runs::read_for_contact(cx, &route.item),
        Endpoint::RunSegment => runs::start(cx, route),
        Endpoint::ReadRun => runs::read(cx, &route.item),
        Endpoint::ListCombinedSegments => Ok(combined::list(cx)),
        Endpoint::CreateCombinedSegment => combined::create(cx, &request.body),
        Endpoint::ReadCombinedSegment => combined::read(cx, route.id),
        Endpoint::UpdateCombinedSegment => combined::update(cx, route.id, &request.body),
        other => Err(Failure::not_served(other)),
    }
}

fn unknown() -> Failure {
    Failure::new(404, 10_002, "The segment specified does not exist.")
}
