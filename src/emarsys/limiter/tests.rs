//! What is let through when, and that it adds up.

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
    Fate::Answered(Some(Budget { limit: None, remaining, reset, reset_in: secs(reset_in) }))
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
fn first_request_that_nobody_drives_on_does_not_hold_up_the_others_for_ever() {
    let mut state = State::default();
    let stuck = go(&mut state, 0);
    assert_eq!(state.admit(secs(59)), Admission::AfterReply);
    let second = go(&mut state, 60);
    assert_eq!(state.admit(secs(61)), Admission::AfterReply);
    state.end(second, left(5, 120, 60), secs(61));
    // The first one is in flight still, so it may be counted.
    (0..4).for_each(|_| _ = go(&mut state, 61));
    assert_eq!(state.admit(secs(61)), Admission::At(secs(121)));
    state.end(stuck, Fate::NotSent, secs(62));
    go(&mut state, 62);
}

#[test]
fn reset_that_wavers_is_that_of_the_same_count() {
    let mut state = after(left(3, 60, 60));
    for reset in [61, 59, 60] {
        let number = go(&mut state, 1);
        let remaining = match reset {
            61 => 2,
            59 => 1,
            _ => 0,
        };
        state.end(number, left(remaining, reset, 59), secs(1));
    }
    assert_eq!(state.admit(secs(1)), Admission::At(secs(60)));
    assert_eq!(state.others.now, 0);
}

#[test]
fn absurd_numbers_of_a_reply_are_survived() {
    let absurd = |remaining, reset| {
        let budget = Budget { limit: Some(u64::MAX), remaining, reset, reset_in: secs(60) };
        Fate::Answered(Some(budget))
    };
    let mut state = after(absurd(1, 60));
    let number = go(&mut state, 60);
    state.end(number, absurd(u64::MAX, 120), secs(60));
    let number = go(&mut state, 61);
    state.end(number, absurd(0, u64::MAX), secs(61));
    assert_ne!(state.admit(secs(61)), Admission::AfterReply);
}

#[tokio::test(start_paused = true)]
async fn relational_data_has_a_count_of_its_own() {
    let host = PausedHost::shared();
    let limiter = Limiter::new();
    let mut permit = limiter.admit(&*host, None).await.unwrap();
    permit.sending();
    permit.settle(left(0, 60, 60), host.monotonic());
    assert!(limiter.admit(&*host, None).now_or_never().is_none());
    let relational = limiter.below(Root::RelationalData);
    drop(relational.admit(&*host, None).now_or_never().flatten().unwrap());
    assert!(limiter.below(Root::Core).admit(&*host, None).now_or_never().is_none());
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
fn straggler_whose_reset_wavers_says_nothing_about_the_new_count() {
    let mut state = after(left(2, 60, 60));
    let straggler = go(&mut state, 1);
    let scout = go(&mut state, 60);
    state.end(straggler, left(0, 61, 60), secs(61));
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
    assert_eq!(budget, Budget { limit: None, remaining: 7, reset: START + 42, reset_in: secs(43) });
    assert_eq!(wait_after_429(&headers, wrong), secs(43));
}

#[test]
fn refusal_without_a_usable_reset_waits_as_told_or_a_minute() {
    let wall = SystemTime::UNIX_EPOCH + secs(START);
    let past = (START - 1).to_string();
    assert_eq!(wait_after_429(&headers(&[]), wall), secs(61));
    assert_eq!(wait_after_429(&headers(&[("x-ratelimit-reset", &past)]), wall), secs(61));
    assert_eq!(wait_after_429(&headers(&[("x-ratelimit-reset", "99999999999999999999")]), wall), secs(61));
    assert_eq!(wait_after_429(&headers(&[("x-ratelimit-reset", "18446744073709551615")]), wall), secs(61));
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
