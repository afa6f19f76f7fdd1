//! What every configured table is at this moment, and what follows from an event.
//!
//! Pure: events in, effects out. Nothing is stored or published here, and there is no clock.
//! `cdc::effects` interprets the effects. State changes only with an event that confirms what an
//! effect did. A failed effect leaves the state as it was, and the next session tries again.
//! Neither rows nor guests are known here, only whether two gates are the same.

mod event;
mod fingerprint;
mod table;

use std::collections::BTreeMap;

use walgate_wire::Token;

pub use event::{SuspendCause, SuspendReason, Suspension, TableEffect, TableEvent};
pub use fingerprint::SeenFingerprint;
use table::TableState;

use crate::postgres::replication::stream::RelationChange;

/// How a table's rows may be published, as far as its state depends on it.
pub trait TableGate: Clone + Default {
    /// Whether nothing changes for the table.
    fn is_same(&self, other: &Self) -> bool;
    fn has_guest(&self) -> bool;
    /// Why no row may be published; `None` if rows may be.
    fn shut_reason(&self) -> Option<&str>;
}

/// The state of all configured tables.
#[derive(Clone, Debug)]
pub struct Tables<G> {
    by_token: BTreeMap<Token, TableState<G>>,
}

impl<G: TableGate> Tables<G> {
    /// `tables`: the tokens of the configured tables, and whether a table may be shed.
    pub fn new(tables: impl IntoIterator<Item = (Token, bool)>) -> Self {
        let state = |(token, may_shed): (Token, bool)| {
            let state = TableState::new(token.clone(), may_shed);
            (token, state)
        };
        Tables { by_token: tables.into_iter().map(state).collect() }
    }

    /// What has to be done about the event, in this order.
    pub fn on(&mut self, event: TableEvent<G>) -> Vec<TableEffect<G>> {
        match event {
            TableEvent::GatewayStarted => self.each(TableState::adopt_offered_gate),
            TableEvent::SessionStarted => self.each(TableState::forget_session),
            TableEvent::TransactionEnded => self.each(TableState::compare_gates),
            TableEvent::ProgressPublished { lsn } => self.each(|t| t.reread_types(lsn)),
            TableEvent::PressureChanged(pressure) => self.each(|t| t.follow_pressure(pressure)),
            event => match event.token().and_then(|token| self.by_token.get_mut(token)) {
                Some(table) => table.on(event),
                None => vec![],
            },
        }
    }

    fn each(
        &mut self,
        on: impl Fn(&mut TableState<G>) -> Vec<TableEffect<G>>,
    ) -> Vec<TableEffect<G>> {
        self.by_token.values_mut().flat_map(on).collect()
    }

    /// How the table's rows are published now, in changes and in snapshots that begin now.
    pub fn gate(&self, token: &Token) -> G {
        self.by_token.get(token).map(|table| table.gate.clone()).unwrap_or_default()
    }

    /// What the folder of guests offered last for the table.
    pub fn offered_gate(&self, token: &Token) -> G {
        self.by_token.get(token).map(|table| table.offered_gate.clone()).unwrap_or_default()
    }

    /// Why the table is suspended; `None` while it streams.
    pub fn suspension(&self, token: &Token) -> Option<&Suspension> {
        self.by_token.get(token)?.suspension.as_ref()
    }

    /// Whether rows of this relation may be published as rows of the table.
    pub fn is_open(&self, token: &Token, relid: u32) -> bool {
        self.by_token.get(token).is_some_and(|table| table.is_open(relid))
    }

    /// The last announcement of a relation that carries the table's rows.
    pub fn announced(&self, token: &Token, relid: u32) -> Option<&RelationChange> {
        Some(&self.by_token.get(token)?.announced.get(&relid)?.change)
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
