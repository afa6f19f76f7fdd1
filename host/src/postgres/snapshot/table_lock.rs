//! The lock that protects a table while a snapshot of it is read.
//!
//! Neither ALTER nor TRUNCATE respects snapshots, therefore a snapshot locks the table first.

use tokio_postgres::Client;

use crate::{postgres::quote, rows::TableVersion};

/// SQL that prevents ALTER and TRUNCATE of the table, or fails at once. Empty for relations that
/// cannot be locked.
pub(super) async fn lock_sql(
    client: &Client,
    table: &TableVersion,
) -> Result<String, tokio_postgres::Error> {
    let row = client
        .query_opt("SELECT relkind FROM pg_catalog.pg_class WHERE oid = $1", &[&table.relid])
        .await?;
    Ok(match row.map(|row| row.get::<_, i8>(0) as u8) {
        Some(b'r') => {
            format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT", quote::table(&table.name))
        }
        Some(b'p') => {
            format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", quote::table(&table.name))
        }
        // LOCK TABLE refuses foreign tables and materialized views, and a view has no rows.
        _ => String::new(),
    })
}
