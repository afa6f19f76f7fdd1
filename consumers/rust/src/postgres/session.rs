//! The connection to the target database: the state stored there, and its transactions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_postgres::Client;
use walgate_wire::{Epoch, Lsn, Position, Schema, Token};

use super::{
    ddl::{self, TargetColumn, TargetTable},
    error::postgres_error,
    reshape::try_alter,
    statements::PostgresStatements,
};
use crate::{Checkpoint, MigrationStep, SinkError, StoredState, TableRecord};

const SETTINGS: &str = "
    SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex';
    SET synchronous_commit = off; SET client_min_messages = warning; SET lock_timeout = 0;
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
";

const STATE_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS public._walgate_tables (
        token text PRIMARY KEY, name text NOT NULL, record text NOT NULL
    );
    CREATE TABLE IF NOT EXISTS public._walgate_position (
        id int PRIMARY KEY CHECK (id = 1), epoch int8 NOT NULL, lsn text NOT NULL,
        ordinal int8 NOT NULL, seq int8 NOT NULL, verified_seq int8 NOT NULL,
        stream_created int8 NOT NULL, at int8 NOT NULL
    );
";

/// The advisory lock that every consumer takes; the number itself is arbitrary.
const ADVISORY_LOCK: i64 = 0x57_616c_6761_7465;
/// Attempts to take the lock. The server may notice late that a consumer was killed.
const LOCK_TRIES: u32 = 30;
const LOCK_RETRY: Duration = Duration::from_secs(1);

/// The table that receives a snapshot until it is complete.
pub(super) struct LoadingTable {
    pub table: TargetTable,
    pub schema: Arc<Schema>,
    pub columns: Vec<TargetColumn>,
}

/// The connection to the target database, with what is prepared and loading on it.
pub(super) struct TargetSession {
    pub(super) client: Client,
    in_transaction: bool,
    pub(super) statements: HashMap<Token, PostgresStatements>,
    pub(super) loading: Option<LoadingTable>,
}

impl std::fmt::Debug for TargetSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetSession")
    }
}

impl TargetSession {
    pub fn new(client: Client) -> TargetSession {
        TargetSession { client, in_transaction: false, statements: HashMap::new(), loading: None }
    }

    /// `was_held`: this process held the lock before.
    pub async fn prepare_database(&mut self, was_held: bool) -> Result<(), SinkError> {
        self.execute(SETTINGS).await?;
        self.take_lock(was_held).await?;
        self.execute(STATE_TABLES).await?;
        self.drop_loading_table().await
    }

    async fn take_lock(&self, was_held: bool) -> Result<(), SinkError> {
        for _ in 0..LOCK_TRIES {
            let row =
                self.client.query_one("SELECT pg_try_advisory_lock($1)", &[&ADVISORY_LOCK]).await;
            if row.map_err(postgres_error("locking the target database"))?.get::<_, bool>(0) {
                return Ok(());
            }
            tracing::info!("another consumer is writing to this database, waiting");
            tokio::time::sleep(LOCK_RETRY).await;
        }
        let reason = "another consumer is writing to it; stop it or choose another database";
        let error = if was_held { SinkError::transient } else { SinkError::new };
        Err(error("the target database", reason))
    }

    pub async fn drop_loading_table(&mut self) -> Result<(), SinkError> {
        self.loading = None;
        let select =
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE c.relname = $1 AND c.relkind = 'r'";
        let rows = self.client.query(select, &[&ddl::LOADING]).await;
        for row in rows.map_err(postgres_error("looking for unfinished loads"))? {
            let schema: String = row.get(0);
            self.execute(&format!(
                "DROP TABLE {}.{}",
                ddl::quote_identifier(&schema),
                ddl::LOADING
            ))
            .await?;
        }
        Ok(())
    }

    pub async fn read_state(&self) -> Result<StoredState, SinkError> {
        let what = "reading _walgate_tables";
        let rows = self
            .client
            .query("SELECT record FROM public._walgate_tables ORDER BY token", &[])
            .await;
        let mut tables = Vec::new();
        for row in rows.map_err(postgres_error(what))? {
            let record: String = row.get(0);
            tables.push(serde_json::from_str(&record).map_err(|e| SinkError::new(what, e))?);
        }
        let select = "SELECT epoch, lsn, ordinal, seq, verified_seq, stream_created, at
                      FROM public._walgate_position";
        let row = self
            .client
            .query_opt(select, &[])
            .await
            .map_err(postgres_error("reading _walgate_position"))?;
        let checkpoint = row.map(|row| read_checkpoint(&row)).transpose()?;
        Ok(StoredState { checkpoint, tables })
    }

    pub async fn forget_table(&mut self, token: &Token) -> Result<(), SinkError> {
        let delete = "DELETE FROM public._walgate_tables WHERE token = $1";
        let deleted = self.client.execute(delete, &[&token.as_str()]).await;
        deleted.map(drop).map_err(postgres_error("writing _walgate_tables"))
    }

    /// Opens the local transaction if none is open.
    pub async fn begin_transaction(&mut self) -> Result<(), SinkError> {
        if !self.in_transaction {
            self.execute("BEGIN").await?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Commits without a checkpoint.
    pub async fn commit_transaction(&mut self) -> Result<(), SinkError> {
        self.execute("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Commits with a checkpoint, in one round trip.
    pub async fn commit_at(&mut self, checkpoint: Checkpoint) -> Result<(), SinkError> {
        let Checkpoint { epoch, position, seq, verified_seq, stream_created, at } = checkpoint;
        let Position { commit_lsn, ordinal } = position;
        let sql = format!(
            "INSERT INTO public._walgate_position
             VALUES (1, {}, '{commit_lsn}', {ordinal}, {seq}, {verified_seq}, {stream_created}, {at})
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, lsn = excluded.lsn,
             ordinal = excluded.ordinal, seq = excluded.seq, verified_seq = excluded.verified_seq,
             stream_created = excluded.stream_created, at = excluded.at;
             COMMIT",
            epoch.0
        );
        self.execute(&sql).await?;
        self.in_transaction = false;
        Ok(())
    }

    pub async fn rollback(&mut self) -> Result<(), SinkError> {
        self.statements.clear();
        self.in_transaction = false;
        // Without an open transaction the server only warns.
        self.execute("ROLLBACK").await
    }

    pub async fn write_records(&self, records: &[TableRecord]) -> Result<(), SinkError> {
        let upsert = "INSERT INTO public._walgate_tables VALUES ($1, $2, $3)
                      ON CONFLICT (token) DO UPDATE SET name = excluded.name, record = excluded.record";
        for record in records {
            let what = format!("record of {}", record.token);
            let json = serde_json::to_string(record).map_err(|e| SinkError::new(&what, e))?;
            let token = record.token.as_str();
            let table = &record.schema.table;
            self.client
                .execute(upsert, &[&token, table, &json])
                .await
                .map_err(postgres_error(what))?;
        }
        Ok(())
    }

    pub async fn migrate_table(
        &mut self,
        record: &TableRecord,
        steps: &[MigrationStep],
    ) -> Result<(), SinkError> {
        self.begin_transaction().await?;
        self.statements.remove(&record.token);
        let table = ddl::target_table(&record.schema)?.to_string();
        for step in steps {
            let action = match step {
                MigrationStep::Drop { name } => {
                    format!("DROP COLUMN IF EXISTS {}", ddl::quote_identifier(name))
                }
                MigrationStep::Rename { from, to } => {
                    format!(
                        "RENAME COLUMN {} TO {}",
                        ddl::quote_identifier(from),
                        ddl::quote_identifier(to)
                    )
                }
                MigrationStep::Add(column) => {
                    let type_name = ddl::target_type(&self.client, column).await?;
                    format!("ADD COLUMN {} {type_name}", ddl::quote_identifier(&column.name))
                }
            };
            let sql = format!("ALTER TABLE {table} {action}");
            if let Some(refused) = try_alter(&self.client, &sql).await? {
                let what = format!("migrating the copy: {sql}");
                return Err(SinkError::transient(what, refused));
            }
        }
        self.write_records(std::slice::from_ref(record)).await
    }

    pub async fn execute(&self, sql: &str) -> Result<(), SinkError> {
        self.client.batch_execute(sql).await.map_err(postgres_error(sql))
    }
}

fn read_checkpoint(row: &tokio_postgres::Row) -> Result<Checkpoint, SinkError> {
    let wrong = |e: &dyn std::fmt::Display| SinkError::new("reading _walgate_position", e);
    let lsn: Lsn = row.get::<_, String>(1).parse().map_err(|e| wrong(&e))?;
    let ordinal = u32::try_from(row.get::<_, i64>(2)).map_err(|e| wrong(&e))?;
    Ok(Checkpoint {
        epoch: Epoch(u32::try_from(row.get::<_, i64>(0)).map_err(|e| wrong(&e))?),
        position: Position::new(lsn, ordinal),
        seq: row.get::<_, i64>(3) as u64,
        verified_seq: row.get::<_, i64>(4) as u64,
        stream_created: row.get(5),
        at: row.get(6),
    })
}
