//! Maps every error of the data path to one of three actions, in one exhaustive function.

use crate::{
    egress::compress::BodyError, error::SessionError, jetstream::streams::JetStreamError,
    postgres::ErrorKind,
};

/// The three things that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect again after a while; the state of both sides is read afresh.
    Retry,
    /// Suspend one table; the others continue.
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
        SessionError::JetStream(JetStreamError::TooOld(_)) => Action::Halt,
        SessionError::JetStream(
            JetStreamError::Connect(_) | JetStreamError::Setup { .. } | JetStreamError::Read { .. },
        ) => Action::Retry,
        SessionError::Kv(_) | SessionError::Chain(_) | SessionError::PublishFailed(_) => {
            Action::Retry
        }
        SessionError::Body(BodyError::Row(_) | BodyError::Compress { .. }) => Action::Quarantine,
        SessionError::Outlet(_) | SessionError::Guest(_) => Action::Quarantine,
        SessionError::Suspended { passes: true, .. } => Action::Retry,
        SessionError::Suspended { passes: false, .. } => Action::Quarantine,
        SessionError::Replaced(_) | SessionError::Task(_) => Action::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::outlet::OutletError, jetstream::chain::ChainError, postgres::PostgresError,
    };
    use walgate_wire::{Lsn, Token};

    #[test]
    fn every_error_maps_to_retry_quarantine_or_halt() {
        let of_table = || PostgresError::Table { table: "public.t".into(), what: "odd".into() };
        let lost = PostgresError::SlotLost {
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
            (PostgresError::Closed.into(), Action::Retry),
            (PostgresError::Locked { table: "public.t".into() }.into(), Action::Retry),
            (ChainError::Full("maximum bytes exceeded".into()).into(), Action::Retry),
            (
                JetStreamError::Setup { what: "stream CDC".into(), reason: "?".into() }.into(),
                Action::Retry,
            ),
            (of_table().into(), Action::Quarantine),
            (shut.into(), Action::Quarantine),
            (suspended(false), Action::Quarantine),
            (suspended(true), Action::Retry),
            (lost.into(), Action::Halt),
            (JetStreamError::TooOld("2.9.0".into()).into(), Action::Halt),
        ];
        for (error, expected) in expected {
            assert_eq!(action(&error), expected, "{error}");
        }
    }
}
