//! Segments (Emarsys API: Segments).

use super::client::Client;

/// The calls about segments; made by [`Client::segments`].
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a>(pub(crate) &'a Client);
