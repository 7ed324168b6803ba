//! Simulated time, and the machine that the code under test asks for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use reverse_etl::{Result, host::Host};

/// 2026-03-01 19:00:00 UTC.
const START: u64 = 1_772_391_600;

/// What the wall clocks of two processes may differ by.
pub(crate) const CLOCK_MARGIN: Duration = Duration::from_secs(1);

/// How far a wall clock is ahead of the right time, if it is: less than the margin.
pub(crate) const AHEAD: Duration = Duration::from_millis(900);

/// The one clock of a history, in nanoseconds since its beginning. It stands still but for [`Clock::set`].
#[derive(Default)]
pub(crate) struct Clock {
    now: AtomicU64,
    randoms: AtomicU64,
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    next: u64,
    waiting: Vec<(u64, u64, Waker)>,
}

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// When the next sleeper wakes, if there is one.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.timers().waiting.iter().map(|(_, at, _)| *at).min()
    }

    /// Moves the time on and wakes who slept until then.
    pub(crate) fn set(&self, now: u64) {
        self.now.fetch_max(now, Ordering::Relaxed);
        // Who does not look, since it is not polled, is not woken again.
        for (_, _, waker) in self.timers().waiting.extract_if(.., |(_, at, _)| *at <= now) {
            waker.wake();
        }
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The clock as one machine sees it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    clock: Arc<Clock>,
    /// What its wall clock is ahead of the right time, in nanoseconds.
    ahead: Arc<AtomicU64>,
    /// What its monotonic clock has missed while it was suspended, in nanoseconds.
    missed: Arc<AtomicU64>,
}

impl Machine {
    pub(crate) fn new(clock: &Arc<Clock>, ahead: Duration) -> Self {
        let ahead = Arc::new(AtomicU64::new(nanos(ahead)));
        Self { clock: Arc::clone(clock), ahead, missed: Arc::default() }
    }

    /// Somebody sets its wall clock: right if it was ahead, and ahead if it was right.
    pub(crate) fn set(&self) {
        let ahead = if self.ahead.load(Ordering::Relaxed) == 0 { nanos(AHEAD) } else { 0 };
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Its monotonic clock stands still for a time.
    pub(crate) fn miss(&self, span: u64) {
        self.missed.fetch_add(span, Ordering::Relaxed);
    }
}

pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Host for Machine {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
            + Duration::from_secs(START)
            + Duration::from_nanos(self.clock.now())
            + Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.clock.now().saturating_sub(self.missed.load(Ordering::Relaxed)))
    }

    async fn sleep(&self, pause: Duration) {
        let at = self.clock.now().saturating_add(nanos(pause));
        let id = {
            let mut timers = self.clock.timers();
            timers.next += 1;
            timers.next
        };
        Sleep { clock: &self.clock, id, at }.await;
    }

    fn name(&self) -> String {
        "a simulated process".to_owned()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        for byte in bytes {
            let count = self.clock.randoms.fetch_add(1, Ordering::Relaxed);
            let mut word = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            *byte = word.to_be_bytes()[0];
        }
        Ok(())
    }
}

struct Sleep<'c> {
    clock: &'c Clock,
    id: u64,
    at: u64,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.at {
            return Poll::Ready(());
        }
        let mut timers = self.clock.timers();
        timers.waiting.retain(|(id, ..)| *id != self.id);
        timers.waiting.push((self.id, self.at, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.clock.timers().waiting.retain(|(id, ..)| *id != self.id);
    }
}
