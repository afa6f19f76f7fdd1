//! Snapshots: copied into a table of another name. When it is complete, its rows replace the old
//! ones; if there is no old table, it is renamed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::SinkExt;
use walgate_nats_connect::Backoff;
use walgate_wire::Schema;

use super::{
    ddl::{self, LOADING, TargetTable, quote_identifier, target_columns},
    error::postgres_error,
    reshape::{self, AlterOutcome, TableShape},
    session::{LoadingTable, TargetSession},
    text::{postgres_text, push_copy_field},
};
use crate::{Checkpoint, SinkError, SnapshotRows, TableRecord, ValueKind};

/// Bytes of one CopyData message.
const COPY_BYTES: usize = 256 << 10;
/// Delays between attempts while an object of the owner blocks the table's new shape.
const CONFLICT_RETRY_FIRST: Duration = Duration::from_millis(500);
const CONFLICT_RETRY_MAX: Duration = Duration::from_secs(15);

impl TargetSession {
    pub async fn begin_load(&mut self, schema: &Arc<Schema>) -> Result<(), SinkError> {
        self.drop_loading_table().await?;
        let table = TargetTable { name: LOADING.to_owned(), ..ddl::new_target_table(schema)? };
        let mut columns = Vec::new();
        for column in &schema.columns {
            let type_name = ddl::target_type(&self.client, column).await?;
            columns.push(format!("{} {type_name}", quote_identifier(&column.name)));
        }
        self.execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote_identifier(&table.schema)))
            .await?;
        self.execute(&format!("CREATE TABLE {table} ({})", columns.join(", "))).await?;
        let columns = target_columns(&self.client, &table).await?.unwrap_or_default();
        self.loading = Some(LoadingTable { table, schema: schema.clone(), columns });
        Ok(())
    }

    pub async fn load_rows(&mut self, rows: &SnapshotRows) -> Result<(), SinkError> {
        let loading = self.loading.as_ref();
        let loading = loading.ok_or_else(|| SinkError::new("loading", "was not begun"))?;
        let what = format!("copying rows of {}", loading.schema.table);
        let chunk = rows.decode().map_err(|e| SinkError::new(&what, e))?;
        let columns = loading.columns.iter().zip(&loading.schema.columns);
        let kinds: Vec<ValueKind> =
            columns.map(|(target, column)| target.value_kind(column)).collect();
        let names: Vec<String> =
            loading.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let copy = if names.is_empty() {
            format!("COPY {} FROM STDIN", loading.table)
        } else {
            format!("COPY {} ({}) FROM STDIN", loading.table, names.join(", "))
        };
        let sink = self.client.copy_in::<_, Bytes>(&copy).await.map_err(postgres_error(&what))?;
        let mut sink = std::pin::pin!(sink);
        let mut buffer = Vec::with_capacity(COPY_BYTES + (COPY_BYTES >> 2));
        for row in 0..chunk.row_count {
            for (index, (target, kind)) in loading.columns.iter().zip(&kinds).enumerate() {
                if index > 0 {
                    buffer.push(b'\t');
                }
                let text = postgres_text(target.form, kind, &chunk.columns[index][row]);
                push_copy_field(&mut buffer, text.as_deref());
            }
            buffer.push(b'\n');
            if buffer.len() >= COPY_BYTES {
                let full = Bytes::from(std::mem::take(&mut buffer));
                sink.send(full).await.map_err(postgres_error(&what))?;
            }
        }
        sink.send(Bytes::from(buffer)).await.map_err(postgres_error(&what))?;
        sink.as_mut().finish().await.map(drop).map_err(postgres_error(what))
    }

    /// Waits while an object that the owner built on the table blocks its new shape. The loaded
    /// rows are kept, because reading them again would not help.
    pub async fn finish_load(
        &mut self,
        schema: &Schema,
        records: &[TableRecord],
        checkpoint: Checkpoint,
    ) -> Result<(), SinkError> {
        let Some(loading) = self.loading.take() else {
            return Err(SinkError::new("finishing a load", "it was not begun"));
        };
        let table = ddl::target_table(schema)?;
        let mut backoff = Backoff::new(CONFLICT_RETRY_FIRST, CONFLICT_RETRY_MAX);
        while let Some(conflict) = self.replace_table(&table, &loading, schema).await? {
            self.rollback().await?;
            tracing::error!(%table, %conflict, "table cannot take its new shape, waiting");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.write_records(records).await?;
        self.commit_at(checkpoint).await
    }

    /// Replaces the table's rows and shape in a local transaction, which stays open.
    async fn replace_table(
        &mut self,
        table: &TargetTable,
        loading: &LoadingTable,
        schema: &Schema,
    ) -> AlterOutcome {
        let before = target_columns(&self.client, table).await?;
        let Some(before) = before else {
            // After the rows, because building the index in one pass is faster.
            reshape::add_key(&self.client, &loading.table, schema).await?;
            self.begin_transaction().await?;
            self.statements.remove(&schema.token);
            let name = quote_identifier(&table.name);
            self.execute(&format!("ALTER TABLE {} RENAME TO {name}", loading.table)).await?;
            return Ok(None);
        };
        let (constraint, key) = reshape::read_primary_key(&self.client, table).await?.unzip();
        let key = key.unwrap_or_default();
        let wanted = TableShape { columns: &loading.columns, key: &schema.key };
        let alter = reshape::alter_statement(
            table,
            constraint.as_deref(),
            &TableShape { columns: &before, key: &key },
            &wanted,
        );
        self.begin_transaction().await?;
        self.statements.remove(&schema.token);
        if alter.is_some() {
            // Before any other lock on the table, to avoid a deadlock with its readers.
            self.execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
        }
        // Not TRUNCATE: transactions that began before would see an empty table.
        let mut conflict = reshape::try_delete(&self.client, table).await?;
        if let (None, Some(alter)) = (&conflict, alter) {
            conflict = reshape::try_alter(&self.client, &alter).await?;
        }
        if conflict.is_some() {
            return Ok(conflict);
        }
        let names: Vec<String> =
            loading.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let names = names.join(", ");
        let from = &loading.table;
        let into = if names.is_empty() { String::new() } else { format!(" ({names})") };
        self.execute(&format!("INSERT INTO {table}{into} SELECT {names} FROM {from}")).await?;
        self.execute(&format!("DROP TABLE {from}")).await?;
        if key != schema.key {
            reshape::add_key(&self.client, table, schema).await?;
        }
        Ok(None)
    }
}
