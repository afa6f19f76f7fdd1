//! The tables of a copy and their shapes, as the consumer's sinks store them beside the rows.

use std::path::Path;

use anyhow::{Context, Result, bail};
use walgate_consumer::TableRecord;
use walgate_wire::{Schema, TableName};

use crate::{database, sqlite, target::Target};

/// Every table of the copy.
pub async fn kept(replica: &Target) -> Result<Vec<Schema>> {
    let records = match replica {
        Target::Sqlite(path) => of_sqlite(path)?,
        Target::Postgres(url) => of_postgres(url).await?,
    };
    let schema = |record: String| {
        let record: TableRecord =
            serde_json::from_str(&record).context("the replica's record of a table")?;
        Ok(record.schema)
    };
    records.into_iter().map(schema).collect()
}

fn of_sqlite(path: &Path) -> Result<Vec<String>> {
    let connection = sqlite::open(path)?;
    let kept = || -> rusqlite::Result<Vec<String>> {
        let mut select = connection.prepare("SELECT record FROM _walgate_tables ORDER BY token")?;
        select.query_map([], |row| row.get(0))?.collect()
    };
    kept()
        .with_context(|| format!("{} is not a file that `walgate replicate` keeps", path.display()))
}

async fn of_postgres(url: &str) -> Result<Vec<String>> {
    let client = database::connect(url).await?;
    let rows =
        client.query("SELECT record::text FROM public._walgate_tables ORDER BY token", &[]).await;
    let rows = rows.context("the database is not one that `walgate replicate` keeps")?;
    rows.iter().map(|row| row.try_get(0).context("the replica's record of a table")).collect()
}

/// The tables with these names; all tables if there are no names.
pub fn wanted(kept: &[Schema], names: &[String]) -> Result<Vec<Schema>> {
    if names.is_empty() {
        return Ok(kept.to_vec());
    }
    let find = |name: &String| {
        let name: TableName = name.parse()?;
        let found = kept.iter().find(|schema| schema.table == name.to_string());
        match found {
            Some(schema) => Ok(schema.clone()),
            None => bail!("the replica does not keep {name}"),
        }
    };
    names.iter().map(find).collect()
}
