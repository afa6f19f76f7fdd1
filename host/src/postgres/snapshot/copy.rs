//! A table's contents over COPY: which relations hold them, and their rows as batches.
//!
//! Every worker has a connection of its own that imports the exported snapshot. Chunks, guests and compression
//! are not known here.

use std::{pin::Pin, sync::Arc};

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_postgres::{Client, CopyOutStream, error::SqlState};

use super::{CopiedRelation, CopyFraming, Piece, plan};
use crate::rows::batch::RowBatch;
use crate::{
    postgres::{
        PostgresError,
        catalog::{SqlClient, row_filter},
        quote,
        snapshot::export::{lock_sql, table_error},
    },
    rows::TableVersion,
};

/// How long some rows, or those behind a view, wait for whoever holds their table.
const LOCK_TIMEOUT_MS: u32 = 500;

/// The relations that hold the rows of `table`: its leaf partitions, or itself.
///
/// To a role that may not read all of them, a partitioned table is one relation: rights on the whole suffice, and
/// policies of the whole are those that count.
pub async fn relations(
    client: &Client,
    table: &TableVersion,
) -> Result<Vec<CopiedRelation>, PostgresError> {
    // Of a table outside any partition tree, pg_partition_tree knows nothing.
    let query = "
SELECT format('%I.%I', n.nspname, c.relname),
       CASE WHEN c.relkind IN ('r', 'm') AND a.amname = 'heap'
            THEN pg_relation_size(c.oid) / current_setting('block_size')::int8 END,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE c.relkind <> 'p'
  AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass) WHERE isleaf))
ORDER BY c.oid";
    let rows = client
        .query(query, &[&table.relid])
        .await
        .map_err(PostgresError::query("read the partitions of a table"))?;
    let leaf = |row: &tokio_postgres::Row| CopiedRelation {
        name: row.get(0),
        blocks: row.get::<_, Option<i64>>(1).map(i64::unsigned_abs),
    };
    let leaves: Vec<CopiedRelation> = rows.iter().map(leaf).collect();
    if !leaves.is_empty() && rows.iter().all(|row| row.get(2)) {
        return Ok(leaves);
    }
    Ok(vec![CopiedRelation { name: quote::table(&table.name), blocks: None }])
}

/// A connection that sees the exported snapshot. Dropping it ends its transaction and its copy.
pub struct SnapshotReader {
    client: SqlClient,
}

impl SnapshotReader {
    pub(super) fn new(client: SqlClient) -> SnapshotReader {
        SnapshotReader { client }
    }

    /// `snapshot` must still be exported.
    ///
    /// None if somebody waits to alter the table: whoever waits for it behind them, while the exporting connection
    /// holds its lock, waits for ever, and with it everybody else who wants the table.
    pub async fn open(
        client: SqlClient,
        snapshot: &str,
        table: &TableVersion,
    ) -> Result<Option<SnapshotReader>, PostgresError> {
        let failed = PostgresError::query("import the snapshot");
        let lock = lock_sql(&client, table).await.map_err(&failed)?;
        let begin = format!(
            "SET lock_timeout = {LOCK_TIMEOUT_MS};
            BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; {lock}",
            quote::literal(snapshot)
        );
        match client.batch_execute(&begin).await {
            Ok(()) => Ok(Some(SnapshotReader { client })),
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// Begins to copy a piece; the rows of one piece are read to their end before the next begins.
    pub async fn copy(
        &mut self,
        table: &TableVersion,
        piece: &Piece,
        filter: Option<&str>,
    ) -> Result<CopiedRows<'_>, PostgresError> {
        let sql = piece.copy_sql(table, filter);
        let stream = self
            .client
            .copy_out(&sql)
            .await
            .map_err(|source| table_error(table, "copy the table", source))?;
        let framing = CopyFraming::new(table);
        Ok(CopiedRows { reader: self, stream: Box::pin(stream), framing })
    }
}

/// Some published rows of the table, at most about so many bytes; of the first partition that has any. None if somebody
/// holds the table.
pub async fn sample(
    client: SqlClient,
    table: &Arc<TableVersion>,
    publication: &str,
    bytes_max: usize,
) -> Result<RowBatch, PostgresError> {
    let settings = format!("SET lock_timeout = {LOCK_TIMEOUT_MS}");
    client.batch_execute(&settings).await.map_err(PostgresError::query("look at some rows"))?;
    let mut batch = RowBatch::new(Arc::clone(table));
    match fill_sample(client, &mut batch, publication, bytes_max).await {
        Err(PostgresError::Sql { source, .. })
            if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
        {
            Ok(RowBatch::new(Arc::clone(table)))
        }
        filled => filled.map(|()| batch),
    }
}

async fn fill_sample(
    client: SqlClient,
    batch: &mut RowBatch,
    publication: &str,
    bytes_max: usize,
) -> Result<(), PostgresError> {
    let table = Arc::clone(&batch.table);
    let filter = row_filter(&client, publication, table.relid).await?;
    let relations = relations(&client, &table).await?;
    let mut reader = SnapshotReader::new(client);
    for piece in plan(&relations, 1) {
        reader.copy(&table, &piece, filter.as_deref()).await?.fill(batch, bytes_max).await?;
        if !batch.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The rows of one piece.
pub struct CopiedRows<'a> {
    reader: &'a mut SnapshotReader,
    stream: Pin<Box<CopyOutStream>>,
    framing: CopyFraming,
}

impl CopiedRows<'_> {
    /// Appends rows to `batch` until it holds `bytes_max` or more; a row is never divided. False once there
    /// are no more rows; the batch may have got some all the same.
    pub async fn fill(
        &mut self,
        batch: &mut RowBatch,
        bytes_max: usize,
    ) -> Result<bool, PostgresError> {
        while !self.framing.ended() && batch.raw_bytes() < bytes_max {
            match self.stream.next().await {
                Some(Ok(message)) => self.framing.push(&message, batch)?,
                Some(Err(source)) => {
                    return Err(table_error(&batch.table, "copy the table", source));
                }
                None => {
                    return Err(PostgresError::Protocol("a COPY ended without its trailer".into()));
                }
            }
        }
        Ok(!self.framing.ended())
    }
}

/// A connection whose copy nobody reads any more would still carry it to its end.
impl Drop for CopiedRows<'_> {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.framing.ended(), Handle::try_current()) {
            let cancel = self.reader.client.cancel();
            runtime.spawn(async move {
                if let Err(error) = cancel.await {
                    tracing::debug!(%error, "an abandoned COPY could not be cancelled");
                }
            });
        }
    }
}
