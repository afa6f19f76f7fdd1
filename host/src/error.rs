//! Anything that ends a session of the data path, and which table it is about.
//!
//! What is done about an error is `policy`'s business.

use walgate_wire::Token;

use crate::{
    egress::{compress::BodyError, outlet::OutletError},
    encode::{PackError, RowError},
    guest::GuestFailure,
    jetstream::{
        chain::ChainError, kv::KvError, publisher::PublishFailed, streams::JetStreamError,
    },
    postgres::PostgresError,
};

/// Anything that ends a session of the data path.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Source(#[from] PostgresError),
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    PublishFailed(#[from] PublishFailed),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    /// Of a snapshot whose guest is not the table's any more.
    #[error("{0}; the table has another guest by now")]
    Replaced(Box<SessionError>),
    /// Nothing can be taken of it. `passes`: it comes back without an operator.
    #[error("{table} is suspended: {reason}")]
    Suspended { table: Token, reason: String, passes: bool },
    #[error("a background task of the session ended: {0}")]
    Task(String),
}

impl SessionError {
    /// A value that does not fit what was known of its type.
    pub fn is_altered_type(&self) -> bool {
        matches!(self, SessionError::Body(BodyError::Row(error)) if error.source == PackError::Altered)
    }

    /// The text for consumers. What a guest reports about rows stays with the operator.
    pub fn told(&self) -> String {
        match self {
            SessionError::Guest(failure) => failure.public_message(),
            SessionError::Replaced(error) => {
                format!("{}; the table has another guest by now", error.told())
            }
            other => other.to_string(),
        }
    }

    /// The table that the error is about, if it is about one, as one writes it.
    pub fn table(&self) -> Option<&str> {
        match self {
            SessionError::Source(error) => error.table(),
            SessionError::Body(BodyError::Row(error)) => Some(&error.table),
            SessionError::Body(BodyError::Compress { table, .. }) => Some(table),
            SessionError::Outlet(error) => Some(error.table()),
            SessionError::Guest(failure) => Some(failure.table()),
            _ => None,
        }
    }
}

impl From<RowError> for SessionError {
    fn from(error: RowError) -> Self {
        SessionError::Body(error.into())
    }
}
