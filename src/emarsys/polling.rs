//! How often one asks whether something is ready, and for how long.

use std::{
    ops::ControlFlow::{self, Break, Continue},
    time::Duration,
};

use crate::{
    Error, Result,
    host::{Deadline, Host},
};

/// The pauses between questions about something that Emarsys computes: an export, the evaluation of a segment.
///
/// They grow by half each time: a short job is noticed soon, a long one costs few requests.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    first: Duration,
    pause_max: Duration,
    time_max: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            pause_max: Duration::from_secs(60),
            time_max: Duration::from_secs(6 * 3_600),
        }
    }
}

impl Polling {
    /// The pause after the first question; default 2 s.
    #[must_use]
    pub fn first(mut self, pause: Duration) -> Self {
        self.first = pause;
        self
    }

    /// The longest pause; default 1 minute.
    #[must_use]
    pub fn pause_max(mut self, pause: Duration) -> Self {
        self.pause_max = pause;
        self
    }

    /// How long after the first question the last one may be; default 6 hours. Segments are known to take hours.
    #[must_use]
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// Asks until there is a result. A question that has none yet gives the error that it is to end with if there is no
    /// time for another.
    pub(crate) async fn ask<T, F>(
        self,
        host: &dyn Host,
        deadline: Option<Deadline>,
        mut question: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<ControlFlow<T, Error>>>,
    {
        let time = deadline.map_or(self.time_max, |deadline| deadline.remaining(host).min(self.time_max));
        let mut pauses = self.pauses(host, time);
        loop {
            match question().await? {
                Break(result) => return Ok(result),
                Continue(not_yet) if !pauses.next().await => return Err(not_yet),
                Continue(_) => {}
            }
        }
    }

    fn pauses(self, host: &dyn Host, time: Duration) -> Pauses<'_> {
        Pauses { host, end: host.monotonic().saturating_add(time), next: self.first, polling: self }
    }
}

struct Pauses<'a> {
    host: &'a dyn Host,
    polling: Polling,
    end: Duration,
    next: Duration,
}

impl Pauses<'_> {
    /// Waits before the next question; `false`, at once, if there is to be none.
    async fn next(&mut self) -> bool {
        // Without a pause, asking would be all that the request limit is used for.
        let pause = self.next.min(self.polling.pause_max).max(Duration::from_millis(100));
        if self.host.monotonic().saturating_add(pause) > self.end {
            return false;
        }
        self.host.sleep(pause).await;
        self.next = pause.saturating_mul(3) / 2;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emarsys::transport::fake::PausedHost;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_the_longest_and_end_with_the_time() {
        let host = PausedHost::shared();
        let polling = Polling::default().first(Duration::from_secs(2)).pause_max(Duration::from_secs(4));
        let mut pauses = polling.pauses(&*host, Duration::from_secs(10));
        let mut at = Vec::new();
        while pauses.next().await {
            at.push(host.monotonic().as_secs());
        }
        assert_eq!(at, [2, 5, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_of_zero_does_not_spin() {
        let host = PausedHost::shared();
        let mut pauses = Polling::default().first(Duration::ZERO).pauses(&*host, Duration::from_secs(10));
        assert!(pauses.next().await);
        assert!(!host.monotonic().is_zero());
    }
}
