//! External events (Emarsys API: External events).

use super::client::Client;

/// The calls about external events; made by [`Client::events`].
#[derive(Clone, Copy, Debug)]
pub struct Events<'a>(pub(crate) &'a Client);
