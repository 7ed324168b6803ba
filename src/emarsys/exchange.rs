//! The one loop that every request goes through: limit, authorization, deadline, request, verdict.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::Value;
use tracing::Instrument;

use super::{
    builder::Shared,
    client::Client,
    limiter::{self, Budget, Fate},
    refusal::Refusal,
    reply::{self, Envelope},
    request::{Effect, Method, ReplyForm, Request, Root, endpoint},
    retry::{self, Signal, Verdict},
    transport::{HttpRequest, HttpResponse, REPLY_BYTES_MAX, TransportError},
};
use crate::{Delivery, Error, ErrorKind, Result};

/// A request with its generic parts taken off, so that the loop is compiled once.
pub(super) struct Call {
    method: Method,
    endpoint: String,
    permission: Option<&'static str>,
    effect: Effect,
    form: ReplyForm,
    root: Root,
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

impl Client {
    /// Attempts, until one succeeds or no other may follow. The data is apart from the response, whose body is kept
    /// for describing it.
    pub(super) async fn exchange(&self, call: &Call) -> Result<(HttpResponse, Value)> {
        let span = tracing::debug_span!("emarsys", endpoint = call.endpoint);
        let effect = match call.effect {
            Effect::Idempotent if self.at_most_once => Effect::Write,
            effect => effect,
        };
        self.attempts(call, effect).instrument(span).await
    }

    async fn attempts(&self, call: &Call, effect: Effect) -> Result<(HttpResponse, Value)> {
        let host = self.host();
        let mut first = None;
        let mut renewed = false;
        let mut attempt = 1;
        let mut last: Option<Error> = None;
        // Once a write may have arrived, the failure of its repetition does not make that untrue.
        let mut unknown = false;
        loop {
            let failure = match self.attempt(call, effect, attempt, &mut first).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Failure { verdict, mut error, token, wait } = failure;
            unknown |= error.delivery() == Delivery::Unknown;
            if unknown {
                error = error.with_delivery(Delivery::Unknown);
            }
            let pause = match verdict {
                Verdict::Renew if !renewed && self.shared.auth.renew(token) => {
                    renewed = true;
                    continue;
                }
                Verdict::Stop if error.kind() == ErrorKind::Expired => {
                    return Err(match last {
                        Some(last) => Self::expired_after(call, last),
                        None => error,
                    });
                }
                Verdict::Stop | Verdict::Renew => return Err(error),
                Verdict::Repeat => self.pause(attempt).max(wait.unwrap_or_default()),
                Verdict::Wait => wait.unwrap_or_default() + self.pause(1),
            };
            let now = host.monotonic();
            let elapsed = now.saturating_sub(*first.get_or_insert(now));
            if !self.shared.retry.allows_another(attempt, elapsed + pause) {
                return Err(error);
            }
            tracing::warn!(
                endpoint = call.endpoint,
                attempt,
                pause_ms = pause.as_millis(),
                error = %error,
                "emarsys request will be repeated"
            );
            // The limit may leave this call waiting until its deadline: its caller would only ask again at once.
            let left = self.deadline.map_or(pause, |deadline| deadline.remaining(host));
            host.sleep(pause.min(left)).await;
            attempt += 1;
            last = Some(error);
        }
    }

    /// There is no time left to send a request again whose attempts failed, the last with `last`.
    fn expired_after(call: &Call, last: Error) -> Error {
        let what = match last.delivery() {
            Delivery::Unknown => "an attempt before may have been applied",
            Delivery::NotSent | Delivery::Refused => "the attempts before had no effect",
        };
        let text =
            format!("{}: the time in which it may be sent again has passed, and {what}", call.endpoint);
        Error::new(ErrorKind::Expired, text).with_delivery(last.delivery()).with_source(last)
    }

    /// One attempt: the limit's consent, an authorization, the deadline, and only then the request.
    async fn attempt(
        &self,
        call: &Call,
        effect: Effect,
        attempt: u32,
        first: &mut Option<Duration>,
    ) -> Result<(HttpResponse, Value), Failure> {
        let Shared { transport, host, auth, limiter, timeout, .. } = &*self.shared;
        let host = &**host;
        self.check_deadline(call)?;
        let admitted = limiter.below(call.root).admit(host, self.deadline).await;
        let mut permit = admitted.ok_or_else(|| call.expired())?;
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
        let reply = transport.send(request).await.map(|response| HttpReply::new(response, call.form));
        let (now, wall) = (host.monotonic(), host.wall());
        let budget = reply.as_ref().ok().and_then(|reply| Budget::read(&reply.response.headers, wall));
        permit.settle(fate(&reply, budget, wall), now);
        tracing::debug!(
            endpoint = call.endpoint,
            status = reply.as_ref().ok().map(HttpReply::status),
            reply_code = reply.as_ref().ok().and_then(HttpReply::code),
            attempt,
            duration_ms = now.saturating_sub(started).as_millis(),
            budget_left = budget.map(Budget::remaining),
            "emarsys request"
        );
        let reply = reply.map_err(|error| call.no_response(error, effect))?;
        let status = reply.status();
        let HttpReply { response, envelope, signal } = reply;
        if signal == Signal::Done
            && let Some(envelope) = envelope
        {
            return Ok((response, envelope.data));
        }
        let wait = match signal {
            Signal::Limited => Some(limiter::wait_after_429(&response.headers, wall)),
            _ => limiter::retry_after(&response.headers, wall),
        };
        let error = match signal {
            Signal::Undecodable | Signal::Done => call.undecodable(status, &response.body),
            Signal::Unauthorized => {
                let hint = auth.advice(limiter::server_date(&response.headers), wall);
                call.refused(signal, status, envelope.as_ref(), &hint)
            }
            Signal::Limited => {
                let seconds = wait.unwrap_or_default().as_secs();
                let hint = format!("the request limit of the API user is exhausted for about {seconds} s");
                call.refused(signal, status, envelope.as_ref(), &hint)
            }
            _ => call.refused(signal, status, envelope.as_ref(), advice(signal, status)),
        };
        Err(Failure { verdict: signal.verdict(effect), error, token: authorization.token, wait })
    }

    fn check_deadline(&self, call: &Call) -> Result<(), Failure> {
        match self.deadline {
            Some(deadline) if deadline.passed(self.host()) => Err(call.expired()),
            _ => Ok(()),
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        let mut random = [0; 4];
        // Without random bytes, callers come back in step, which is better than to lose what happened.
        let _ = self.host().random(&mut random);
        retry::pause(attempt, u32::from_ne_bytes(random))
    }
}

impl Call {
    pub(super) fn new<R: Request>(request: &R, shared: &Shared) -> Result<Self> {
        let endpoint = endpoint::<R>();
        let wrong = |what: &str| Error::config(format!("{endpoint}: {what}"));
        let body = match R::METHOD.has_body().then(|| serde_json::to_vec(request)) {
            Some(Ok(nothing)) if nothing == b"null" => Some(b"{}".to_vec()),
            body => body.transpose().map_err(|_| wrong("the request cannot be written as JSON"))?,
        };
        let path = request.path().text().map_err(wrong)?;
        let url = shared.url(R::ROOT, &path)?;
        let (method, permission, effect, form) = (R::METHOD, R::PERMISSION, R::EFFECT, R::REPLY);
        Ok(Self { method, endpoint, permission, effect, form, root: R::ROOT, url, body })
    }

    fn expired(&self) -> Failure {
        let text = format!("{}: the time in which it may be sent has passed", self.endpoint);
        let error = Error::new(ErrorKind::Expired, text).with_delivery(Delivery::NotSent);
        Failure { verdict: Verdict::Stop, error, token: None, wait: None }
    }

    fn no_response(&self, error: TransportError, effect: Effect) -> Failure {
        let failure = |signal: Signal, text: fmt::Arguments<'_>| {
            let error = Error::new(signal.kind(), format!("{}: {text}", self.endpoint))
                .with_delivery(signal.delivery(effect));
            Failure { verdict: signal.verdict(effect), error, token: None, wait: None }
        };
        match error {
            TransportError::NotConnected(cause) => {
                let text = "could not connect, so nothing was sent: check the base URL and the network";
                let mut failure = failure(Signal::NotConnected, format_args!("{text}"));
                failure.error = failure.error.with_source(cause);
                failure
            }
            TransportError::NoAnswer(cause) => {
                let text = "sent, but no whole answer came back";
                let mut failure = failure(Signal::NoAnswer, format_args!("{text}"));
                failure.error = failure.error.with_source(cause);
                failure
            }
            TransportError::TooLong => {
                let most = REPLY_BYTES_MAX >> 20;
                let failure = failure(
                    Signal::Undecodable,
                    format_args!("the answer is longer than {most} MiB; ask for less at once"),
                );
                // The next answer would be as long.
                Failure { verdict: Verdict::Stop, ..failure }
            }
        }
    }

    fn refused(&self, signal: Signal, status: u16, envelope: Option<&Envelope>, advice: &str) -> Error {
        let refusal = Refusal::new(&self.endpoint, status, envelope);
        let advice: Cow<'_, str> = match (signal, self.permission) {
            (Signal::Forbidden, Some(permission)) => format!(
                "the API user lacks a permission ({permission}); it takes effect minutes after it is given"
            )
            .into(),
            (Signal::Forbidden, None) => "the API user lacks the permission for this endpoint".into(),
            (Signal::Refused, _) if advice.is_empty() && envelope.is_none() && status == 404 => {
                "there is no such thing, or the base URL is wrong".into()
            }
            (Signal::Refused, _) if advice.is_empty() && envelope.is_none() => "check the base URL".into(),
            _ => advice.into(),
        };
        let mut text = refusal.to_string();
        // What a reply code means says what to do, too.
        let is_told = refusal.has_meaning() && matches!(signal, Signal::Locked | Signal::NotReady);
        if !is_told && !text.contains(&*advice) {
            text = format!("{text}; {advice}");
        }
        Error::new(signal.kind(), text).with_delivery(signal.delivery(self.effect)).with_source(refusal)
    }

    /// The error of a reply that is not in the form that was to be expected.
    pub(super) fn undecodable(&self, status: u16, body: &[u8]) -> Error {
        let text = format!(
            "{}: HTTP {status}, the reply is not in the expected form, but {}",
            self.endpoint,
            reply::shape(body)
        );
        let signal = Signal::Undecodable;
        let refusal = Refusal::new(&self.endpoint, status, Envelope::read(body).as_ref());
        Error::new(signal.kind(), text).with_delivery(signal.delivery(self.effect)).with_source(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { verdict: Verdict::Stop, error, token: None, wait: None }
    }
}

/// A response, read as far as it does not depend on what is in its `data`.
struct HttpReply {
    response: HttpResponse,
    envelope: Option<Envelope>,
    signal: Signal,
}

impl HttpReply {
    fn new(response: HttpResponse, form: ReplyForm) -> Self {
        let envelope = if response.status.is_success() {
            Envelope::read_success(&response.body, form)
        } else {
            Envelope::read(&response.body)
        };
        let signal = Signal::of(response.status.as_u16(), envelope.as_ref());
        Self { response, envelope, signal }
    }

    fn status(&self) -> u16 {
        self.response.status.as_u16()
    }

    fn code(&self) -> Option<i64> {
        self.envelope.as_ref().map(|envelope| envelope.code)
    }
}

/// What to do about a reply that says no.
fn advice(signal: Signal, status: u16) -> &'static str {
    match signal {
        Signal::Locked => "something else is running that excludes this; try again later",
        Signal::Failed => "Emarsys failed on its side; try again later",
        Signal::NotReady => "the result is not ready yet; ask again later",
        Signal::Refused if status == 413 => "the request is too large",
        _ => "",
    }
}

/// What the end of a request tells the limiter.
fn fate(reply: &Result<HttpReply, TransportError>, budget: Option<Budget>, wall: SystemTime) -> Fate {
    match reply {
        Err(TransportError::NotConnected(_)) => Fate::NotSent,
        Err(TransportError::NoAnswer(_) | TransportError::TooLong) => Fate::NoAnswer,
        Ok(reply) if reply.signal == Signal::Limited => {
            Fate::Limited(limiter::wait_after_429(&reply.response.headers, wall))
        }
        // Replies of a gateway may lack the headers that those of Emarsys have.
        Ok(reply) if budget.is_none() && reply.signal != Signal::Done => Fate::NoAnswer,
        Ok(_) => Fate::Answered(budget),
    }
}

#[cfg(test)]
mod tests;
