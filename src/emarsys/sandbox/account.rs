//! The account: takes a request and the time, gives the reaction. No socket, no clock, no randomness.
//!
//! A request passes the faults, the limit, the credentials and the size, in this order, before it is carried out.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{
    auth::{Auth, Caller},
    campaigns, contacts,
    context::{self, Context},
    endpoint::{Api, Endpoint, Route},
    events,
    exchange::{Answer, Reaction, Request, Response},
    exports,
    faults::{Effect, Faults, Twist},
    fields,
    journal::Journal,
    limits::{BYTES_MAX, UPDATE_BYTES_MAX, Window, Windows},
    lists::{self, Edit},
    relational,
    reply::{self, Data, Failure},
    segments, settings, sources,
    store::Store,
    switches::Switches,
};

/// An Emarsys account with everything that belongs to it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) store: Store,
    pub(super) auth: Auth,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    switches: Switches,
    windows: Windows,
    field_slots: usize,
    /// Requests whose answer was lost and that are still to take effect.
    late: Vec<(SystemTime, Request)>,
    served: u64,
}

/// What an account is like, as far as it can be chosen.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) switches: Switches,
    pub(super) rate_limit: u64,
    pub(super) token_lifetime: Duration,
    pub(super) field_slots: usize,
    pub(super) bodies_kept: bool,
}

impl Account {
    pub(super) fn new(options: Options) -> Self {
        Self {
            store: Store::new(options.switches.email_match),
            auth: Auth::new(options.token_lifetime, options.switches.replays_refused),
            faults: Faults::default(),
            journal: Journal::new(options.bodies_kept),
            windows: Windows::new(options.rate_limit),
            field_slots: options.field_slots,
            switches: options.switches,
            late: Vec::new(),
            served: 0,
        }
    }

    pub(super) fn handle(&mut self, now: SystemTime, request: &Request) -> Reaction {
        self.settle(now);
        let route = Route::of(&request.method, &request.target);
        let effect = self.faults.due(route.endpoint);
        let reaction = self.react(now, request, &route, effect.as_ref());
        self.journal.note(route.endpoint, request, reaction.status());
        reaction
    }

    /// Carries out the late requests whose time has come, in the order of their times.
    pub(super) fn settle(&mut self, now: SystemTime) {
        self.late.sort_by_key(|(due, _)| *due);
        let ready = self.late.partition_point(|(due, _)| *due <= now);
        let ready: Vec<_> = self.late.drain(..ready).collect();
        for (due, request) in ready {
            let route = Route::of(&request.method, &request.target);
            self.store.set_clock(due);
            // Its answer is lost anyway.
            let _ = self.carry_out(due, &request, &route, None);
        }
        self.store.set_clock(now);
        segments::finish_runs(&mut self.store, now);
    }

    /// Uses up what is left of both API users' limits.
    pub(super) fn exhaust_limits(&mut self, now: SystemTime) {
        for user in [super::auth::CLIENT_ID, super::auth::USERNAME] {
            self.windows.exhaust(user, now);
        }
    }

    fn react(
        &mut self,
        now: SystemTime,
        request: &Request,
        route: &Route,
        effect: Option<&Effect>,
    ) -> Reaction {
        let mut reaction = Reaction::at_once(Answer::Lost);
        let mut twist = None;
        match effect {
            Some(Effect::LoseRequest) => return reaction,
            Some(Effect::ExpireTokens) => self.auth.expire_tokens(),
            Some(Effect::Delay(by)) => reaction.delay = *by,
            Some(Effect::Twist(inside)) => twist = Some(*inside),
            Some(Effect::ApplyHalf) => twist = Some(Twist::Half),
            _ => {}
        }
        let caller = self.auth.caller(now, route.api, request);
        // Tokens come from another host, which has no such limit.
        let limited = route.api != Api::Outside;
        match effect {
            Some(Effect::ExhaustLimit) if limited => self.windows.exhaust(caller.user, now),
            // Whose token it will be is not known yet.
            Some(Effect::ExhaustLimit) => self.exhaust_limits(now),
            _ => {}
        }
        let window = limited.then(|| self.windows.count(caller.user, now));
        let admitted = match effect {
            Some(Effect::Refuse { status, body }) => Err(self.canned(route.api, *status, body.as_deref())),
            _ if window.is_some_and(Window::exceeded) => Err(self.canned(route.api, 429, None)),
            _ => self.admit(caller, request, route),
        };
        let response = match (admitted, effect) {
            (Err(refusal), _) => refusal,
            (Ok(()), Some(Effect::ApplyLate(after))) => {
                // A time that no clock can show never comes.
                self.late.extend(now.checked_add(*after).map(|due| (due, request.clone())));
                return reaction;
            }
            (Ok(()), _) => self.carry_out(now, request, route, twist),
        };
        let mut response = match effect {
            Some(Effect::LoseAnswer | Effect::ApplyLate(_) | Effect::ApplyHalf) => return reaction,
            Some(Effect::Disguise { status, body }) => self.canned(route.api, *status, Some(body)),
            _ => response,
        };
        if self.switches.limit_headers {
            response.headers.extend(window.iter().flat_map(Window::headers));
        }
        self.sign(now, &mut response);
        reaction.answer = if matches!(effect, Some(Effect::CutBody)) {
            Answer::Cut(response)
        } else {
            Answer::Whole(response)
        };
        reaction
    }

    fn canned(&self, api: Api, status: u16, body: Option<&str>) -> Response {
        let shape = self.switches.error_body;
        match (body, api) {
            (Some(body), _) => Response::new(status, "text/html; charset=utf-8", body),
            (None, Api::Relational) => relational::gateway_status(status, shape),
            (None, _) => reply::gateway_status(status, shape),
        }
    }

    /// Whether a request may be carried out, as far as its credentials and its size go.
    fn admit(&self, caller: Caller, request: &Request, route: &Route) -> Result<(), Response> {
        caller.verdict.map_err(|failure| match route.api {
            Api::Bearer => reply::gateway_status(401, self.switches.bearer_error_body),
            _ => failure.response(&self.switches),
        })?;
        let bytes_max = if route.endpoint == Endpoint::UpdateContacts { UPDATE_BYTES_MAX } else { BYTES_MAX };
        if request.body.len() > bytes_max {
            return Err(reply::gateway_status(413, self.switches.too_large_body));
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        now: SystemTime,
        request: &Request,
        route: &Route,
        twist: Option<Twist>,
    ) -> Response {
        match route.endpoint {
            Endpoint::Token => return self.auth.issue(now, request),
            Endpoint::HealthCheck => return Response::new(200, "text/plain", "OK"),
            _ => {}
        }
        let switches = &self.switches;
        let mut cx = Context { store: &mut self.store, switches, now, twist, field_slots: self.field_slots };
        match call(&mut cx, request, route) {
            Ok(data) if route.api == Api::Relational => relational::success(switches, route.endpoint, &data),
            Ok(Value::String(csv)) if route.endpoint == Endpoint::DownloadExport => {
                Response::new(200, exports::CSV_TYPE, csv)
            }
            Ok(data) => {
                let data = reply::with_empty_as_switched(data, switches);
                if route.endpoint == Endpoint::ContactIds && switches.contact_ids_bare {
                    Response::new(200, "application/json", data.to_string())
                } else {
                    reply::success(&data)
                }
            }
            Err(failure) => failure.response(switches),
        }
    }

    /// The headers that every reply has.
    fn sign(&mut self, now: SystemTime, response: &mut Response) {
        self.served += 1;
        response.headers.extend([
            ("Date", httpdate::fmt_http_date(now)),
            ("X-Suite-Response-Time", "3".to_owned()),
            ("X-Emarsys-Request-Id", format!("00000000-0000-4000-8000-{0:012x}#{0}", self.served)),
        ]);
    }
}

fn call(cx: &mut Context<'_>, request: &Request, route: &Route) -> Data {
    let object = || context::object(&request.body);
    match route.endpoint {
        Endpoint::Settings => Ok(settings::show(cx)),
        Endpoint::ListFields => fields::list(cx, route),
        Endpoint::CreateField => fields::create(cx, &object()?),
        Endpoint::DeleteField => fields::delete(cx, route.id),
        Endpoint::ListChoices => fields::choices(cx, route),
        Endpoint::ListManyChoices => fields::many_choices(cx, route),
        Endpoint::CreateContacts => contacts::create(cx, &object()?),
        Endpoint::UpdateContacts => contacts::update(cx, &object()?, &route.query),
        Endpoint::FindContact => contacts::find(cx, &route.query),
        Endpoint::DeleteContacts => contacts::delete(cx, &object()?),
        Endpoint::CheckIds => contacts::check_ids(cx, &object()?),
        Endpoint::GetData => contacts::get_data(cx, &object()?, &route.query),
        Endpoint::QueryContacts => contacts::query(cx, &route.query),
        Endpoint::ContactHistory => campaigns::history(cx, &object()?),
        Endpoint::MergeContacts => contacts::merge(cx, &object()?),
        Endpoint::ListSources => Ok(sources::list(cx)),
        Endpoint::CreateSource => sources::create(cx, &object()?),
        Endpoint::DeleteSource => sources::delete(cx, route.id),
        Endpoint::TriggerEvent => events::trigger(cx, route.id, &object()?),
        Endpoint::Unsubscribe => campaigns::unsubscribe(cx, &object()?),
        Endpoint::QueryRecords => relational::query(cx, route),
        Endpoint::InsertRecords => relational::write(cx, request, route, relational::Edit::Insert),
        Endpoint::ReplaceRecords => relational::write(cx, request, route, relational::Edit::Replace),
        Endpoint::PatchRecords => relational::write(cx, request, route, relational::Edit::Patch),
        Endpoint::UpsertRecords => relational::write(cx, request, route, relational::Edit::Upsert),
        Endpoint::RemoveRecords => relational::write(cx, request, route, relational::Edit::Remove),
        Endpoint::ListLists => Ok(lists::list(cx)),
        Endpoint::CreateList => lists::create(cx, &object()?),
        Endpoint::AddToList => lists::edit(cx, route.id, &object()?, Edit::Add),
        Endpoint::RemoveFromList => lists::edit(cx, route.id, &object()?, Edit::Remove),
        Endpoint::ReplaceList => lists::edit(cx, route.id, &object()?, Edit::Replace),
        Endpoint::RenameList => lists::rename(cx, route.id, &object()?),
        Endpoint::DeleteList => lists::delete(cx, route.id),
        Endpoint::CountList => lists::count(cx, route.id),
        Endpoint::FindInList => lists::has_contact(cx, route),
        Endpoint::ListContactData => lists::contact_data(cx, route),
        Endpoint::ContactIds => lists::contact_ids(cx, route.id, &route.query),
        Endpoint::ListContacts => lists::contacts(cx, request, route),
        Endpoint::ListSegments
        | Endpoint::CreateSegment
        | Endpoint::ReadSegment
        | Endpoint::ReadCriteria
        | Endpoint::UpdateCriteria
        | Endpoint::DeleteSegment
        | Endpoint::SegmentContacts
        | Endpoint::CountSegment
        | Endpoint::FindInSegment
        | Endpoint::RunForContact
        | Endpoint::ReadContactRun
        | Endpoint::RunSegment
        | Endpoint::ReadRun
        | Endpoint::ListCombinedSegments
        | Endpoint::CreateCombinedSegment
        | Endpoint::ReadCombinedSegment
        | Endpoint::UpdateCombinedSegment => segments::call(cx, request, route),
        Endpoint::ExportChanges
        | Endpoint::ExportRegistrations
        | Endpoint::ExportList
        | Endpoint::ExportSegment
        | Endpoint::ReadExport
        | Endpoint::DownloadExport => exports::call(cx, request, route),
        Endpoint::Token | Endpoint::HealthCheck | Endpoint::Unknown => {
            Err(route.refusal.clone().unwrap_or_else(|| Failure::not_served(route.endpoint)))
        }
    }
}
