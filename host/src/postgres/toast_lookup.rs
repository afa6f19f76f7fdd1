//! Looks up values that updates left alone, by the key of their row, as the table is now.
//!
//! An update does not carry an out-of-line value that it did not touch. A row that enters a guest's filter needs
//! it all the same. What is found may be newer than the change; then the change that made it follows in the
//! stream, so that copies end up right. A row that is not found any more was deleted or got another key, which
//! follows as well.

use std::{collections::HashMap, error::Error, sync::Arc};

use postgres_types::{FromSql, Kind, Type};
use tokio_postgres::error::SqlState;

use crate::rows::batch::{Cell, RowBatch};
use crate::{
    postgres::{
        PostgresError,
        catalog::SqlClient,
        quote,
        server_render::{BinaryArray, array_type},
        snapshot::export::table_error,
    },
    rows::{Binary, TableVersion},
};

/// How long a lock that somebody else has is waited for: all tables wait meanwhile.
const PATIENCE: &str = "SET lock_timeout = '3s'";

/// Asks on a connection that nobody else uses meanwhile.
pub struct Lookup {
    client: Arc<SqlClient>,
    array_types: HashMap<u32, u32>,
}

/// A row of the batch with unknown values: where its cells begin, and its key.
struct Unknown {
    first_cell: usize,
    key: Vec<Box<[u8]>>,
}

impl Lookup {
    pub async fn new(client: Arc<SqlClient>) -> Result<Self, PostgresError> {
        client.batch_execute(PATIENCE).await.map_err(PostgresError::query("set a timeout"))?;
        Ok(Lookup { client, array_types: HashMap::new() })
    }

    /// Fills the unchanged cells of `columns` in new rows. What is not found stays unchanged, as does everything
    /// in a table without a key. [`PostgresError::Locked`]: somebody keeps the table to himself.
    pub async fn fill(
        &mut self,
        batch: &mut RowBatch,
        columns: &[usize],
    ) -> Result<(), PostgresError> {
        let table = Arc::clone(&batch.table);
        let key = table.schema.key_indexes();
        let unknown = unknown(batch, &key, columns);
        if key.is_empty() || unknown.is_empty() {
            return Ok(());
        }
        let mut arrays = Vec::with_capacity(key.len());
        for &index in &key {
            arrays.push(self.array_of(&table, index).await?);
        }
        let failed = |source: tokio_postgres::Error| match source.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                PostgresError::Locked { table: table.name.to_string() }
            }
            _ => table_error(&table, "look up values that an update left alone", source),
        };
        let types: Vec<Type> = arrays
            .iter()
            .map(|&oid| Type::new(String::new(), oid, Kind::Simple, String::new()))
            .collect();
        let statement = self
            .client
            .prepare_typed(&sql(&table, &key, columns), &types)
            .await
            .map_err(&failed)?;
        let values: Vec<Vec<Box<[u8]>>> = (0..key.len())
            .map(|part| unknown.iter().map(|row| row.key[part].clone()).collect())
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
            let Some(unknown) = usize::try_from(place - 1).ok().and_then(|at| unknown.get(at))
            else {
                continue;
            };
            for (at, &column) in columns.iter().enumerate() {
                let value: Option<Raw> = row.try_get(at + 1).map_err(&failed)?;
                let text = table.columns[column].binary != Binary::Yes;
                set(batch, unknown.first_cell + column, value, text);
            }
        }
        Ok(())
    }

    async fn array_of(
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
        let array = array_type(&self.client, oid).await?.ok_or_else(gone)?;
        self.array_types.insert(oid, array);
        Ok(array)
    }
}

fn unknown(batch: &RowBatch, key: &[usize], columns: &[usize]) -> Vec<Unknown> {
    let row = |first: u32| {
        let cells = batch.row_at(first);
        let lacks = columns.iter().any(|&column| cells[column] == Cell::Unchanged);
        let key = key.iter().map(|&index| batch.cell_bytes(cells[index]).map(Box::from));
        lacks
            .then(|| key.collect::<Option<Vec<Box<[u8]>>>>())
            .flatten()
            .map(|key| Unknown { first_cell: first as usize, key })
    };
    batch.changes.iter().filter_map(|change| row(change.new?)).collect()
}

fn sql(table: &TableVersion, key: &[usize], columns: &[usize]) -> String {
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

fn set(batch: &mut RowBatch, cell: usize, value: Option<Raw>, text: bool) {
    if batch.cells[cell] != Cell::Unchanged {
        return;
    }
    let (start, end) =
        (batch.bytes.len(), batch.bytes.len() + value.as_ref().map_or(0, |v| v.0.len()));
    // Beyond what a batch can address it stays unknown.
    let Ok(_) = u32::try_from(end) else { return };
    let (start, len) = (start as u32, (end - start) as u32);
    batch.cells[cell] = match value {
        None => Cell::Null,
        Some(Raw(bytes)) => {
            batch.bytes.extend_from_slice(&bytes);
            if text { Cell::Text { start, len } } else { Cell::Binary { start, len } }
        }
    };
}

/// A value as its type's send function writes it.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
