//! Holding: the state stays this run's while it waits for something.

use std::{pin::pin, time::Duration};

use futures::future::{Either, select};

use crate::{
    event::Event,
    run::{Run, Waiting},
};

/// How often the hold is renewed while there is nothing else to commit.
const RENEWED_EVERY: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Waits for something while the hold on the state is renewed; `None` if that fails, and with it the run.
    pub(crate) async fn held_during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        while self.failure.is_none() {
            let pause = self.renewal().saturating_sub(self.host.monotonic());
            if let Either::Left((done, _)) = select(work.as_mut(), self.host.sleep(pause)).await {
                return Some(done);
            }
            self.begin(Vec::new());
            self.complete().await;
        }
        None
    }

    /// Waits until something comes back, a late request is over, or the hold on the state has to be renewed.
    pub(super) async fn wait(&mut self) {
        let now = self.host.wall();
        let mut pause = self.renewal().saturating_sub(self.host.monotonic());
        if self.ledger.count_open() > 0 {
            let left = self.last_answer.saturating_sub(self.host.monotonic());
            pause = pause.min(left.saturating_add(Duration::from_millis(1)));
        }
        if !self.head.leave_late
            && let Some(until) = self.late.iter().filter_map(Waiting::until).min()
        {
            // The mark has to be over, not just to be at its end.
            let left = until.duration_since(now).unwrap_or_default() + Duration::from_millis(1);
            pause = pause.min(left);
            if !self.told_late {
                self.told_late = true;
                tracing::info!(rows = self.late.len(), seconds = left.as_secs(), "waiting for late requests");
                self.tell(&Event::Waiting { rows: self.late.len() as u64, until });
            }
        }
        self.comes_back_within(pause).await;
        let now = self.host.wall();
        let over: Vec<Waiting> = self.late.extract_if(.., |waiting| waiting.is_over(now)).collect();
        for waiting in over {
            self.enqueue(waiting);
        }
    }

    /// Waits until something comes back, at most so long.
    pub(super) async fn comes_back_within(&mut self, pause: Duration) {
        let (change, pause) = (pin!(self.ledger.changed()), pin!(self.host.sleep(pause)));
        select(change, pause).await;
    }

    /// When the hold is to be renewed.
    pub(super) fn renewal(&self) -> Duration {
        self.renewed + RENEWED_EVERY
    }

    pub(super) fn is_renewal_due(&self) -> bool {
        self.host.monotonic() >= self.renewal()
    }

    /// Whether batches are under way whose answers can no longer come: whoever has them does not give them back.
    pub(super) fn is_overdue(&self) -> bool {
        self.ledger.count_open() > 0 && self.host.monotonic() > self.last_answer
    }
}
