//! The tables of a session: what shape their rows have, through which guest they leave, and which have to stop.
//!
//! Guests are swapped here, between two transactions. What flows through is the loop's business.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use walgate_wire::Lsn;

use crate::cdc::session::Session;
use crate::{
    assets::registry::Gate,
    config::Table,
    context::{Changing, Stopped},
    egress::outlet::Outlet,
    error::SessionError,
    policy::{Action, action},
    postgres::{
        SourceError,
        catalog::{Altered, Presence, TableInfo, types_altered},
        replication::stream::RelationChange,
    },
    rows::batch::RowBatch,
    schema_registry::{self, Due, Reason},
    wal_budget::Pressure,
};

/// How often it is looked whether tables are still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Session {
    /// A table's shape is announced: from here on its rows are read by it.
    pub(super) async fn relation(&mut self, change: RelationChange) -> Result<(), SessionError> {
        let relid = change.relation.relid;
        let lsn = change.lsn;
        self.outlets.remove(&relid);
        let Some(table) = self.gateway.table(&change.relation.table_name()).cloned() else {
            self.stream.set_table(relid, None);
            return Ok(());
        };
        let token = table.token.clone();
        let before = self.announced.insert(relid, (change, table));
        let altered =
            before.is_some_and(|(before, _)| before.relation != self.announced[&relid].0.relation);
        let gateway = self.gateway.clone();
        let changing = gateway.changing().await;
        match gateway.stopped(&token) {
            // What was wrong with it may have been altered away.
            Some(Stopped::Failed) if altered => gateway.release(&token),
            Some(_) => {
                self.stream.set_table(relid, None);
                return Ok(());
            }
            None => {}
        }
        if altered && !gateway.assets.offered(&token).same(&gateway.assets.gate(&token)) {
            // A guest that waited for this shape; it is looked at after the transaction.
            self.offers.mark_changed();
        }
        match self.open(&changing, relid, lsn).await {
            Ok(()) => Ok(()),
            Err(error) => self.quarantine(&changing, error).await,
        }
    }

    /// Rows of an announced relation leave, from `lsn` on.
    async fn open(
        &mut self,
        changing: &Changing<'_>,
        relid: u32,
        lsn: Lsn,
    ) -> Result<(), SessionError> {
        let Some((change, table)) = self.announced.get(&relid) else { return Ok(()) };
        let token = &table.token;
        let previous = self.gateway.schemas.latest(token).await?;
        let found = self.catalog.announced(&change.relation, token.clone(), previous.as_ref(), lsn);
        let (input, info) = found.await?;
        // Nothing says where in the stream a type was altered.
        let lsn = match previous.is_some_and(|before| types_altered(&before, &input.schema)) {
            true => self.catalog.later_lsn().await?,
            false => lsn,
        };
        let gate = self.gateway.assets.gate(token);
        let opened = tokio::task::block_in_place(|| Outlet::open(&gate, table, input.clone()));
        let outlet = opened?;
        let has_default = |attnum| info.as_ref().is_none_or(|info: &TableInfo| info.fills(attnum));
        let due = Due { lsn, on_guest_change: table.guest.on_change, has_default };
        let schema = outlet.output().schema.clone();
        let schema =
            schema_registry::register(&self.gateway.schemas, changing, schema, due).await?;
        self.gateway.status.table(token).flows(schema.guest.as_ref());
        // Where it was announced all before it is told; otherwise rows that are gathered leave through the new outlet.
        self.stream.retype(&Arc::new(input));
        self.outlets.insert(relid, outlet.with_schema(schema));
        self.relids.insert(token.clone(), relid);
        Ok(())
    }

    /// An altered composite type is not announced as a relation is: its rows no longer fit what is known of it. Rows that
    /// left before have the old shape in every copy.
    pub(super) async fn read_types_again(
        &mut self,
        batch: &mut RowBatch,
        outlet: Outlet,
    ) -> Result<Outlet, SessionError> {
        let relid = batch.table.relid;
        let Some((change, table)) = self.announced.get(&relid) else { return Ok(outlet) };
        self.catalog.forget_types();
        let RelationChange { relation, lsn } = change;
        let token = table.token.clone();
        let previous = self.gateway.schemas.latest(&token).await?;
        let (input, _) = self.catalog.announced(relation, token, previous.as_ref(), *lsn).await?;
        let gate = self.gateway.assets.gate(&table.token);
        let again = tokio::task::block_in_place(|| Outlet::open(&gate, table, input.clone()))?;
        let (gateway, lsn) = (&self.gateway, self.catalog.later_lsn().await?);
        let changing = gateway.changing().await;
        let reason = Altered::Composite.in_words();
        schema_registry::reseed(&gateway.schemas, &table.token, lsn, reason).await?;
        // What the type is made of now is stored as well.
        let due = Due { lsn, on_guest_change: table.guest.on_change, has_default: |_| true };
        let mut schema = again.output().schema.clone();
        schema = match gateway.stopped(&table.token) {
            None => schema_registry::register(&gateway.schemas, &changing, schema, due).await?,
            // By a snapshot: that stays so.
            Some(_) => outlet.output().schema.clone(),
        };
        batch.table = Arc::new(input);
        self.stream.retype(&batch.table);
        Ok(again.with_schema(schema))
    }

    /// Between two transactions: what the folder of guests offered since the last time becomes live.
    pub(super) async fn adopt_offers(&mut self) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        for table in &gateway.config.tables {
            let offered = gateway.assets.offered(&table.token);
            if !offered.same(&gateway.assets.gate(&table.token)) {
                self.adopt(table, offered).await?;
            }
        }
        Ok(())
    }

    async fn adopt(&mut self, table: &Table, gate: Gate) -> Result<(), SessionError> {
        let (gateway, token) = (self.gateway.clone(), &table.token);
        let changing = gateway.changing().await;
        if let Gate::Shut(reason) = &gate {
            self.stop(&changing, table, Stopped::Failed, &Reason::from(&**reason)).await?;
            gateway.assets.set_gate(token, gate);
            return Ok(());
        }
        let before = gateway.assets.gate(token);
        if matches!(before, Gate::Guest(_)) && self.waits(table, &gate).await? {
            return Ok(());
        }
        gateway.assets.set_gate(token, gate);
        if gateway.stopped(token) == Some(Stopped::Shed) {
            return Ok(());
        }
        let adopted = self.release(&changing, table).await;
        if adopted.is_err() {
            gateway.assets.set_gate(token, before);
        }
        adopted
    }

    /// Whether the guest is made for a shape of the table that its rows do not have yet: the one before serves until
    /// they do.
    async fn waits(&mut self, table: &Table, gate: &Gate) -> Result<bool, SessionError> {
        let announced: Vec<u32> = self.relations_of(table).collect();
        for relid in announced.into_iter().filter(|relid| self.outlets.contains_key(relid)) {
            let RelationChange { relation, lsn } = &self.announced[&relid].0;
            let found = self.catalog.announced(relation, table.token.clone(), None, *lsn).await;
            // What is wrong with the table itself shows when it is opened.
            let Ok((input, _)) = found else { return Ok(false) };
            let fits = tokio::task::block_in_place(|| Outlet::open(gate, table, input));
            if let Err(error) = fits {
                let waits = format!(
                    "the new guest waits for rows of the shape that the table has now: {error}"
                );
                tracing::warn!(table = %table.token, "{waits}; the one before stays in use");
                self.gateway.status.table(&table.token).set_file_problem(Some(&waits));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A table that was stopped flows again. If that cannot be stored it is stopped as before: the session ends, and the
    /// next one tries again.
    async fn release(
        &mut self,
        changing: &Changing<'_>,
        table: &Table,
    ) -> Result<(), SessionError> {
        let (gateway, token) = (self.gateway.clone(), &table.token);
        let why = gateway.stopped(token);
        gateway.release(token);
        let released = self.open_all(changing, table).await;
        if let (Err(_), Some(why)) = (&released, why) {
            gateway.stop(token, why);
        }
        released
    }

    pub(super) async fn open_all(
        &mut self,
        changing: &Changing<'_>,
        table: &Table,
    ) -> Result<(), SessionError> {
        let token = &table.token;
        // Above the watermark of every snapshot that began with the guest before.
        let lsn = self.catalog.later_lsn().await?;
        tracing::info!(table = %token, %lsn, "from here on it leaves through what is live now");
        let announced: Vec<u32> = self.relations_of(table).collect();
        let mut opened = Ok(());
        if announced.is_empty() {
            let catalog = &mut self.catalog;
            opened =
                schema_registry::publish(&self.gateway, changing, catalog, table).await.map(|_| ());
        }
        for relid in announced {
            opened = opened.and(self.open(changing, relid, lsn).await);
        }
        match opened {
            Ok(()) => Ok(()),
            Err(error) => self.quarantine(changing, error).await,
        }
    }

    /// Nothing in the stream says that a table was dropped, created again or taken out of the publication.
    pub(super) async fn look_at_tables(&mut self) -> Result<(), SessionError> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        // Consumers do not wait for the answers.
        self.state_progress().await?;
        let gateway = self.gateway.clone();
        let tables = &gateway.config.tables;
        let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
        let present = self.catalog.present(&names).await?;
        for table in tables.iter().filter(|t| gateway.stopped(&t.token) != Some(Stopped::Shed)) {
            match present.iter().find(|found| found.name == table.name) {
                None => self.is_absent(table, "the table does not exist any more").await?,
                Some(found) if found.unpublished => {
                    let publication = &gateway.config.postgres.publication;
                    self.is_absent(table, &found.remedy(publication)).await?;
                }
                Some(found) => self.is_there(table, found.relid).await?,
            }
        }
        self.follow_alterations(&present).await
    }

    /// Of a session that begins: tables that are what they were when their schema was stored.
    pub(super) async fn know(&mut self, present: &[Presence]) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        let tables = present.iter().filter_map(|found| Some((found, gateway.table(&found.name)?)));
        let tables: Vec<_> = tables.collect();
        let tokens = tables.iter().map(|(_, table)| &table.token);
        let latest = gateway.schemas.latest_of(tokens).await?;
        for ((found, table), latest) in tables.into_iter().zip(latest) {
            if latest.and_then(|schema| schema.relid) == Some(found.relid) {
                self.relids.insert(table.token.clone(), found.relid);
            }
        }
        Ok(())
    }

    async fn is_absent(&mut self, table: &Table, reason: &str) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        let changing = gateway.changing().await;
        match gateway.stopped(&table.token) {
            Some(_) => Ok(()),
            None => self.stop(&changing, table, Stopped::Absent, &reason.into()).await,
        }
    }

    async fn is_there(&mut self, table: &Table, relid: u32) -> Result<(), SessionError> {
        let (gateway, token) = (self.gateway.clone(), &table.token);
        let changing = gateway.changing().await;
        match gateway.stopped(token) {
            Some(Stopped::Absent) => {}
            Some(Stopped::Busy) if !self.catalog.is_locked(&table.name).await? => {}
            Some(_) => return Ok(()),
            None if self.relids.insert(token.clone(), relid) == Some(relid) => return Ok(()),
            None => {
                let latest = self.gateway.schemas.latest(token).await?;
                if latest.and_then(|schema| schema.relid).is_none_or(|known| known == relid) {
                    return Ok(());
                }
            }
        }
        self.announced.retain(|&announced, (_, t)| t.token != *token || announced == relid);
        self.release(&changing, table).await
    }

    fn relations_of(&self, table: &Table) -> impl Iterator<Item = u32> {
        let of_table = self.announced.iter().filter(move |(_, (_, t))| t.token == table.token);
        of_table.map(|(&relid, _)| relid)
    }

    /// Suspends the table that the error is about; an error that is not about one table stays an error.
    pub(super) async fn quarantine_or(&mut self, error: SessionError) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        self.quarantine(&gateway.changing().await, error).await
    }

    async fn quarantine(
        &mut self,
        changing: &Changing<'_>,
        error: SessionError,
    ) -> Result<(), SessionError> {
        let why = match &error {
            SessionError::Source(SourceError::Locked { .. }) => Stopped::Busy,
            error if action(error) == Action::Quarantine => Stopped::Failed,
            _ => return Err(error),
        };
        let tables = &self.gateway.config.tables;
        let is_named = |name: &str| tables.iter().find(|table| table.name.to_string() == name);
        let Some(table) = error.table().and_then(is_named).cloned() else { return Err(error) };
        self.stop(changing, &table, why, &Reason::from(&error)).await
    }

    /// Between two transactions: tables that may be shed stop while the slot holds back too much WAL.
    pub(super) async fn give_way(&mut self) -> Result<(), SessionError> {
        let pressure = *self.pressure.borrow_and_update();
        let gateway = self.gateway.clone();
        let changing = gateway.changing().await;
        for table in gateway.config.tables.iter().filter(|table| table.shed) {
            match (pressure, gateway.stopped(&table.token)) {
                (Pressure::Shedding, None) => {
                    let reason = "the slot holds back more WAL than [postgres] wal_budget allows, and the table may be shed";
                    self.stop(&changing, table, Stopped::Shed, &reason.into()).await?;
                }
                (Pressure::Calm, Some(Stopped::Shed)) => {
                    self.release(&changing, table).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The table does not flow from here on; the others go on.
    async fn stop(
        &mut self,
        changing: &Changing<'_>,
        table: &Table,
        why: Stopped,
        reason: &Reason,
    ) -> Result<(), SessionError> {
        schema_registry::stop(&self.gateway, changing, table, why, reason).await?;
        let relations: Vec<u32> = self.relations_of(table).collect();
        for relid in relations {
            self.outlets.remove(&relid);
            self.stream.set_table(relid, None);
        }
        Ok(())
    }
}
