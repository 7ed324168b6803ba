//! Contact sources (Emarsys API: Contact sources).

use super::client::Client;

/// The calls about contact sources; made by [`Client::sources`].
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a>(pub(crate) &'a Client);
