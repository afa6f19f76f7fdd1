//! Carries out what the state machine of the tables asks for: the catalog, KV, outlets, the stream.
//!
//! Which effect follows from which event is `tables`' business. Rows are `session`'s business.

use std::{collections::VecDeque, sync::Arc};

use walgate_wire::{Lsn, Token};

use super::session::Session;
use crate::{
    config::ConfiguredTable,
    context::TablesLock,
    egress::outlet::{Gate, Outlet},
    error::SessionError,
    policy::{Action, action},
    postgres::{
        PostgresError,
        catalog::{SilentDdl, TableInfo, types_altered},
        replication::stream::RelationChange,
    },
    rows::batch::RowBatch,
    schema_registry::{self, Due},
    tables::{SuspendCause, SuspendReason, Suspension, TableEffect, TableEvent},
};

/// What an effect led to.
type Events = Vec<TableEvent<Gate>>;

impl Session {
    /// Carries out everything that follows from the event, while no other task changes tables.
    pub(super) async fn handle(&mut self, event: TableEvent<Gate>) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        let lock = gateway.lock_tables().await;
        let mut effects = VecDeque::from(gateway.on_table_event(event));
        while let Some(effect) = effects.pop_front() {
            for event in Box::pin(self.perform(&lock, effect)).await? {
                effects.extend(gateway.on_table_event(event));
            }
        }
        Ok(())
    }

    async fn perform(
        &mut self,
        lock: &TablesLock<'_>,
        effect: TableEffect<Gate>,
    ) -> Result<Events, SessionError> {
        match effect {
            TableEffect::CloseOutlet { relid } => self.close_outlet(relid),
            TableEffect::OpenOutlet { token, change, gate } => {
                let lsn = change.lsn;
                let opened = self.open_outlet(lock, &token, change, &gate, lsn, false).await;
                return self.opened_or_failed(opened, gate).map(|event| vec![event]);
            }
            TableEffect::ReopenOutlets { token, changes, gate, types_reread } => {
                return self.reopen_outlets(lock, &token, changes, gate, types_reread).await;
            }
            TableEffect::Suspend { token, suspension, gate } => {
                let Some(table) = self.gateway.table_by_token(&token).cloned() else {
                    return Ok(vec![]);
                };
                schema_registry::store_suspension(&self.gateway, lock, &table, &suspension).await?;
                return Ok(vec![TableEvent::SuspensionStored { token, suspension, gate }]);
            }
            TableEffect::Reseed { token, lsn, reason, seen } => {
                schema_registry::reseed(&self.gateway.schemas, &token, lsn, reason).await?;
                return Ok(vec![TableEvent::ReseedStored { token, seen }]);
            }
            TableEffect::CheckGate { token, changes, gate } => {
                let fits = self.check_gate(&token, changes, &gate).await;
                return Ok(vec![TableEvent::GateChecked { token, gate, fits }]);
            }
            TableEffect::CheckLock { token, relid } => {
                let Some(table) = self.gateway.table_by_token(&token) else { return Ok(vec![]) };
                let is_locked = self.catalog.is_locked(&table.name).await?;
                return Ok(vec![TableEvent::LockChecked { token, relid, is_locked }]);
            }
            TableEffect::ReadStoredRelation { token, relid } => {
                let latest = self.gateway.schemas.latest(&token).await?;
                let stored = latest.and_then(|schema| schema.relid);
                return Ok(vec![TableEvent::StoredRelationRead { token, relid, stored }]);
            }
            TableEffect::ForgetTypes => self.catalog.forget_types(),
            TableEffect::RecheckOffers => self.offers.mark_changed(),
        }
        Ok(vec![])
    }

    fn close_outlet(&mut self, relid: u32) {
        self.outlets.remove(&relid);
        self.stream.set_table(relid, None);
    }

    /// Registers the announced shape behind the gate. From here on rows of the relation are
    /// published.
    async fn open_outlet(
        &mut self,
        lock: &TablesLock<'_>,
        token: &Token,
        change: RelationChange,
        gate: &Gate,
        lsn: Lsn,
        types_reread: bool,
    ) -> Result<TableEvent<Gate>, SessionError> {
        let gateway = self.gateway.clone();
        let table = configured(&gateway, token)?;
        let previous = gateway.schemas.latest(token).await?;
        let relation = &change.relation;
        let found = self.catalog.resolve_relation(relation, token.clone(), previous.as_ref(), lsn);
        let (input, info) = found.await?;
        // Nothing in the stream shows where a type was altered.
        let lsn = match previous.is_some_and(|before| types_altered(&before, &input.schema)) {
            true => self.catalog.later_lsn().await?,
            false => lsn,
        };
        let outlet = tokio::task::block_in_place(|| Outlet::open(gate, table, input.clone()))?;
        let has_default =
            |attnum| info.as_ref().is_none_or(|info: &TableInfo| info.may_backfill(attnum));
        let due = Due { lsn, on_guest_change: table.guest.on_change, has_default };
        let schema = outlet.output().schema.clone();
        let schema = schema_registry::register(&gateway.schemas, lock, schema, due).await?;
        gateway.status.table(token).flows(schema.guest.as_ref());
        // After a Relation message nothing of the relation is buffered. Otherwise buffered rows go
        // through the new outlet.
        self.stream.replace_table_version(&Arc::new(input));
        self.outlets.insert(change.relation.relid, outlet.with_schema(schema));
        let (token, gate) = (token.clone(), gate.clone());
        Ok(TableEvent::OutletOpened { token, change, gate, types_reread })
    }

    async fn reopen_outlets(
        &mut self,
        lock: &TablesLock<'_>,
        token: &Token,
        changes: Vec<RelationChange>,
        gate: Gate,
        types_reread: bool,
    ) -> Result<Events, SessionError> {
        let gateway = self.gateway.clone();
        // Above the watermark of every snapshot that began with the gate before.
        let lsn = self.catalog.later_lsn().await?;
        tracing::info!(table = %token, %lsn, ?gate, "table reopened with the active guest");
        if changes.is_empty() {
            let table = configured(&gateway, token)?;
            let catalog = &mut self.catalog;
            let registered =
                schema_registry::register_current(&gateway, lock, catalog, table, &gate).await;
            let (token, live) = (token.clone(), gate.clone());
            let event = TableEvent::SchemaRegistered { token, gate: live, types_reread };
            return self.opened_or_failed(registered.map(|_| event), gate).map(|event| vec![event]);
        }
        let mut events = vec![];
        for change in changes {
            let opened = self.open_outlet(lock, token, change, &gate, lsn, types_reread).await;
            events.push(self.opened_or_failed(opened, gate.clone())?);
            if let Some(TableEvent::TableFailed { .. }) = events.last() {
                break;
            }
        }
        Ok(events)
    }

    /// A failure that is one table's becomes an event of that table.
    fn opened_or_failed(
        &self,
        opened: Result<TableEvent<Gate>, SessionError>,
        gate: Gate,
    ) -> Result<TableEvent<Gate>, SessionError> {
        opened.or_else(|error| self.failure_of_table(error, Some(gate)))
    }

    /// Whether the new guest fits the shapes that rows have now. The guest before serves until it
    /// does.
    async fn check_gate(
        &mut self,
        token: &Token,
        changes: Vec<RelationChange>,
        gate: &Gate,
    ) -> bool {
        let gateway = self.gateway.clone();
        let Ok(table) = configured(&gateway, token) else { return true };
        for RelationChange { relation, lsn } in changes {
            let found = self.catalog.resolve_relation(&relation, token.clone(), None, lsn).await;
            // What is wrong with the table itself shows when its outlet is opened.
            let Ok((input, _)) = found else { return true };
            let fits = tokio::task::block_in_place(|| Outlet::open(gate, table, input));
            if let Err(error) = fits {
                let waits = format!(
                    "the new guest waits for rows of the shape that the table has now: {error}"
                );
                tracing::warn!(table = %token, "{waits}; the one before stays in use");
                gateway.status.table(token).set_file_problem(Some(&waits));
                return false;
            }
        }
        true
    }

    /// Suspends the table that the error is about. An error about more than one table is returned.
    pub(super) async fn suspend_or_return(
        &mut self,
        error: SessionError,
    ) -> Result<(), SessionError> {
        let event = self.failure_of_table(error, None)?;
        self.handle(event).await
    }

    fn failure_of_table(
        &self,
        error: SessionError,
        gate: Option<Gate>,
    ) -> Result<TableEvent<Gate>, SessionError> {
        let cause = match &error {
            SessionError::Source(PostgresError::Locked { .. }) => SuspendCause::Locked,
            error if action(error) == Action::Quarantine => SuspendCause::Failed,
            _ => return Err(error),
        };
        let tables = &self.gateway.config.tables;
        let is_named = |name: &str| tables.iter().find(|table| table.name.to_string() == name);
        let Some(table) = error.table().and_then(is_named) else { return Err(error) };
        let suspension = Suspension { cause, reason: SuspendReason::from(&error) };
        Ok(TableEvent::TableFailed { token: table.token.clone(), suspension, gate })
    }

    /// An altered composite type is not announced as a relation is: values stop fitting the known
    /// type. Copies of rows that were published before have the old shape.
    pub(super) async fn reread_types_of_batch(
        &mut self,
        batch: &mut RowBatch,
        outlet: Outlet,
    ) -> Result<Outlet, SessionError> {
        let gateway = self.gateway.clone();
        let token = batch.table.token.clone();
        let Some(RelationChange { relation, lsn }) = gateway.announced(&token, batch.table.relid)
        else {
            return Ok(outlet);
        };
        let table = configured(&gateway, &token)?;
        self.catalog.forget_types();
        let previous = gateway.schemas.latest(&token).await?;
        let found = self.catalog.resolve_relation(&relation, token.clone(), previous.as_ref(), lsn);
        let (input, _) = found.await?;
        let gate = gateway.gate(&token);
        let again = tokio::task::block_in_place(|| Outlet::open(&gate, table, input.clone()))?;
        let lsn = self.catalog.later_lsn().await?;
        let lock = gateway.lock_tables().await;
        let reason = SilentDdl::Composite.describe();
        schema_registry::reseed(&gateway.schemas, &token, lsn, reason).await?;
        // The schema also holds what the type is made of now.
        let due = Due { lsn, on_guest_change: table.guest.on_change, has_default: |_| true };
        let schema = match gateway.suspension(&token) {
            None => {
                let schema = again.output().schema.clone();
                schema_registry::register(&gateway.schemas, &lock, schema, due).await?
            }
            // A snapshot suspended it meanwhile: that stays so.
            Some(_) => outlet.output().schema.clone(),
        };
        batch.table = Arc::new(input);
        self.stream.replace_table_version(&batch.table);
        Ok(again.with_schema(schema))
    }
}

/// The machine knows configured tables only.
fn configured<'a>(
    gateway: &'a crate::context::Gateway,
    token: &Token,
) -> Result<&'a ConfiguredTable, SessionError> {
    let missing = || SessionError::Task(format!("table {token} is not configured"));
    gateway.table_by_token(token).ok_or_else(missing)
}
