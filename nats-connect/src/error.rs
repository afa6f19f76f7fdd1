//! Why there is no connection to NATS. Every message names the setting or the server, and the
//! remedy where there is one.

use std::{error::Error, io, path::Path};

use async_nats::{ConnectError, rustls};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NatsConnectError {
    /// A setting cannot work. No server was contacted.
    #[error("nats.{setting}: {problem}")]
    Setting {
        /// The field of [`NatsOptions`](crate::NatsOptions), without the prefix `nats.`.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The server refuses the connection, or its certificate is not accepted. Another attempt
    /// with the same settings fails, too.
    #[error("NATS at {server} {problem}")]
    Refused {
        /// Host and port of the first server.
        server: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// No server answers. A later attempt may succeed.
    #[error("NATS at {server} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port of the first server.
        server: String,
        /// The client's error with all its causes.
        reason: String,
    },
}

impl NatsConnectError {
    /// Whether another attempt with the same settings may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, NatsConnectError::Unreachable { .. })
    }
}

pub(crate) fn reject_setting<T>(
    setting: &'static str,
    problem: impl Into<String>,
) -> Result<T, NatsConnectError> {
    Err(NatsConnectError::Setting { setting, problem: problem.into() })
}

pub(crate) fn reject_unreadable<T>(
    setting: &'static str,
    file: &Path,
    error: &io::Error,
) -> Result<T, NatsConnectError> {
    reject_setting(setting, format!("{} cannot be read: {error}", file.display()))
}

/// The error's message, followed by those of its causes that it does not repeat.
pub(crate) fn describe_with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text
}

/// The TLS error among the causes, if there is one.
pub(crate) fn find_tls_error(error: &ConnectError) -> Option<&rustls::Error> {
    let mut source = Error::source(error);
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref()) {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
