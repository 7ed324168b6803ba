//! Who is asking: WSSE (API version 2) signs each request anew, OAuth 2 (version 3) buys a token and keeps it.

use std::{
    fmt,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use futures::future::{Either, select};
use reqwest::{
    StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha1::{Digest, Sha1};
use tokio::sync::Semaphore;

use super::{
    refusal::Refusal,
    reply,
    request::{Method, Version},
    retry::Signal,
    transport::{HttpRequest, Transport, TransportError},
};
use crate::{
    Delivery, Error, ErrorKind, Result,
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
        // The last line of a file, with its end.
        let secret = secret.expose_secret();
        if secret.trim() != secret || secret.chars().any(char::is_control) {
            return Err(Error::config(
                "the secret begins or ends with a blank, or has a line break in it: trim it",
            ));
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

/// What errors call the request for a token.
const TOKEN: &str = "POST token";

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
    failure: Option<LastFailure>,
}

#[derive(Clone)]
struct LastFailure {
    signal: Signal,
    kind: ErrorKind,
    text: String,
    refusal: Option<Refusal>,
    wait: Option<Duration>,
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
        // Whoever fetches may be a future that nobody polls any more. To fetch twice does no harm.
        let (turn, late) = (pin!(self.turn.acquire()), pin!(host.sleep(timeout.saturating_mul(2))));
        let _turn = match select(turn, late).await {
            Either::Left((turn, _)) => turn.ok(),
            Either::Right(_) => None,
        };
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
                state.failure = Some(LastFailure {
                    signal: failure.signal,
                    kind: failure.error.kind(),
                    text: failure.error.to_string(),
                    refusal: failure.error.cause::<Refusal>().cloned(),
                    wait: failure.wait,
                });
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
        let LastFailure { signal, kind, text, refusal, wait } = state.failure.clone()?;
        let mut error = Error::new(kind, text).with_delivery(Delivery::NotSent);
        if let Some(refusal) = refusal {
            error = error.with_source(refusal);
        }
        Some(AuthFailure { signal, error, wait })
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
                let text = format!(
                    "{TOKEN}: could not connect, so nothing was sent: check the base URL or token URL, and the network"
                );
                return Err(failure(Signal::NotConnected, text).because(cause));
            }
            Err(TransportError::NoAnswer(cause)) => {
                let text = format!("{TOKEN}: no answer, so nothing else was sent; try again later");
                return Err(failure(Signal::NoAnswer, text).because(cause));
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
    let text = |rest: &str| format!("{TOKEN}: HTTP {status}: {rest}");
    let refusal = match Signal::of(status, None) {
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
        signal => return failure(signal, text("the token server failed; try again later")),
    };
    refusal.because(Refusal::new(TOKEN, status, None).into())
}

fn failure(signal: Signal, text: impl Into<String>) -> AuthFailure {
    // The request that the token is for was not sent, whatever happened to the one for the token.
    let kind = if signal == Signal::Refused { ErrorKind::Config } else { signal.kind() };
    AuthFailure { signal, error: Error::new(kind, text).with_delivery(Delivery::NotSent), wait: None }
}

impl AuthFailure {
    fn because(mut self, cause: crate::BoxError) -> Self {
        self.error = self.error.with_source(cause);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;

    use super::*;
    use crate::emarsys::transport::fake::{Answer, PausedHost, START, Script, date};

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn oauth() -> Auth {
        let url = Url::parse("https://auth.example/oauth2/token").unwrap();
        Auth::new(Credentials::oauth2("my-client", "my-secret"), url)
    }

    fn token(text: &str, lifetime: u64) -> Answer {
        Answer::reply(
            200,
            format!(r#"{{"access_token":"{text}","token_type":"Bearer","expires_in":{lifetime}}}"#),
        )
    }

    async fn bearer(auth: &Auth, script: &Script, host: &dyn Host) -> Result<String, AuthFailure> {
        let authorization = auth.authorize(script, host, TIMEOUT).await?;
        assert_eq!(authorization.name, AUTHORIZATION);
        assert!(authorization.value.is_sensitive());
        Ok(authorization.value.to_str().unwrap().to_owned())
    }

    #[test]
    fn digest_is_the_base64_of_the_hexadecimal_text() {
        let vectors = [
            (
                "a87ff679a2f3e71d9181a67b7542122c",
                "2016-07-20T12:34:56",
                "secret",
                "YzI3MWVhMDgwNjMzZDdhMjE1MjhkMzM3NTk1NTQwYjRjNmM4ZGYzMA==",
            ),
            (
                "12345678901234567890123456789012",
                "2009-02-13T23:31:30+0000",
                "secret",
                "NjgwYWJkYjNkODliYjc4OTcxZDgyNjFlOTUzZWVkYjNiOTY3YWY4MQ==",
            ),
            ("", "", "", "ZGEzOWEzZWU1ZTZiNGIwZDMyNTViZmVmOTU2MDE4OTBhZmQ4MDcwOQ=="),
            (
                "5398e214ae99c2e50afb709a3bc423f9",
                "2019-10-14T00:00:00.000Z",
                "dummy",
                "NDc5MjNlODIyMGE4ODhiMTQyNTA0OGMzZTFjZTM1MmMzMmU0NmNiNw==",
            ),
            (
                "abcdef1234567890abcdef1234567890",
                "2024-04-28T12:34:56.789Z",
                "testSecret",
                "ZGU5M2M1MDg0N2YxY2YxZGQ0NGVlYWIxNTYyMzZhYWExYWJjYmMxZg==",
            ),
            (
                "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                "2026-03-01T09:30:00Z",
                "correct-horse",
                "ZDkzMjhjYWQxNjhiYTI4ODI1NmIyZmFkZTYyMTM3ZDMwNDk5ZDA5MA==",
            ),
            (
                "0F1E2D3C4B5A69788796A5B4C3D2E1F0",
                "2026-03-01T09:30:00Z",
                "pässwörd",
                "ZGI2OTc3ZDIxMzU4NzJiYmZmNjlhODUwOGQwY2VmODFlMGYwN2FmZg==",
            ),
        ];
        for (nonce, created, secret, digest) in vectors {
            assert_eq!(wsse_digest(nonce, created, &secret.into()), digest, "{nonce}");
        }
    }

    #[test]
    fn digest_is_not_the_base64_of_the_bytes() {
        let digest = wsse_digest("a87ff679a2f3e71d9181a67b7542122c", "2016-07-20T12:34:56", &"secret".into());
        assert_ne!(digest, "wnHqCAYz16IVKNM3WVVAtMbI3zA=");
        assert_eq!(digest.len(), 56);
    }

    #[test]
    fn wsse_header_has_the_documented_form() {
        assert_eq!(
            wsse_header(
                "acme001",
                &"correct-horse".into(),
                "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
                "2026-03-01T09:30:00Z"
            ),
            "UsernameToken Username=\"acme001\", \
             PasswordDigest=\"ZDkzMjhjYWQxNjhiYTI4ODI1NmIyZmFkZTYyMTM3ZDMwNDk5ZDA5MA==\", \
             Nonce=\"0f1e2d3c4b5a69788796a5b4c3d2e1f0\", Created=\"2026-03-01T09:30:00Z\""
        );
    }

    #[test]
    fn time_of_a_signature_is_in_utc_with_its_zone() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_357_400_999);
        assert_eq!(created(time).unwrap(), "2026-03-01T09:30:00Z");
        assert!(created(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).is_err());
    }

    #[test]
    fn credentials_show_no_secret_and_no_name() {
        for credentials in
            [Credentials::oauth2("the-name", "the-secret"), Credentials::wsse("the-name", "the-secret")]
        {
            assert!(!format!("{credentials:?}").contains("the-"), "{credentials:?}");
        }
    }

    #[test]
    fn credentials_that_cannot_stand_in_a_header_are_refused() {
        for credentials in [
            Credentials::wsse("acme\"001", "secret"),
            Credentials::wsse("acme 001", "secret"),
            Credentials::wsse("acme\n001", "secret"),
            Credentials::wsse("", "secret"),
            Credentials::oauth2("id", ""),
            Credentials::oauth2("i:d", "secret"),
        ] {
            assert_eq!(credentials.check().unwrap_err().kind(), ErrorKind::Config);
        }
        assert!(Credentials::wsse("account_name001", "pässwörd").check().is_ok());
    }

    #[test]
    fn refused_signature_comes_with_the_difference_of_the_clocks() {
        let url = Url::parse("https://auth.example/").unwrap();
        let auth = Auth::new(Credentials::wsse("acme001", "secret"), url);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(START);
        let advice = auth.advice(Some(now), now + Duration::from_secs(400));
        assert!(advice.contains("400 s ahead of"), "{advice}");
        let advice = auth.advice(Some(now), now - Duration::from_secs(3600));
        assert!(advice.contains("3600 s behind"), "{advice}");
        let advice = auth.advice(Some(now), now);
        assert!(advice.contains("check user name and secret"), "{advice}");
        let advice = auth.advice(None, now);
        assert!(advice.contains("clock"), "{advice}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_wsse_request_has_a_nonce_of_its_own() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), []);
        let auth =
            Auth::new(Credentials::wsse("acme001", "secret"), Url::parse("https://auth.example/").unwrap());
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let authorization = auth.authorize(&*script, &*host, TIMEOUT).await.unwrap();
            assert!(authorization.value.is_sensitive());
            let header = authorization.value.to_str().unwrap().to_owned();
            let nonce = header.split("Nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            assert_eq!(nonce.len(), 32);
            nonces.push(nonce);
        }
        assert_ne!(nonces[0], nonces[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn token_is_bought_with_the_client_secret_and_kept_until_shortly_before_its_end() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [token("one", 3600), token("two", 8), token("three", 3600)]);
        let auth = oauth();
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer one");
        tokio::time::sleep(Duration::from_secs(3539)).await;
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer one");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer two");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer two");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer three");
        let sent = script.sent();
        assert_eq!(sent.len(), 3);
        assert_eq!((sent[0].method, sent[0].url.as_str()), ("POST", "https://auth.example/oauth2/token"));
        assert_eq!(sent[0].body, "grant_type=client_credentials");
        assert_eq!(sent[0].headers[AUTHORIZATION], "Basic bXktY2xpZW50Om15LXNlY3JldA==");
        assert!(sent[0].headers[AUTHORIZATION].is_sensitive());
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_fetch_one_token() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [token("one", 3600)]);
        let auth = oauth();
        let callers = join_all((0..20).map(|_| bearer(&auth, &script, &*host))).await;
        assert!(callers.into_iter().all(|caller| caller.unwrap() == "Bearer one"));
        assert_eq!(script.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_the_refusal_of_one_fetch() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [Answer::reply(401, r#"{"error":"invalid_client"}"#)]);
        let script = Arc::new(Slow(script));
        let auth = oauth();
        let callers = join_all((0..20).map(|_| auth.authorize(&*script, &*host, TIMEOUT))).await;
        for caller in callers {
            let error = caller.err().unwrap().error;
            assert_eq!(error.kind(), ErrorKind::Unauthorized);
            assert_eq!(error.cause::<Refusal>().map(|refusal| refusal.status), Some(401));
        }
        assert_eq!(script.0.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn later_caller_asks_again_after_a_failed_fetch() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [Answer::reply(503, ""), token("one", 3600)]);
        let auth = oauth();
        let failure = bearer(&auth, &script, &*host).await.unwrap_err();
        assert_eq!(failure.signal, Signal::Failed);
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer one");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_refused_token_is_forgotten() {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), [token("one", 3600), token("two", 3600)]);
        let auth = oauth();
        let first = auth.authorize(&*script, &*host, TIMEOUT).await.unwrap().token;
        assert!(auth.renew(first));
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer two");
        assert!(auth.renew(first));
        assert_eq!(bearer(&auth, &script, &*host).await.unwrap(), "Bearer two");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_the_token_server_say_what_to_do_and_show_no_secret() {
        let cases = [
            (Answer::reply(401, r#"{"error":"invalid_client"}"#), ErrorKind::Unauthorized, "client secret"),
            (Answer::reply(400, r#"{"error":"invalid_client"}"#), ErrorKind::Unauthorized, "client secret"),
            (Answer::reply(404, "<html>"), ErrorKind::Config, "token URL"),
            (Answer::reply(200, "<html>"), ErrorKind::Undecodable, "token URL"),
            (Answer::reply(200, r#"{"access_token":""}"#), ErrorKind::Undecodable, "token URL"),
            (Answer::reply(503, ""), ErrorKind::Server, "later"),
            (Answer::NotConnected, ErrorKind::NoAnswer, "POST token: could not connect"),
            (Answer::Lost, ErrorKind::NoAnswer, "POST token: no answer"),
            (Answer::TooLong, ErrorKind::Config, "token URL"),
            (token("line\\nbreak", 60), ErrorKind::Config, "header"),
        ];
        for (answer, kind, hint) in cases {
            let host = PausedHost::shared();
            let script = Script::new(host.clone(), [answer.clone()]);
            let error = bearer(&oauth(), &script, &*host).await.unwrap_err().error;
            assert_eq!(error.kind(), kind, "{answer:?}");
            assert_eq!(error.delivery(), crate::Delivery::NotSent);
            assert!(error.to_string().contains(hint), "{error}");
            assert!(!format!("{error:?}").contains("my-secret"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_token_server_names_its_own_pause() {
        let host = PausedHost::shared();
        let answer = Answer::reply(429, "slow down").header("retry-after", 7).header("date", date(0));
        let script = Script::new(host.clone(), [answer]);
        let failure = bearer(&oauth(), &script, &*host).await.unwrap_err();
        assert_eq!(failure.signal, Signal::Limited);
        assert_eq!(failure.wait, Some(Duration::from_secs(8)));
    }

    /// Answers after a moment, so that others queue up meanwhile.
    #[derive(Debug)]
    struct Slow(Arc<Script>);

    #[async_trait::async_trait]
    impl Transport for Slow {
        async fn send(
            &self,
            request: HttpRequest,
        ) -> Result<crate::emarsys::transport::HttpResponse, TransportError> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.0.send(request).await
        }
    }
}
