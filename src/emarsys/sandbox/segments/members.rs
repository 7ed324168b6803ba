//! `filter/{id}/contacts`: reading who is in a segment.

use serde_json::json;

use super::{
    super::{
        context::Context,
        endpoint::{Api, Query, Route},
        reply::{Data, Failure},
    },
    evaluation, runs, unknown,
};

/// Contacts in one read.
const LIMIT_MAX: u64 = 1_000_000;

pub(super) fn list(cx: &mut Context<'_>, route: &Route) -> Data {
    let (limit, offset) = page(&route.query)?;
    let contacts = evaluate(cx, route)?;
    Ok(contacts.iter().skip(offset).take(limit).map(u64::to_string).collect())
}

pub(super) fn count(cx: &mut Context<'_>, route: &Route) -> Data {
    Ok(json!(evaluate(cx, route)?.len()))
}

pub(super) fn find(cx: &Context<'_>, route: &Route) -> Data {
    if !cx.store.segments.exists(route.id) {
        return Err(unknown());
    }
    let contact = route.item.parse().ok();
    Ok(json!(contact.is_some_and(|contact| evaluation::is_in(cx.store, route.id, contact))))
}

fn page(query: &Query) -> Result<(usize, usize), Failure> {
    let refused = |text: &str| Failure::bad(10_001, text);
    let limit = query.get("limit").ok_or_else(|| refused("Limit is a required parameter."))?;
    let limit: u64 = limit.parse().map_err(|_| refused("Limit must be a positive number."))?;
    if limit == 0 {
        return Err(refused("Limit must be a positive number."));
    }
    if limit > LIMIT_MAX {
        return Err(refused("Limit must be less than 1000000."));
    }
    let offset = query.get("offset").map_or(Ok(0), str::parse);
    let offset = offset.map_err(|_| refused("Offset must be zero, or a positive number."))?;
    Ok((usize::try_from(limit).unwrap_or(usize::MAX), offset))
}

/// The contacts of a segment, once its evaluation has had its time.
fn evaluate(cx: &mut Context<'_>, route: &Route) -> Result<Vec<u64>, Failure> {
    if !cx.store.segments.exists(route.id) {
        return Err(unknown());
    }
    if !cx.switches.segment_evaluation.is_zero() {
        await_evaluation(cx, route.id, route.api)?;
    }
    Ok(evaluation::contacts(cx.store, route.id, cx.horizon()))
}

fn await_evaluation(cx: &mut Context<'_>, segment: u64, user: Api) -> Result<(), Failure> {
    // What is being evaluated already can be waited for; something else cannot begin.
    if cx.store.segments.begun(segment).is_none() && runs::is_busy(cx, user) {
        return Err(runs::busy());
    }
    let begun = cx.store.segments.begin(segment, cx.now, false);
    if cx.now.duration_since(begun).unwrap_or_default() < cx.switches.segment_evaluation {
        return Err(Failure::new(202, 10_001, "The segment is currently evaluated."));
    }
    Ok(())
}
