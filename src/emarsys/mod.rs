//! A typed client for Emarsys.
