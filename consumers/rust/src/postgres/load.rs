//! Snapshots: copied into a table of another name, which takes the place of the old one when it is whole.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::SinkExt;
use walgate_wire::Schema;

use super::{
    ddl::{self, LOADING, Table, TargetColumn, quoted, target_columns},
    failed,
    session::Session,
    text::{postgres_text, push_copy_field},
};
use crate::{Kind, Mark, Rows, SinkError, TableRecord};

/// COPY data a message.
const COPY_BYTES: usize = 256 << 10;

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
        let before = target_columns(&self.client, &table).await?;
        let same =
            before.as_ref() == Some(&loading.columns) && self.has_key(&table, schema).await?;
        if !same {
            self.add_key(&loading.table, schema).await?;
        }
        self.begin().await?;
        self.plans.remove(&schema.token);
        if same {
            // What the target's owner built on the table stays: views, indexes, grants. Not TRUNCATE, for
            // that shows an empty table to transactions that began before.
            self.execute(&format!("DELETE FROM {table}")).await?;
            let names: Vec<String> =
                loading.columns.iter().map(|column| quoted(&column.name)).collect();
            let (names, from) = (names.join(", "), &loading.table);
            self.execute(&format!("INSERT INTO {table} ({names}) SELECT {names} FROM {from}"))
                .await?;
            self.execute(&format!("DROP TABLE {from}")).await?;
        } else {
            self.execute(&format!("DROP TABLE IF EXISTS {table}")).await?;
            let rename = format!("ALTER TABLE {} RENAME TO {}", loading.table, quoted(&table.name));
            self.execute(&rename).await?;
        }
        self.write_records(records).await?;
        self.end_at(mark).await
    }

    /// After the rows: building an index at once is faster. The name must be free in the whole schema.
    async fn add_key(&self, table: &Table, schema: &Schema) -> Result<(), SinkError> {
        if schema.key.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let key: Vec<String> = schema.key.iter().map(|name| quoted(name)).collect();
        let (name, key) = (format!("_walgate_key_{:x}", now.as_micros()), key.join(", "));
        self.execute(&format!("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({key})"))
            .await
    }

    /// Whether the table's primary key is that of the schema.
    async fn has_key(&self, table: &Table, schema: &Schema) -> Result<bool, SinkError> {
        let select = "
            SELECT a.attname::text FROM pg_index i
            JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(attnum, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE i.indisprimary AND n.nspname = $1 AND c.relname = $2 ORDER BY k.place";
        let rows = self.client.query(select, &[&table.schema, &table.name]).await;
        let rows = rows.map_err(failed(format!("key of {table}")))?;
        Ok(rows.iter().map(|row| row.get::<_, String>(0)).eq(schema.key.iter().cloned()))
    }
}
