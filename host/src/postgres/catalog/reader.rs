//! A connection that answers what tables look like: now, or as a Relation message says.

use std::collections::HashMap;

use tokio_postgres::{Client, error::SqlState};
use walgate_wire::{Lsn, Schema, TableName, Token};

use crate::{
    config::PostgresConfig,
    postgres::{
        PostgresError, quote,
        replication::pgoutput::Relation,
        snapshot::export::{current_xid, insert_lsn},
    },
};
use crate::{
    postgres::catalog::{
        Presence, SqlClient, TableInfo, Traces, TypeCache, load_present, load_table, load_traces,
        open, resolve_relation, types_altered, version_of_catalog,
    },
    rows::TableVersion,
};

/// Types are cached for its life.
pub struct Catalog {
    client: SqlClient,
    types: TypeCache,
    publication: String,
}

impl Catalog {
    pub async fn connect(postgres: &PostgresConfig) -> Result<Catalog, PostgresError> {
        let client = open(postgres).await?;
        Ok(Catalog {
            client,
            types: TypeCache::default(),
            publication: postgres.publication.clone(),
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Types are read anew from here on.
    pub fn forget_types(&mut self) {
        self.types.forget();
    }

    /// What a Relation message announces, and what the catalog says of the table now. Waits for nobody: an ALTER
    /// that waits for an old reader must not hold up the stream.
    pub async fn announced(
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
        // Either the schema is older than the alteration, or what is cached.
        types.forget();
        let version =
            resolve_relation(client, types, relation, again, table, previous, lsn).await?;
        Ok((version, info))
    }

    /// Which of these tables there are. Waits for nobody.
    pub async fn present(&self, names: &[TableName]) -> Result<Vec<Presence>, PostgresError> {
        load_present(&self.client, &self.publication, names).await
    }

    /// What DDL has left at these tables. Waits for nobody.
    pub async fn traces(&self, relids: &[u32]) -> Result<HashMap<u32, Traces>, PostgresError> {
        load_traces(&self.client, relids).await
    }

    /// Whether one would have to wait to read the table, or to plan that: somebody has it, or an index of it, for himself.
    pub async fn is_locked(&self, name: &TableName) -> Result<bool, PostgresError> {
        let table = quote::table(name);
        // Undone as a whole where it fails.
        let probe =
            format!("SET lock_timeout = '10ms'; SELECT FROM {table} LIMIT 0; SET lock_timeout = 0");
        match self.client.batch_execute(&probe).await {
            Ok(()) => Ok(false),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(true),
            Err(error) => Err(PostgresError::query("see whether the table is locked")(error)),
        }
    }

    /// The table as it is now. Waits for nobody.
    pub async fn current(
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

    /// A position above every watermark that was taken before.
    pub async fn later_lsn(&self) -> Result<Lsn, PostgresError> {
        // Rolling back a transaction that has an id writes a record.
        current_xid(&self.client).await?;
        insert_lsn(&self.client).await
    }
}
