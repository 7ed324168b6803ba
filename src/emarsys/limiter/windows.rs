//! Whole windows of the limit, by real clients against the sandbox, on a test clock.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::join, stream};

use crate::{
    emarsys::{
        Client, Contact, Credentials, FieldId, RetryPolicy,
        sandbox::{InProcess, Sandbox},
        transport::{HttpRequest, HttpResponse, Transport, TransportError, fake::PausedHost},
    },
    host::Host,
};

/// A sandbox that takes time to reach, a different one for each request, and counts how its answers come out.
struct Distant {
    sandbox: Sandbox,
    host: Arc<dyn Host>,
    /// Between the shortest and the longest way there, in milliseconds; back it takes as long.
    latency: (u64, u64),
    number: AtomicU64,
    refused: AtomicU64,
    /// Answers that were no 429, by the window that they name.
    windows: Mutex<BTreeMap<u64, u64>>,
}

impl fmt::Debug for Distant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Distant")
    }
}

#[async_trait]
impl Transport for Distant {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (shortest, longest) = self.latency;
        let way = |factor: u64| Duration::from_millis(shortest + number * factor % (longest - shortest));
        self.host.sleep(way(7_919)).await;
        let response = InProcess(self.sandbox.clone()).send(request).await?;
        self.host.sleep(way(104_729)).await;
        if response.status.as_u16() == 429 {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else if let Some(reset) = response.headers.get("x-ratelimit-reset") {
            let reset = reset.to_str().unwrap().parse().unwrap();
            *self.windows.lock().unwrap().entry(reset).or_default() += 1;
        }
        Ok(response)
    }
}

struct Party {
    client: Client,
    way: Arc<Distant>,
}

impl Party {
    fn new(sandbox: &Sandbox, host: &Arc<dyn Host>, latency: (u64, u64)) -> Self {
        let way = Arc::new(Distant {
            sandbox: sandbox.clone(),
            host: Arc::clone(host),
            latency,
            number: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            windows: Mutex::default(),
        });
        let client = Client::builder(Credentials::wsse(sandbox.username(), sandbox.wsse_secret()))
            .host(Arc::clone(host))
            .retry(RetryPolicy::default().attempts_max(1_000).time_max(Duration::from_secs(100_000)))
            .transport(way.clone())
            .build()
            .unwrap();
        Self { client, way }
    }

    /// Upserts new contacts, ten in each request.
    async fn upsert(&self, name: &str, requests: u64, in_flight: usize) {
        stream::iter(0..requests)
            .for_each_concurrent(in_flight, |request| async move {
                let contacts: Vec<_> = (0..10)
                    .map(|row| Contact::new(FieldId::EMAIL, format!("{name}{request}-{row}@shop.test")))
                    .collect();
                let upserted = self.client.contacts().upsert(FieldId::EMAIL, &contacts, None).await.unwrap();
                assert_eq!(upserted.created.len(), 10);
            })
            .await;
    }

    fn refused(&self) -> u64 {
        self.way.refused.load(Ordering::Relaxed)
    }

    fn windows(&self) -> BTreeMap<u64, u64> {
        self.way.windows.lock().unwrap().clone()
    }
}

fn sandbox(host: &Arc<dyn Host>) -> Sandbox {
    Sandbox::builder().host(Arc::clone(host)).without_journal().build()
}

#[tokio::test(start_paused = true)]
async fn hundred_thousand_contacts_use_the_whole_of_each_window_and_nothing_beyond() {
    let host = PausedHost::shared();
    let sandbox = sandbox(&host);
    let alone = Party::new(&sandbox, &host, (20, 300));
    alone.upsert("c", 10_000, 32).await;
    assert_eq!(sandbox.contacts().len(), 100_000);
    assert_eq!(alone.refused(), 0);
    let windows = alone.windows();
    println!("requests in each window: {windows:?}, {} s", host.monotonic().as_secs());
    // The last window need not be full.
    assert!(windows.values().rev().skip(1).all(|used| *used >= 950), "{windows:?}");
    assert!(windows.len() <= 11, "{windows:?}");
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_do_not_know_each_other_share_the_limit() {
    // The one is nearer, starts earlier, or has more requests in flight.
    for (ours, theirs, in_flight) in [
        ((20, 300), (20, 300), (32, 32)),
        ((20, 60), (200, 600), (16, 16)),
        ((20, 300), (20, 300), (64, 8)),
        ((5, 15), (5, 15), (1, 1)),
    ] {
        let host = PausedHost::shared();
        let sandbox = sandbox(&host);
        let (one, other) = (Party::new(&sandbox, &host, ours), Party::new(&sandbox, &host, theirs));
        // Both have more to do than there is room for in ten windows.
        let span = Duration::from_secs(10 * 61);
        let both = join(one.upsert("a", 20_000, in_flight.0), other.upsert("b", 20_000, in_flight.1));
        let _ = tokio::time::timeout(span, both).await;
        let done = |party: &Party| party.windows().values().sum::<u64>();
        let (ours_done, theirs_done) = (done(&one), done(&other));
        let all = ours_done + theirs_done;
        let refused = one.refused() + other.refused();
        println!(
            "{ours:?} and {theirs:?} ms, {in_flight:?} in flight: {ours_done} + {theirs_done} done, {refused} refused"
        );
        assert!(refused * 100 <= all + refused, "{refused} of {all} were refused");
        for done in [ours_done, theirs_done] {
            assert!((all * 40..=all * 60).contains(&(done * 100)), "{ours_done} and {theirs_done}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn busy_client_leaves_room_for_one_that_asks_now_and_then() {
    let host = PausedHost::shared();
    let sandbox = sandbox(&host);
    let (busy, quiet) = (Party::new(&sandbox, &host, (20, 300)), Party::new(&sandbox, &host, (20, 300)));
    let now_and_then = async {
        for _ in 0..150 {
            quiet.client.settings().await.unwrap();
            host.sleep(Duration::from_secs(4)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(600), join(busy.upsert("a", 20_000, 32), now_and_then))
        .await;
    let windows = busy.windows();
    assert!(busy.refused() + quiet.refused() <= 20);
    assert!(windows.values().sum::<u64>() >= 9_000, "{windows:?}");
    assert!(quiet.windows().values().sum::<u64>() >= 75);
}
