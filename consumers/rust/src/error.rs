//! Errors of a consumer, by kind. What is retried is decided in `Consumer::run`.

use walgate_wire::{ControlError, DecodeError, FrameError};

use crate::NatsConnectError;

/// An error of a sink: a full disk, a type that the target does not accept.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct SinkError {
    what: String,
    reason: String,
    transient: bool,
}

impl SinkError {
    /// A permanent error. `what`: the action that failed, with the table or file.
    pub fn new(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        SinkError { what: what.into(), reason: reason.to_string(), transient: false }
    }

    /// An error that may pass: the target is unreachable or full. The consumer opens the sink again
    /// until that succeeds.
    pub fn transient(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        SinkError { transient: true, ..SinkError::new(what, reason) }
    }

    pub(crate) fn is_transient(&self) -> bool {
        self.transient
    }
}

/// See [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting that cannot work.
    Configuration,
    /// NATS does not answer, or refuses a request.
    Nats,
    /// A message violates the protocol, or belongs to a later version of it.
    Protocol,
    /// The sink cannot be written.
    Sink,
}

/// Why a consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting of the builder cannot work.
    #[error("{0}")]
    Configuration(String),
    /// There is no connection to NATS.
    #[error(transparent)]
    Connect(#[from] NatsConnectError),
    /// A request to NATS failed.
    #[error("NATS: {what}: {reason}")]
    Nats {
        /// The request, with the stream or subject.
        what: String,
        /// The client's or server's error.
        reason: String,
    },
    /// A stored message cannot be read.
    #[error("message {sequence} on {subject} cannot be read: {reason}")]
    Protocol {
        /// The message's subject.
        subject: String,
        /// Its sequence in the stream, or its KV revision.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The sink reported a permanent error.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Error {
    /// The kind of this error, for exit codes and statistics.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Configuration(_) | Error::Connect(NatsConnectError::Setting { .. }) => {
                ErrorKind::Configuration
            }
            Error::Connect(_) => ErrorKind::Nats,
            Error::Nats { .. } => ErrorKind::Nats,
            Error::Protocol { .. } => ErrorKind::Protocol,
            Error::Sink(_) => ErrorKind::Sink,
        }
    }

    pub(crate) fn nats(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Error::Nats { what: what.into(), reason: reason.to_string() }
    }
}

/// Why a message cannot be read. The caller adds subject and sequence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableMessage {
    #[error(transparent)]
    Body(#[from] DecodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The message names an asset that no longer exists.
    #[error("{0} is lost")]
    Lost(String),
    #[error("{0}")]
    Other(String),
}
