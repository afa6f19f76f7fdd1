//! Looks up values that updates did not send, by the key of their row, as the table is now.
//!
//! An update does not carry an unchanged out-of-line value, but a row that enters a guest's filter
//! needs it. A value may be newer than the change. Then the change that wrote it follows in the
//! stream, and copies end up right. If a row is gone, it was deleted or got another key, and that
//! change follows as well.

use std::{collections::HashMap, error::Error, sync::Arc};

use postgres_types::{FromSql, Kind, Type};
use tokio_postgres::error::SqlState;

use crate::{
    config::PostgresConfig,
    postgres::{
        PostgresError,
        catalog::{SqlClient, open_session},
        quote,
        server_render::{BinaryArray, Renderer, load_array_type},
    },
    rows::{
        Binary, TableVersion,
        batch::{Cell, RowBatch},
    },
};

/// How long a lookup waits for another session's lock. All tables wait meanwhile.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '3s'";

/// Looks values up on a connection that it shares with a [`Renderer`] only.
pub struct ToastLookup {
    client: Arc<SqlClient>,
    array_types: HashMap<u32, u32>,
}

/// A row of the batch with unchanged values: where its cells begin, and its key.
struct IncompleteRow {
    first_cell: usize,
    key: Vec<Box<[u8]>>,
}

impl ToastLookup {
    /// Opens a session, and shares it with a renderer: a session uses one of them at a time.
    pub async fn connect(
        postgres: &PostgresConfig,
    ) -> Result<(Renderer, ToastLookup), PostgresError> {
        let client = Arc::new(open_session(postgres).await?);
        client.batch_execute(LOCK_TIMEOUT).await.map_err(PostgresError::query("set a timeout"))?;
        let renderer = Renderer::new(Arc::clone(&client));
        Ok((renderer, ToastLookup { client, array_types: HashMap::new() }))
    }

    /// Fills the unchanged cells of `columns` in new rows. Cells of rows that are gone stay
    /// unchanged, and so do all cells of a table without a key. [`PostgresError::Locked`]: another
    /// session holds an ACCESS EXCLUSIVE lock on the table.
    pub async fn fill_unchanged(
        &mut self,
        batch: &mut RowBatch,
        columns: &[usize],
    ) -> Result<(), PostgresError> {
        let table = Arc::clone(&batch.table);
        let key = table.schema.key_indexes();
        let incomplete = incomplete_rows(batch, &key, columns);
        if key.is_empty() || incomplete.is_empty() {
            return Ok(());
        }
        let mut arrays = Vec::with_capacity(key.len());
        for &index in &key {
            arrays.push(self.array_type_of(&table, index).await?);
        }
        let failed = |source: tokio_postgres::Error| match source.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                PostgresError::Locked { table: table.name.to_string() }
            }
            _ => {
                PostgresError::of_table(&table, "look up values that an update left alone", source)
            }
        };
        let types: Vec<Type> = arrays
            .iter()
            .map(|&oid| Type::new(String::new(), oid, Kind::Simple, String::new()))
            .collect();
        let statement = self
            .client
            .prepare_typed(&lookup_sql(&table, &key, columns), &types)
            .await
            .map_err(&failed)?;
        let values: Vec<Vec<Box<[u8]>>> = (0..key.len())
            .map(|part| incomplete.iter().map(|row| row.key[part].clone()).collect())
            .collect();
        let parameters: Vec<BinaryArray<'_>> = key
            .iter()
            .zip(&values)
            .map(|(&index, values)| BinaryArray { element: table.columns[index].oid, values })
            .collect();
        let parameters: Vec<&(dyn postgres_types::ToSql + Sync)> =
            parameters.iter().map(|p| p as &(dyn postgres_types::ToSql + Sync)).collect();
        for row in self.client.query(&statement, &parameters).await.map_err(&failed)? {
            let place: i64 = row.try_get(0).map_err(&failed)?;
            let Some(row_in_batch) =
                usize::try_from(place - 1).ok().and_then(|at| incomplete.get(at))
            else {
                continue;
            };
            for (at, &column) in columns.iter().enumerate() {
                let value: Option<RawValue> = row.try_get(at + 1).map_err(&failed)?;
                let text = table.columns[column].binary != Binary::Yes;
                set_value(batch, row_in_batch.first_cell + column, value, text);
            }
        }
        Ok(())
    }

    async fn array_type_of(
        &mut self,
        table: &TableVersion,
        column: usize,
    ) -> Result<u32, PostgresError> {
        let oid = table.columns[column].oid;
        if let Some(&array) = self.array_types.get(&oid) {
            return Ok(array);
        }
        let gone = || PostgresError::Table {
            table: table.name.to_string(),
            what: format!(
                "its guest needs values that an update left alone, and they cannot be looked up: key column {} has a type of \
                 which there are no arrays ({}). Set REPLICA IDENTITY FULL, or choose another key",
                table.schema.columns[column].name, table.schema.columns[column].type_name
            ),
        };
        let array = load_array_type(&self.client, oid).await?.ok_or_else(gone)?;
        self.array_types.insert(oid, array);
        Ok(array)
    }
}

fn incomplete_rows(batch: &RowBatch, key: &[usize], columns: &[usize]) -> Vec<IncompleteRow> {
    let row = |first: u32| {
        let cells = batch.row_at(first);
        let lacks = columns.iter().any(|&column| cells[column] == Cell::Unchanged);
        let key = key.iter().map(|&index| batch.cell_bytes(cells[index]).map(Box::from));
        lacks
            .then(|| key.collect::<Option<Vec<Box<[u8]>>>>())
            .flatten()
            .map(|key| IncompleteRow { first_cell: first as usize, key })
    };
    batch.changes.iter().filter_map(|change| row(change.new?)).collect()
}

fn lookup_sql(table: &TableVersion, key: &[usize], columns: &[usize]) -> String {
    let name = |index: usize| quote::identifier(&table.schema.columns[index].name);
    let wanted = columns.iter().map(|&index| {
        let cast =
            if table.columns[index].binary == Binary::Yes { "" } else { "::pg_catalog.text" };
        format!("t.{}{cast}", name(index))
    });
    let arrays = (1..=key.len()).map(|part| format!("${part}"));
    let names = (1..=key.len()).map(|part| format!("k{part}"));
    let equal =
        key.iter().enumerate().map(|(at, &index)| format!("t.{} = k.k{}", name(index), at + 1));
    format!(
        "SELECT k.place, {} FROM unnest({}) WITH ORDINALITY k({}, place) JOIN {} t ON {}",
        wanted.collect::<Vec<_>>().join(", "),
        arrays.collect::<Vec<_>>().join(", "),
        names.collect::<Vec<_>>().join(", "),
        quote::table(&table.name),
        equal.collect::<Vec<_>>().join(" AND "),
    )
}

fn set_value(batch: &mut RowBatch, cell: usize, value: Option<RawValue>, text: bool) {
    if batch.cells[cell] != Cell::Unchanged {
        return;
    }
    let start = batch.bytes.len();
    let end = start + value.as_ref().map_or(0, |value| value.0.len());
    // A value beyond what a batch can address stays unchanged.
    let Ok(_) = u32::try_from(end) else { return };
    let len = (end - start) as u32;
    let start = start as u32;
    batch.cells[cell] = match value {
        None => Cell::Null,
        Some(RawValue(bytes)) => {
            batch.bytes.extend_from_slice(&bytes);
            if text { Cell::Text { start, len } } else { Cell::Binary { start, len } }
        }
    };
}

/// A value as its type's send function writes it.
struct RawValue(Vec<u8>);

impl<'a> FromSql<'a> for RawValue {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(RawValue(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
