//! The machine, as far as the crate needs one: the time, a pause, random bytes and a name.
//!
//! Nothing else in the crate asks the operating system for these, so a test can hand in a [`TestHost`], whose time it
//! moves by hand. All that takes part in a sync has to have the same one:
//!
#![cfg_attr(not(feature = "sandbox"), doc = "```ignore")]
#![cfg_attr(feature = "sandbox", doc = "```")]
//! use std::time::Duration;
//!
//! use reverse_etl::{
//!     Activation, Mapping, MemoryStore, PlanOptions, Record,
//!     emarsys::{
//!         Client, ContactsDestination, Credentials, FieldId,
//!         sandbox::Sandbox,
//!     },
//!     host::{Host, TestHost},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> reverse_etl::Result<()> {
//! let host = TestHost::shared();
//! let sandbox = Sandbox::builder().host(host.clone()).build();
//! sandbox.add_list("Customers");
//! let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
//! // A network of one's own, in place of the sandbox itself, is given with `network`.
//! let client = Client::builder(credentials).host(host.clone()).in_process(&sandbox).build()?;
//! let store = MemoryStore::with_host(host.clone());
//! let mapping = Mapping::new("email").map("first_name", FieldId::FIRST_NAME);
//! let contacts = ContactsDestination::new(client).insert_into("Customers");
//! let options = PlanOptions::default().host(host.clone());
//! let sync = Activation::new(mapping, contacts, store).options(options);
//!
//! // Others have used up the request limit: the run waits for the next minute, which takes no time here.
//! sandbox.exhaust_limit();
//! let before = host.monotonic();
//! let rows = vec![Record::new().with("email", "ada@shop.test").with("first_name", "Ada")];
//! let report = sync.run(&rows).await?;
//! assert_eq!(report.created, 1);
//! assert!(host.monotonic() - before >= Duration::from_secs(30));
//! # Ok(())
//! # }
//! ```

mod test;

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use futures::channel::oneshot;

pub use self::test::TestHost;
use crate::{Error, ErrorKind, Result};

/// Where time and randomness come from.
#[async_trait]
pub trait Host: fmt::Debug + Send + Sync {
    /// The time of day, to the best of the machine's knowledge. It may jump.
    fn wall(&self) -> SystemTime;

    /// The time since some fixed moment. It never goes back, but may stand still while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// Returns after `pause`.
    async fn sleep(&self, pause: Duration);

    /// Fills `bytes` with unpredictable ones.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the machine has no randomness to give.
    fn random(&self, bytes: &mut [u8]) -> Result<()>;

    /// Who holds a state, as another run is told that finds it held; by default `process` and its number.
    fn name(&self) -> String {
        format!("process {}", std::process::id())
    }
}

/// The time after `span`, which may be any: more than a century counts as one.
pub(crate) fn later(time: SystemTime, span: Duration) -> SystemTime {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);
    time.checked_add(span.min(CENTURY)).unwrap_or(time)
}

/// Lets the executor poll others once.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// The moment from which every [`SystemHost`] counts: a deadline that was made by one is checked against another.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine this process runs on.
#[derive(Clone, Debug)]
pub struct SystemHost {
    started: Instant,
}

impl SystemHost {
    /// The system's clocks, tokio's timer (a thread where there is no tokio) and the operating system's random numbers.
    pub fn shared() -> Arc<dyn Host> {
        Arc::new(Self { started: *STARTED })
    }
}

#[async_trait]
impl Host for SystemHost {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, pause: Duration) {
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::time::sleep(pause).await;
            return;
        }
        // Without tokio nobody keeps timers. Pauses are rare and few at once, so a thread may wait instead.
        let (done, over) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            drop(done);
        });
        // The sender is dropped when the pause is over, which is all that it has to say.
        let _ = over.await;
    }

    fn random(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            Error::new(ErrorKind::Io, "the system has no random bytes to give").with_source(error)
        })
    }
}

/// The moment after which something must not be sent any more.
///
/// It is kept on both clocks, and whichever reaches it first ends it: the wall clock may be set back, the monotonic
/// one may stand still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    wall: SystemTime,
    monotonic: Duration,
}

impl Deadline {
    /// The moment that lies `span` from now.
    pub fn after(host: &dyn Host, span: Duration) -> Self {
        Self { wall: later(host.wall(), span), monotonic: host.monotonic().saturating_add(span) }
    }

    /// The same moment, as the wall clock will show it.
    pub fn wall(&self) -> SystemTime {
        self.wall
    }

    /// The time left; zero once it has passed.
    pub fn remaining(&self, host: &dyn Host) -> Duration {
        let wall = self.wall.duration_since(host.wall()).unwrap_or_default();
        wall.min(self.monotonic.saturating_sub(host.monotonic()))
    }

    /// Whether it has passed.
    pub fn passed(&self, host: &dyn Host) -> bool {
        self.remaining(host).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_means_the_same_to_hosts_made_at_different_times() {
        let early = SystemHost::shared();
        std::thread::sleep(Duration::from_millis(30));
        let late = SystemHost::shared();
        let deadline = Deadline::after(&*late, Duration::from_millis(20));
        assert!(!deadline.passed(&*early));
    }
}
