//! Rows of a table as the gateway reads them for a snapshot: by COPY, with what only the server can print.
//!
//! However often they are read, all of them are of one exported snapshot. What is done with them is the caller's
//! business.

use std::sync::Arc;

use anyhow::{Context, Result};
use walgate_wire::{Lsn, TableName, Token};

use crate::{
    config::Postgres,
    encode::TablePacker,
    postgres::{
        catalog::{self, Catalog},
        server_render::Renderer,
        snapshot::{self, Piece, SnapshotReader},
    },
    rows::{Rendered, TableVersion, batch::RowBatch},
};

/// Rows that are shown at a time: as in a snapshot.
const BATCH_BYTES: usize = 256 << 10;

pub struct LiveTable {
    pub version: Arc<TableVersion>,
    filter: Option<String>,
    pieces: Vec<Piece>,
    reader: SnapshotReader,
    renderer: Renderer,
    /// Keeps the snapshot exported.
    _exporter: Catalog,
}

/// The table as it is now.
pub async fn version(
    postgres: &Postgres,
    name: &TableName,
    token: Token,
) -> Result<Arc<TableVersion>> {
    let mut catalog = Catalog::connect(postgres).await?;
    Ok(Arc::new(catalog.current(name, token, Lsn(0)).await?.0))
}

/// Whoever compares has the one side wait for the other.
const PATIENT: &str = "SET idle_in_transaction_session_timeout = 0";

/// A connection with an exported snapshot.
pub struct Exporter {
    pub catalog: Catalog,
    snapshot: String,
}

impl Exporter {
    pub async fn begin(postgres: &Postgres) -> Result<Exporter> {
        let catalog = Catalog::connect(postgres).await?;
        let client = catalog.client();
        client.batch_execute(PATIENT).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let snapshot = client.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
        Ok(Exporter { catalog, snapshot })
    }

    /// The rows of a table that this connection has looked at. `filter`: the publication's, as SQL.
    pub async fn open(
        self,
        postgres: &Postgres,
        version: TableVersion,
        filter: Option<String>,
    ) -> Result<LiveTable> {
        let Exporter { catalog: exporter, snapshot } = self;
        let relations = snapshot::relations(exporter.client(), &version).await?;
        let client = catalog::open(postgres).await?;
        client.batch_execute(PATIENT).await?;
        let reader = SnapshotReader::open(client, &snapshot, &version).await?;
        let reader = reader.context("the table is being altered at this moment; try again")?;
        Ok(LiveTable {
            version: Arc::new(version),
            filter,
            pieces: snapshot::plan(&relations, 1),
            reader,
            renderer: Renderer::new(catalog::open(postgres).await?),
            _exporter: exporter,
        })
    }
}

impl LiveTable {
    pub async fn open(postgres: &Postgres, name: &TableName, token: Token) -> Result<LiveTable> {
        let mut exporter = Exporter::begin(postgres).await?;
        let (version, _) = exporter.catalog.current(name, token, Lsn(0)).await?;
        let client = exporter.catalog.client();
        let filter = catalog::row_filter(client, &postgres.publication, version.relid).await?;
        exporter.open(postgres, version, filter).await
    }

    /// Shows the table's first rows, at most so many, batch by batch.
    pub async fn each(
        &mut self,
        rows_max: usize,
        mut look: impl FnMut(RowBatch, Rendered) -> Result<()>,
    ) -> Result<()> {
        let packer = TablePacker::new(&self.version);
        let mut left = rows_max;
        for piece in &self.pieces {
            let mut rows = self.reader.copy(&self.version, piece, self.filter.as_deref()).await?;
            let mut more = true;
            while more && left > 0 {
                let mut batch = RowBatch::new(Arc::clone(&self.version));
                more = rows.fill(&mut batch, BATCH_BYTES).await?;
                let batch = first_rows(batch, left);
                left -= batch.len();
                let mut rendered = Rendered::default();
                if packer.renders() {
                    packer.collect(&batch, &mut rendered)?;
                    self.renderer.render(&self.version.name.to_string(), &mut rendered).await?;
                }
                if !batch.is_empty() {
                    look(batch, rendered)?;
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
