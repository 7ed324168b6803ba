//! Who is asking: WSSE (API version 2) signs each request anew, OAuth 2 (version 3) buys a token and keeps it.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use reqwest::{
    StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha1::{Digest, Sha1};
use tokio::sync::Semaphore;

use super::{
    reply,
    request::{Method, Version},
    retry::Signal,
    transport::{HttpRequest, Transport, TransportError},
};
use crate::{
    Error, ErrorKind, Result,
    host::{Deadline, Host},
};

/// Name and secret of an API user (Emarsys API: Authentication).
#[derive(Clone)]
pub struct Credentials(Kind);

#[derive(Clone)]
enum Kind {
    OAuth2 { id: String, secret: SecretString },
    Wsse { user: String, secret: SecretString },
}

impl Credentials {
    /// Client id and client secret of OAuth 2, for version 3 of the API.
    pub fn oauth2(client_id: impl Into<String>, client_secret: impl Into<SecretString>) -> Self {
        Self(Kind::OAuth2 { id: client_id.into(), secret: client_secret.into() })
    }

    /// User name (such as `account001`) and secret of WSSE, for version 2 of the API, which is announced to end on
    /// 31 December 2026.
    pub fn wsse(user: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self(Kind::Wsse { user: user.into(), secret: secret.into() })
    }

    /// The version of the API that they are for.
    pub fn version(&self) -> Version {
        match self.0 {
            Kind::OAuth2 { .. } => Version::V3,
            Kind::Wsse { .. } => Version::V2,
        }
    }

    /// Whether they can be put into a request at all.
    pub(crate) fn check(&self) -> Result<()> {
        let (name, secret, hint) = match &self.0 {
            Kind::OAuth2 { id, secret } => (id, secret, "client id"),
            Kind::Wsse { user, secret } => (user, secret, "user name"),
        };
        if name.is_empty() || secret.expose_secret().is_empty() {
            return Err(Error::config(format!("the {hint} or the secret is empty")));
        }
        let unusable = match &self.0 {
            Kind::OAuth2 { id, .. } => id.contains(':'),
            Kind::Wsse { user, .. } => !user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'),
        };
        if unusable {
            return Err(Error::config(format!("the {hint} has a character that a {hint} cannot have")));
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Kind::OAuth2 { .. } => "OAuth2",
            Kind::Wsse { .. } => "Wsse",
        };
        f.debug_struct(name).finish_non_exhaustive()
    }
}

/// The credentials at work.
pub(crate) struct Auth {
    credentials: Credentials,
    tokens: Tokens,
}

/// What one request is authorized with.
pub(crate) struct Authorization {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
    /// Which token it is, if it is one.
    pub(crate) token: Option<u64>,
}

/// There is no authorization.
#[derive(Debug)]
pub(crate) struct AuthFailure {
    pub(crate) signal: Signal,
    pub(crate) error: Error,
    /// The pause that the token server asks for.
    pub(crate) wait: Option<Duration>,
}

impl From<Error> for AuthFailure {
    fn from(error: Error) -> Self {
        Self { signal: Signal::Refused, error, wait: None }
    }
}

impl Auth {
    pub(crate) fn new(credentials: Credentials, token_url: Url) -> Self {
        Self { credentials, tokens: Tokens::new(token_url) }
    }

    /// The header of one request. A WSSE header is made anew each time; a token may have to be fetched.
    pub(crate) async fn authorize(
        &self,
        transport: &dyn Transport,
        host: &dyn Host,
        timeout: Duration,
    ) -> Result<Authorization, AuthFailure> {
        match &self.credentials.0 {
            Kind::Wsse { user, secret } => {
                let mut nonce = [0; 16];
                host.random(&mut nonce)?;
                let header = wsse_header(user, secret, &hex::encode(nonce), &created(host.wall())?);
                Ok(Authorization {
                    name: HeaderName::from_static("x-wsse"),
                    value: sensitive(HeaderValue::try_from(header)).ok_or_else(unusable_header)?,
                    token: None,
                })
            }
            Kind::OAuth2 { id, secret } => {
                let (number, token) = self.tokens.token(id, secret, transport, host, timeout).await?;
                let header = format!("Bearer {}", token.expose_secret());
                Ok(Authorization {
                    name: AUTHORIZATION,
                    value: sensitive(HeaderValue::try_from(header)).ok_or_else(unusable_header)?,
                    token: Some(number),
                })
            }
        }
    }

    /// Forgets the token that was refused, unless there is a newer one by now. `false` if there is none to renew.
    pub(crate) fn renew(&self, refused: Option<u64>) -> bool {
        let Some(refused) = refused else { return false };
        let mut state = self.tokens.state();
        if state.token.as_ref().is_some_and(|token| token.number == refused) {
            state.token = None;
        }
        true
    }

    /// What a 401 may come from. The server compares the clocks, so a difference is worth a sentence.
    pub(crate) fn advice(&self, server: Option<SystemTime>, wall: SystemTime) -> String {
        const TOLERATED: Duration = Duration::from_secs(300);
        match self.credentials.0 {
            Kind::OAuth2 { .. } => "a fresh token was not accepted; check that the client id is for this \
                                    account and still active"
                .to_owned(),
            Kind::Wsse { .. } => {
                let Some(server) = server else {
                    return "check user name, secret and this machine's clock".to_owned();
                };
                let (ahead, skew) = match wall.duration_since(server) {
                    Ok(skew) => ("ahead of", skew),
                    Err(error) => ("behind", error.duration()),
                };
                let seconds = skew.as_secs();
                if skew + Duration::from_secs(5) >= TOLERATED {
                    format!(
                        "this machine's clock is {seconds} s {ahead} the server's, and at most 300 s are \
                         accepted; set the clock"
                    )
                } else {
                    format!("check user name and secret; the clock is right to within {} s", seconds + 1)
                }
            }
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credentials.fmt(f)
    }
}

/// The value of `X-WSSE`. `created` is in the form of [`created`], `nonce` any text; both go in as they are.
fn wsse_header(user: &str, secret: &SecretString, nonce: &str, created: &str) -> String {
    let digest = wsse_digest(nonce, created, secret);
    format!(
        r#"UsernameToken Username="{user}", PasswordDigest="{digest}", Nonce="{nonce}", Created="{created}""#
    )
}

/// Base64 of the hexadecimal *text* of the SHA-1, in lower case; not of its bytes.
fn wsse_digest(nonce: &str, created: &str, secret: &SecretString) -> String {
    let digest =
        Sha1::new().chain_update(nonce).chain_update(created).chain_update(secret.expose_secret()).finalize();
    BASE64_STANDARD.encode(hex::encode(digest))
}

/// A time as WSSE wants it, always in UTC: without a zone, Emarsys would read it in that of Vienna.
fn created(now: SystemTime) -> Result<String> {
    now.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
        .ok_or_else(|| Error::new(ErrorKind::Io, "this machine's clock is out of all range; set it"))
}

fn sensitive(value: Result<HeaderValue, InvalidHeaderValue>) -> Option<HeaderValue> {
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unusable_header() -> Error {
    Error::config("the credentials, or the token bought with them, cannot stand in an HTTP header")
}

/// The token of OAuth 2, fetched by one caller at a time and shared by all.
struct Tokens {
    url: Url,
    state: Mutex<TokenState>,
    /// Held by whoever fetches.
    turn: Semaphore,
}

#[derive(Default)]
struct TokenState {
    token: Option<Token>,
    /// How many fetches have come to an end.
    fetches: u64,
    /// How the last one failed, if it did, for those who were waiting for it.
    failure: Option<(Signal, ErrorKind, String, Option<Duration>)>,
}

struct Token {
    number: u64,
    text: SecretString,
    fresh: Deadline,
}

impl Tokens {
    fn new(url: Url) -> Self {
        Self { url, state: Mutex::default(), turn: Semaphore::new(1) }
    }

    async fn token(
        &self,
        id: &str,
        secret: &SecretString,
        transport: &dyn Transport,
        host: &dyn Host,
        timeout: Duration,
    ) -> Result<(u64, SecretString), AuthFailure> {
        let fetches_before = self.state().fetches;
        if let Some(token) = self.fresh(host) {
            return Ok(token);
        }
        // The semaphore is never closed; should it be, fetching twice does no harm.
        let _turn = self.turn.acquire().await.ok();
        if let Some(token) = self.fresh(host) {
            return Ok(token);
        }
        if let Some(failure) = self.failure_since(fetches_before) {
            return Err(failure);
        }
        let fetched = self.fetch(id, secret, transport, host, timeout).await;
        let mut state = self.state();
        state.fetches += 1;
        match fetched {
            Ok((text, lifetime)) => {
                let number = state.fetches;
                let fresh = Deadline::after(host, lifetime.saturating_sub(margin(lifetime)));
                state.token = Some(Token { number, text: text.clone(), fresh });
                state.failure = None;
                Ok((number, text))
            }
            Err(failure) => {
                let text = failure.error.to_string();
                state.failure = Some((failure.signal, failure.error.kind(), text, failure.wait));
                Err(failure)
            }
        }
    }

    /// The token, if it will outlive a request.
    fn fresh(&self, host: &dyn Host) -> Option<(u64, SecretString)> {
        let state = self.state();
        let token = state.token.as_ref().filter(|token| !token.fresh.passed(host))?;
        Some((token.number, token.text.clone()))
    }

    /// How a fetch failed that came to its end after `fetches` had; so a hundred waiting callers do not each send
    /// the same wrong secret.
    fn failure_since(&self, fetches: u64) -> Option<AuthFailure> {
        let state = self.state();
        if state.fetches == fetches {
            return None;
        }
        let (signal, kind, text, wait) = state.failure.clone()?;
        Some(AuthFailure { signal, error: Error::new(kind, text), wait })
    }

    async fn fetch(
        &self,
        id: &str,
        secret: &SecretString,
        transport: &dyn Transport,
        host: &dyn Host,
        timeout: Duration,
    ) -> Result<(SecretString, Duration), AuthFailure> {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{}", secret.expose_secret())));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, sensitive(HeaderValue::try_from(basic)).ok_or_else(unusable_header)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let request = HttpRequest {
            method: Method::Post,
            url: self.url.clone(),
            headers,
            body: Some(b"grant_type=client_credentials".to_vec()),
            timeout,
        };
        let started = host.monotonic();
        let response = transport.send(request).await;
        let elapsed = host.monotonic().saturating_sub(started);
        let status = response.as_ref().map_or(0, |response| response.status.as_u16());
        tracing::debug!(status, duration_ms = elapsed.as_millis(), "emarsys token request");
        let response = match response {
            Ok(response) => response,
            Err(TransportError::NotConnected(cause)) => {
                return Err(failure(Signal::NotConnected, "no connection to the token server").because(cause));
            }
            Err(TransportError::NoAnswer(cause)) => {
                return Err(failure(Signal::NoAnswer, "no answer from the token server").because(cause));
            }
            Err(TransportError::TooLong) => {
                return Err(failure(
                    Signal::Refused,
                    "the token server's answer is too long; check the token URL",
                ));
            }
        };
        if response.status != StatusCode::OK {
            return Err(token_refusal(status, &response.headers, host.wall()));
        }
        let reply: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let token = reply.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(failure(
                Signal::Undecodable,
                "the token server's answer has no token; check the token URL",
            ));
        };
        // A lifetime that is not stated is taken to be short; a refused token is renewed anyway.
        let lifetime =
            reply.get("expires_in").and_then(reply::number).and_then(|seconds| seconds.try_into().ok());
        let lifetime = lifetime.map_or(Duration::from_secs(300), Duration::from_secs);
        Ok((token.into(), lifetime.min(Duration::from_secs(24 * 3600))))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token is renewed so long before it ends: a minute, or a quarter of a short life.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 4).min(Duration::from_secs(60))
}

fn token_refusal(status: u16, headers: &HeaderMap, wall: SystemTime) -> AuthFailure {
    let text = |rest: &str| format!("POST token: HTTP {status}: {rest}");
    match Signal::of(status, None) {
        Signal::Limited => AuthFailure {
            wait: Some(super::limiter::wait_after_429(headers, wall)),
            ..failure(Signal::Limited, text("too many token requests"))
        },
        // 400 is what the standard asks for where Emarsys answers 401.
        Signal::Unauthorized => failure(Signal::Unauthorized, text("check client id and client secret")),
        Signal::Forbidden => failure(Signal::Forbidden, text("the client may not ask for tokens")),
        Signal::Refused if status == 400 => {
            failure(Signal::Unauthorized, text("check client id and client secret"))
        }
        Signal::Refused => failure(Signal::Refused, text("check the token URL")),
        signal => failure(signal, text("the token server failed; try again later")),
    }
}

fn failure(signal: Signal, text: impl Into<String>) -> AuthFailure {
    // The request that the token is for was not sent, whatever happened to the one for the token.
    let kind = if signal == Signal::Refused { ErrorKind::Config } else { signal.kind() };
    AuthFailure { signal, error: Error::new(kind, text), wait: None }
}

impl AuthFailure {
    fn because(mut self, cause: crate::BoxError) -> Self {
        self.error = self.error.with_source(cause);
        self
    }
}
