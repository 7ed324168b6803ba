//! How a sandbox is set up.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Sandbox, Shared,
    account::{Account, Options},
    server::Server,
    switches::Switches,
};
use crate::{
    Result,
    host::{Host, SystemHost},
};

/// Sets up a [`Sandbox`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SandboxBuilder {
    port: u16,
    host: Arc<dyn Host>,
    options: Options,
}

impl Default for SandboxBuilder {
    fn default() -> Self {
        let options = Options {
            switches: Switches::default(),
            rate_limit: 1_000,
            token_lifetime: Duration::from_secs(3_600),
            field_slots: 377,
            bodies_kept: true,
        };
        Self { port: 0, host: SystemHost::shared(), options }
    }
}

impl SandboxBuilder {
    /// The port on 127.0.0.1. Default 0, any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where the time comes from. Default the system.
    pub fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = host;
        self
    }

    /// Requests a minute for each API user; the client of v3 and the user of v2 are two. Default 1,000.
    pub fn rate_limit(mut self, requests: u64) -> Self {
        self.options.rate_limit = requests;
        self
    }

    /// How long a token is good. Default one hour; whole seconds, as the reply cannot say more.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.options.token_lifetime = lifetime;
        self
    }

    /// How many custom fields there is room for, beside the quota of each type. Default 377.
    pub fn field_slots(mut self, slots: usize) -> Self {
        self.options.field_slots = slots;
        self
    }

    /// The answers to the open questions about the API.
    pub fn switches(mut self, switches: Switches) -> Self {
        self.options.switches = switches;
        self
    }

    /// Keeps no bodies, so that millions of rows can be sent: [`Sandbox::journal`] stays empty, the counts do not.
    pub fn without_journal(mut self) -> Self {
        self.options.bodies_kept = false;
        self
    }

    /// Starts the server on the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the port cannot be had, [`ErrorKind::Config`](crate::ErrorKind::Config)
    /// outside a tokio runtime.
    pub async fn start(self) -> Result<Sandbox> {
        let port = self.port;
        let mut sandbox = self.build();
        let server = Server::start(port, Arc::clone(&sandbox.shared)).await?;
        sandbox.server = Some(Arc::new(server));
        Ok(sandbox)
    }

    /// A sandbox without a server, for whoever calls [`Sandbox::handle`].
    pub fn build(self) -> Sandbox {
        let account = Mutex::new(Account::new(self.options));
        let shared = Arc::new(Shared { host: self.host, account });
        Sandbox { shared, server: None }
    }
}
