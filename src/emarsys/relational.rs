//! Relational data (Emarsys API: Relational data).

use super::client::Client;

/// The calls about relational data; made by [`Client::relational_data`].
#[derive(Clone, Copy, Debug)]
pub struct RelationalData<'a>(pub(crate) &'a Client);
