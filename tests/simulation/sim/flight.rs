//! The network: requests on their way, what becomes of them, and what their senders hear of it.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use reverse_etl::emarsys::{
    ContactId, ListId,
    sandbox::{Answer, Endpoint, Network, Request},
};
use serde_json::Value as Json;

use super::{
    choices::Stream,
    clock::nanos,
    fate::{Fate, MS, Way, fault},
    world::{Shared, World},
};

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
    arrivals: usize,
    /// The time from its arrival to its answer; `None` if the answer is lost.
    back: Option<u64>,
    /// For each of its keys, when an update found nobody: one of its run, or of the run that left the row in doubt.
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
        Journey { shared: &self.shared, id, is_heard: false }.await
    }
}

struct Journey<'s> {
    shared: &'s Shared,
    id: u64,
    is_heard: bool,
}

/// A request that nobody waits for any more may be counted after replies that were sent later.
impl Drop for Journey<'_> {
    fn drop(&mut self) {
        if !self.is_heard {
            self.shared.lock().alone = false;
        }
    }
}

impl Future for Journey<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let (shared, id) = (self.shared, self.id);
        let world = &mut *shared.lock();
        let flight = world.flights.under_way.get_mut(&id).expect("a flight is kept while it is waited for");
        match flight.answer.take() {
            None => {
                flight.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(answer) => {
                world.hear(id, &answer);
                self.is_heard = true;
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
        let list = list_of(&request);
        self.check_departure(process, endpoint, &rows, &keys, list);
        if endpoint == Endpoint::CreateContacts {
            self.check_list(process, list);
        }
        let met_nobody = |key: &usize| match endpoint {
            Endpoint::AddToList => self.keys[*key].nobody_before_insert,
            _ => self.processes[process].met_nobody[*key],
        };
        let met_nobody = keys.iter().map(met_nobody).collect();
        let (fate, way) = self.draw_way(endpoint, timeout);
        if fate != Fate::Arrives {
            self.meet(fate.met(endpoint));
        }
        self.alone &= matches!(fate, Fate::Arrives | Fate::IsSlow | Fate::FindsNoWay);
        self.flights.sent += 1;
        let id = self.flights.sent;
        // Most of what is only read is read again and again.
        if self.story.is_some() && (endpoint.is_write() || fate != Fate::Arrives) {
            let rows: Vec<String> = rows.iter().map(|row| self.told_sent(row)).collect();
            let fate = if fate == Fate::Arrives { String::new() } else { format!("; it {fate}") };
            let into = list.map_or_else(String::new, |list| format!(" for {}", self.list_name(Some(list))));
            let told = format!("process {process} sends #{id} {endpoint} {}{into}", rows.join(", "));
            self.tell(|| format!("{}{fate}", told.trim_end()));
        }
        let now = self.clock.now();
        for there in &way.arrivals {
            self.flights.schedule(now + there, Event::Arrives(id));
        }
        if let Some(timeout) = way.times_out {
            self.flights.schedule(now + timeout, Event::TimesOut(id));
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
            arrivals: way.arrivals.len(),
            dice: way.dice,
            back: way.back,
            met_nobody,
            pending: None,
            is_answered: answer.is_some(),
            answer,
            waker: None,
        };
        self.flights.under_way.insert(id, flight);
        id
    }

    /// What happens to a request, and how it gets there and back.
    fn draw_way(&mut self, endpoint: Endpoint, timeout: Duration) -> (Fate, Way) {
        let trouble = match self.temper.trouble {
            _ if self.quiet => 0,
            // There are few of these.
            trouble if endpoint == Endpoint::AddToList => (5 * trouble).min(700),
            trouble if endpoint == Endpoint::CreateContacts => 2 * trouble,
            trouble if endpoint.is_write() => trouble,
            // Reads are many, and what happens to them matters less.
            trouble => trouble / 8,
        };
        let choices = self.choices.on(match endpoint {
            Endpoint::UpdateContacts => Stream::Updates,
            Endpoint::CreateContacts => Stream::Creations,
            endpoint if endpoint.is_write() => Stream::Writes,
            _ => Stream::Reads,
        });
        let fates: Vec<Fate> = Fate::all(endpoint).collect();
        let fate = fates[choices.pick(u32::try_from(fates.len()).unwrap_or(1), trouble) as usize];
        (fate, Way::draw(fate, timeout, choices))
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

/// The list that a request names, in its body or in its path.
fn list_of(request: &Request) -> Option<ListId> {
    let id = match request.json()["contact_list_id"].clone() {
        Json::String(id) => id,
        Json::Number(id) => id.to_string(),
        _ => request.target().split('/').skip_while(|part| *part != "contactlist").nth(1)?.to_owned(),
    };
    id.parse().ok()
}

/// The contact of a key, if there is exactly one.
pub(crate) fn only(contacts: &[reverse_etl::emarsys::sandbox::StoredContact]) -> Option<ContactId> {
    match contacts {
        [contact] => Some(contact.id()),
        _ => None,
    }
}
