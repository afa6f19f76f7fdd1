//! Rows of a table as a snapshot reads them: by COPY, with the values that only the server can
//! print.
//!
//! All reads see one exported snapshot. The use of the rows is not known here.

use std::sync::Arc;

use walgate_wire::{Lsn, TableName, Token};

use crate::{
    config::PostgresConfig,
    egress::{
        outlet::Outlet,
        pipeline::{Pipeline, PipelineIo},
    },
    encode::RowError,
    guest::GuestFailure,
    postgres::{
        PostgresError,
        catalog::Catalog,
        server_render::Renderer,
        snapshot::{Piece, SnapshotReader, load_whole_table},
    },
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// Rows of one batch, as in a snapshot.
const BATCH_BYTES: usize = 256 << 10;

/// Rows that cannot be read, or not taken through the table's guest.
#[derive(Debug, thiserror::Error)]
pub enum LiveRowsError {
    #[error(transparent)]
    Source(#[from] PostgresError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    #[error("the table is being altered at this moment; try again")]
    BeingAltered,
}

/// A table in an exported snapshot.
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

/// The current shape of a table.
pub async fn read_version(
    postgres: &PostgresConfig,
    name: &TableName,
    token: Token,
) -> Result<Arc<TableVersion>, PostgresError> {
    let mut catalog = Catalog::connect(postgres).await?;
    Ok(Arc::new(catalog.load_current(name, token, Lsn(0)).await?.0))
}

/// A connection that exports a snapshot.
pub struct Exporter {
    pub catalog: Catalog,
    snapshot: String,
}

impl Exporter {
    pub async fn begin(postgres: &PostgresConfig) -> Result<Exporter, PostgresError> {
        let catalog = Catalog::connect(postgres).await?;
        let snapshot = catalog.export_snapshot().await?;
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
        let pieces = load_whole_table(&exporter, &version).await?;
        let reader = SnapshotReader::open(postgres, &snapshot, &version).await?;
        let reader = reader.ok_or(LiveRowsError::BeingAltered)?;
        // While two sides are compared, the one waits for the other in an open transaction.
        reader.disable_idle_timeout().await?;
        let renderer = Renderer::connect(postgres).await?;
        Ok(LiveTable {
            version: Arc::new(version),
            filter,
            pieces,
            reader,
            pipeline: Pipeline::uncompressed(RendererIo(renderer)),
            _exporter: exporter,
        })
    }
}

impl LiveTable {
    pub async fn open(
        postgres: &PostgresConfig,
        name: &TableName,
        token: Token,
    ) -> Result<LiveTable, LiveRowsError> {
        let mut exporter = Exporter::begin(postgres).await?;
        let (version, _) = exporter.catalog.load_current(name, token, Lsn(0)).await?;
        let filter = exporter.catalog.load_row_filter(version.relid).await?;
        exporter.open(postgres, version, filter).await
    }

    /// Shows the published rows of the table's first `rows_max`, batch by batch.
    pub async fn for_each_batch<E: From<LiveRowsError>>(
        &mut self,
        outlet: &Outlet,
        rows_max: usize,
        mut look: impl FnMut(RowBatch, &mut Rendered) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = rows_max;
        let source = |error: PostgresError| E::from(error.into());
        for piece in &self.pieces {
            let rows = self.reader.copy(&self.version, piece, self.filter.as_deref()).await;
            let mut rows = rows.map_err(source)?;
            let mut more = true;
            while more && left > 0 {
                let mut batch = RowBatch::new(Arc::clone(&self.version));
                more = rows.fill_batch(&mut batch, BATCH_BYTES).await.map_err(source)?;
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
