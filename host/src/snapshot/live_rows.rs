//! Rows of a table as the gateway reads them for a snapshot: by COPY, with what only the server can
//! print.
//!
//! However often they are read, all of them are of one exported snapshot. What is done with them is
//! the caller's business.

use std::sync::Arc;

use walgate_wire::{Lsn, TableName, Token};

use crate::{
    config::Postgres,
    egress::{
        outlet::Outlet,
        pipeline::{Pipeline, PipelineIo},
    },
    encode::RowError,
    guest::GuestFailure,
    postgres::{
        SourceError,
        catalog::{self, Catalog},
        server_render::Renderer,
        snapshot::{self, Piece, SnapshotReader},
    },
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// Rows that are shown at a time: as in a snapshot.
const BATCH_BYTES: usize = 256 << 10;

/// Rows that cannot be read, or not taken through the table's guest.
#[derive(Debug, thiserror::Error)]
pub enum LiveRowsError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    #[error("the table is being altered at this moment; try again")]
    BeingAltered,
}

pub struct LiveTable {
    pub version: Arc<TableVersion>,
    filter: Option<String>,
    pieces: Vec<Piece>,
    reader: SnapshotReader,
    pipeline: Pipeline<RendererIo>,
    /// Keeps the snapshot exported.
    _exporter: Catalog,
}

/// Values that an update left alone are in no copied row, and failed rows are not kept.
struct RendererIo(Renderer);

impl PipelineIo for RendererIo {
    type Error = LiveRowsError;

    async fn render(
        &mut self,
        table: &TableVersion,
        rendered: &mut Rendered,
    ) -> Result<(), LiveRowsError> {
        Ok(self.0.render(&table.name.to_string(), rendered).await?)
    }
}

/// The table as it is now.
pub async fn version(
    postgres: &PostgresConfig,
    name: &TableName,
    token: Token,
) -> Result<Arc<TableVersion>, SourceError> {
    let mut catalog = Catalog::connect(postgres).await?;
    Ok(Arc::new(catalog.current(name, token, Lsn(0)).await?.0))
}

/// While two sides are compared, the one waits for the other in an open transaction.
const PATIENT: &str = "SET idle_in_transaction_session_timeout = 0";
const EXPORT_BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const EXPORTING: &str = "export a snapshot";

/// A connection with an exported snapshot.
pub struct Exporter {
    pub catalog: Catalog,
    snapshot: String,
}

impl Exporter {
    pub async fn begin(postgres: &Postgres) -> Result<Exporter, SourceError> {
        let catalog = Catalog::connect(postgres).await?;
        let client = catalog.client();
        client.batch_execute(PATIENT).await.map_err(SourceError::query("set a timeout"))?;
        client.batch_execute(EXPORT_BEGIN).await.map_err(SourceError::query(EXPORTING))?;
        let exported = client.query_one("SELECT pg_export_snapshot()", &[]).await;
        let snapshot = exported.map_err(SourceError::query(EXPORTING))?.get(0);
        Ok(Exporter { catalog, snapshot })
    }

    /// The rows of a table that this connection has looked at. `filter`: the publication's, as SQL.
    pub async fn open(
        self,
        postgres: &PostgresConfig,
        version: TableVersion,
        filter: Option<String>,
    ) -> Result<LiveTable, LiveRowsError> {
        let Exporter { catalog: exporter, snapshot } = self;
        let relations = snapshot::relations(exporter.client(), &version).await?;
        let client = catalog::open(postgres).await?;
        client.batch_execute(PATIENT).await.map_err(SourceError::query("set a timeout"))?;
        let reader = SnapshotReader::open(client, &snapshot, &version).await?;
        let reader = reader.ok_or(LiveRowsError::BeingAltered)?;
        let renderer = Renderer::new(catalog::open(postgres).await?);
        Ok(LiveTable {
            version: Arc::new(version),
            filter,
            pieces: snapshot::plan(&relations, 1),
            reader,
            pipeline: Pipeline::uncompressed(RendererIo(renderer)),
            _exporter: exporter,
        })
    }
}

impl LiveTable {
    pub async fn open(
        postgres: &Postgres,
        name: &TableName,
        token: Token,
    ) -> Result<LiveTable, LiveRowsError> {
        let mut exporter = Exporter::begin(postgres).await?;
        let (version, _) = exporter.catalog.current(name, token, Lsn(0)).await?;
        let client = exporter.catalog.client();
        let filter = catalog::row_filter(client, &postgres.publication, version.relid).await?;
        exporter.open(postgres, version, filter).await
    }

    /// Shows the published rows of the table's first `rows_max`, batch by batch.
    pub async fn each<E: From<LiveRowsError>>(
        &mut self,
        outlet: &Outlet,
        rows_max: usize,
        mut look: impl FnMut(RowBatch, &mut Rendered) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = rows_max;
        let source = |error: SourceError| E::from(error.into());
        for piece in &self.pieces {
            let rows = self.reader.copy(&self.version, piece, self.filter.as_deref()).await;
            let mut rows = rows.map_err(source)?;
            let mut more = true;
            while more && left > 0 {
                let mut batch = RowBatch::new(Arc::clone(&self.version));
                more = rows.fill(&mut batch, BATCH_BYTES).await.map_err(source)?;
                let batch = first_rows(batch, left);
                left -= batch.len();
                if !batch.is_empty() {
                    let batch = self.pipeline.process(outlet, batch).await?;
                    look(batch, self.pipeline.rendered())?;
                }
            }
        }
        Ok(())
    }
}

fn first_rows(mut batch: RowBatch, rows: usize) -> RowBatch {
    if batch.len() <= rows {
        return batch;
    }
    let (table, mut cells) = (Arc::clone(&batch.table), std::mem::take(&mut batch.cells));
    cells.truncate(rows * table.columns.len());
    batch.with_rows(table, cells, vec![], rows)
}
