//! Keeps the requests of one API user within its limit (Emarsys API: Rate limits).
//!
//! Every reply says how many requests are left and when the count starts anew. Requests in flight may not be in
//! that number yet, so a request is let through only while more are left than are in flight. Until a first reply
//! has told the number, and again after each start of a new count, one request goes ahead and the others wait for
//! its reply. What decides is [`State`], without clock or I/O; what waits is the loop in [`Limiter::admit`].

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::select;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::sync::Notify;

use crate::host::{Deadline, Host};

/// The count starts anew at a full second of the server's clock, which is known to the second: so much is added.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a 429 without any hint asks to wait, and how long a count lasts if the reply does not say.
const WINDOW: Duration = Duration::from_secs(60);

/// The longest wait that a reply can ask for; a longer one is taken for a mistake.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The request budget of one API user.
///
/// All clones of a [`Client`](super::Client) share one. Give the handle to
/// [`ClientBuilder::limiter`](super::ClientBuilder::limiter) where several clients have the same API user.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// What a reply says about the limit, as the local clock will see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
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
                Admission::Go(epoch) => {
                    return Some(Permit { limiter: self.clone(), epoch, fate: Fate::NotSent, now });
                }
                Admission::At(at) => Some(at.saturating_sub(now)),
                Admission::AfterReply => None,
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
    epoch: u64,
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
        self.limiter.state().end(self.epoch, self.fate, self.now);
        self.limiter.shared.changed.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct State {
    knowledge: Knowledge,
    in_flight: u64,
    /// How often the count started anew, as far as noticed.
    epoch: u64,
    /// A 429 forbids all requests until then.
    blocked: Option<Duration>,
}

#[derive(Debug)]
enum Knowledge {
    /// How many are left is unknown. `ended` is the reset of the count before.
    Nothing {
        scout: bool,
        ended: Option<u64>,
    },
    /// The replies do not say.
    Unstated,
    Left {
        remaining: u64,
        reset: u64,
        until: Duration,
    },
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::Nothing { scout: false, ended: None }
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
            Knowledge::Nothing { scout: true, .. } => return Admission::AfterReply,
            Knowledge::Nothing { scout, .. } => *scout = true,
            Knowledge::Unstated => {}
            Knowledge::Left { remaining, until, .. } => {
                if *remaining <= self.in_flight {
                    return Admission::At(*until);
                }
            }
        }
        self.in_flight += 1;
        Admission::Go(self.epoch)
    }

    fn end(&mut self, epoch: u64, fate: Fate, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match fate {
            Fate::NotSent => self.scout_returns(epoch),
            Fate::NoAnswer => {
                self.spend_one();
                self.scout_returns(epoch);
            }
            Fate::Answered(None) => {
                self.spend_one();
                if matches!(self.knowledge, Knowledge::Nothing { .. }) && epoch == self.epoch {
                    self.knowledge = Knowledge::Unstated;
                }
            }
            Fate::Answered(Some(budget)) => self.learn(epoch, budget, now),
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

    fn learn(&mut self, epoch: u64, budget: Budget, now: Duration) {
        let until = now + budget.reset_in;
        let whole = Knowledge::Left { remaining: budget.remaining, reset: budget.reset, until };
        match &mut self.knowledge {
            Knowledge::Unstated => self.knowledge = whole,
            // A straggler of the count before says nothing about this one. But if a request sent after the end
            // still names the old reset, that count has not ended.
            Knowledge::Nothing { ended, .. } => {
                if ended.is_none_or(|ended| budget.reset > ended) || epoch == self.epoch {
                    self.knowledge = whole;
                }
            }
            Knowledge::Left { remaining, reset, until: known } => {
                if budget.reset > *reset {
                    self.knowledge = whole;
                } else if budget.reset == *reset {
                    // Replies may overtake each other: the smaller number is the later one.
                    *remaining = budget.remaining.min(*remaining);
                    *known = until.min(*known);
                }
            }
        }
    }

    fn forget(&mut self, ended: Option<u64>) {
        self.knowledge = Knowledge::Nothing { scout: false, ended };
        self.epoch += 1;
    }

    fn spend_one(&mut self) {
        if let Knowledge::Left { remaining, .. } = &mut self.knowledge {
            *remaining = remaining.saturating_sub(1);
        }
    }

    fn scout_returns(&mut self, epoch: u64) {
        if let Knowledge::Nothing { scout, .. } = &mut self.knowledge
            && epoch == self.epoch
        {
            *scout = false;
        }
    }
}

impl Budget {
    /// Reads the limit headers of a reply. The reset is compared with the server's own `Date`, so a wrong local
    /// clock does no harm; `wall` is used only where there is none.
    pub(crate) fn read(headers: &HeaderMap, wall: SystemTime) -> Option<Self> {
        let remaining = whole(headers, "x-ratelimit-remaining")?;
        let reset = whole(headers, "x-ratelimit-reset");
        let reset_in = reset.and_then(|reset| until_reset(reset, headers, wall)).unwrap_or(WINDOW);
        Some(Self { remaining, reset: reset.unwrap_or_default(), reset_in: reset_in + MARGIN })
    }
}

/// How long a 429 asks to wait: until the count starts anew, or what `Retry-After` says, or a minute.
pub(crate) fn wait_after_429(headers: &HeaderMap, wall: SystemTime) -> Duration {
    let reset = whole(headers, "x-ratelimit-reset").and_then(|reset| until_reset(reset, headers, wall));
    reset.or_else(|| retry_after(headers, wall)).unwrap_or(WINDOW) + MARGIN
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
