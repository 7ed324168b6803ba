//! What an attempt came to, and what follows from it: one table, no I/O, no clock.
//!
//! A write is sent again only if it surely had no effect. Whether anything may have been applied is decided here
//! too, so that it is decided once.

use std::time::Duration;

use super::{reply::Envelope, request::Effect};
use crate::{Delivery, ErrorKind};

/// How often and for how long a request is sent again.
///
/// Reads, and writes that are [`Idempotent`](super::Effect::Idempotent), are repeated when there is no connection, no
/// answer or no sense in the answer, on 429, 423 and 5xx. Other writes are repeated only if they surely had no effect:
/// no connection, 429, 423, and once after a renewed token. What Emarsys still computes (202) is asked for again by
/// [`Polling`](super::Polling).
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    attempts_max: u32,
    time_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 5, time_max: Duration::from_secs(300) }
    }
}

impl RetryPolicy {
    /// The most attempts of one request, the first included; default 5. 1 means that nothing is repeated but for a token
    /// that was refused.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// How long after the first attempt another one may begin; default 5 minutes. A 429 asks for a pause of up to a
    /// minute.
    #[must_use]
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.attempts_max > 0
    }

    /// Whether another attempt may follow the `attempt`th, if it begins `elapsed` after the first.
    pub(crate) fn allows_another(&self, attempt: u32, elapsed: Duration) -> bool {
        attempt < self.attempts_max && elapsed <= self.time_max
    }
}

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The reply says that it was done.
    Done,
    /// No connection: nothing was sent.
    NotConnected,
    /// It may have been sent, and no whole answer came.
    NoAnswer,
    /// An answer that makes no sense, or contradicts itself.
    Undecodable,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    Limited,
    /// 423: something else is running that excludes this.
    Locked,
    /// 202 with a reply code, or the code of an export in progress: ask again.
    NotReady,
    /// 5xx, 408: failed, at whatever point.
    Failed,
    /// A reply code, or a status, that says no.
    Refused,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing more.
    Stop,
    /// Send it again after a growing pause.
    Repeat,
    /// Send it again when the request limit allows it.
    Wait,
    /// Renew the token and send it again, once.
    Renew,
}

impl Signal {
    /// Reads a reply. The reply code decides, and the status only where there is none or where it says more.
    pub(crate) fn of(status: u16, envelope: Option<&Envelope>) -> Self {
        let code = envelope.map(|envelope| envelope.code);
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            423 => Self::Locked,
            429 => Self::Limited,
            // Errors of validation that some replies print with status 500.
            500 if matches!(code, Some(3001..=3006 | 9004)) => Self::Refused,
            501 => Self::Refused,
            408 | 500..=599 => Self::Failed,
            _ => match envelope {
                Some(envelope) if envelope.code == 0 => {
                    if (200..300).contains(&status) {
                        Self::Done
                    } else {
                        Self::Undecodable
                    }
                }
                Some(envelope) if envelope.names_successes() => Self::Undecodable,
                Some(_) if status == 202 => Self::NotReady,
                // An export that is in progress.
                Some(envelope) if envelope.code == 4005 => Self::NotReady,
                None if (200..300).contains(&status) => Self::Undecodable,
                Some(_) | None => Self::Refused,
            },
        }
    }

    pub(crate) fn verdict(self, effect: Effect) -> Verdict {
        match (self, effect) {
            (Self::Limited, _) => Verdict::Wait,
            (Self::Unauthorized, _) => Verdict::Renew,
            (Self::NotConnected | Self::Locked, _)
            | (Self::NoAnswer | Self::Undecodable | Self::Failed, Effect::Read | Effect::Idempotent) => {
                Verdict::Repeat
            }
            (Self::NoAnswer | Self::Undecodable | Self::Failed, Effect::Write)
            | (Self::Done | Self::NotReady | Self::Forbidden | Self::Refused, _) => Verdict::Stop,
        }
    }

    pub(crate) fn delivery(self, effect: Effect) -> Delivery {
        match (self, effect) {
            (Self::Unauthorized | Self::Forbidden | Self::Refused, _) => Delivery::Refused,
            (Self::NotConnected | Self::Limited | Self::Locked, _)
            | (
                Self::NoAnswer | Self::Undecodable | Self::NotReady | Self::Failed | Self::Done,
                Effect::Read,
            ) => Delivery::NotSent,
            (
                Self::NoAnswer | Self::Undecodable | Self::NotReady | Self::Failed | Self::Done,
                Effect::Write | Effect::Idempotent,
            ) => Delivery::Unknown,
        }
    }

    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::NotConnected | Self::NoAnswer => ErrorKind::NoAnswer,
            Self::Undecodable | Self::Done => ErrorKind::Undecodable,
            Self::Unauthorized => ErrorKind::Unauthorized,
            Self::Forbidden => ErrorKind::Forbidden,
            Self::Limited => ErrorKind::RateLimited,
            Self::Locked | Self::NotReady | Self::Failed => ErrorKind::Server,
            Self::Refused => ErrorKind::Refused,
        }
    }
}

/// The pause after the `attempt`th attempt: half a second, doubled each time up to half a minute, and of that
/// between a half and all, by `random`.
pub(crate) fn pause(attempt: u32, random: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    let whole = FIRST.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(LONGEST);
    let share = f64::from(random) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(status: u16, body: &str) -> Signal {
        Signal::of(status, Envelope::read(body.as_bytes()).as_ref())
    }

    #[test]
    fn reply_code_decides_and_not_the_status() {
        assert_eq!(signal(200, r#"{"replyCode":0,"data":""}"#), Signal::Done);
        assert_eq!(signal(200, r#"{"replyCode":2008,"data":""}"#), Signal::Refused);
        assert_eq!(signal(400, r#"{"replyCode":2008,"data":""}"#), Signal::Refused);
        assert_eq!(signal(400, r#"{"replyCode":0,"data":""}"#), Signal::Undecodable);
        assert_eq!(signal(202, r#"{"replyCode":10001,"data":""}"#), Signal::NotReady);
        assert_eq!(signal(400, r#"{"replyCode":4005,"data":""}"#), Signal::NotReady);
        assert_eq!(signal(500, r#"{"replyCode":3005,"data":""}"#), Signal::Refused);
        assert_eq!(signal(500, r#"{"replyCode":2011,"data":""}"#), Signal::Failed);
    }

    #[test]
    fn reply_without_an_envelope_is_judged_by_its_status() {
        let gateway = r#"{"message":"no"}"#;
        assert_eq!(signal(200, gateway), Signal::Undecodable);
        assert_eq!(signal(302, ""), Signal::Refused);
        assert_eq!(signal(403, "Forbidden"), Signal::Forbidden);
        assert_eq!(signal(408, gateway), Signal::Failed);
        assert_eq!(signal(413, gateway), Signal::Refused);
        assert_eq!(signal(429, "too many requests"), Signal::Limited);
        assert_eq!(signal(502, "<html>"), Signal::Failed);
    }

    #[test]
    fn refusal_that_names_successes_leaves_a_write_unknown() {
        let signal = signal(400, r#"{"replyCode":2007,"data":{"ids":["700001"]}}"#);
        assert_eq!(signal.delivery(Effect::Write), Delivery::Unknown);
        assert_eq!(signal.verdict(Effect::Write), Verdict::Stop);
    }

    #[test]
    fn write_is_repeated_only_if_it_surely_had_no_effect() {
        let every = [
            (Signal::NotConnected, Verdict::Repeat, Delivery::NotSent),
            (Signal::NoAnswer, Verdict::Stop, Delivery::Unknown),
            (Signal::Undecodable, Verdict::Stop, Delivery::Unknown),
            (Signal::Unauthorized, Verdict::Renew, Delivery::Refused),
            (Signal::Forbidden, Verdict::Stop, Delivery::Refused),
            (Signal::Limited, Verdict::Wait, Delivery::NotSent),
            (Signal::Locked, Verdict::Repeat, Delivery::NotSent),
            (Signal::NotReady, Verdict::Stop, Delivery::Unknown),
            (Signal::Failed, Verdict::Stop, Delivery::Unknown),
            (Signal::Refused, Verdict::Stop, Delivery::Refused),
        ];
        for (signal, verdict, delivery) in every {
            assert_eq!(signal.verdict(Effect::Write), verdict, "{signal:?}");
            assert_eq!(signal.delivery(Effect::Write), delivery, "{signal:?}");
            assert_ne!(signal.delivery(Effect::Read), Delivery::Unknown, "{signal:?}");
        }
    }

    #[test]
    fn pauses_grow_stay_bounded_and_differ() {
        assert_eq!(pause(1, 0), Duration::from_millis(250));
        assert_eq!(pause(1, u32::MAX), Duration::from_millis(500));
        assert_eq!(pause(3, u32::MAX), Duration::from_secs(2));
        assert_eq!(pause(u32::MAX, u32::MAX), Duration::from_secs(30));
    }
}
