//! A typed client for Emarsys.

#[cfg(feature = "sandbox")]
pub mod sandbox;
