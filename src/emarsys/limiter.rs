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
                Admission::Go(number) => {
                    return Some(Permit { limiter: self.clone(), number, fate: Fate::NotSent, now });
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
                let pending =
                    self.in_flight.saturating_add(self.unanswered.len().try_into().unwrap_or(u64::MAX));
                if *remaining <= pending {
                    return Admission::At(*until);
                }
            }
        }
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        Admission::Go(number)
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
        let whole = Knowledge::Left { remaining: budget.remaining, reset: budget.reset, until };
        match &mut self.knowledge {
            Knowledge::Unstated => self.knowledge = whole,
            // A straggler of the count before says nothing about this one. But if a request sent after the end
            // still names the old reset, that count has not ended.
            Knowledge::Nothing { ended, .. } => {
                if ended.is_none_or(|ended| budget.reset > ended) || number >= self.since {
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
        self.since = self.next;
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
            *scout = false;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::{
        StreamExt,
        future::{FutureExt, join_all},
        stream,
    };
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::emarsys::transport::fake::{PausedHost, START, date};

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn left(remaining: u64, reset: u64, reset_in: u64) -> Fate {
        Fate::Answered(Some(Budget { remaining, reset, reset_in: secs(reset_in) }))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    /// Lets one request through, and says which.
    fn go(state: &mut State, now: u64) -> u64 {
        match state.admit(secs(now)) {
            Admission::Go(number) => number,
            other => panic!("{other:?}"),
        }
    }

    /// A state whose first request was answered so.
    fn after(fate: Fate) -> State {
        let mut state = State::default();
        let first = go(&mut state, 0);
        state.end(first, fate, secs(0));
        state
    }

    #[test]
    fn first_request_goes_alone() {
        let mut state = State::default();
        let first = go(&mut state, 0);
        assert_eq!(state.admit(secs(0)), Admission::AfterReply);
        state.end(first, left(5, 60, 60), secs(1));
        go(&mut state, 1);
        go(&mut state, 1);
    }

    #[test]
    fn first_request_without_an_answer_is_followed_by_one() {
        for fate in [Fate::NotSent, Fate::NoAnswer] {
            let mut state = after(fate);
            go(&mut state, 1);
            assert_eq!(state.admit(secs(1)), Admission::AfterReply);
        }
    }

    #[test]
    fn replies_that_do_not_speak_of_a_limit_set_none() {
        let mut state = after(Fate::Answered(None));
        for _ in 0..5_000 {
            go(&mut state, 1);
        }
    }

    #[test]
    fn requests_in_flight_count_against_the_rest() {
        let mut state = after(left(2, 60, 60));
        let first = go(&mut state, 1);
        go(&mut state, 1);
        assert_eq!(state.admit(secs(1)), Admission::At(secs(60)));
        state.end(first, Fate::NotSent, secs(2));
        go(&mut state, 2);
        assert_eq!(state.admit(secs(2)), Admission::At(secs(60)));
    }

    #[test]
    fn request_without_an_answer_counts_until_the_reply_to_a_later_one() {
        let mut state = after(left(3, 60, 60));
        let early = go(&mut state, 1);
        let lost = go(&mut state, 1);
        state.end(lost, Fate::NoAnswer, secs(2));
        state.end(early, left(2, 60, 60), secs(3));
        let late = go(&mut state, 3);
        assert_eq!(state.admit(secs(3)), Admission::At(secs(60)));
        state.end(late, left(1, 60, 60), secs(4));
        go(&mut state, 4);
        assert_eq!(state.admit(secs(4)), Admission::At(secs(60)));
    }

    #[test]
    fn reply_that_was_overtaken_does_not_raise_the_rest() {
        let mut state = after(left(10, 60, 60));
        let [a, b, c] = [(); 3].map(|()| go(&mut state, 1));
        state.end(c, left(7, 60, 60), secs(2));
        state.end(a, left(9, 60, 60), secs(2));
        state.end(b, left(8, 60, 60), secs(2));
        for _ in 0..7 {
            go(&mut state, 3);
        }
        assert_eq!(state.admit(secs(3)), Admission::At(secs(60)));
    }

    #[test]
    fn new_count_is_explored_by_one_request_and_stragglers_say_nothing_about_it() {
        let mut state = after(left(2, 60, 60));
        let straggler = go(&mut state, 1);
        let scout = go(&mut state, 60);
        assert_eq!(state.admit(secs(60)), Admission::AfterReply);
        state.end(straggler, left(1, 60, 60), secs(61));
        assert_eq!(state.admit(secs(61)), Admission::AfterReply);
        state.end(scout, left(9, 120, 60), secs(61));
        go(&mut state, 61);
    }

    #[test]
    fn count_that_did_not_end_as_expected_goes_on() {
        let mut state = after(left(2, 60, 60));
        let scout = go(&mut state, 60);
        state.end(scout, left(1, 60, 5), secs(60));
        go(&mut state, 60);
        assert_eq!(state.admit(secs(60)), Admission::At(secs(65)));
    }

    #[test]
    fn refusal_for_the_limit_stops_everybody_until_its_end() {
        let mut state = after(left(100, 60, 60));
        let refused = go(&mut state, 1);
        let other = go(&mut state, 1);
        state.end(refused, Fate::Limited(secs(30)), secs(1));
        assert_eq!(state.admit(secs(2)), Admission::At(secs(31)));
        state.end(other, left(99, 60, 60), secs(2));
        assert_eq!(state.admit(secs(30)), Admission::At(secs(31)));
        go(&mut state, 31);
        assert_eq!(state.admit(secs(31)), Admission::AfterReply);
    }

    #[test]
    fn reset_is_measured_on_the_clock_of_the_server() {
        let wrong = SystemTime::UNIX_EPOCH;
        let reset = (START + 42).to_string();
        let headers =
            headers(&[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", &reset), ("date", &date(0))]);
        let budget = Budget::read(&headers, wrong).unwrap();
        assert_eq!(budget, Budget { remaining: 7, reset: START + 42, reset_in: secs(43) });
        assert_eq!(wait_after_429(&headers, wrong), secs(43));
    }

    #[test]
    fn refusal_without_a_usable_reset_waits_as_told_or_a_minute() {
        let wall = SystemTime::UNIX_EPOCH + secs(START);
        let past = (START - 1).to_string();
        assert_eq!(wait_after_429(&headers(&[]), wall), secs(61));
        assert_eq!(wait_after_429(&headers(&[("x-ratelimit-reset", &past)]), wall), secs(61));
        assert_eq!(
            wait_after_429(&headers(&[("x-ratelimit-reset", "99999999999999999999")]), wall),
            secs(61)
        );
        assert_eq!(
            wait_after_429(&headers(&[("x-ratelimit-reset", "18446744073709551615")]), wall),
            secs(61)
        );
        assert_eq!(wait_after_429(&headers(&[("retry-after", "5")]), wall), secs(6));
        assert_eq!(wait_after_429(&headers(&[("retry-after", &date(5))]), wall), secs(6));
        assert_eq!(wait_after_429(&headers(&[("retry-after", "18446744073709551615")]), wall), secs(3601));
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_waiter_and_dropped_permit_leave_no_trace() {
        let host = PausedHost::shared();
        let limiter = Limiter::new();
        let scout = limiter.admit(&*host, None).await.unwrap();
        assert!(limiter.admit(&*host, None).now_or_never().is_none());
        drop(scout);
        let mut scout = limiter.admit(&*host, None).await.unwrap();
        scout.sending();
        scout.settle(left(2, 60, 60), host.monotonic());
        for _ in 0..10 {
            drop(limiter.admit(&*host, None).await.unwrap());
        }
        let mut sent = limiter.admit(&*host, None).await.unwrap();
        sent.sending();
        drop(sent);
        let _last = limiter.admit(&*host, None).await.unwrap();
        // Two were left: one is in flight, one was dropped when it may have arrived.
        assert!(limiter.admit(&*host, None).now_or_never().is_none());
        assert_eq!(limiter.state().in_flight, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_with_the_deadline() {
        let host = PausedHost::shared();
        let limiter = Limiter::new();
        let scout = limiter.admit(&*host, None).await.unwrap();
        let deadline = Deadline::after(&*host, secs(5));
        assert!(limiter.admit(&*host, Some(deadline)).await.is_none());
        assert_eq!(host.monotonic(), secs(5));
        drop(scout);
        assert!(limiter.admit(&*host, Some(deadline)).await.is_none());
    }

    /// Counts requests as Emarsys is known to (from the first request of a window), or by the clock's minute.
    struct Server {
        limit: u64,
        by_the_clock: bool,
        window: Mutex<(u64, u64)>,
        refused: AtomicU64,
    }

    impl Server {
        fn ask(&self, host: &dyn Host) -> Fate {
            let wall = host.wall();
            let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let mut window = self.window.lock().unwrap();
            if now >= window.0 {
                *window = (if self.by_the_clock { now - now % 60 + 60 } else { now + 60 }, 0);
            }
            window.1 += 1;
            if window.1 > self.limit {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Fate::Limited(secs(60));
            }
            let headers = headers(&[
                ("x-ratelimit-limit", &self.limit.to_string()),
                ("x-ratelimit-remaining", &(self.limit - window.1).to_string()),
                ("x-ratelimit-reset", &window.0.to_string()),
                ("date", &httpdate::fmt_http_date(wall)),
            ]);
            Fate::Answered(Budget::read(&headers, SystemTime::UNIX_EPOCH))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn alone_on_the_account_no_request_is_ever_refused() {
        for (by_the_clock, limit, callers) in
            [(false, 1, 3), (false, 10, 4), (false, 50, 200), (true, 50, 7), (true, 1000, 300)]
        {
            let host = PausedHost::shared();
            let server = Server { limit, by_the_clock, window: Mutex::default(), refused: AtomicU64::new(0) };
            let limiter = Limiter::new();
            let requests = limit * 5;
            stream::iter(0..requests)
                .for_each_concurrent(callers, |number| {
                    let (host, server, limiter) = (&host, &server, &limiter);
                    async move {
                        let mut permit = limiter.admit(&**host, None).await.unwrap();
                        permit.sending();
                        // Latencies differ, so replies overtake each other; now and then one is lost.
                        host.sleep(Duration::from_millis(number * 7919 % 400)).await;
                        let fate = server.ask(&**host);
                        host.sleep(Duration::from_millis(number * 104_729 % 700)).await;
                        let fate = if number % 97 == 5 { Fate::NoAnswer } else { fate };
                        permit.settle(fate, host.monotonic());
                    }
                })
                .await;
            assert_eq!(server.refused.load(Ordering::Relaxed), 0, "{limit} by {callers}");
            let minutes = host.monotonic().as_secs() / 60;
            assert!(minutes <= 6, "{limit} by {callers}: {minutes} minutes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_waiters_all_come_through() {
        let host = PausedHost::shared();
        let limiter = Limiter::new();
        let permits = join_all((0..100).map(|_| async {
            let mut permit = limiter.admit(&*host, None).await.unwrap();
            permit.sending();
            host.sleep(secs(1)).await;
            permit.settle(Fate::Answered(None), host.monotonic());
        }));
        permits.await;
        assert_eq!(host.monotonic(), secs(2));
    }
}
