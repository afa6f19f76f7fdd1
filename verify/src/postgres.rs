//! A side in Postgres, read as the gateway reads snapshots. All passes use one exported snapshot.
//!
//! The source's values are compared in the replica's form, see [`Form`].

use anyhow::{Context, Result};
use walgate_consumer::{ValueKind, sqlite_value, value_json};
use walgate_wire::{Caps, Column, Lsn, Reader, Schema, TableName, Value, pack};

use crate::{
    TableGate,
    compare::{Look, Row},
    sqlite,
};
use walgate_host::{
    config::PostgresConfig,
    egress::outlet::Outlet,
    encode::Packer,
    postgres::catalog::Catalog,
    rows::{
        Rendered, TableVersion,
        batch::{Cell, RowBatch},
    },
    snapshot::live_rows::{Exporter, LiveTable},
};

/// The form in which a column's values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The form on the wire.
    Wire,
    /// The form in which the SQLite sink stores values.
    Sqlite,
    /// The text that the Postgres sink writes for types that the target lacks.
    Text,
}

pub struct PostgresSide {
    table: LiveTable,
    /// The guest and packing that a row passes before the comparison.
    outlet: Outlet,
    /// In the order of the replica's columns.
    columns: Vec<ComparedColumn>,
    /// Columns that are published here, or added by the guest, and that the replica lacks.
    beyond: Vec<String>,
}

impl PostgresSide {
    /// `schema`: the table as the replica knows it; only its columns are compared. `forms`: one for
    /// each column. `guest`: the guest between the two sides.
    pub async fn open(
        postgres: &PostgresConfig,
        schema: &Schema,
        forms: &[Form],
        guest: Option<&TableGate>,
    ) -> Result<PostgresSide> {
        let mut exporter = Exporter::begin(postgres).await?;
        let replicas = schema.columns.iter().map(|column| column.name.as_str()).collect();
        let wanted = guest.is_none().then_some(replicas);
        let (table, filter, published) = describe(&mut exporter.catalog, schema, wanted).await?;
        let outlet = match guest {
            Some(TableGate { table: config, gate }) => Outlet::open(gate, config, table.clone())?,
            None => Outlet::unguarded(table.clone()),
        };
        let mut beyond = match guest {
            Some(_) => names(&outlet.output().schema.columns),
            None => published,
        };
        beyond.retain(|name| schema.columns.iter().all(|column| column.name != *name));
        let columns = compared_columns(outlet.output(), schema, forms)?;
        let table = exporter.open(postgres, table, filter).await?;
        Ok(PostgresSide { table, outlet, columns, beyond })
    }

    /// The form in which a source has to deliver each column, if this is the replica.
    pub fn forms(&self) -> Vec<Form> {
        let form = |compared: &ComparedColumn| match compared.packer {
            Packer::Text => Form::Text,
            _ => Form::Wire,
        };
        self.columns.iter().map(form).collect()
    }

    /// Columns that the replica lacks, if this is the source.
    pub fn beyond(&self) -> &[String] {
        &self.beyond
    }

    pub async fn scan<L: Look>(&mut self, mut look: L) -> Result<L> {
        let PostgresSide { table, outlet, columns, .. } = self;
        let compare = |batch: RowBatch, rendered: &mut Rendered| {
            look_at(&batch, columns, rendered, &mut look)
        };
        table.for_each_batch(outlet, usize::MAX, compare).await?;
        Ok(look)
    }
}

/// A column of the replica, and how its values are read here.
struct ComparedColumn {
    /// Its index in a row of this side.
    index: usize,
    packer: Packer,
    column: Column,
    form: Form,
}

fn look_at(
    batch: &RowBatch,
    columns: &[ComparedColumn],
    rendered: &mut Rendered,
    look: &mut impl Look,
) -> Result<()> {
    let (mut row, mut scratch) = (Row::default(), Vec::new());
    for cells in batch.rows() {
        row.clear();
        for compared in columns {
            let packed = if compared.form == Form::Wire { &mut row.bytes } else { &mut scratch };
            compared.pack(batch, cells[compared.index], packed, rendered).with_context(|| {
                format!("column {} of {}", compared.column.name, batch.table.name)
            })?;
            if compared.form != Form::Wire {
                compared.convert(&scratch, &mut row.bytes)?;
                scratch.clear();
            }
            row.end_cell();
        }
        look.at(&row);
    }
    Ok(())
}

impl ComparedColumn {
    fn pack(
        &self,
        batch: &RowBatch,
        cell: Cell,
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<()> {
        match (cell, batch.cell_bytes(cell)) {
            (Cell::Text { .. }, Some(text)) => pack::str_bytes(out, text),
            (_, Some(bytes)) => self.packer.pack(bytes, out, rendered)?,
            (_, None) => pack::nil(out),
        }
        Ok(())
    }

    fn convert(&self, packed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let value = Reader::new(packed, &Caps::default()).value()?;
        match (self.form, &value) {
            (Form::Sqlite, value) => sqlite::append(out, &sqlite_value(&self.column, value)),
            (_, Value::Nil | Value::Str(_)) => out.extend_from_slice(packed),
            (_, value) => {
                pack::str(out, &value_json(&ValueKind::of_column(&self.column), value).to_string())
            }
        }
        Ok(())
    }
}

/// Describes the table from its catalog, reduced to `columns` or to the published columns. Also
/// returns the publication's row filter and the names of all published columns.
async fn describe(
    catalog: &mut Catalog,
    schema: &Schema,
    columns: Option<Vec<&str>>,
) -> Result<(TableVersion, Option<String>, Vec<String>)> {
    let name: TableName = schema.table.parse()?;
    let mut info = catalog
        .load_table(&name)
        .await?
        .with_context(|| format!("there is no table {name} on this side"))?;
    let published: Vec<String> =
        info.published_columns().map(|column| column.name.clone()).collect();
    if let Some(columns) = columns {
        for column in &mut info.columns {
            column.published = columns.contains(&&*column.name);
        }
    }
    let table = catalog.build_version(&info, schema.token.clone(), Lsn(0)).await?;
    let filter = catalog.load_row_filter(table.relid).await?;
    Ok((table, filter, published))
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

fn compared_columns(
    table: &TableVersion,
    schema: &Schema,
    forms: &[Form],
) -> Result<Vec<ComparedColumn>> {
    let compared = |(column, &form): (&Column, &Form)| {
        let index = table.schema.columns.iter().position(|found| found.name == column.name);
        let index = index.with_context(|| {
            format!(
                "the replica has a column {} that {} has not (any more): has a change of the table not reached it yet?",
                column.name, table.name
            )
        })?;
        let packer = Packer::new(&table.columns[index].ty);
        Ok(ComparedColumn { index, packer, column: column.clone(), form })
    };
    schema.columns.iter().zip(forms).map(compared).collect()
}
