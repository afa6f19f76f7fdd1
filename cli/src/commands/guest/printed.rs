//! Prints rows of a batch as JSON, in the form of recorded rows: values that are strings on the
//! wire are strings.
//!
//! Uses the packer, so that a value is what a consumer would receive.

use anyhow::{Context, Result};
use serde_json::{Map, Value as Json};
use walgate_consumer::{ValueKind, value_json};
use walgate_wire::{Caps, Reader};

use walgate_host::{
    encode::Packer,
    rows::{
        Rendered, TableVersion,
        batch::{Cell, RowBatch},
    },
};

/// Prints the rows of one table version.
pub struct Printer {
    columns: Vec<Column>,
}

struct Column {
    name: String,
    key: bool,
    packer: Packer,
    kind: ValueKind,
}

/// Members in the order of columns.
#[derive(Debug, Default)]
pub struct Printed {
    pub row: Map<String, Json>,
    pub unchanged: Vec<String>,
}

impl Printer {
    pub fn new(table: &TableVersion) -> Printer {
        let columns = table.columns.iter().zip(&table.schema.columns);
        let columns = columns.map(|(column, named)| Column {
            name: named.name.clone(),
            key: named.key,
            packer: Packer::new(&column.ty),
            kind: as_text(ValueKind::of_column(named)),
        });
        Printer { columns: columns.collect() }
    }

    /// `key_only`: the row has no other cells.
    pub fn row(
        &self,
        batch: &RowBatch,
        cells: &[Cell],
        key_only: bool,
        rendered: &mut Rendered,
    ) -> Result<Printed> {
        let mut printed = Printed::default();
        let mut packed = vec![];
        for (column, &cell) in self.columns.iter().zip(cells) {
            if key_only && !column.key {
                continue;
            }
            if cell == Cell::Unchanged {
                printed.unchanged.push(column.name.clone());
                continue;
            }
            packed.clear();
            column
                .packer
                .pack_cell(batch, cell, &mut packed, rendered)
                .with_context(|| format!("column {}", column.name))?;
            let value = Reader::new(&packed, &Caps::default()).value()?;
            printed.row.insert(column.name.clone(), value_json(&column.kind, &value));
        }
        Ok(printed)
    }
}

/// JSON values are printed as their text on the wire: parsing and printing could change them.
fn as_text(kind: ValueKind) -> ValueKind {
    match kind {
        ValueKind::Json => ValueKind::Other,
        ValueKind::Array(element) => ValueKind::Array(Box::new(as_text(*element))),
        kind => kind,
    }
}
