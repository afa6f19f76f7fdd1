//! Looks at the catalog for what the stream does not mention: tables that were dropped, replaced or
//! unpublished, and DDL that rewrites rows.
//!
//! What follows from a look is `tables`' business. What DDL leaves in the catalog is
//! `postgres::catalog`'s business.

use std::time::{Duration, Instant};

use super::session::Session;
use crate::{error::SessionError, postgres::catalog::Presence, tables::TableEvent};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Session {
    /// The first look of a session: what was altered since the last one, and which tables are still
    /// the relations that their stored schemas name.
    pub async fn look_first(&mut self) -> Result<(), SessionError> {
        self.handle(TableEvent::SessionStarted).await?;
        let gateway = self.gateway.clone();
        let tables = &gateway.config.tables;
        let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
        let present = self.catalog.load_presence(&names).await?;
        self.confirm_relations(&present).await?;
        self.compare_fingerprints(&present).await
    }

    async fn confirm_relations(&mut self, present: &[Presence]) -> Result<(), SessionError> {
        let gateway = self.gateway.clone();
        let tables = present.iter().filter_map(|found| Some((found, gateway.table(&found.name)?)));
        let tables: Vec<_> = tables.collect();
        let tokens = tables.iter().map(|(_, table)| &table.token);
        let latest = gateway.schemas.latest_of(tokens).await?;
        for ((found, table), latest) in tables.into_iter().zip(latest) {
            if latest.and_then(|schema| schema.relid) == Some(found.relid) {
                let (token, relid) = (table.token.clone(), found.relid);
                self.handle(TableEvent::RelationConfirmed { token, relid }).await?;
            }
        }
        Ok(())
    }

    /// Nothing in the stream mentions that a table was dropped, created again, unpublished or
    /// rewritten.
    pub(super) async fn look_at_catalog(&mut self) -> Result<(), SessionError> {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = Instant::now();
        // Consumers do not wait for the answers.
        self.state_progress().await?;
        let gateway = self.gateway.clone();
        let tables = &gateway.config.tables;
        let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
        let present = self.catalog.load_presence(&names).await?;
        for table in tables {
            let token = table.token.clone();
            let absent = |reason| TableEvent::TableAbsent { token: token.clone(), reason };
            let event = match present.iter().find(|found| found.name == table.name) {
                None => absent("the table does not exist any more".to_owned()),
                Some(found) if found.unpublished => {
                    absent(found.publication_remedy(&gateway.config.postgres.publication))
                }
                Some(found) => TableEvent::TablePresent { token, relid: found.relid },
            };
            self.handle(event).await?;
        }
        self.compare_fingerprints(&present).await?;
        let lsn = self.stated.0;
        self.handle(TableEvent::ProgressPublished { lsn }).await
    }

    async fn compare_fingerprints(&mut self, present: &[Presence]) -> Result<(), SessionError> {
        let relids: Vec<u32> = present.iter().map(|found| found.relid).collect();
        let mut fingerprints = self.catalog.load_fingerprints(&relids).await?;
        let lsn = self.catalog.later_lsn().await?;
        let gateway = self.gateway.clone();
        for found in present {
            let relid = found.relid;
            let (Some(table), Some(fingerprint)) =
                (gateway.table(&found.name), fingerprints.remove(&relid))
            else {
                continue;
            };
            let token = table.token.clone();
            let event = TableEvent::FingerprintRead { token, relid, fingerprint, lsn };
            self.handle(event).await?;
        }
        Ok(())
    }
}
