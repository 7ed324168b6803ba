//! A client's way to a sandbox without a server: each request is handed over as data.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{
    Sandbox,
    exchange::{Answer, Request, Response},
};
use crate::emarsys::transport::{HttpRequest, HttpResponse, Transport, TransportError};

/// What lies between a client and a sandbox of the same process. [`Sandbox`] is one that carries everything at once.
///
/// One of your own can lose, delay, repeat and reorder requests and answers, in a test or a simulation: a request takes
/// effect when it calls [`Sandbox::handle`]. What comes back has an answer, and a [delay](super::Reaction::delay) that a
/// fault may have asked for: the network waits so long, or not.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use reverse_etl::{
///     emarsys::{
///         Client, Credentials,
///         sandbox::{Answer, Network, Request, Sandbox},
///     },
///     host::TestHost,
/// };
///
/// /// Every write takes effect, and none is answered.
/// #[derive(Debug)]
/// struct OneWay(Sandbox);
///
/// #[async_trait]
/// impl Network for OneWay {
///     async fn carry(&self, request: Request, _timeout: Duration) -> Answer {
///         let answer = self.0.handle(&request).answer;
///         if request.endpoint().is_write() { Answer::Lost } else { answer }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> reverse_etl::Result<()> {
/// let host = TestHost::shared();
/// let sandbox = Sandbox::builder().host(host.clone()).build();
/// let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
/// let client = Client::builder(credentials).host(host).network(OneWay(sandbox.clone())).build()?;
/// assert!(client.lists().create("Customers", None).await.is_err());
/// assert_eq!(sandbox.lists().len(), 1);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// Carries a request there and its answer back. An answer that has not come after `timeout` is
    /// [`Lost`](Answer::Lost): nobody else looks at the clock. Nobody waits for the answer any more when the future is dropped.
    async fn carry(&self, request: Request, timeout: Duration) -> Answer;
}

#[async_trait]
impl Network for Sandbox {
    async fn carry(&self, request: Request, timeout: Duration) -> Answer {
        let reaction = self.handle(&request);
        if !reaction.delay.is_zero() {
            self.shared.host.sleep(reaction.delay.min(timeout)).await;
        }
        if reaction.delay >= timeout { Answer::Lost } else { reaction.answer }
    }
}

#[async_trait]
impl<N: Network + ?Sized> Network for Arc<N> {
    async fn carry(&self, request: Request, timeout: Duration) -> Answer {
        (**self).carry(request, timeout).await
    }
}

/// A network as a client uses it.
#[derive(Debug)]
pub(crate) struct InProcess<N>(pub(crate) N);

#[async_trait]
impl<N: Network> Transport for InProcess<N> {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let path = request.url.path();
        let target = request.url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let mut handed = Request::new(request.method.as_str(), target);
        for (name, value) in &request.headers {
            handed = handed.header(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
        }
        let handed = handed.body(request.body.unwrap_or_default());
        match self.0.carry(handed, request.timeout).await {
            Answer::Whole(response) => Ok(translate(response)),
            Answer::Cut(_) | Answer::Lost => Err(TransportError::NoAnswer("no whole answer came".into())),
            Answer::Unreachable => Err(TransportError::NotConnected("there is no way to it".into())),
        }
    }
}

fn translate(response: Response) -> HttpResponse {
    let headers = response.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    let headers: HeaderMap = headers.collect();
    // The sandbox makes valid statuses only; a fault may have been told any number.
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse { status, headers, body: response.body.into_bytes() }
}
