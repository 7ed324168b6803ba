//! The one place where a request becomes a response: bytes out, bytes in, no knowledge of Emarsys.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use reqwest::{StatusCode, Url, header::HeaderMap};

use super::request::Method;
use crate::BoxError;

/// The longest reply that is read, in bytes after decompression. The longest known ones (ten thousand contacts with
/// many fields) are a fraction of it.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct HttpRequest {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Duration,
}

pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// No connection was made: nothing was sent.
    NotConnected(BoxError),
    /// The request may have been sent, and no whole answer came back.
    NoAnswer(BoxError),
    /// The answer is longer than [`REPLY_BYTES_MAX`].
    TooLong,
}

#[async_trait]
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// Sends `request` once. It follows no redirect and repeats nothing that may have arrived.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError>;
}

#[derive(Debug)]
pub(crate) struct Reqwest(pub(crate) reqwest::Client);

#[async_trait]
impl Transport for Reqwest {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut outgoing =
            self.0.request(method, request.url).headers(request.headers).timeout(request.timeout);
        if let Some(body) = request.body {
            outgoing = outgoing.body(body);
        }
        let mut response = outgoing.send().await.map_err(failure)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > REPLY_BYTES_MAX {
                return Err(TransportError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse { status, headers, body })
    }
}

/// A query may hold the key of a person, so no error keeps the address it happened at.
fn failure(error: reqwest::Error) -> TransportError {
    let not_connected = error.is_connect() || error.is_builder();
    let error = error.without_url().into();
    if not_connected { TransportError::NotConnected(error) } else { TransportError::NoAnswer(error) }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A transport that answers from a script, and a machine whose clock a test moves.

    use std::{
        collections::VecDeque,
        io::{Read, Write},
        net::TcpListener,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU8, Ordering},
        },
        thread,
        time::{Duration, SystemTime},
    };

    use async_trait::async_trait;
    use reqwest::{
        StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    };
    use tokio::time::Instant;

    use super::{HttpRequest, HttpResponse, Transport, TransportError};
    use crate::{
        Result,
        emarsys::{Client, Credentials},
        host::Host,
    };

    /// When the fake machine's wall clock starts: a round second in 2026.
    pub(crate) const START: u64 = 1_772_000_000;

    /// One scripted answer.
    #[derive(Clone, Debug)]
    pub(crate) enum Answer {
        Reply(u16, Vec<(&'static str, String)>, Vec<u8>),
        NotConnected,
        Lost,
        TooLong,
    }

    /// The value of a header.
    pub(crate) struct Text(String);

    impl From<&str> for Text {
        fn from(text: &str) -> Self {
            Self(text.to_owned())
        }
    }

    impl From<String> for Text {
        fn from(text: String) -> Self {
            Self(text)
        }
    }

    impl From<u64> for Text {
        fn from(number: u64) -> Self {
            Self(number.to_string())
        }
    }

    impl Answer {
        pub(crate) fn reply(status: u16, body: impl AsRef<[u8]>) -> Self {
            Self::Reply(status, Vec::new(), body.as_ref().to_vec())
        }

        pub(crate) fn header(mut self, name: &'static str, value: impl Into<Text>) -> Self {
            if let Self::Reply(_, headers, _) = &mut self {
                headers.push((name, value.into().0));
            }
            self
        }
    }

    /// Answers in the order of the script, and keeps what it was sent.
    #[derive(Debug)]
    pub(crate) struct Script {
        host: Arc<dyn Host>,
        answers: Mutex<VecDeque<Answer>>,
        sent: Mutex<Vec<Sent>>,
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Sent {
        pub(crate) method: &'static str,
        pub(crate) url: String,
        pub(crate) headers: HeaderMap,
        pub(crate) body: String,
        pub(crate) at: Duration,
    }

    impl Script {
        pub(crate) fn new(host: Arc<dyn Host>, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
            Arc::new(Self {
                host,
                answers: Mutex::new(answers.into_iter().collect()),
                sent: Mutex::default(),
            })
        }

        pub(crate) fn sent(&self) -> Vec<Sent> {
            self.sent.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl Transport for Script {
        async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
            self.sent.lock().unwrap().push(Sent {
                method: request.method.as_str(),
                url: request.url.to_string(),
                headers: request.headers,
                body: String::from_utf8(request.body.unwrap_or_default()).unwrap(),
                at: self.host.monotonic(),
            });
            let answer =
                self.answers.lock().unwrap().pop_front().expect("more requests than the script answers");
            match answer {
                Answer::NotConnected => Err(TransportError::NotConnected("refused".into())),
                Answer::Lost => Err(TransportError::NoAnswer("connection reset".into())),
                Answer::TooLong => Err(TransportError::TooLong),
                Answer::Reply(status, headers, body) => Ok(HttpResponse {
                    status: StatusCode::from_u16(status).unwrap(),
                    headers: headers
                        .into_iter()
                        .map(|(name, value)| {
                            (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap())
                        })
                        .collect(),
                    body,
                }),
            }
        }
    }

    /// A WSSE client, which needs no token, and what it is answered and sends.
    pub(crate) fn client(answers: impl IntoIterator<Item = Answer>) -> (Client, Arc<Script>) {
        let host = PausedHost::shared();
        let script = Script::new(host.clone(), answers);
        let client = Client::builder(Credentials::wsse("acme001", "the-secret"))
            .host(host)
            .transport(script.clone())
            .build()
            .unwrap();
        (client, script)
    }

    /// Answers one connection on loopback with these bytes, then closes it.
    pub(crate) fn serve(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).unwrap();
            // The client may hang up on an answer that is too long.
            let _ = connection.write_all(&answer);
        });
        url
    }

    /// A machine on tokio's paused clock: time passes only while every task waits for it.
    #[derive(Debug)]
    pub(crate) struct PausedHost {
        origin: Instant,
        skew: Duration,
        random: AtomicU8,
    }

    impl PausedHost {
        pub(crate) fn shared() -> Arc<dyn Host> {
            Self::ahead_by(Duration::ZERO)
        }

        /// Its wall clock is ahead of the true time.
        pub(crate) fn ahead_by(skew: Duration) -> Arc<dyn Host> {
            crate::watch::install();
            Arc::new(Self { origin: Instant::now(), skew, random: AtomicU8::new(0) })
        }
    }

    #[async_trait]
    impl Host for PausedHost {
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(START) + self.skew + self.origin.elapsed()
        }

        fn monotonic(&self) -> Duration {
            self.origin.elapsed()
        }

        async fn sleep(&self, pause: Duration) {
            tokio::time::sleep(pause).await;
        }

        fn random(&self, bytes: &mut [u8]) -> Result<()> {
            for byte in bytes {
                *byte = self.random.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    /// The `Date` header of a reply made `seconds` after the test began.
    pub(crate) fn date(seconds: u64) -> String {
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{fake::serve, *};

    async fn get(url: impl AsRef<str>) -> Result<HttpResponse, TransportError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let timeout = Duration::from_secs(10);
        let url = Url::parse(url.as_ref()).unwrap();
        Reqwest(http)
            .send(HttpRequest { method: Method::Get, url, headers: HeaderMap::new(), body: None, timeout })
            .await
    }

    #[tokio::test]
    async fn response_is_status_headers_and_bytes() {
        let url = serve(b"HTTP/1.1 429 Too Many\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nslow".to_vec());
        let response = get(url).await.unwrap();
        assert_eq!(response.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers["retry-after"], "5");
        assert_eq!(response.body, b"slow");
    }

    #[tokio::test]
    async fn missing_server_is_known_not_to_have_got_anything() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/?3=ada@shop.test", listener.local_addr().unwrap());
        drop(listener);
        let error = get(url).await.err().unwrap();
        assert!(matches!(error, TransportError::NotConnected(_)), "{error:?}");
        assert!(!format!("{error:?}").contains("ada"), "{error:?}");
    }

    #[tokio::test]
    async fn connection_that_ends_early_is_no_answer() {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"replyCode\""] {
            let url = serve(answer.as_bytes().to_vec()) + "?3=ada@shop.test";
            let error = get(url).await.err().unwrap();
            assert!(matches!(error, TransportError::NoAnswer(_)), "{error:?}");
            assert!(!format!("{error:?}").contains("ada"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn endless_answer_is_not_kept() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(REPLY_BYTES_MAX + 100, b' ');
        let error = get(serve(answer)).await.err().unwrap();
        assert!(matches!(error, TransportError::TooLong), "{error:?}");
    }
}
