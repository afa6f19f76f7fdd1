//! What can go wrong in a consumer, by kind. It does not decide what is retried: see `run`.

use walgate_wire::{ControlError, DecodeError, FrameError};

use crate::NatsConnectError;

/// A sink's own trouble: a full disk, a type that the target does not accept.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct SinkError {
    what: String,
    reason: String,
    passes: bool,
}

impl SinkError {
    /// `what` was being done, and names the table or file.
    pub fn new(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        SinkError { what: what.into(), reason: reason.to_string(), passes: false }
    }

    /// The place is away, or full, and may come back: it is opened again until it does.
    pub fn passing(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        SinkError { passes: true, ..SinkError::new(what, reason) }
    }

    pub(crate) fn passes(&self) -> bool {
        self.passes
    }
}

/// See [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The builder was given something that cannot work.
    Configuration,
    /// NATS does not answer, or refuses.
    Nats,
    /// A message is not what the protocol says, or of a later protocol.
    Protocol,
    /// The local copy cannot be written.
    Sink,
}

/// Why a consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Configuration(String),
    #[error(transparent)]
    Access(#[from] NatsConnectError),
    #[error("NATS: {what}: {reason}")]
    Nats { what: String, reason: String },
    #[error("message {sequence} on {subject} cannot be read: {reason}")]
    Protocol { subject: String, sequence: u64, reason: String },
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Configuration(_) | Error::Access(NatsConnectError::Setting { .. }) => {
                ErrorKind::Configuration
            }
            Error::Access(_) => ErrorKind::Nats,
            Error::Nats { .. } => ErrorKind::Nats,
            Error::Protocol { .. } => ErrorKind::Protocol,
            Error::Sink(_) => ErrorKind::Sink,
        }
    }

    pub(crate) fn nats(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Error::Nats { what: what.into(), reason: reason.to_string() }
    }
}

/// Why one message cannot be read; the place is added by whoever knows it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Body(#[from] DecodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Control(#[from] ControlError),
    /// What it names will not come any more.
    #[error("{0} is lost")]
    Lost(String),
    #[error("{0}")]
    Other(String),
}
