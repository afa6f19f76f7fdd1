//! What to do about an error: one exhaustive function, from every error of the data path to one of three.

use walgate_wire::Token;

use crate::{
    broker::BrokerError,
    guest::GuestFailure,
    kv::KvError,
    outlet::OutletError,
    pack::{PackError, RowError},
    publish::{Broken, PublishFailed},
    source::{ErrorKind, SourceError},
    transform::TransformError,
};

/// Anything that ends a session of the data path.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Publish(#[from] Broken),
    #[error(transparent)]
    PublishFailed(#[from] PublishFailed),
    #[error(transparent)]
    Transform(#[from] TransformError),
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
        matches!(self, SessionError::Transform(TransformError::Row(error)) if error.source == PackError::Altered)
    }

    /// As consumers are told of it: what a guest says of rows stays with those who run the gateway.
    pub fn told(&self) -> String {
        match self {
            SessionError::Guest(failure) => failure.told(),
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
            SessionError::Transform(TransformError::Row(error)) => Some(&error.table),
            SessionError::Transform(TransformError::Compress { table, .. }) => Some(table),
            SessionError::Outlet(error) => Some(error.table()),
            SessionError::Guest(failure) => Some(failure.table()),
            _ => None,
        }
    }
}

impl From<RowError> for SessionError {
    fn from(error: RowError) -> Self {
        SessionError::Transform(error.into())
    }
}

/// The three things that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect again after a while; the state of both sides is read afresh.
    Retry,
    /// Suspend one table; the others go on.
    Quarantine,
    /// Stop the process: only an operator can help.
    Halt,
}

pub fn action(error: &SessionError) -> Action {
    match error {
        SessionError::Source(error) => match error.kind() {
            ErrorKind::Retry => Action::Retry,
            ErrorKind::TableOnly => Action::Quarantine,
            ErrorKind::Fatal => Action::Halt,
        },
        SessionError::Broker(BrokerError::TooOld(_)) => Action::Halt,
        SessionError::Broker(
            BrokerError::Access(_) | BrokerError::Setup { .. } | BrokerError::Read { .. },
        ) => Action::Retry,
        SessionError::Kv(_) | SessionError::Publish(_) | SessionError::PublishFailed(_) => {
            Action::Retry
        }
        SessionError::Transform(TransformError::Row(_) | TransformError::Compress { .. }) => {
            Action::Quarantine
        }
        SessionError::Outlet(_) | SessionError::Guest(_) => Action::Quarantine,
        SessionError::Suspended { passes: true, .. } => Action::Retry,
        SessionError::Suspended { passes: false, .. } => Action::Quarantine,
        SessionError::Replaced(_) | SessionError::Task(_) => Action::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_wire::Lsn;

    #[test]
    fn what_passes_is_tried_again_what_is_one_tables_stops_it_and_the_rest_is_for_people() {
        let of_table = || SourceError::Table { table: "public.t".into(), what: "odd".into() };
        let lost = SourceError::SlotLost {
            slot: "walgate".into(),
            reason: "its WAL was removed".into(),
            confirmed: Lsn(1),
        };
        let shut = OutletError::Shut { table: "public.t".into(), reason: "no guest".into() };
        let suspended = |passes| SessionError::Suspended {
            table: Token::of_alias("t"),
            reason: "no guest".into(),
            passes,
        };
        let expected: [(SessionError, Action); 10] = [
            (SourceError::Closed.into(), Action::Retry),
            (SourceError::Locked { table: "public.t".into() }.into(), Action::Retry),
            (Broken::Full("maximum bytes exceeded".into()).into(), Action::Retry),
            (
                BrokerError::Setup { what: "stream CDC".into(), reason: "?".into() }.into(),
                Action::Retry,
            ),
            (of_table().into(), Action::Quarantine),
            (shut.into(), Action::Quarantine),
            (suspended(false), Action::Quarantine),
            (suspended(true), Action::Retry),
            (lost.into(), Action::Halt),
            (BrokerError::TooOld("2.9.0".into()).into(), Action::Halt),
        ];
        for (error, expected) in expected {
            assert_eq!(action(&error), expected, "{error}");
        }
    }
}
