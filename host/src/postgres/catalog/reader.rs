//! A connection that describes tables: as they are now, or as a Relation message announces them.
//!
//! What follows from a description is not known here.

use std::collections::HashMap;

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::{Lsn, Schema, TableName, Token};

use super::{
    Presence, TableInfo, TypeCache,
    connect::{SqlClient, open_session},
    ddl_probe::{DdlFingerprint, load_fingerprints},
    resolve::{resolve_relation, version_of_catalog},
    schema_diff::types_altered,
    tables::{load_presence, load_row_filter, load_table},
    wal_position::{assign_xid, read_insert_lsn},
};
use crate::{
    config::PostgresConfig,
    postgres::{PostgresError, quote, replication::pgoutput::Relation},
    rows::TableVersion,
};

/// For callers that let the session idle in its transaction while another side catches up.
pub(in crate::postgres) const NO_IDLE_TIMEOUT: &str = "SET idle_in_transaction_session_timeout = 0";

/// One SQL session. It caches types until [`Catalog::forget_types`].
pub struct Catalog {
    client: SqlClient,
    types: TypeCache,
    publication: String,
}

impl Catalog {
    pub async fn connect(postgres: &PostgresConfig) -> Result<Catalog, PostgresError> {
        let client = open_session(postgres).await?;
        Ok(Catalog {
            client,
            types: TypeCache::default(),
            publication: postgres.publication.clone(),
        })
    }

    pub(in crate::postgres) fn client(&self) -> &Client {
        &self.client
    }

    /// Later calls read types from the catalog again.
    pub fn forget_types(&mut self) {
        self.types.clear();
    }

    /// The version that a Relation message announces, and the table as it is now. Never waits for a
    /// lock: an ALTER that waits for an old reader must not delay the stream.
    pub async fn resolve_relation(
        &mut self,
        relation: &Relation,
        token: Token,
        previous: Option<&Schema>,
        lsn: Lsn,
    ) -> Result<(TableVersion, Option<TableInfo>), PostgresError> {
        let info = load_table(&self.client, &self.publication, &relation.table_name()).await?;
        let Catalog { client, types, .. } = self;
        let table = info.as_ref();
        let again = token.clone();
        let version =
            resolve_relation(client, types, relation, token, table, previous, lsn).await?;
        if !previous.is_some_and(|previous| types_altered(previous, &version.schema)) {
            return Ok((version, info));
        }
        // Either the schema or the cache is older than the alteration.
        types.clear();
        let version =
            resolve_relation(client, types, relation, again, table, previous, lsn).await?;
        Ok((version, info))
    }

    /// Which of these tables exist. Never waits for a lock.
    pub async fn load_presence(&self, names: &[TableName]) -> Result<Vec<Presence>, PostgresError> {
        load_presence(&self.client, &self.publication, names).await
    }

    /// The DDL fingerprints of these tables. Never waits for a lock.
    pub async fn load_fingerprints(
        &self,
        relids: &[u32],
    ) -> Result<HashMap<u32, DdlFingerprint>, PostgresError> {
        load_fingerprints(&self.client, relids).await
    }

    /// Whether a reader would have to wait: another session holds an ACCESS EXCLUSIVE lock on the
    /// table or on one of its indexes.
    pub async fn is_locked(&self, name: &TableName) -> Result<bool, PostgresError> {
        let table = quote::table(name);
        // If the probe fails, the server rolls back all of it.
        let probe =
            format!("SET lock_timeout = '10ms'; SELECT FROM {table} LIMIT 0; SET lock_timeout = 0");
        match self.client.batch_execute(&probe).await {
            Ok(()) => Ok(false),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(true),
            Err(error) => Err(PostgresError::query("see whether the table is locked")(error)),
        }
    }

    /// The table as it is now. Never waits for a lock.
    pub async fn load_current(
        &mut self,
        name: &TableName,
        token: Token,
        lsn: Lsn,
    ) -> Result<(TableVersion, TableInfo), PostgresError> {
        let info = load_table(&self.client, &self.publication, name).await?;
        let info = info.ok_or_else(|| PostgresError::Table {
            table: name.to_string(),
            what: "the table does not exist any more; take it out of [[tables]] or create it"
                .to_owned(),
        })?;
        let version = version_of_catalog(&self.client, &mut self.types, &info, token, lsn).await?;
        Ok((version, info))
    }

    /// The table as it is now without its partitions, if it exists. Never waits for a lock.
    pub async fn load_table(&self, name: &TableName) -> Result<Option<TableInfo>, PostgresError> {
        load_table(&self.client, &self.publication, name).await
    }

    /// The version that a snapshot of the described table would have.
    pub async fn build_version(
        &mut self,
        info: &TableInfo,
        token: Token,
        lsn: Lsn,
    ) -> Result<TableVersion, PostgresError> {
        version_of_catalog(&self.client, &mut self.types, info, token, lsn).await
    }

    /// The publication's row filter of the table, as SQL. May wait for an ALTER of the table.
    pub async fn load_row_filter(&self, relid: u32) -> Result<Option<String>, PostgresError> {
        load_row_filter(&self.client, &self.publication, relid).await
    }

    /// Begins a transaction and exports its snapshot. Other connections can import the snapshot
    /// while this one lives. The transaction has no idle timeout.
    pub async fn export_snapshot(&self) -> Result<String, PostgresError> {
        let failed = PostgresError::query("export a snapshot");
        let begin = format!("{NO_IDLE_TIMEOUT}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        self.client.batch_execute(&begin).await.map_err(&failed)?;
        let row = self.client.query_one("SELECT pg_export_snapshot()", &[]).await;
        Ok(row.map_err(&failed)?.get(0))
    }

    /// A position above every watermark that was taken before.
    pub async fn later_lsn(&self) -> Result<Lsn, PostgresError> {
        // Rolling back a transaction that has an id writes a record.
        assign_xid(&self.client).await?;
        read_insert_lsn(&self.client).await
    }
}
