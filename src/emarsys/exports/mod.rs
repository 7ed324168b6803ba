//! Exports (Emarsys API: Exports).

use super::client::Client;

/// The calls about exports; made by [`Client::exports`].
#[derive(Clone, Copy, Debug)]
pub struct Exports<'a>(pub(crate) &'a Client);
