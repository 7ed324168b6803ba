//! The network: requests on their way, what becomes of them, and what their senders hear of it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use reverse_etl::emarsys::{
    ContactId, ListId,
    sandbox::{Answer, Endpoint, Fault, Network, Request},
};
use serde_json::{Value as Json, json};

use super::{
    choices::Stream,
    clock::nanos,
    world::{Shared, World},
};

/// The longest time in which a request takes effect after it was sent.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// What the clocks of two processes may differ by.
pub(crate) const CLOCK_MARGIN: Duration = Duration::from_secs(1);

const MS: u64 = 1_000_000;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    IsSlow,
    FindsNoWay,
    IsLost,
    LosesItsAnswer,
    ArrivesLate,
    IsAnsweredTooLate,
    ArrivesTwice,
    MeetsAnOverload,
    TakesEffectBehindABrokenGateway,
    MeetsTheLimit,
    MeetsExpiredTokens,
    IsAnsweredInPart,
    IsAnsweredByAWebPage,
    TakesEffectByHalf,
    IsForbidden,
    MeetsARace,
    IsOvertaken,
    MeetsNobody,
    MissesTheList,
    HasItsRowsRefused,
}

const FATES: [Fate; 31] = [
    Fate::Arrives,
    Fate::IsSlow,
    Fate::FindsNoWay,
    Fate::IsLost,
    Fate::LosesItsAnswer,
    Fate::ArrivesLate,
    Fate::IsAnsweredTooLate,
    Fate::ArrivesTwice,
    Fate::MeetsAnOverload,
    Fate::TakesEffectBehindABrokenGateway,
    Fate::MeetsTheLimit,
    Fate::MeetsExpiredTokens,
    Fate::IsAnsweredInPart,
    Fate::IsAnsweredByAWebPage,
    Fate::TakesEffectByHalf,
    Fate::IsForbidden,
    Fate::MeetsARace,
    Fate::IsOvertaken,
    Fate::MeetsNobody,
    Fate::MissesTheList,
    Fate::HasItsRowsRefused,
    // What follows is more likely than the rest.
    Fate::HasItsRowsRefused,
    Fate::LosesItsAnswer,
    Fate::ArrivesLate,
    // So is what only creations meet, of which there are fewer.
    Fate::MeetsARace,
    Fate::MeetsARace,
    Fate::IsOvertaken,
    Fate::IsOvertaken,
    Fate::MissesTheList,
    Fate::MissesTheList,
    Fate::MissesTheList,
];

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Arrives => "arrives",
            Fate::IsSlow => "is slow",
            Fate::FindsNoWay => "finds no connection",
            Fate::IsLost => "is lost",
            Fate::LosesItsAnswer => "takes effect, and its answer is lost",
            Fate::ArrivesLate => "takes effect late, and its answer is lost",
            Fate::IsAnsweredTooLate => "takes effect late, and is answered when nobody waits any more",
            Fate::ArrivesTwice => "arrives twice",
            Fate::MeetsAnOverload => "is answered by an overloaded server, without effect",
            Fate::TakesEffectBehindABrokenGateway => "takes effect, and a broken gateway answers",
            Fate::MeetsTheLimit => "meets a limit that others have used up",
            Fate::MeetsExpiredTokens => "meets expired tokens",
            Fate::IsAnsweredInPart => "takes effect, and its answer breaks off",
            Fate::IsAnsweredByAWebPage => "is answered by a web page",
            Fate::TakesEffectByHalf => "takes effect for half of its rows, and its answer is lost",
            Fate::IsForbidden => "is forbidden",
            Fate::MeetsARace => "is told that its contacts exist, which they do not",
            Fate::IsOvertaken => "finds that others have just created its contacts",
            Fate::MeetsNobody => "finds that others have just deleted its contacts",
            Fate::MissesTheList => "creates contacts outside of the list, and its answer is lost",
            Fate::HasItsRowsRefused => "has all of its rows refused",
        })
    }
}

/// A request that was sent.
pub(crate) struct Flight {
    pub(crate) process: usize,
    pub(crate) request: Request,
    pub(crate) endpoint: Endpoint,
    /// The keys that it is about.
    pub(crate) keys: Vec<usize>,
    pub(crate) fate: Fate,
    /// Which of several forms of its fate it has.
    dice: usize,
    /// How often it is still to arrive.
    arrivals: u32,
    /// The time from its arrival to its answer; `None` if the answer is lost.
    back: Option<u64>,
    /// For each of its keys, when an update of its run found nobody.
    pub(crate) met_nobody: Vec<Option<u64>>,
    /// For each of its keys, what others had changed by the time it took effect.
    pub(crate) edits: Vec<u64>,
    /// The step at which it took effect.
    step: u64,
    /// The answer on its way back.
    pending: Option<Answer>,
    answer: Option<Answer>,
    is_answered: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Arrives(u64),
    Answers(u64),
    TimesOut(u64),
}

/// What an answer is about.
pub(crate) struct About {
    pub(crate) process: usize,
    pub(crate) endpoint: Endpoint,
    pub(crate) keys: Vec<usize>,
    /// For each of the keys, what others had changed by the time the request took effect.
    pub(crate) edits: Vec<u64>,
    /// The step at which it took effect.
    pub(crate) step: u64,
}

/// All that is on its way.
#[derive(Default)]
pub(crate) struct Flights {
    /// How many requests were sent, and how many events were scheduled.
    sent: u64,
    next: u64,
    under_way: BTreeMap<u64, Flight>,
    events: BTreeMap<(u64, u64), Event>,
}

impl Flights {
    fn schedule(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<u64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Something that is to happen by now.
    pub(crate) fn due(&mut self, now: u64) -> Option<Event> {
        let entry = self.events.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// What a request was about.
    pub(crate) fn about(&self, id: u64) -> Option<About> {
        self.under_way.get(&id).map(|flight| About {
            process: flight.process,
            endpoint: flight.endpoint,
            keys: flight.keys.clone(),
            edits: flight.edits.clone(),
            step: flight.step,
        })
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(flight) = self.under_way.get_mut(&id)
            && !flight.is_answered
        {
            flight.is_answered = true;
            flight.answer = Some(answer);
            if let Some(waker) = flight.waker.take() {
                waker.wake();
            }
        }
    }
}

/// The way of one process to the account.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) shared: Shared,
    pub(crate) process: usize,
}

#[async_trait]
impl Network for Wire {
    async fn carry(&self, request: Request, timeout: Duration) -> Answer {
        let id = self.shared.lock().depart(self.process, request, timeout);
        Journey { shared: &self.shared, id }.await
    }
}

struct Journey<'s> {
    shared: &'s Shared,
    id: u64,
}

impl Future for Journey<'_> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let world = &mut *self.shared.lock();
        let flight =
            world.flights.under_way.get_mut(&self.id).expect("a flight is kept while it is waited for");
        match flight.answer.take() {
            None => {
                flight.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(answer) => {
                world.hear(self.id, &answer);
                Poll::Ready(answer)
            }
        }
    }
}

/// The e-mails that a request about contacts names, with what it says of each.
pub(crate) fn rows(endpoint: Endpoint, body: &Json) -> Vec<(String, Json)> {
    let texts = |list: &Json| -> Vec<(String, Json)> {
        let texts = list.as_array().into_iter().flatten();
        texts.filter_map(|key| Some((key.as_str()?.to_owned(), Json::Null))).collect()
    };
    match endpoint {
        Endpoint::UpdateContacts | Endpoint::CreateContacts => {
            let contacts = body["contacts"].as_array().into_iter().flatten();
            contacts.filter_map(|row| Some((row["3"].as_str()?.to_owned(), row.clone()))).collect()
        }
        Endpoint::AddToList => texts(&body["external_ids"]),
        _ => Vec::new(),
    }
}

impl World {
    /// A request is sent; what will become of it is drawn now.
    fn depart(&mut self, process: usize, request: Request, timeout: Duration) -> u64 {
        let endpoint = request.endpoint();
        self.meet(format!("request: {endpoint}"));
        let rows = rows(endpoint, &request.json());
        let keys: Vec<usize> = rows.iter().filter_map(|(email, _)| self.key_of(email)).collect();
        self.check_departure(process, endpoint, &rows, &keys);
        if endpoint == Endpoint::CreateContacts {
            self.check_list(process, list_of(&request));
        }
        let met_nobody = keys.iter().map(|key| self.processes[process].met_nobody[*key]).collect();
        // Reads are many, and what happens to them matters less.
        let trouble = match self.temper.trouble {
            _ if self.quiet => 0,
            trouble if endpoint.is_write() => trouble,
            trouble => trouble / 8,
        };
        let stream = match endpoint {
            Endpoint::UpdateContacts => Stream::Updates,
            Endpoint::CreateContacts => Stream::Creations,
            endpoint if endpoint.is_write() => Stream::Writes,
            _ => Stream::Reads,
        };
        let fates: Vec<Fate> = FATES.into_iter().filter(|fate| fate.is_possible(endpoint)).collect();
        let drawn = self.choices.on(stream).pick(u32::try_from(fates.len()).unwrap_or(1), trouble);
        let fate = fates[drawn as usize];
        let now = self.clock.now();
        let late = nanos(LATE) - MS;
        let mut there = 5 * MS;
        let mut back = Some(5 * MS);
        let mut arrivals = 1;
        match fate {
            Fate::IsSlow => {
                there = self.choices.on(stream).of(&[400, 1_500, 5]) * MS;
                back = Some(self.choices.on(stream).of(&[400, 5, 3_000]) * MS);
            }
            Fate::FindsNoWay | Fate::IsLost => arrivals = 0,
            Fate::LosesItsAnswer | Fate::TakesEffectByHalf | Fate::MissesTheList => back = None,
            Fate::ArrivesLate => {
                there =
                    self.choices.on(stream).of(&[9_000, 1_000, u64::MAX / MS]).saturating_mul(MS).min(late);
                back = None;
            }
            Fate::IsAnsweredTooLate => {
                there = nanos(timeout).min(late) - self.choices.on(stream).of(&[MS, 3_000 * MS]);
                back = Some(nanos(timeout));
            }
            Fate::ArrivesTwice => arrivals = 2,
            _ => {}
        }
        if fate != Fate::Arrives {
            self.meet(format!("fault: {} {fate}", if endpoint.is_write() { "a write" } else { "a read" }));
        }
        self.alone &= matches!(fate, Fate::Arrives | Fate::IsSlow | Fate::FindsNoWay);
        self.flights.sent += 1;
        let id = self.flights.sent;
        // Most of what is only read is read again and again.
        if self.story.is_some() && (endpoint.is_write() || fate != Fate::Arrives) {
            let rows: Vec<String> = rows.iter().map(|row| self.told_sent(row)).collect();
            let fate = if fate == Fate::Arrives { String::new() } else { format!("; it {fate}") };
            let told = format!("process {process} sends #{id} {endpoint} {}", rows.join(", "));
            self.tell(|| format!("{}{fate}", told.trim_end()));
        }
        let dice = match fate {
            Fate::MeetsAnOverload
            | Fate::TakesEffectBehindABrokenGateway
            | Fate::IsAnsweredByAWebPage
            | Fate::HasItsRowsRefused => self.choices.on(stream).below(4),
            _ => 0,
        };
        for _ in 0..arrivals {
            self.flights.schedule(now + there, Event::Arrives(id));
            if arrivals > 1 {
                // A second time, while nothing was answered yet.
                there += self.choices.on(stream).of(&[0, 1_000 * MS, 4_000 * MS]);
            }
        }
        match fate {
            Fate::FindsNoWay => {}
            Fate::IsLost | Fate::ArrivesLate => {
                let heard = self.choices.on(stream).of(&[50 * MS, 50 * MS, nanos(timeout)]);
                self.flights.schedule(now + heard, Event::TimesOut(id));
            }
            _ => self.flights.schedule(now + nanos(timeout), Event::TimesOut(id)),
        }
        let answer = (fate == Fate::FindsNoWay).then_some(Answer::Unreachable);
        let flight = Flight {
            process,
            request,
            endpoint,
            edits: vec![0; keys.len()],
            step: 0,
            keys,
            fate,
            dice,
            arrivals,
            back,
            met_nobody,
            pending: None,
            is_answered: answer.is_some(),
            answer,
            waker: None,
        };
        self.flights.under_way.insert(id, flight);
        id
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(id) => self.arrive(id),
            Event::TimesOut(id) => self.flights.answer(id, Answer::Lost),
            Event::Answers(id) => {
                let flight = self.flights.under_way.get_mut(&id);
                if let Some(answer) = flight.and_then(|flight| flight.pending.take()) {
                    self.flights.answer(id, answer);
                }
            }
        }
    }

    /// A request arrives, and takes effect or not.
    fn arrive(&mut self, id: u64) {
        self.step += 1;
        let Some(flight) = self.flights.under_way.get_mut(&id) else { return };
        flight.arrivals -= 1;
        let (request, endpoint) = (flight.request.clone(), flight.endpoint);
        let (fate, dice) = (flight.fate, flight.dice);
        let (keys, process, met_nobody) = (flight.keys.clone(), flight.process, flight.met_nobody.clone());
        if let Some(fault) = fault(fate, dice, &request) {
            self.sandbox.fail(fault);
        }
        let before: Vec<Vec<_>> = keys.iter().map(|key| self.contacts(*key)).collect();
        let reaction = self.sandbox.handle(&request);
        let status = match &reaction.answer {
            Answer::Whole(response) | Answer::Cut(response) => Some(response.status()),
            _ => None,
        };
        if let Some(status) = status {
            self.meet(format!("status: {status}"));
        }
        if matches!(fate, Fate::IsOvertaken | Fate::MeetsNobody) {
            // Somebody else was there just before.
            for key in &keys {
                self.keys[*key].edits += 1;
            }
        }
        let after: Vec<Vec<_>> = keys.iter().map(|key| self.contacts(*key)).collect();
        self.check_arrival(endpoint, fate, &keys, &met_nobody, list_of(&request), &before, &after);
        if endpoint.is_write() {
            self.note_births();
        }
        self.tell_arrival(id, endpoint, status, &keys);
        let edits = keys.iter().map(|key| self.keys[*key].edits).collect();
        if status == Some(429) {
            self.note_limited(process);
        }
        let (now, step) = (self.clock.now(), self.step);
        let delay = nanos(reaction.delay);
        if let Some(flight) = self.flights.under_way.get_mut(&id) {
            flight.edits = edits;
            flight.step = step;
            if !flight.is_answered && flight.arrivals == 0 {
                let answer = if flight.back.is_some() { reaction.answer } else { Answer::Lost };
                let back = flight.back.unwrap_or(5 * MS);
                flight.pending = Some(answer);
                self.flights.schedule(now + back + delay, Event::Answers(id));
            }
        }
        if endpoint.is_write() {
            self.check_state();
        }
    }
}

impl World {
    /// A line for what a request has done to the account.
    fn tell_arrival(&mut self, id: u64, endpoint: Endpoint, status: Option<u16>, keys: &[usize]) {
        if self.story.is_none() || (!endpoint.is_write() && status == Some(200)) {
            return;
        }
        let status = status.map_or("without a reply".to_owned(), |status| format!("status {status}"));
        let keys: Vec<String> = keys
            .iter()
            .map(|key| format!("; of k{key} the account has {}", self.told_contacts(*key)))
            .collect();
        self.tell(|| format!("  #{id} arrives, {status}{}", keys.join("")));
    }
}

/// What the account is told to do wrong with a request.
fn fault(fate: Fate, dice: usize, request: &Request) -> Option<Fault> {
    let status = [500, 502, 503, 504][dice];
    Some(match fate {
        Fate::MeetsAnOverload => Fault::status(status),
        Fate::TakesEffectBehindABrokenGateway => Fault::answer_applied(status, "<html>bad gateway</html>"),
        Fate::MeetsTheLimit => Fault::exhaust_limit(),
        Fate::MeetsExpiredTokens => Fault::expire_tokens(),
        Fate::IsAnsweredInPart => Fault::cut_body(),
        Fate::IsAnsweredByAWebPage if dice < 2 => Fault::answer_applied(200, "<html>hello</html>"),
        Fate::IsAnsweredByAWebPage => Fault::answer(200, "<html>hello</html>"),
        Fate::TakesEffectByHalf => Fault::apply_half(),
        Fate::IsForbidden => Fault::status(403),
        Fate::MeetsARace => Fault::race(),
        Fate::IsOvertaken => Fault::overtake(),
        Fate::MeetsNobody => Fault::vanish(),
        Fate::MissesTheList => Fault::skip_list(),
        // Nobody says that a row of which an update is refused is as it was before.
        Fate::HasItsRowsRefused if request.endpoint() == Endpoint::UpdateContacts && dice < 2 => {
            Fault::answer_applied(200, refusal(request))
        }
        Fate::HasItsRowsRefused => Fault::answer(200, refusal(request)),
        _ => return None,
    })
}

/// The list that a request names, in its body or in its path.
fn list_of(request: &Request) -> Option<ListId> {
    let id = match request.json()["contact_list_id"].clone() {
        Json::String(id) => id,
        Json::Number(id) => id.to_string(),
        _ => request.target().split('/').skip_while(|part| *part != "contactlist").nth(1)?.to_owned(),
    };
    id.parse().ok()
}

/// A reply in which every row has an error.
fn refusal(request: &Request) -> String {
    let rows = rows(request.endpoint(), &request.json());
    let errors: serde_json::Map<String, Json> = rows
        .into_iter()
        .map(|(email, _)| (email, json!({ "2007": "Invalid choice id for field id: 5" })))
        .collect();
    json!({ "replyCode": 0, "replyText": "OK", "data": { "ids": [], "errors": errors } }).to_string()
}

impl Fate {
    /// Whether it can happen to such a request.
    fn is_possible(self, endpoint: Endpoint) -> bool {
        match self {
            Fate::MeetsARace | Fate::IsOvertaken | Fate::MissesTheList => {
                endpoint == Endpoint::CreateContacts
            }
            Fate::MeetsNobody => endpoint == Endpoint::UpdateContacts,
            Fate::HasItsRowsRefused => {
                matches!(endpoint, Endpoint::CreateContacts | Endpoint::UpdateContacts)
            }
            Fate::TakesEffectByHalf => endpoint.is_write(),
            _ => true,
        }
    }
}

/// The contact of a key, if there is exactly one.
pub(crate) fn only(contacts: &[reverse_etl::emarsys::sandbox::StoredContact]) -> Option<ContactId> {
    match contacts {
        [contact] => Some(contact.id()),
        _ => None,
    }
}
