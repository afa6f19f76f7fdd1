//! A side that lies in Postgres: read as the gateway reads snapshots, all passes from one exported snapshot.

use std::sync::Arc;

use anyhow::{Context, Result};
use walgate_consumer::sqlite_value;
use walgate_wire::{Caps, Column, Lsn, Reader, Schema, TableName, pack};

use super::{
    compare::{Look, Row},
    sqlite,
};
use crate::{
    batch::{Cell, RowBatch},
    config::Postgres,
    pack::{Packer, Rendered, TablePacker},
    source::{
        catalog::{self, Catalog, TableVersion, TypeCache},
        render::Renderer,
        snapshot::{self, Piece, SnapshotReader},
    },
};

/// Rows that are read at a time.
const BATCH_BYTES: usize = 256 << 10;

/// What rows are compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they travel.
    Wire,
    /// As the SQLite sink stores them.
    Sqlite,
}

pub struct PostgresSide {
    table: Arc<TableVersion>,
    /// The replica's columns, in their order: where each is in a row of the source.
    columns: Vec<(usize, Packer, Column)>,
    packer: TablePacker,
    pieces: Vec<Piece>,
    filter: Option<String>,
    form: Form,
    reader: SnapshotReader,
    renderer: Renderer,
    /// Keeps the snapshot exported.
    _exporter: Catalog,
}

impl PostgresSide {
    /// `schema`: the replica's idea of the table; only its columns are read.
    pub async fn open(postgres: &Postgres, schema: &Schema, form: Form) -> Result<PostgresSide> {
        let exporter = Catalog::connect(postgres).await?;
        let client = exporter.client();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let snapshot: String = client.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
        let (table, filter) = describe(&exporter, &postgres.publication, schema).await?;
        let relations = snapshot::relations(client, &table).await?;
        let reader = SnapshotReader::open(catalog::open(postgres).await?, &snapshot).await?;
        let renderer = Renderer::new(catalog::open(postgres).await?);
        Ok(PostgresSide {
            columns: matching_columns(&table, schema)?,
            packer: TablePacker::new(&table),
            pieces: snapshot::plan(&relations, 1),
            table: Arc::new(table),
            filter,
            form,
            reader,
            renderer,
            _exporter: exporter,
        })
    }

    pub async fn scan<L: Look>(&mut self, mut look: L) -> Result<L> {
        let mut batch = RowBatch::new(Arc::clone(&self.table));
        let mut rendered = Rendered::default();
        for piece in &self.pieces {
            let mut rows = self.reader.copy(&self.table, piece, self.filter.as_deref()).await?;
            let mut more = true;
            while more {
                batch.clear(Arc::clone(&self.table));
                more = rows.fill(&mut batch, BATCH_BYTES).await?;
                if self.packer.renders() {
                    rendered.clear();
                    self.packer.collect(&batch, &mut rendered)?;
                    self.renderer.render(&self.table.name.to_string(), &mut rendered).await?;
                }
                let rows = Rows { columns: &self.columns, form: self.form, rendered: &mut rendered };
                rows.look_at(&batch, &mut look)?;
            }
        }
        Ok(look)
    }
}

struct Rows<'a> {
    columns: &'a [(usize, Packer, Column)],
    form: Form,
    rendered: &'a mut Rendered,
}

impl Rows<'_> {
    fn look_at(self, batch: &RowBatch, look: &mut impl Look) -> Result<()> {
        let (mut row, mut scratch) = (Row::default(), Vec::new());
        let caps = Caps::default();
        for cells in batch.rows() {
            row.clear();
            for (index, packer, column) in self.columns {
                let cell = cells[*index];
                let out = if self.form == Form::Wire { &mut row.bytes } else { &mut scratch };
                match (cell, batch.cell_bytes(cell)) {
                    (Cell::Text { .. }, Some(text)) => pack::str_bytes(out, text),
                    (_, Some(bytes)) => packer
                        .pack(bytes, out, self.rendered)
                        .with_context(|| format!("column {} of {}", column.name, batch.table.name))?,
                    (_, None) => pack::nil(out),
                }
                if self.form == Form::Sqlite {
                    let value = Reader::new(&scratch, &caps).value()?;
                    sqlite::append(&mut row.bytes, &sqlite_value(column, &value));
                    scratch.clear();
                }
                row.end_cell();
            }
            look.at(&row);
        }
        Ok(())
    }
}

/// The table as its catalog shows it, reduced to the columns that the replica has; and the publication's row
/// filter.
async fn describe(
    postgres: &Catalog,
    publication: &str,
    schema: &Schema,
) -> Result<(TableVersion, Option<String>)> {
    let name: TableName = schema.table.parse()?;
    let client = postgres.client();
    let mut info = catalog::load_table(client, publication, &name)
        .await?
        .with_context(|| format!("there is no table {name} on this side"))?;
    for column in &mut info.columns {
        column.published = schema.columns.iter().any(|kept| kept.name == column.name);
    }
    let mut types = TypeCache::default();
    let table = catalog::version_of_catalog(client, &mut types, &info, schema.token.clone(), Lsn(0)).await?;
    Ok((table, info.row_filter))
}

fn matching_columns(table: &TableVersion, schema: &Schema) -> Result<Vec<(usize, Packer, Column)>> {
    let place = |column: &Column| {
        let index = table.schema.columns.iter().position(|found| found.name == column.name);
        let index = index.with_context(|| {
            format!("the replica knows a column {} that {} does not have (any more): has a change of the table not reached it yet?", column.name, table.name)
        })?;
        Ok((index, Packer::new(&table.columns[index].ty), column.clone()))
    };
    schema.columns.iter().map(place).collect()
}
