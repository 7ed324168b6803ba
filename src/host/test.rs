//! A machine whose time is moved by a test.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{Host, yield_once};
use crate::Result;

/// A machine for tests: its time stands still until somebody sleeps or [`advance`](Self::advance) is called, so that
/// what takes an hour is over at once. Its random bytes are a fixed sequence: never use it for real data.
///
/// Give the same one to everything that shares a clock: the client, the store, the sandbox. It fits only where nothing
/// waits for the machine, for a socket or a disk: its time would run on meanwhile. So a client goes with
/// `ClientBuilder::in_process` or `ClientBuilder::network`, and a store is a [`MemoryStore`](crate::MemoryStore). The
/// [module](super) has a whole sync on one.
///
/// ```
/// use std::time::Duration;
///
/// use reverse_etl::host::{Host, TestHost};
///
/// # futures::executor::block_on(async {
/// let host = TestHost::shared();
/// host.sleep(Duration::from_secs(3600)).await; // returns at once
/// host.advance(Duration::from_secs(5));
/// assert_eq!(host.monotonic(), Duration::from_secs(3605));
/// # });
/// ```
#[derive(Debug, Default)]
pub struct TestHost(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Duration,
    randoms: u64,
}

/// 2026-03-01 19:00:00 UTC, a Sunday.
const START: Duration = Duration::from_secs(1_772_391_600);

impl TestHost {
    /// A machine that was just started, on 1 March 2026 at 19:00 UTC.
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Moves the time on, of both clocks.
    pub fn advance(&self, span: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(span);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Host for TestHost {
    fn wall(&self) -> SystemTime {
        super::later(SystemTime::UNIX_EPOCH + START, self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.state().now
    }

    /// Whoever else can do something has a few turns to do it, then the time moves on. Of several who sleep, none wakes
    /// before the time it asked for.
    async fn sleep(&self, pause: Duration) {
        let until = self.monotonic().saturating_add(pause);
        for _ in 0..8 {
            yield_once().await;
        }
        let mut state = self.state();
        state.now = state.now.max(until);
    }

    fn name(&self) -> String {
        "a test".to_owned()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        for byte in bytes {
            // splitmix64: a count, well stirred.
            state.randoms = state.randoms.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state.randoms;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *byte = word.to_be_bytes()[0];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, future::join};

    use super::*;

    #[test]
    fn who_sleeps_beside_others_sleeps_no_longer_for_it() {
        let host = TestHost::shared();
        block_on(join(host.sleep(Duration::from_secs(10)), host.sleep(Duration::from_secs(7))));
        assert_eq!(host.monotonic(), Duration::from_secs(10));
    }

    #[test]
    fn random_bytes_differ_from_call_to_call_and_not_from_host_to_host() {
        let bytes = |host: &TestHost| {
            let mut bytes = [0; 16];
            host.random(&mut bytes).unwrap();
            bytes
        };
        let host = TestHost::shared();
        assert_ne!(bytes(&host), bytes(&host));
        assert_eq!(bytes(&TestHost::shared()), bytes(&TestHost::shared()));
    }
}
