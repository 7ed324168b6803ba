//! Simulated time, and an executor that moves it when nothing else can happen.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use reverse_etl::{Result, host::Host};

use crate::world::Shared;

/// The world's clock; randomness is a count, so histories can be played again.
#[derive(Clone)]
pub(crate) struct SimulatedHost(pub(crate) Shared);

impl fmt::Debug for SimulatedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedHost")
    }
}

impl SimulatedHost {
    fn until(&self, seconds: u64) -> Sleep {
        let mut world = self.0.lock();
        Sleep { shared: self.0.clone(), id: world.next_timer(), at: world.now + seconds }
    }
}

pub(crate) fn wall(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

#[async_trait]
impl Host for SimulatedHost {
    fn wall(&self) -> SystemTime {
        wall(self.0.lock().now)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.lock().now)
    }

    async fn sleep(&self, pause: Duration) {
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        self.until(seconds).await;
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        let count = self.0.lock().next_timer();
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = count.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[at % 8]
                ^ u8::try_from(at).unwrap_or(0);
        }
        Ok(())
    }
}

struct Sleep {
    shared: Shared,
    id: u64,
    at: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut world = self.shared.lock();
        if world.now >= self.at {
            return Poll::Ready(());
        }
        world.timers.retain(|(id, ..)| *id != self.id);
        world.timers.push((self.id, self.at, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.shared.lock().timers.retain(|(id, ..)| *id != self.id);
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end, or until the world says that the process has crashed.
pub(crate) fn block_on<F: Future>(shared: &Shared, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        woken.0.store(false, Ordering::Relaxed);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        // It may have died in one of several things that it does at once, and come to an end by another.
        if shared.lock().crashed {
            return None;
        }
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        if woken.0.load(Ordering::Relaxed) {
            continue;
        }
        let next = shared.lock().timers.iter().map(|(_, at, _)| *at).min();
        let Some(next) = next else {
            shared.lock().violate("the engine waits for something that never comes");
            return None;
        };
        while shared.lock().now < next {
            shared.lock().tick();
        }
        let world = shared.lock();
        for (_, at, waker) in &world.timers {
            if *at <= world.now {
                waker.wake_by_ref();
            }
        }
    }
}

/// Gives others their turn once.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
