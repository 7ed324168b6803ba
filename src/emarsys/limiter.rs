//! Keeps the requests of one API user within its limit (Emarsys API: Rate limits).
//!
//! Every reply says how many requests are left and when the count starts anew. Requests in flight may not be in
//! that number yet, so a request is let through only while more are left than are in flight. Until a first reply
//! has told the number, and again after each start of a new count, one request goes ahead and the others wait for
//! its reply.
//!
//! Whoever else has the same API user shows by a number that falls faster than requests were sent. Then room is left
//! for the requests that they may have in flight, and in the next counts for more than they used, up to half of all.
//! If they used much, requests are spread over the count, so that whoever is slower comes to its part.
//!
//! What decides is [`State`], without clock or I/O; what waits is the loop in [`Limiter::admit`].

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::select;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::sync::Notify;

use super::request::Root;
use crate::host::{Deadline, Host};

/// The count starts anew at a full second of the server's clock, which is known to the second: so much is added.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a 429 without any hint asks to wait, and how long a count lasts if the reply does not say.
const WINDOW: Duration = Duration::from_secs(60);

/// How long the others wait for the request that goes ahead. Its own time-out is mostly shorter; but a future that nobody
/// polls never ends.
const SCOUT_MAX: Duration = Duration::from_secs(60);

/// Resets that are less apart than this, in seconds, are those of the same count.
const SAME_RESET: u64 = 20;

/// When requests are spread over a count, so much of it may be used ahead of the time.
const HEADSTART: Duration = Duration::from_secs(5);

/// The longest wait that a reply can ask for; a longer one is taken for a mistake.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The request budget of one API user.
///
/// All clones of a [`Client`](super::Client) share one. Give the handle to
/// [`ClientBuilder::limiter`](super::ClientBuilder::limiter) where several clients have the same API user.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    shared: Arc<Shared>,
    /// Relational data, whose replies may speak of a count of their own.
    relational: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// What a reply says about the limit, as the local clock will see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Requests allowed in one count, if the reply says so.
    limit: Option<u64>,
    /// Requests left.
    remaining: u64,
    /// When the count starts anew, in the server's words: only compared with itself.
    reset: u64,
    /// When that is, from now; never too early.
    reset_in: Duration,
}

/// What came of a request that was let through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It was not sent, or certainly did not arrive.
    NotSent,
    /// It may have been counted.
    NoAnswer,
    /// It was answered, and the answer says this much about the limit.
    Answered(Option<Budget>),
    /// It was answered with 429: wait so long.
    Limited(Duration),
}

impl Limiter {
    /// A budget of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The budget of the calls below an address.
    pub(crate) fn below(&self, root: Root) -> Self {
        match root {
            Root::Core => self.clone(),
            Root::RelationalData => {
                Self { shared: Arc::clone(&self.relational), relational: Arc::clone(&self.relational) }
            }
        }
    }

    /// Waits until a request may be sent; `None` once the deadline has passed.
    pub(crate) async fn admit(&self, host: &dyn Host, deadline: Option<Deadline>) -> Option<Permit> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Listening begins before looking, so no change between the two is missed.
            changed.as_mut().enable();
            if deadline.is_some_and(|deadline| deadline.passed(host)) {
                return None;
            }
            let now = host.monotonic();
            let admission = self.state().admit(now);
            let wait = match admission {
                Admission::Go(number) => {
                    return Some(Permit { limiter: self.clone(), number, fate: Fate::NotSent, now });
                }
                Admission::At(at) => Some(at.saturating_sub(now)),
                Admission::AfterReply => Some(SCOUT_MAX),
            };
            let left = deadline.map(|deadline| deadline.remaining(host));
            match wait.into_iter().chain(left).min() {
                Some(pause) => _ = select(changed, pin!(host.sleep(pause))).await,
                None => changed.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to send one request. Dropped, it gives back what was not used.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Limiter,
    number: u64,
    fate: Fate,
    now: Duration,
}

impl Permit {
    /// From here on the request may arrive: if the permit is dropped without an answer, it counts as sent.
    pub(crate) fn sending(&mut self) {
        self.fate = Fate::NoAnswer;
    }

    /// The request came to an end at `now`.
    pub(crate) fn settle(mut self, fate: Fate, now: Duration) {
        self.fate = fate;
        self.now = now;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.state().end(self.number, self.fate, self.now);
        self.limiter.shared.changed.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct State {
    knowledge: Knowledge,
    in_flight: u64,
    /// For each request that ended without an answer, the number of the next one: it may be missing from what the
    /// replies to earlier ones say is left.
    unanswered: Vec<u64>,
    /// The number of the next request.
    next: u64,
    /// The first request of this count, as far as noticed.
    since: u64,
    /// As many of our requests from this number on may be in this count, those in flight when it began included.
    base: u64,
    /// The most requests in flight at once, in this count.
    peak: u64,
    others: Others,
    /// A 429 forbids all requests until then.
    blocked: Option<Duration>,
}

/// What others use of the same budget, at least.
#[derive(Debug, Default)]
struct Others {
    now: u64,
    /// In the count before this one; half of what it was before that, if that is more: what others do while we have
    /// nothing to send is not seen.
    before: u64,
}

#[derive(Debug)]
enum Knowledge {
    /// How many are left is unknown. `ended` is the reset of the count before.
    Nothing {
        /// When the request that goes ahead was let through.
        scout: Option<Duration>,
        ended: Option<u64>,
    },
    /// The replies do not say.
    Unstated,
    Left {
        limit: Option<u64>,
        remaining: u64,
        reset: u64,
        until: Duration,
    },
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::Nothing { scout: None, ended: None }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Go(u64),
    At(Duration),
    AfterReply,
}

impl State {
    fn admit(&mut self, now: Duration) -> Admission {
        if let Some(blocked) = self.blocked.filter(|blocked| now < *blocked) {
            return Admission::At(blocked);
        }
        self.blocked = None;
        if let Knowledge::Left { reset, until, .. } = self.knowledge
            && now >= until
        {
            self.forget(Some(reset));
        }
        match &mut self.knowledge {
            Knowledge::Nothing { scout: Some(since), .. } if now < *since + SCOUT_MAX => {
                return Admission::AfterReply;
            }
            Knowledge::Nothing { scout, .. } => *scout = Some(now),
            Knowledge::Unstated => {}
            Knowledge::Left { limit, remaining, until, .. } => {
                let (limit, remaining, until) = (*limit, *remaining, *until);
                if remaining <= self.pending().saturating_add(self.pending_of_others(remaining)) {
                    return Admission::At(until);
                }
                if let Some(at) = limit.and_then(|limit| self.turn(limit, until, now)) {
                    return Admission::At(at);
                }
            }
        }
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        Admission::Go(number)
    }

    /// Our requests that the number of those left may not show yet.
    fn pending(&self) -> u64 {
        self.in_flight.saturating_add(self.unanswered.len().try_into().unwrap_or(u64::MAX))
    }

    /// Requests that others may have in flight: as many as we had at most, in proportion to what both used. When
    /// only few are left, they are as careful as we are, and have no more than half of them in flight.
    fn pending_of_others(&self, remaining: u64) -> u64 {
        let others = self.others.now.max(self.others.before);
        let likely = self.peak.saturating_mul(others).div_ceil(self.sent().max(others).max(1));
        likely.min(remaining.div_ceil(2))
    }

    /// Our requests in this count, at most.
    fn sent(&self) -> u64 {
        self.next - self.base
    }

    /// When the next request may go, if not now for the sake of others: at the end of the count, once our share of it
    /// is used; before that, if they use much, when its time has come.
    fn turn(&self, limit: u64, until: Duration, now: Duration) -> Option<Duration> {
        let others = self.others.before;
        if others == 0 {
            return None;
        }
        let few = limit / 20;
        let share = limit - others.saturating_add(others.div_ceil(4)).max(few).min(limit / 2);
        let sent = self.sent();
        if sent >= share {
            return Some(until);
        }
        if others < few {
            return None;
        }
        // The share as a whole is free a headstart before the end.
        let missing = u32::try_from(share - sent - 1).unwrap_or(u32::MAX);
        let each = WINDOW / u32::try_from(share).unwrap_or(u32::MAX);
        let at = until.saturating_sub(HEADSTART).saturating_sub(each.saturating_mul(missing));
        (at > now).then_some(at)
    }

    fn end(&mut self, number: u64, fate: Fate, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match fate {
            Fate::NotSent => self.scout_returns(number),
            Fate::NoAnswer => {
                self.miss();
                self.scout_returns(number);
            }
            Fate::Answered(None) => match self.knowledge {
                Knowledge::Nothing { .. } if number >= self.since => self.knowledge = Knowledge::Unstated,
                _ => self.miss(),
            },
            Fate::Answered(Some(budget)) => {
                self.unanswered.retain(|next| *next > number);
                self.learn(number, budget, now);
            }
            Fate::Limited(wait) => {
                let until = now + wait;
                self.blocked = Some(self.blocked.map_or(until, |blocked| blocked.max(until)));
                let ended = match self.knowledge {
                    Knowledge::Left { reset, .. } => Some(reset),
                    Knowledge::Nothing { ended, .. } => ended,
                    Knowledge::Unstated => None,
                };
                self.forget(ended);
            }
        }
    }

    fn learn(&mut self, number: u64, budget: Budget, now: Duration) {
        let until = now + budget.reset_in;
        let Budget { limit, remaining, reset, .. } = budget;
        let whole = Knowledge::Left { limit, remaining, reset, until };
        match &mut self.knowledge {
            Knowledge::Unstated => self.knowledge = whole,
            // A straggler of the count before says nothing about this one. But if a request sent after the end
            // still names the old reset, that count has not ended.
            Knowledge::Nothing { ended, .. } => {
                let is_of_this = |ended: u64| budget.reset >= ended.saturating_add(SAME_RESET);
                if ended.is_none_or(is_of_this) || number >= self.since {
                    self.knowledge = whole;
                }
            }
            Knowledge::Left { remaining, reset, until: known, .. } => {
                if budget.reset >= reset.saturating_add(SAME_RESET) {
                    self.knowledge = whole;
                    // The request that was just answered is no longer in flight, but in this count.
                    self.begin(1);
                } else if budget.reset.saturating_add(SAME_RESET) > *reset {
                    // Replies may overtake each other: the smaller number is the later one.
                    *remaining = budget.remaining.min(*remaining);
                    *known = until.min(*known);
                }
            }
        }
        if let Knowledge::Left { limit: Some(limit), remaining, reset, .. } = self.knowledge
            && reset.abs_diff(budget.reset) < SAME_RESET
        {
            let used = limit.saturating_sub(remaining);
            self.others.now = self.others.now.max(used.saturating_sub(self.sent()));
        }
    }

    fn forget(&mut self, ended: Option<u64>) {
        // Of several requests that are refused together, the first ends the count.
        if !matches!(self.knowledge, Knowledge::Nothing { .. }) {
            self.begin(0);
        }
        self.knowledge = Knowledge::Nothing { scout: None, ended };
        self.since = self.next;
    }

    /// A new count begins, in which the requests in flight and so many more may be.
    fn begin(&mut self, more: u64) {
        self.base = self.next.saturating_sub(self.pending().saturating_add(more));
        self.peak = self.in_flight;
        self.others = Others { now: 0, before: self.others.now.max(self.others.before / 2) };
    }

    /// A request ended, and what is left does not show it yet.
    fn miss(&mut self) {
        if matches!(self.knowledge, Knowledge::Unstated) {
            self.unanswered.clear();
        } else {
            self.unanswered.push(self.next);
        }
    }

    /// The request that went ahead came back with nothing: another one may go.
    fn scout_returns(&mut self, number: u64) {
        if let Knowledge::Nothing { scout, .. } = &mut self.knowledge
            && number >= self.since
        {
            *scout = None;
        }
    }
}

impl Budget {
    /// Requests left.
    pub(crate) fn remaining(self) -> u64 {
        self.remaining
    }

    /// Reads the limit headers of a reply. The reset is compared with the server's own `Date`, so a wrong local
    /// clock does no harm; `wall` is used only where there is none.
    pub(crate) fn read(headers: &HeaderMap, wall: SystemTime) -> Option<Self> {
        let remaining = whole(headers, "x-ratelimit-remaining")?;
        let reset = whole(headers, "x-ratelimit-reset");
        let reset_in = reset.and_then(|reset| until_reset(reset, headers, wall)).unwrap_or(WINDOW);
        Some(Self {
            limit: whole(headers, "x-ratelimit-limit"),
            remaining,
            reset: reset.unwrap_or_default(),
            reset_in: reset_in + MARGIN,
        })
    }
}

/// How long a 429 asks to wait: until the count starts anew and as long as `Retry-After` says; if
/// neither is there, a minute.
pub(crate) fn wait_after_429(headers: &HeaderMap, wall: SystemTime) -> Duration {
    let reset = whole(headers, "x-ratelimit-reset").and_then(|reset| until_reset(reset, headers, wall));
    reset.max(retry_after(headers, wall)).unwrap_or(WINDOW) + MARGIN
}

/// `Retry-After`, in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(server_time(headers, wall)).ok()?,
    };
    Some(wait.min(WAIT_MAX))
}

/// The time at the server when it replied.
pub(crate) fn server_date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

fn server_time(headers: &HeaderMap, wall: SystemTime) -> SystemTime {
    server_date(headers).unwrap_or(wall)
}

/// From now to `reset`, seconds since 1970; `None` if that is over or too far away to be meant.
fn until_reset(reset: u64, headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let reset = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(reset))?;
    let wait = reset.duration_since(server_time(headers, wall)).ok()?;
    (wait <= WAIT_MAX).then_some(wait)
}

fn whole(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
#[cfg(all(test, feature = "sandbox"))]
mod windows;
