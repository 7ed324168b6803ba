//! The client: settings, and the one loop that every request goes through.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::Value;

use super::{
    auth::{Auth, Credentials},
    contacts::Contacts,
    fields::Fields,
    limiter::{self, Budget, Fate, Limiter},
    lists::Lists,
    refusal::Refusal,
    reply::{self, Envelope},
    request::{Effect, Method, Request, Version},
    retry::{self, RetryPolicy, Signal, Verdict},
    settings::{ReadSettings, Settings},
    transport::{HttpRequest, HttpResponse, REPLY_BYTES_MAX, Reqwest, Transport, TransportError},
};
use crate::{
    Delivery, Error, ErrorKind, Result,
    host::{Deadline, Host, SystemHost},
};

const BASE_URL: &str = "https://api.emarsys.net";
const TOKEN_URL: &str = "https://auth.emarsys.net/oauth2/token";

/// A client of one Emarsys account. Clones are cheap and share token, request limit and connections.
///
/// A write that got no answer is never sent a second time; its error says [`Delivery::Unknown`]. See
/// [`RetryPolicy`] for what is repeated.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Option<Deadline>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    host: Arc<dyn Host>,
    auth: Auth,
    /// Scheme, host and path up to and including the version.
    root: String,
    version: Version,
    limiter: Limiter,
    retry: RetryPolicy,
    timeout: Duration,
}

/// The settings of a [`Client`]; made by [`Client::builder`].
#[must_use]
pub struct ClientBuilder {
    credentials: Credentials,
    base_url: Option<String>,
    token_url: Option<String>,
    timeout: Duration,
    retry: RetryPolicy,
    http: Option<reqwest::Client>,
    limiter: Limiter,
    host: Option<Arc<dyn Host>>,
    #[cfg(test)]
    transport: Option<Arc<dyn Transport>>,
}

impl Client {
    /// Starts the settings of a client.
    pub fn builder(credentials: Credentials) -> ClientBuilder {
        ClientBuilder {
            credentials,
            base_url: None,
            token_url: None,
            timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            http: None,
            limiter: Limiter::new(),
            host: None,
            #[cfg(test)]
            transport: None,
        }
    }

    /// The same client, which begins no attempt once `deadline` has passed: then the error is
    /// [`ErrorKind::Expired`]. An attempt that was begun before is waited for.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: Some(deadline) }
    }

    /// The version of the API that the credentials are for.
    pub fn version(&self) -> Version {
        self.shared.version
    }

    /// Contacts: update, create, find, read.
    pub fn contacts(&self) -> Contacts<'_> {
        Contacts(self)
    }

    /// Contact fields: list, create, choices.
    pub fn fields(&self) -> Fields<'_> {
        Fields(self)
    }

    /// Contact lists: list, create, add and remove members.
    pub fn lists(&self) -> Lists<'_> {
        Lists(self)
    }

    /// Reads the settings of the account (Emarsys API: Settings); the cheapest way to try the credentials.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn settings(&self) -> Result<Settings> {
        self.send(&ReadSettings {}).await
    }

    /// Sends one request, again where that is safe, and reads the `data` of its reply. Errors that a reply has for
    /// single rows are in that `data`.
    ///
    /// # Errors
    /// [`Unauthorized`](ErrorKind::Unauthorized), [`Forbidden`](ErrorKind::Forbidden),
    /// [`RateLimited`](ErrorKind::RateLimited) and [`Refused`](ErrorKind::Refused), with a [`Refusal`] as cause;
    /// [`Server`](ErrorKind::Server), [`NoAnswer`](ErrorKind::NoAnswer) and
    /// [`Undecodable`](ErrorKind::Undecodable) if Emarsys does not come to an answer;
    /// [`Expired`](ErrorKind::Expired) if the deadline passed; [`Config`](ErrorKind::Config) if the request cannot
    /// be written. Whether a write may have been applied is in [`Error::delivery`].
    pub async fn send<R: Request>(&self, request: &R) -> Result<R::Reply> {
        self.call(request).await.map(|answer| answer.reply)
    }

    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<Answer<R::Reply>> {
        let endpoint = format!("{} {}", R::METHOD.as_str(), R::ENDPOINT);
        let body =
            if R::METHOD.has_body() {
                let body = serde_json::to_vec(request);
                Some(body.map_err(|_| {
                    Error::config(format!("{endpoint}: the request cannot be written as JSON"))
                })?)
            } else {
                None
            };
        let call = Call {
            method: R::METHOD,
            endpoint,
            permission: R::PERMISSION,
            effect: R::EFFECT,
            url: self.shared.url(&request.path())?,
            body,
        };
        let answer = self.exchange(&call).await?;
        let Some(reply) = reply::data(answer.reply) else {
            return Err(call.refusal(Signal::Undecodable, answer.status, Some(0), ""));
        };
        Ok(Answer { status: answer.status, reply })
    }

    /// Attempts, until one succeeds or no other may follow.
    async fn exchange(&self, call: &Call) -> Result<Answer<Value>> {
        let host = &*self.shared.host;
        let mut first = None;
        let mut renewed = false;
        let mut attempt = 1;
        let mut last = None;
        loop {
            let failure = match self.attempt(call, attempt, &mut first).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = match failure.verdict {
                Verdict::Renew if !renewed && self.shared.auth.renew(failure.token) => {
                    renewed = true;
                    continue;
                }
                Verdict::Stop if failure.error.kind() == ErrorKind::Expired => {
                    return Err(match last {
                        Some(last) => failure.error.with_source(last),
                        None => failure.error,
                    });
                }
                Verdict::Stop | Verdict::Renew => return Err(failure.error),
                Verdict::Repeat => self.pause(attempt)?.max(failure.wait.unwrap_or_default()),
                Verdict::Wait => failure.wait.unwrap_or_default() + self.pause(1)?,
            };
            let now = host.monotonic();
            let elapsed = now.saturating_sub(*first.get_or_insert(now));
            if !self.shared.retry.allows_another(attempt, elapsed + pause) {
                return Err(failure.error);
            }
            tracing::warn!(
                endpoint = call.endpoint,
                attempt,
                pause_ms = pause.as_millis(),
                error = %failure.error,
                "emarsys request will be repeated"
            );
            // The limit may leave this call waiting until its deadline: its caller would only ask again at once.
            let left = self.deadline.map_or(pause, |deadline| deadline.remaining(host));
            host.sleep(pause.min(left)).await;
            attempt += 1;
            last = Some(failure.error);
        }
    }

    /// One attempt: the limit's consent, an authorization, the deadline, and only then the request.
    async fn attempt(
        &self,
        call: &Call,
        attempt: u32,
        first: &mut Option<Duration>,
    ) -> Result<Answer<Value>, Failure> {
        let Shared { transport, host, auth, limiter, timeout, .. } = &*self.shared;
        let host = &**host;
        self.check_deadline(call)?;
        let mut permit = limiter.admit(host, self.deadline).await.ok_or_else(|| call.expired())?;
        self.check_deadline(call)?;
        let authorization =
            auth.authorize(&**transport, host, *timeout).await.map_err(|failure| Failure {
                verdict: match failure.signal.verdict(Effect::Read) {
                    // It was the token that was refused to us, so there is none to renew.
                    Verdict::Renew => Verdict::Stop,
                    verdict => verdict,
                },
                error: failure.error,
                token: None,
                wait: failure.wait,
            })?;
        self.check_deadline(call)?;

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(authorization.name, authorization.value);
        let request = HttpRequest {
            method: call.method,
            url: call.url.clone(),
            headers,
            body: call.body.clone(),
            timeout: *timeout,
        };
        let started = host.monotonic();
        first.get_or_insert(started);
        permit.sending();
        let response = transport.send(request).await;
        let (now, wall) = (host.monotonic(), host.wall());
        let (fate, seen) = match &response {
            Ok(response) => {
                let envelope = Envelope::read(&response.body);
                let signal = Signal::of(response.status.as_u16(), envelope.as_ref());
                (fate(signal, response, wall), Some((signal, envelope)))
            }
            Err(TransportError::NotConnected(_)) => (Fate::NotSent, None),
            Err(TransportError::NoAnswer(_) | TransportError::TooLong) => (Fate::NoAnswer, None),
        };
        permit.settle(fate, now);
        tracing::debug!(
            endpoint = call.endpoint,
            status = response.as_ref().ok().map(|response| response.status.as_u16()),
            reply_code =
                seen.as_ref().and_then(|(_, envelope)| envelope.as_ref()).map(|envelope| envelope.code),
            attempt,
            duration_ms = now.saturating_sub(started).as_millis(),
            "emarsys request"
        );

        let (response, (signal, envelope)) = match (response, seen) {
            (Ok(response), Some(seen)) => (response, seen),
            (Err(error), _) => return Err(call.no_response(error)),
            (Ok(_), None) => return Err(call.failure(Signal::Undecodable, "no reply")),
        };
        match envelope {
            Some(envelope) if signal == Signal::Done => {
                Ok(Answer { status: response.status.as_u16(), reply: envelope.data })
            }
            envelope => {
                let advice = match signal {
                    Signal::Unauthorized => auth.advice(limiter::server_date(&response.headers), wall),
                    _ => String::new(),
                };
                let wait = match signal {
                    Signal::Limited => Some(limiter::wait_after_429(&response.headers, wall)),
                    _ => limiter::retry_after(&response.headers, wall),
                };
                let error =
                    call.refusal(signal, response.status.as_u16(), envelope.map(|reply| reply.code), &advice);
                Err(Failure { verdict: signal.verdict(call.effect), error, token: authorization.token, wait })
            }
        }
    }

    fn check_deadline(&self, call: &Call) -> Result<(), Failure> {
        match self.deadline {
            Some(deadline) if deadline.passed(&*self.shared.host) => Err(call.expired()),
            _ => Ok(()),
        }
    }

    fn pause(&self, attempt: u32) -> Result<Duration> {
        let mut random = [0; 4];
        self.shared.host.random(&mut random)?;
        Ok(retry::pause(attempt, u32::from_ne_bytes(random)))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Scheme, host and perhaps a path, to which `/api/v3/` or `/api/v2/` is added; default
    /// `https://api.emarsys.net`. It moves the token address along, to `/oauth2/token` below it, unless
    /// [`token_url`](Self::token_url) is set. Plain `http` is for loopback addresses only.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Where tokens are bought; default `https://auth.emarsys.net/oauth2/token`. Accounts on SAP Cloud Identity
    /// have their own.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = Some(url.into());
        self
    }

    /// The longest time one attempt may take, from connecting to the end of the reply; default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often and for how long requests are repeated; default: see [`RetryPolicy`].
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The HTTP client to use, for a proxy or certificates of one's own. It should follow no redirects: they would
    /// carry the credentials along.
    pub fn http(mut self, http: reqwest::Client) -> Self {
        self.http = Some(http);
        self
    }

    /// The request budget to use, where other clients have the same API user; default: one of its own.
    pub fn limiter(mut self, limiter: Limiter) -> Self {
        self.limiter = limiter;
        self
    }

    /// Where time and randomness come from; default [`SystemHost`].
    pub fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = Some(host);
        self
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "the tests of the whole exchange are still to come")]
    pub(crate) fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Checks everything, and sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an address, a credential, the timeout or the retry policy cannot be used, or if the
    /// HTTP client cannot be made.
    pub fn build(self) -> Result<Client> {
        self.credentials.check()?;
        if self.timeout.is_zero() {
            return Err(Error::config("a timeout of zero leaves no time for a request"));
        }
        if !self.retry.is_usable() {
            return Err(Error::config("a request needs at least one attempt: attempts_max is 0"));
        }
        let base = address("base URL", self.base_url.as_deref().unwrap_or(BASE_URL))?;
        let base_text = base.as_str().trim_end_matches('/').to_owned();
        let token = match (self.token_url, &self.base_url) {
            (Some(url), _) => address("token URL", &url)?,
            (None, Some(_)) => address("token URL", &format!("{base_text}/oauth2/token"))?,
            (None, None) => address("token URL", TOKEN_URL)?,
        };
        let version = self.credentials.version();
        #[cfg(test)]
        let given = self.transport;
        #[cfg(not(test))]
        let given = None;
        let transport: Arc<dyn Transport> = match (given, self.http) {
            (Some(transport), _) => transport,
            (None, Some(http)) => Arc::new(Reqwest(http)),
            (None, None) => Arc::new(Reqwest(http_client([&base, &token], self.timeout)?)),
        };
        let shared = Shared {
            transport,
            host: self.host.unwrap_or_else(SystemHost::shared),
            auth: Auth::new(self.credentials, token),
            root: format!("{base_text}/api/{}/", version.segment()),
            version,
            limiter: self.limiter,
            retry: self.retry,
            timeout: self.timeout,
        };
        Ok(Client { shared: Arc::new(shared), deadline: None })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("credentials", &self.credentials)
            .field("timeout", &self.timeout)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// A reply that says that it was done.
pub(crate) struct Answer<T> {
    pub(crate) status: u16,
    pub(crate) reply: T,
}

/// A request with its generic parts taken off, so that the loop is compiled once.
struct Call {
    method: Method,
    endpoint: String,
    permission: Option<&'static str>,
    effect: Effect,
    url: Url,
    body: Option<Vec<u8>>,
}

/// An attempt that failed.
struct Failure {
    verdict: Verdict,
    error: Error,
    /// The token that was used.
    token: Option<u64>,
    /// The pause that the server asks for.
    wait: Option<Duration>,
}

impl Call {
    fn error(&self, signal: Signal, text: impl fmt::Display) -> Error {
        Error::new(signal.kind(), format!("{}: {text}", self.endpoint))
            .with_delivery(signal.delivery(self.effect))
    }

    fn failure(&self, signal: Signal, text: impl fmt::Display) -> Failure {
        let error = self.error(signal, text);
        Failure { verdict: signal.verdict(self.effect), error, token: None, wait: None }
    }

    fn expired(&self) -> Failure {
        let text = format!("{}: the time in which it may be sent has passed", self.endpoint);
        let error = Error::new(ErrorKind::Expired, text).with_delivery(Delivery::NotSent);
        Failure { verdict: Verdict::Stop, error, token: None, wait: None }
    }

    fn no_response(&self, error: TransportError) -> Failure {
        match error {
            TransportError::NotConnected(cause) => {
                let mut failure = self.failure(Signal::NotConnected, "could not connect; nothing was sent");
                failure.error = failure.error.with_source(cause);
                failure
            }
            TransportError::NoAnswer(cause) => {
                let mut failure = self.failure(Signal::NoAnswer, "sent, but no whole answer came back");
                failure.error = failure.error.with_source(cause);
                failure
            }
            TransportError::TooLong => {
                let text = format!("the answer is longer than {} MiB", REPLY_BYTES_MAX >> 20);
                // The next answer would be as long.
                Failure { verdict: Verdict::Stop, ..self.failure(Signal::Undecodable, text) }
            }
        }
    }

    fn refusal(&self, signal: Signal, status: u16, code: Option<i64>, advice: &str) -> Error {
        let refusal = Refusal { endpoint: self.endpoint.clone(), status, code, field: None };
        let hint: Cow<'_, str> = match (signal, self.permission) {
            (Signal::Forbidden, Some(permission)) => format!(
                "the API user lacks the permission {permission}; it takes effect minutes after it is given"
            )
            .into(),
            (Signal::Forbidden, None) => "the API user lacks the permission for this endpoint".into(),
            (Signal::Unauthorized, _) => advice.into(),
            (Signal::Limited, _) => "the request limit of the API user is exhausted".into(),
            (Signal::Locked, _) => "something else is running that excludes this; try again later".into(),
            (Signal::Failed, _) => "Emarsys failed on its side; try again later".into(),
            (Signal::NotReady, _) => "the result is not ready yet; ask again later".into(),
            (Signal::Undecodable, _) => "the reply is not in the expected form".into(),
            (Signal::Refused, _) if status == 413 => "the request is too large".into(),
            (Signal::Refused, _) if code.is_none() => "check the base URL".into(),
            _ => "".into(),
        };
        let text = if hint.is_empty() { refusal.to_string() } else { format!("{refusal}; {hint}") };
        Error::new(signal.kind(), text).with_delivery(signal.delivery(self.effect)).with_source(refusal)
    }
}

impl Shared {
    fn url(&self, path: &str) -> Result<Url> {
        let url = Url::parse(&format!("{}{}", self.root, path.trim_start_matches('/')));
        url.ok()
            .filter(|url| url.as_str().starts_with(&self.root))
            .ok_or_else(|| Error::config("the path of the request does not stay below the base URL"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { verdict: Verdict::Stop, error, token: None, wait: None }
    }
}

/// What a reply tells the limiter.
fn fate(signal: Signal, response: &HttpResponse, wall: std::time::SystemTime) -> Fate {
    if signal == Signal::Limited {
        return Fate::Limited(limiter::wait_after_429(&response.headers, wall));
    }
    match Budget::read(&response.headers, wall) {
        // Replies of a gateway may lack the headers that those of Emarsys have.
        None if signal != Signal::Done => Fate::NoAnswer,
        budget => Fate::Answered(budget),
    }
}

/// An address that credentials may be sent to.
fn address(what: &str, text: &str) -> Result<Url> {
    let wrong = |why: &str| Error::config(format!("the {what} {why}"));
    let url = Url::parse(text).map_err(|_| wrong("is not a URL such as https://api.emarsys.net"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or a fragment"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(wrong("must begin with https: plain http is for loopback addresses only")),
        _ => Err(wrong("must begin with https")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn http_client(addresses: [&Url; 2], timeout: Duration) -> Result<reqwest::Client> {
    // A redirect would carry the credentials, and repeat the write, elsewhere. Connecting has less time than all, so
    // that a connection that fails is known to be one.
    let mut http = reqwest::Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout((timeout / 2).min(Duration::from_secs(10)));
    if addresses.iter().any(|url| url.scheme() == "http") {
        // In clear text to this machine, and not through a proxy to another one.
        http = http.no_proxy();
    }
    http.build().map_err(|error| Error::config("the HTTP client cannot be made").with_source(error))
}
