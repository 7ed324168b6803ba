//! The client: settings, and the one loop that every request goes through.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

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
    request::{Effect, Method, Request, Version, endpoint},
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
    /// be written. Whether a write may have been applied is in [`Error::delivery`]; of a read it never says
    /// [`Unknown`](Delivery::Unknown).
    pub async fn send<R: Request>(&self, request: &R) -> Result<R::Reply> {
        self.call(request).await.map(|answer| answer.reply)
    }

    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<Answer<R::Reply>> {
        let endpoint = endpoint::<R>();
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
        let reply = transport.send(request).await.map(HttpReply::from);
        let (now, wall) = (host.monotonic(), host.wall());
        permit.settle(fate(&reply, wall), now);
        tracing::debug!(
            endpoint = call.endpoint,
            status = reply.as_ref().ok().map(|reply| reply.status),
            reply_code = reply.as_ref().ok().and_then(HttpReply::code),
            attempt,
            duration_ms = now.saturating_sub(started).as_millis(),
            "emarsys request"
        );
        let reply = reply.map_err(|error| call.no_response(error))?;
        let status = reply.status;
        match reply.envelope {
            Some(envelope) if reply.signal == Signal::Done => Ok(Answer { status, reply: envelope.data }),
            envelope => {
                let signal = reply.signal;
                let advice = match signal {
                    Signal::Unauthorized => auth.advice(limiter::server_date(&reply.headers), wall),
                    _ => String::new(),
                };
                let wait = match signal {
                    Signal::Limited => Some(limiter::wait_after_429(&reply.headers, wall)),
                    _ => limiter::retry_after(&reply.headers, wall),
                };
                let error = call.refusal(signal, status, envelope.map(|envelope| envelope.code), &advice);
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
                let text = "could not connect, so nothing was sent: check the base URL and the network";
                let mut failure = self.failure(Signal::NotConnected, text);
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

/// A response, read as far as it does not depend on the request.
struct HttpReply {
    status: u16,
    headers: HeaderMap,
    envelope: Option<Envelope>,
    signal: Signal,
}

impl HttpReply {
    fn code(&self) -> Option<i64> {
        self.envelope.as_ref().map(|envelope| envelope.code)
    }
}

impl From<HttpResponse> for HttpReply {
    fn from(response: HttpResponse) -> Self {
        let status = response.status.as_u16();
        let envelope = Envelope::read(&response.body);
        let signal = Signal::of(status, envelope.as_ref());
        Self { status, headers: response.headers, envelope, signal }
    }
}

/// What the end of a request tells the limiter.
fn fate(reply: &Result<HttpReply, TransportError>, wall: SystemTime) -> Fate {
    match reply {
        Err(TransportError::NotConnected(_)) => Fate::NotSent,
        Err(TransportError::NoAnswer(_) | TransportError::TooLong) => Fate::NoAnswer,
        Ok(reply) if reply.signal == Signal::Limited => {
            Fate::Limited(limiter::wait_after_429(&reply.headers, wall))
        }
        Ok(reply) => match Budget::read(&reply.headers, wall) {
            // Replies of a gateway may lack the headers that those of Emarsys have.
            None if reply.signal != Signal::Done => Fate::NoAnswer,
            budget => Fate::Answered(budget),
        },
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
    // that a connection that fails is known to be one. Idle connections are given up before the server may close
    // them: a write that meets the end of its connection has an unknown outcome.
    let mut http = reqwest::Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(20))
        .connect_timeout((timeout / 2).min(Duration::from_secs(10)));
    if addresses.iter().any(|url| url.scheme() == "http") {
        // In clear text to this machine, and not through a proxy to another one.
        http = http.no_proxy();
    }
    http.build().map_err(|error| Error::config("the HTTP client cannot be made").with_source(error))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, sync::Mutex};

    use futures::future::{FutureExt, join_all};
    use reqwest::header::AUTHORIZATION;
    use serde_json::json;
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::*;
    use crate::emarsys::{
        Contact, FieldId, RowResult,
        transport::fake::{Answer as Reply, PausedHost, START, Script, date, serve},
    };

    const DONE: &str = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001"]}}"#;

    fn ok(data: &Value) -> Reply {
        Reply::reply(200, json!({"replyCode": 0, "replyText": "OK", "data": data}).to_string())
    }

    fn refused(status: u16, code: i64) -> Reply {
        let text = "No contact found with the external id: 3 - ada@shop.test";
        Reply::reply(status, json!({"replyCode": code, "replyText": text, "data": ""}).to_string())
    }

    fn token() -> Reply {
        Reply::reply(200, r#"{"access_token":"the-token","token_type":"Bearer","expires_in":3600}"#)
    }

    struct Bench {
        client: Client,
        host: Arc<dyn Host>,
        script: Arc<Script>,
    }

    /// A WSSE client, which needs no token, and what it is answered.
    fn wsse(answers: impl IntoIterator<Item = Reply>) -> Bench {
        with(
            Credentials::wsse("acme001", "the-secret"),
            PausedHost::shared(),
            RetryPolicy::default(),
            answers,
        )
    }

    fn oauth(answers: impl IntoIterator<Item = Reply>) -> Bench {
        let credentials = Credentials::oauth2("the-client", "the-secret");
        with(credentials, PausedHost::shared(), RetryPolicy::default(), answers)
    }

    fn with(
        credentials: Credentials,
        host: Arc<dyn Host>,
        retry: RetryPolicy,
        answers: impl IntoIterator<Item = Reply>,
    ) -> Bench {
        let script = Script::new(host.clone(), answers);
        let client = Client::builder(credentials)
            .host(host.clone())
            .retry(retry)
            .transport(script.clone())
            .build()
            .unwrap();
        Bench { client, host, script }
    }

    impl Bench {
        async fn update(&self) -> Result<Vec<RowResult>> {
            update(&self.client).await
        }
    }

    async fn update(client: &Client) -> Result<Vec<RowResult>> {
        let contacts = [Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada")];
        client.contacts().update(FieldId::EMAIL, &contacts).await
    }

    fn assert_done(results: &[RowResult]) {
        assert!(matches!(results, [RowResult::Done]), "{results:?}");
    }

    /// Everything that somebody might print of an error.
    fn printed(error: &Error) -> String {
        let mut text = format!("{error:?}");
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            text = format!("{text}\n{error}");
            cause = error.source();
        }
        text
    }

    #[tokio::test(start_paused = true)]
    async fn request_goes_to_the_third_version_with_a_token() {
        let bench = oauth([token(), Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let sent = bench.script.sent();
        assert_eq!(sent[0].url, "https://auth.emarsys.net/oauth2/token");
        assert_eq!(sent[1].method, "PUT");
        assert_eq!(sent[1].url, "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=0");
        assert_eq!(sent[1].headers[AUTHORIZATION], "Bearer the-token");
        assert!(sent[1].headers[AUTHORIZATION].is_sensitive());
        assert_eq!(sent[1].headers[CONTENT_TYPE], "application/json");
        assert_eq!(sent[1].body, r#"{"key_id":"3","contacts":[{"3":"ada@shop.test","1":"Ada"}]}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn request_goes_to_the_second_version_with_a_signature() {
        let bench = wsse([Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let sent = bench.script.sent();
        assert!(sent[0].url.starts_with("https://api.emarsys.net/api/v2/contact/"));
        let header = &sent[0].headers["x-wsse"];
        assert!(header.is_sensitive());
        let created = chrono::DateTime::from_timestamp(START.cast_signed(), 0).unwrap();
        let created = created.format("Created=\"%Y-%m-%dT%H:%M:%SZ\"").to_string();
        assert!(header.to_str().unwrap().ends_with(&created), "{header:?}");
        assert!(!sent[0].headers.contains_key(AUTHORIZATION));
    }

    #[tokio::test(start_paused = true)]
    async fn base_url_moves_the_token_along_unless_it_has_its_own() {
        let urls = async |token_url: Option<&str>| {
            let host = PausedHost::shared();
            let script = Script::new(host.clone(), [token(), Reply::reply(200, DONE)]);
            let mut builder = Client::builder(Credentials::oauth2("id", "secret"))
                .base_url("http://127.0.0.1:1234/emarsys/")
                .host(host)
                .transport(script.clone());
            if let Some(url) = token_url {
                builder = builder.token_url(url);
            }
            assert_done(&update(&builder.build().unwrap()).await.unwrap());
            script.sent().into_iter().map(|sent| sent.url).collect::<Vec<_>>()
        };
        let api = "http://127.0.0.1:1234/emarsys/api/v3/contact/?create_if_not_exists=0";
        assert_eq!(urls(None).await, ["http://127.0.0.1:1234/emarsys/oauth2/token", api]);
        assert_eq!(urls(Some("https://login.example/t")).await, ["https://login.example/t", api]);
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_when_the_client_is_built() {
        let builder = || Client::builder(Credentials::oauth2("id", "secret"));
        for url in [
            "http://api.emarsys.net",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "https://user@api.emarsys.net",
            "https://api.emarsys.net/?x=1",
            "api.emarsys.net",
            "",
        ] {
            let error = builder().base_url(url).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(builder().token_url(url).build().is_err(), "{url}");
        }
        for url in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "https://suite5.emarsys.net"]
        {
            assert!(builder().base_url(url).build().is_ok(), "{url}");
        }
        assert!(builder().timeout(Duration::ZERO).build().is_err());
        assert!(builder().retry(RetryPolicy::default().attempts_max(0)).build().is_err());
        assert!(Client::builder(Credentials::wsse("", "")).build().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn write_without_an_answer_is_not_repeated() {
        let answers = [
            Reply::Lost,
            Reply::TooLong,
            Reply::reply(500, r#"{"replyCode":2011,"replyText":"Database connection error","data":""}"#),
            Reply::reply(502, "<html>"),
            Reply::reply(503, r#"{"message":"overloaded"}"#),
            Reply::reply(504, ""),
            Reply::reply(200, r#"{"replyCode":0,"data":{"ids":["7"#),
            Reply::reply(200, r#"{"replyCode":0,"data":{"ids":[{}]}}"#),
            Reply::reply(200, r#"{"message":"hello"}"#),
        ];
        for answer in answers {
            let bench = wsse([answer.clone()]);
            let error = bench.update().await.unwrap_err();
            assert_eq!(error.delivery(), Delivery::Unknown, "{answer:?}");
            assert!(error.to_string().starts_with("PUT contact: "), "{error}");
            assert_eq!(bench.script.sent().len(), 1, "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_that_surely_had_no_effect_is_repeated() {
        for answer in
            [Reply::NotConnected, refused(423, 10003), refused(429, 7003), Reply::reply(429, "slow down")]
        {
            let bench = wsse([answer.clone(), Reply::reply(200, DONE)]);
            assert_done(&bench.update().await.unwrap());
            let sent = bench.script.sent();
            assert_eq!(sent.len(), 2, "{answer:?}");
            assert_eq!(sent[0].body, sent[1].body);
            assert_ne!(sent[0].headers["x-wsse"], sent[1].headers["x-wsse"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn read_is_repeated_with_growing_pauses_a_bounded_number_of_times() {
        let answers = [
            Reply::Lost,
            Reply::NotConnected,
            Reply::reply(503, "overloaded"),
            Reply::reply(200, "<html>"),
            Reply::reply(500, r#"{"replyCode":1,"data":""}"#),
        ];
        let bench = wsse(answers);
        let error = bench.client.settings().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::NotSent));
        let at: Vec<_> = bench.script.sent().iter().map(|sent| sent.at).collect();
        let pauses: Vec<_> = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert_eq!(pauses.len(), 4);
        for (pause, longest) in pauses.iter().zip([500, 1000, 2000, 4000]) {
            let longest = Duration::from_millis(longest);
            assert!(*pause >= longest / 2 && *pause <= longest + Duration::from_millis(2), "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reply_that_is_too_long_is_not_asked_for_again() {
        let bench = wsse([Reply::TooLong]);
        let error = bench.client.settings().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::NotSent));
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn full_limit_is_waited_for_on_the_clock_of_the_server() {
        // This machine's clock is an hour ahead.
        let host = PausedHost::ahead_by(Duration::from_secs(3600));
        let full = refused(429, 7003).header("x-ratelimit-reset", START + 42).header("date", date(0));
        let answers = [full, Reply::reply(200, DONE)];
        let bench = with(Credentials::wsse("acme001", "s"), host, RetryPolicy::default(), answers);
        assert_done(&bench.update().await.unwrap());
        let waited = bench.script.sent()[1].at.as_secs_f64();
        assert!((42.0..45.0).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn full_limit_without_a_hint_is_waited_for_a_minute() {
        let bench = wsse([Reply::reply(429, "Too many requests."), Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let waited = bench.script.sent()[1].at.as_secs_f64();
        assert!((60.0..63.0).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn limit_that_opens_too_late_is_an_error_at_once() {
        let retry = RetryPolicy::default().time_max(Duration::from_secs(30));
        let bench =
            with(Credentials::wsse("acme001", "s"), PausedHost::shared(), retry, [refused(429, 7003)]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::RateLimited, Delivery::NotSent));
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(7003));
        assert_eq!(bench.host.monotonic(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_deadline() {
        let bench = wsse([]);
        let deadline = Deadline::after(&*bench.host, Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(6)).await;
        let error = update(&bench.client.until(deadline)).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Expired, Delivery::NotSent));
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_ends_a_wait_for_the_limit_and_its_cause_is_kept() {
        let bench = wsse([refused(429, 7003)]);
        let deadline = Deadline::after(&*bench.host, Duration::from_secs(20));
        let error = update(&bench.client.until(deadline)).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Expired, Delivery::NotSent));
        assert_eq!(error.cause::<Error>().unwrap().kind(), ErrorKind::RateLimited);
        assert_eq!(bench.host.monotonic(), Duration::from_secs(20));
        assert_eq!(bench.script.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_holds_for_a_request_that_waits_for_the_first_reply() {
        let bench = wsse([]);
        let scout = bench.client.shared.limiter.admit(&*bench.host, None).await;
        let deadline = Deadline::after(&*bench.host, Duration::from_secs(5));
        let error = update(&bench.client.until(deadline)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Expired);
        drop(scout);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_token_is_renewed_once() {
        let bench = oauth([token(), Reply::reply(401, "expired"), token(), Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let bench = oauth([token(), Reply::reply(401, ""), token(), refused(401, 1)]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unauthorized, Delivery::Refused));
        assert_eq!(error.cause::<Refusal>().unwrap().status, 401);
        assert_eq!(bench.script.sent().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_signature_tells_how_wrong_the_clock_is() {
        let host = PausedHost::ahead_by(Duration::from_secs(400));
        let answer = refused(401, 1).header("date", date(0));
        let bench = with(Credentials::wsse("acme001", "s"), host, RetryPolicy::default(), [answer]);
        let error = bench.update().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.to_string().contains("400 s ahead"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn token_server_that_cannot_be_reached_is_tried_again() {
        let bench = oauth([Reply::NotConnected, Reply::reply(503, ""), token(), Reply::reply(200, DONE)]);
        assert_done(&bench.update().await.unwrap());
        let bench = oauth([Reply::reply(401, "")]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unauthorized, Delivery::NotSent));
    }

    #[tokio::test(start_paused = true)]
    async fn missing_permission_is_named() {
        let bench = wsse([Reply::reply(403, "Forbidden")]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Forbidden, Delivery::Refused));
        assert!(error.to_string().contains("permission contact.update"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_carries_endpoint_status_and_code() {
        for status in [200, 400] {
            let bench = wsse([refused(status, 2006)]);
            let error = bench.update().await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
            let refusal = error.cause::<Refusal>().unwrap();
            assert_eq!((refusal.endpoint.as_str(), refusal.status), ("PUT contact", status));
            assert_eq!(refusal.code, Some(2006));
        }
        let bench = wsse([Reply::reply(413, r#"{"message":"Request size limit exceeded"}"#)]);
        let error = bench.update().await.unwrap_err();
        assert_eq!((error.kind(), error.cause::<Refusal>().unwrap().code), (ErrorKind::Refused, None));
        assert!(error.to_string().contains("too large"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn later_part_of_a_split_call_fails_alone() {
        let contacts: Vec<_> =
            (0..2001).map(|row| Contact::new(FieldId::EMAIL, format!("{row}@shop.test"))).collect();
        let ids: Vec<_> = (0..1000).collect();
        let bench = wsse([ok(&json!({"ids": ids})), refused(400, 2006)]);
        let results = bench.client.contacts().update(FieldId::EMAIL, &contacts).await.unwrap();
        assert_eq!(results.len(), 2001);
        assert!(results[..1000].iter().all(|result| matches!(result, RowResult::Done)));
        let delivery = |row: usize| match &results[row] {
            RowResult::Failed(error) => error.delivery(),
            other => panic!("{other:?}"),
        };
        assert_eq!((delivery(1000), delivery(1999)), (Delivery::Refused, Delivery::Refused));
        assert_eq!(delivery(2000), Delivery::NotSent);
        assert_eq!(bench.script.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_key_value_or_secret_is_in_an_error_or_a_debug() {
        let answers = [
            refused(400, 2008),
            refused(500, 1),
            refused(200, 2007),
            Reply::reply(200, r#"{"replyCode":0,"data":{"ids":"ada@shop.test"}}"#),
            Reply::reply(200, r#"{"replyCode":0,"data":{"ids":[],"errors":{"ada@shop.test":"Ada"}}}"#),
            Reply::reply(200, r#"{"replyCode":0,"data":{"ids":["ada@shop.test"]}}"#),
            Reply::reply(400, "ada@shop.test"),
            Reply::reply(200, "ada@shop.test"),
            Reply::Lost,
        ];
        for answer in answers {
            let bench = oauth([token(), answer.clone()]);
            let text = match bench.update().await {
                Ok(results) => format!("{results:?}"),
                Err(error) => printed(&error),
            };
            for secret in ["ada", "Ada", "the-secret", "the-token"] {
                assert!(!text.contains(secret), "{answer:?}: {text}");
            }
            let debug = format!("{:?} {:?}", bench.client, bench.client.contacts());
            assert!(!debug.contains("the-"), "{debug}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn token_is_fetched_once_for_requests_at_the_same_time() {
        let account = || ok(&json!({"id": 5120}));
        let bench = oauth([token(), account(), account(), account()]);
        let settings = join_all((0..3).map(|_| bench.client.settings())).await;
        assert!(settings.into_iter().all(|settings| settings.unwrap().id == Some(5120)));
        assert_eq!(bench.script.sent().len(), 4);
    }

    #[test]
    fn calls_can_be_spawned() {
        fn assert_send<T: Send>(_: T) {}
        let client = Client::builder(Credentials::wsse("acme001", "s")).build().unwrap();
        let contacts = [Contact::new(FieldId::EMAIL, "a")];
        assert_send(client.contacts().update(FieldId::EMAIL, &contacts));
        assert_send(client.contacts().create(FieldId::EMAIL, &contacts, None));
        assert_send(client.contacts().check_ids(FieldId::EMAIL, &["a"]));
        assert_send(client.contacts().get_data(FieldId::EMAIL, &["a"], &[]));
        assert_send(client.lists().add(super::super::ListId::new(1), FieldId::EMAIL, &["a"]));
        assert_send(client.fields().list());
    }

    #[test]
    fn path_stays_below_the_base_url() {
        let client = Client::builder(Credentials::wsse("acme001", "s")).build().unwrap();
        let url = |path: &str| client.shared.url(path).map(|url| url.to_string());
        assert_eq!(url("/field").unwrap(), "https://api.emarsys.net/api/v2/field");
        assert_eq!(
            url("contactlist/7/contactIds?$top=10").unwrap(),
            "https://api.emarsys.net/api/v2/contactlist/7/contactIds?$top=10"
        );
        assert!(url("../../../elsewhere").is_err());
    }

    /// Keeps every event as text.
    #[derive(Default)]
    struct Log(Mutex<String>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            struct Writer<'a>(&'a mut String);

            impl Visit for Writer<'_> {
                fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                    write!(self.0, " {field}={value:?}").unwrap();
                }
            }

            let mut log = self.0.lock().unwrap();
            log.push('\n');
            event.record(&mut Writer(&mut log));
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn every_attempt_is_logged_without_key_value_and_secret() {
        // As long as there is one subscriber alone, tracing asks whichever thread comes first whether anybody listens,
        // and another test's thread would answer no for all.
        let _second = tracing::Dispatch::new(Arc::new(Log::default()));
        let log = Arc::new(Log::default());
        tracing::subscriber::with_default(log.clone(), || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let data = json!({"ids": [], "errors": {"ada@shop.test": {"2007": "Ada field id: 1"}}});
                let bench = oauth([token(), refused(429, 7003), ok(&data)]);
                assert!(bench.update().await.is_ok());
            });
        });
        let log = log.0.lock().unwrap();
        for expected in
            ["PUT contact", "status=429", "reply_code=7003", "attempt=2", "duration_ms", "reply_code=0"]
        {
            assert!(log.contains(expected), "{expected} in {log}");
        }
        for secret in ["ada", "Ada", "the-secret", "the-token", "the-client"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_with_one_limiter_wait_for_each_other() {
        let limiter = Limiter::new();
        let bench = wsse([]);
        let other = Client::builder(Credentials::wsse("acme001", "s"))
            .host(bench.host.clone())
            .limiter(limiter.clone())
            .transport(bench.script.clone())
            .build()
            .unwrap();
        let _scout = limiter.admit(&*bench.host, None).await.unwrap();
        assert!(update(&other).now_or_never().is_none());
        assert!(bench.script.sent().is_empty());
    }

    #[tokio::test]
    async fn client_as_it_is_built_talks_to_a_server() {
        let body = r#"{"replyCode":0,"replyText":"OK","data":{"id":5120}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let client = Client::builder(Credentials::wsse("acme001", "s"))
            .base_url(serve(answer.into_bytes()))
            .build()
            .unwrap();
        assert_eq!(client.settings().await.unwrap().id, Some(5120));
    }

    #[tokio::test]
    async fn redirect_is_not_followed() {
        let answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let client = Client::builder(Credentials::wsse("acme001", "s"))
            .base_url(serve(answer.to_vec()))
            .build()
            .unwrap();
        let error = update(&client).await.unwrap_err();
        assert_eq!(error.cause::<Refusal>().unwrap().status, 307);
        assert!(error.to_string().contains("base URL"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_call_gives_its_place_back() {
        let bench = wsse([Reply::reply(200, DONE)]);
        let scout = bench.client.shared.limiter.admit(&*bench.host, None).await.unwrap();
        assert!(bench.update().now_or_never().is_none());
        drop(scout);
        assert_done(&bench.update().await.unwrap());
    }
}
