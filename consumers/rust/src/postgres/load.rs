//! Snapshots: copied into a table of another name; when it is whole its rows take the place of the old ones, or it becomes
//! the table itself if there is none.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::SinkExt;
use walgate_nats_connect::Backoff;
use walgate_wire::Schema;

use super::{
    ddl::{self, LOADING, Table, TargetColumn, quoted, target_columns},
    failed,
    reshape::{self, Outcome, Shape},
    session::Session,
    text::{postgres_text, push_copy_field},
};
use crate::{Kind, Mark, Rows, SinkError, TableRecord};

/// COPY data a message.
const COPY_BYTES: usize = 256 << 10;
/// How long what is in the way of a new shape is waited for before looking again.
const REFUSED_RETRY_FIRST: Duration = Duration::from_millis(500);
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(15);

/// The generation that is being loaded.
pub(super) struct Loading {
    table: Table,
    schema: Arc<Schema>,
    columns: Vec<TargetColumn>,
}

impl Session {
    pub async fn begin_load(&mut self, schema: &Arc<Schema>) -> Result<(), SinkError> {
        self.drop_loading().await?;
        let table = Table { name: LOADING.to_owned(), ..ddl::free_table(schema)? };
        let mut columns = Vec::new();
        for column in &schema.columns {
            let type_name = ddl::target_type(&self.client, column).await?;
            columns.push(format!("{} {type_name}", quoted(&column.name)));
        }
        self.execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&table.schema))).await?;
        self.execute(&format!("CREATE TABLE {table} ({})", columns.join(", "))).await?;
        let columns = target_columns(&self.client, &table).await?.unwrap_or_default();
        self.loading = Some(Loading { table, schema: schema.clone(), columns });
        Ok(())
    }

    pub async fn load(&mut self, rows: &Rows) -> Result<(), SinkError> {
        let loading = self.loading.as_ref();
        let loading = loading.ok_or_else(|| SinkError::new("loading", "was not begun"))?;
        let what = format!("copying rows of {}", loading.schema.table);
        let chunk = rows.decode().map_err(|e| SinkError::new(&what, e))?;
        let columns = loading.columns.iter().zip(&loading.schema.columns);
        let kinds: Vec<Kind> = columns.map(|(target, column)| target.kind(column)).collect();
        let names: Vec<String> =
            loading.columns.iter().map(|column| quoted(&column.name)).collect();
        let copy = if names.is_empty() {
            format!("COPY {} FROM STDIN", loading.table)
        } else {
            format!("COPY {} ({}) FROM STDIN", loading.table, names.join(", "))
        };
        let sink = self.client.copy_in::<_, Bytes>(&copy).await.map_err(failed(&what))?;
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
                sink.send(full).await.map_err(failed(&what))?;
            }
        }
        sink.send(Bytes::from(buffer)).await.map_err(failed(&what))?;
        sink.as_mut().finish().await.map(drop).map_err(failed(what))
    }

    /// Waits, with the rows at hand, for as long as something that the owner built on the table is in the way: reading
    /// them once more would not help.
    pub async fn finish_load(
        &mut self,
        schema: &Schema,
        records: &[TableRecord],
        mark: Mark,
    ) -> Result<(), SinkError> {
        let Some(loading) = self.loading.take() else {
            return Err(SinkError::new("finishing a load", "it was not begun"));
        };
        let table = ddl::table(schema)?;
        let mut backoff = Backoff::new(REFUSED_RETRY_FIRST, REFUSED_RETRY_MAX);
        while let Some(refused) = self.take_the_place(&table, &loading, schema).await? {
            self.rollback().await?;
            tracing::error!(%table, "the copy's table cannot take its new shape, waiting: {refused}");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.write_records(records).await?;
        self.end_at(mark).await
    }

    /// In the local transaction that it opens.
    async fn take_the_place(
        &mut self,
        table: &Table,
        loading: &Loading,
        schema: &Schema,
    ) -> Outcome {
        let before = target_columns(&self.client, table).await?;
        let Some(before) = before else {
            // After the rows: building an index at once is faster.
            reshape::add_key(&self.client, &loading.table, schema).await?;
            self.begin().await?;
            self.plans.remove(&schema.token);
            let name = quoted(&table.name);
            self.execute(&format!("ALTER TABLE {} RENAME TO {name}", loading.table)).await?;
            return Ok(None);
        };
        let (constraint, key) = reshape::key_of(&self.client, table).await?.unzip();
        let key = key.unwrap_or_default();
        let wanted = Shape { columns: &loading.columns, key: &schema.key };
        let alter = reshape::statement(
            table,
            constraint.as_deref(),
            &Shape { columns: &before, key: &key },
            &wanted,
        );
        self.begin().await?;
        self.plans.remove(&schema.token);
        if alter.is_some() {
            // At once: two that hold a part of it could wait for each other.
            self.execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
        }
        // Not TRUNCATE: where the shape stays, that would show an empty table to transactions that began before.
        let mut refused = reshape::try_delete(&self.client, table).await?;
        if let (None, Some(alter)) = (&refused, alter) {
            refused = reshape::try_alter(&self.client, &alter).await?;
        }
        if refused.is_some() {
            return Ok(refused);
        }
        let names: Vec<String> =
            loading.columns.iter().map(|column| quoted(&column.name)).collect();
        let (names, from) = (names.join(", "), &loading.table);
        let into = if names.is_empty() { String::new() } else { format!(" ({names})") };
        self.execute(&format!("INSERT INTO {table}{into} SELECT {names} FROM {from}")).await?;
        self.execute(&format!("DROP TABLE {from}")).await?;
        if key != schema.key {
            reshape::add_key(&self.client, table, schema).await?;
        }
        Ok(None)
    }
}
