//! Combined segments (Emarsys API: Segments).

use super::client::Client;

/// The calls about combined segments; made by [`Client::combined_segments`].
#[derive(Clone, Copy, Debug)]
pub struct Combined<'a>(pub(crate) &'a Client);
