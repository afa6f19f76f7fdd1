//! Connections to NATS: addresses, credentials, TLS, and the delays between attempts.
//!
//! The gateway, the command line and the consumers all connect through this crate. It does not
//! know which messages travel over a connection. Secrets appear neither in errors nor in `Debug`.
#![warn(missing_docs)]

mod backoff;
mod connect;
mod error;
mod identity;
mod options;
#[cfg(test)]
mod tests;

pub use backoff::{Backoff, add_jitter};
pub use connect::NatsConnector;
pub use error::NatsConnectError;
pub use options::NatsOptions;
