//! The settings of a client, and their check.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use reqwest::Url;

use super::{
    auth::{Auth, Credentials},
    client::Client,
    limiter::Limiter,
    request::{Root, Version},
    retry::RetryPolicy,
    transport::{Reqwest, Transport},
};
use crate::{
    Error, Result,
    host::{Host, SystemHost},
};

const BASE_URL: &str = "https://api.emarsys.net";
const TOKEN_URL: &str = "https://auth.emarsys.net/oauth2/token";

/// What all clones of a client share.
pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) host: Arc<dyn Host>,
    pub(super) auth: Auth,
    /// Scheme, host and perhaps a path, without a slash at its end.
    pub(super) base: String,
    pub(super) version: Version,
    pub(super) limiter: Limiter,
    pub(super) retry: RetryPolicy,
    pub(super) timeout: Duration,
}

impl Shared {
    /// The address of a path, which must not lead out of its root.
    pub(super) fn url(&self, root: Root, path: &str) -> Result<Url> {
        let root = match root {
            Root::Core => format!("{}/api/{}/", self.base, self.version.segment()),
            Root::RelationalData => format!("{}/api/rds/v1/", self.base),
        };
        let url = Url::parse(&format!("{root}{}", path.trim_start_matches('/')));
        url.ok()
            .filter(|url| url.as_str().starts_with(&root))
            .ok_or_else(|| Error::config("the path of the request does not stay below the base URL"))
    }
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
    /// In place of HTTP.
    transport: Option<Arc<dyn Transport>>,
}

impl ClientBuilder {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            base_url: None,
            token_url: None,
            timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            http: None,
            limiter: Limiter::new(),
            host: None,
            transport: None,
        }
    }

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

    /// The HTTP client to use, for a proxy, certificates or a user agent of one's own. It should follow no redirects:
    /// they would carry the credentials along. Its own time-outs hold beside [`timeout`](Self::timeout).
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

    /// Hands every request to a sandbox of this process instead of sending it, without a socket. Client and sandbox
    /// should have the same [`host`](Self::host); with a [`TestHost`](crate::host::TestHost) no pause takes any time.
    ///
    /// ```
    /// use reverse_etl::{
    ///     emarsys::{Client, Credentials, sandbox::Sandbox},
    ///     host::TestHost,
    /// };
    ///
    /// # fn main() -> reverse_etl::Result<()> {
    /// let host = TestHost::shared();
    /// let sandbox = Sandbox::builder().host(host.clone()).build();
    /// let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
    /// let client = Client::builder(credentials).host(host).in_process(&sandbox).build()?;
    /// # let _ = client;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "sandbox")]
    pub fn in_process(self, sandbox: &super::sandbox::Sandbox) -> Self {
        self.network(sandbox.clone())
    }

    /// Hands every request to a network of this process, behind which there is a sandbox: [`in_process`](Self::in_process)
    /// with losses, delays and whatever else a [`Network`](super::sandbox::Network) may do to requests and answers.
    #[cfg(feature = "sandbox")]
    pub fn network(mut self, network: impl super::sandbox::Network + 'static) -> Self {
        self.transport = Some(Arc::new(super::sandbox::InProcess(network)));
        // Nobody is to think that it talks to the real one.
        self.base_url.get_or_insert_with(|| "https://in-process.invalid".to_owned());
        self
    }

    /// In place of HTTP.
    #[cfg(test)]
    pub(crate) fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Checks everything, and sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if an address, a credential, the timeout or the retry policy cannot be used, or if the
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
        if ["/api", "/api/v2", "/api/v3"].iter().any(|end| base_text.ends_with(end)) {
            return Err(Error::config(
                "the base URL must end before `/api`: the client adds `/api/v2` or `/api/v3`",
            ));
        }
        let token = match (self.token_url, &self.base_url) {
            (Some(url), _) => address("token URL", &url)?,
            (None, Some(_)) => address("token URL", &format!("{base_text}/oauth2/token"))?,
            (None, None) => address("token URL", TOKEN_URL)?,
        };
        let version = self.credentials.version();
        let transport: Arc<dyn Transport> = match (self.transport, self.http) {
            (Some(transport), _) => transport,
            (None, Some(http)) => Arc::new(Reqwest(http)),
            (None, None) => Arc::new(Reqwest(http_client([&base, &token], self.timeout)?)),
        };
        let shared = Shared {
            transport,
            host: self.host.unwrap_or_else(SystemHost::shared),
            auth: Auth::new(self.credentials, token),
            base: base_text,
            version,
            limiter: self.limiter,
            retry: self.retry,
            timeout: self.timeout,
        };
        Ok(Client { shared: Arc::new(shared), deadline: None, at_most_once: false })
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
    if url.host_str() == Some("sandbox.invalid") {
        return Err(wrong(
            "is that of a sandbox without a server: hand the sandbox over with `in_process` instead",
        ));
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
    #[cfg(feature = "rustls")]
    {
        http = http.tls_backend_rustls();
    }
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    if addresses.iter().any(|url| url.scheme() == "https") {
        return Err(Error::config(
            "https needs TLS: switch on the feature `rustls` or `native-tls` of reverse-etl, or hand in an HTTP client \
             of your own with `ClientBuilder::http`",
        ));
    }
    if addresses.iter().any(|url| url.scheme() == "http") {
        // In clear text to this machine, and not through a proxy to another one.
        http = http.no_proxy();
    }
    http.build().map_err(|error| Error::config("the HTTP client cannot be made").with_source(error))
}
