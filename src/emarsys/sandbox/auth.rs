//! Who is calling: WSSE for v2, OAuth 2 client credentials for v3.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, NaiveDateTime};
use serde_json::json;
use sha1::{Digest, Sha1};

use super::{
    endpoint::{Api, Query},
    exchange::{Request, Response},
    reply::Failure,
    vienna,
};

/// How far `Created` may be from the server's time.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The credentials of the sandbox, made up and the same for every one.
pub(super) const CLIENT_ID: &str = "sandbox-client";
pub(super) const CLIENT_SECRET: &str = "sandbox-client-secret";
pub(super) const USERNAME: &str = "sandbox001";
pub(super) const WSSE_SECRET: &str = "sandbox-wsse-secret";

/// The tokens given out, and the nonces seen.
#[derive(Debug)]
pub(super) struct Auth {
    token_lifetime: Duration,
    refuse_replays: bool,
    /// Token → when it expires; never, if no clock can show that time.
    tokens: HashMap<String, Option<SystemTime>>,
    tokens_issued: u64,
    nonces: HashSet<(String, String)>,
}

/// A caller: the API user whose limit it uses, if that is known, and whether it may pass.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) user: &'static str,
    pub(super) verdict: Result<(), Failure>,
}

/// The window of callers that nobody knows.
const NOBODY: &str = "";

impl Auth {
    pub(super) fn new(token_lifetime: Duration, refuse_replays: bool) -> Self {
        Self {
            token_lifetime,
            refuse_replays,
            tokens: HashMap::new(),
            tokens_issued: 0,
            nonces: HashSet::new(),
        }
    }

    pub(super) fn caller(&mut self, now: SystemTime, api: Api, request: &Request) -> Caller {
        let wsse = request.header_value("X-WSSE").or_else(|| request.header_value("WSSE"));
        match api {
            Api::Wsse => self.wsse(now, wsse.unwrap_or_default()),
            Api::Relational if wsse.is_some() => self.wsse(now, wsse.unwrap_or_default()),
            Api::Relational | Api::Bearer => {
                self.bearer(now, request.header_value("Authorization").unwrap_or_default())
            }
            Api::Outside => Caller { user: NOBODY, verdict: Ok(()) },
        }
    }

    /// Ends the life of every token given out so far.
    pub(super) fn expire_tokens(&mut self) {
        for expiry in self.tokens.values_mut() {
            *expiry = Some(SystemTime::UNIX_EPOCH);
        }
    }

    fn bearer(&self, now: SystemTime, header: &str) -> Caller {
        let known = header.strip_prefix("Bearer ").and_then(|token| self.tokens.get(token.trim()));
        let verdict = if known.is_some_and(|expiry| expiry.is_none_or(|expiry| now < expiry)) {
            Ok(())
        } else {
            Err(Failure::unauthorized("Unauthorized"))
        };
        Caller { user: if known.is_some() { CLIENT_ID } else { NOBODY }, verdict }
    }

    fn wsse(&mut self, now: SystemTime, header: &str) -> Caller {
        let token = WsseToken::parse(header);
        let user = if token.username == USERNAME { USERNAME } else { NOBODY };
        let verdict = if user == NOBODY || token.digest != digest(token.nonce, token.created, WSSE_SECRET) {
            Err(Failure::unauthorized("Unauthorized"))
        } else if created_at(token.created).is_none_or(|created| distance(now, created) > SKEW_MAX) {
            Err(Failure::unauthorized("Unauthorized Time frame is invalid"))
        } else if self.refuse_replays
            && !self.nonces.insert((token.nonce.to_owned(), token.created.to_owned()))
        {
            Err(Failure::unauthorized("Unauthorized"))
        } else {
            Ok(())
        };
        Caller { user, verdict }
    }

    /// Answers a token request.
    pub(super) fn issue(&mut self, now: SystemTime, request: &Request) -> Response {
        let answer =
            |status, body: serde_json::Value| Response::new(status, "application/json", body.to_string());
        let expected = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
        let sent = request.header_value("Authorization").and_then(|header| header.strip_prefix("Basic "));
        if sent.map(str::trim) != Some(expected.as_str()) {
            return answer(401, json!({ "error": "invalid_client" }));
        }
        let form = Query::parse(&String::from_utf8_lossy(&request.body));
        match form.get("grant_type") {
            Some("client_credentials") => {}
            Some(_) => return answer(400, json!({ "error": "unsupported_grant_type" })),
            None => return answer(400, json!({ "error": "invalid_request" })),
        }
        self.tokens_issued += 1;
        let token = format!("sandbox-token-{}", self.tokens_issued);
        self.tokens.insert(token.clone(), now.checked_add(self.token_lifetime));
        answer(
            200,
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": self.token_lifetime.as_secs() }),
        )
    }
}

/// The parts of a WSSE header; those that are missing are empty.
struct WsseToken<'a> {
    username: &'a str,
    digest: &'a str,
    nonce: &'a str,
    created: &'a str,
}

impl<'a> WsseToken<'a> {
    fn parse(header: &'a str) -> Self {
        let parts = header.trim().strip_prefix("UsernameToken").unwrap_or_default();
        let part = |name: &str| {
            parts
                .split(',')
                .filter_map(|part| part.trim().split_once('='))
                .find(|(known, _)| *known == name)
                .and_then(|(_, value)| value.strip_prefix('"')?.strip_suffix('"'))
                .unwrap_or_default()
        };
        Self {
            username: part("Username"),
            digest: part("PasswordDigest"),
            nonce: part("Nonce"),
            created: part("Created"),
        }
    }
}

/// The digest is the base64 of the hexadecimal *text* of the hash, not of its bytes.
fn digest(nonce: &str, created: &str, secret: &str) -> String {
    let hash = Sha1::new().chain_update(nonce).chain_update(created).chain_update(secret).finalize();
    STANDARD.encode(hex::encode(hash))
}

/// ISO 8601 with `Z`, `+00:00`, `+0000` or no zone, which means Vienna; with or without fractions of a second.
fn created_at(text: &str) -> Option<SystemTime> {
    if let Ok(local) = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f") {
        return Some(vienna::to_utc(local).and_utc().into());
    }
    let zoned = text.strip_suffix('Z').map(|plain| format!("{plain}+0000"));
    let zoned = zoned.as_deref().unwrap_or(text);
    let moment = DateTime::parse_from_str(zoned, "%Y-%m-%dT%H:%M:%S%.f%z").ok()?;
    Some(moment.into())
}

fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|before| before.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_base64_of_the_hexadecimal_text() {
        for (nonce, created, secret, expected) in [
            (
                "a87ff679a2f3e71d9181a67b7542122c",
                "2016-07-20T12:34:56",
                "secret",
                "YzI3MWVhMDgwNjMzZDdhMjE1MjhkMzM3NTk1NTQwYjRjNmM4ZGYzMA==",
            ),
            (
                "0F1E2D3C4B5A69788796A5B4C3D2E1F0",
                "2026-03-01T09:30:00Z",
                "pässwörd",
                "ZGI2OTc3ZDIxMzU4NzJiYmZmNjlhODUwOGQwY2VmODFlMGYwN2FmZg==",
            ),
        ] {
            assert_eq!(digest(nonce, created, secret), expected);
        }
    }

    #[test]
    fn created_is_understood_in_every_form_in_use() {
        let expected = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_164_645));
        for text in [
            "2024-01-02T03:04:05Z",
            "2024-01-02T03:04:05.000Z",
            "2024-01-02T03:04:05+00:00",
            "2024-01-02T03:04:05+0000",
            "2024-01-02T04:04:05+01:00",
            "2024-01-02T04:04:05",
        ] {
            assert_eq!(created_at(text), expected, "{text}");
        }
        assert_eq!(created_at("yesterday"), None);
    }
}
