//! A table's rows over COPY, as batches.
//!
//! Every worker has a connection of its own that imports the exported snapshot. Chunks, guests and
//! compression are not known here.

use std::{pin::Pin, sync::Arc};

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_postgres::{CopyOutStream, error::SqlState};

use super::{
    copy_framing::CopyFraming,
    ctid_ranges::{Piece, plan_pieces},
    partitions::load_copied_relations,
    table_lock::lock_sql,
};
use crate::{
    config::PostgresConfig,
    postgres::{
        PostgresError,
        catalog::{NO_IDLE_TIMEOUT, SqlClient, load_row_filter, open_session},
        quote,
    },
    rows::{TableVersion, batch::RowBatch},
};

/// How long sampled rows, and rows behind a view, wait for a lock on their table.
const LOCK_TIMEOUT_MS: u32 = 500;

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
    /// `None` if another session waits to alter the table. A reader that queued behind it would
    /// wait forever, because the exporting connection holds its lock. So would all others that want
    /// the table.
    pub async fn open(
        postgres: &PostgresConfig,
        snapshot: &str,
        table: &TableVersion,
    ) -> Result<Option<SnapshotReader>, PostgresError> {
        let client = open_session(postgres).await?;
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

    /// Lets the transaction idle without a timeout, for callers that wait for another side.
    pub async fn disable_idle_timeout(&self) -> Result<(), PostgresError> {
        let set = self.client.batch_execute(NO_IDLE_TIMEOUT).await;
        set.map_err(PostgresError::query("set a timeout"))
    }

    /// Begins to copy a piece. The rows of one piece are read to their end before the next begins.
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
            .map_err(|source| PostgresError::of_table(table, "copy the table", source))?;
        let framing = CopyFraming::new(table);
        Ok(CopiedRows { reader: self, stream: Box::pin(stream), framing })
    }
}

/// Published rows of the table's first partition that has any, about `bytes_max` bytes at most.
/// Empty if another session has locked the table.
pub async fn sample_rows(
    postgres: &PostgresConfig,
    table: &Arc<TableVersion>,
    bytes_max: usize,
) -> Result<RowBatch, PostgresError> {
    let client = open_session(postgres).await?;
    let settings = format!("SET lock_timeout = {LOCK_TIMEOUT_MS}");
    client.batch_execute(&settings).await.map_err(PostgresError::query("look at some rows"))?;
    let mut batch = RowBatch::new(Arc::clone(table));
    match fill_sample(client, &mut batch, &postgres.publication, bytes_max).await {
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
    let filter = load_row_filter(&client, publication, table.relid).await?;
    let relations = load_copied_relations(&client, &table).await?;
    let mut reader = SnapshotReader::new(client);
    for piece in plan_pieces(&relations, 1) {
        reader.copy(&table, &piece, filter.as_deref()).await?.fill_batch(batch, bytes_max).await?;
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
    /// Appends rows to `batch` until it holds `bytes_max` or more. A row is never divided. Returns
    /// false at the end of the rows; the last call may still have appended some.
    pub async fn fill_batch(
        &mut self,
        batch: &mut RowBatch,
        bytes_max: usize,
    ) -> Result<bool, PostgresError> {
        while !self.framing.has_ended() && batch.raw_bytes() < bytes_max {
            match self.stream.next().await {
                Some(Ok(message)) => self.framing.push(&message, batch)?,
                Some(Err(source)) => {
                    return Err(PostgresError::of_table(&batch.table, "copy the table", source));
                }
                None => {
                    return Err(PostgresError::Protocol("a COPY ended without its trailer".into()));
                }
            }
        }
        Ok(!self.framing.has_ended())
    }
}

/// Without the cancellation the server would send an abandoned copy to its end.
impl Drop for CopiedRows<'_> {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.framing.has_ended(), Handle::try_current()) {
            let cancel = self.reader.client.cancel_query();
            runtime.spawn(async move {
                if let Err(error) = cancel.await {
                    tracing::debug!(%error, "cancelling an abandoned COPY failed");
                }
            });
        }
    }
}
