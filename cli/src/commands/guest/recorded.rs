//! The file of recorded rows: its first line is the table, each other line a change
//! (docs/GUESTS.md, "Testing").
//!
//! The SDK's test kit reads the lines, so that they mean the same as in a guest's own tests.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use walgate_guest::{
    Op as Told,
    test::{Cells, Change as Recording, Value, parse_change, parse_table},
};
use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState};

use walgate_host::guest::recorded_cells;
use walgate_host::{
    guest::{OutputType, OutputTypeExt, shown_type},
    rows::{
        Binary, ColumnType, TableVersion, Type,
        batch::{Cell, Change, Op, RowBatch, TxnMark},
    },
};

/// A guest sees this much at a time, as in a snapshot.
const BATCH_BYTES: usize = 256 << 10;
const TEXT_LIKE: [&str; 6] =
    ["character varying", "varchar", "character", "bpchar", "name", "citext"];

/// The table. The SDK reads the fields that it knows; the others are for the gateway's host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    table: String,
    #[serde(default)]
    old_rows: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
    columns: Vec<HeadColumn>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeadColumn {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    /// For the SDK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default = "yes")]
    nullable: bool,
    #[serde(default)]
    key: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_oid: Option<u32>,
    /// Absent if it follows from the type's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_of: Option<Type>,
}

fn yes() -> bool {
    true
}

impl Head {
    pub fn of(table: &TableVersion, parameters: BTreeMap<String, String>) -> Head {
        let column = |(named, column): (&Column, &ColumnType)| {
            let (type_name, kind) = shown_type(named, &column.ty);
            let follows = of_name(type_name).is_some_and(|ty| ty == column.ty);
            HeadColumn {
                name: named.name.clone(),
                type_name: type_name.to_owned(),
                kind: Some(kind.name().to_owned()),
                nullable: named.nullable,
                key: named.key,
                oid: Some(named.oid).filter(|_| !follows),
                base_oid: named.base_oid,
                made_of: Some(column.ty.clone()).filter(|_| !follows),
            }
        };
        let columns = table.schema.columns.iter().zip(&table.columns).map(column);
        Head {
            table: table.name.to_string(),
            old_rows: table.schema.identity == Identity::Full,
            parameters,
            columns: columns.collect(),
        }
    }

    fn version(&self) -> Result<TableVersion> {
        let name: TableName = self.table.parse()?;
        let types = self.columns.iter().map(HeadColumn::ty).collect::<Result<Vec<Type>>>()?;
        let column = |((column, ty), attnum): ((&HeadColumn, &Type), i16)| Column {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            oid: column.oid.unwrap_or(ty.oid),
            base_oid: column.base_oid,
            made_of: None,
            attnum,
            nullable: column.nullable,
            key: column.key,
        };
        let columns: Vec<Column> = self.columns.iter().zip(&types).zip(1..).map(column).collect();
        let cell = |(column, ty): (&Column, &Type)| ColumnType {
            oid: column.oid,
            typmod: -1,
            ty: recorded_cells::plain_type(ty),
            binary: Binary::Yes,
            key: column.key,
        };
        let old = |(index, column): (usize, &Column)| {
            (self.old_rows || column.key).then_some(index as u32)
        };
        let schema = Schema {
            table: name.to_string(),
            token: name.token(),
            relid: None,
            revision: 0,
            state: TableState::Live,
            key: columns.iter().filter(|c| c.key).map(|c| c.name.clone()).collect(),
            identity: if self.old_rows { Identity::Full } else { Identity::Default },
            old: columns.iter().enumerate().filter_map(old).collect(),
            guest: None,
            lsn: Lsn(0),
            reason: None,
            columns,
        };
        let columns = schema.columns.iter().zip(&types).map(cell).collect();
        Ok(TableVersion { token: name.token(), name, relid: 0, schema, columns })
    }
}

impl HeadColumn {
    fn ty(&self) -> Result<Type> {
        let ty = self.made_of.clone().or_else(|| of_name(&self.type_name));
        ty.with_context(|| {
            format!(
                "column {} is {}: what this type is made of is not known without `made_of`, which `walgate guest \
                 record` writes",
                self.name, self.type_name
            )
        })
    }
}

/// Built-in types whose name is sufficient.
fn of_name(type_name: &str) -> Option<Type> {
    let name = match (type_name.split_once('('), type_name.split_once(')')) {
        (Some((before, _)), Some((_, after))) => format!("{}{after}", before.trim_end()),
        _ => type_name.to_owned(),
    };
    if TEXT_LIKE.contains(&name.as_str()) {
        return Some(Type::base(1043));
    }
    OutputType::parse(&name).map(|ty| Type::base(ty.oid()))
}

/// A file after reading.
pub struct Recorded {
    pub table: Arc<TableVersion>,
    pub parameters: BTreeMap<String, String>,
    /// The changes with their line numbers, from 1.
    changes: Vec<(usize, Recording)>,
}

/// Consecutive changes, or consecutive rows of a snapshot.
pub struct Recordings {
    /// The line number of each change or row.
    pub lines: Vec<usize>,
    pub batch: RowBatch,
}

impl Recorded {
    pub fn read(file: &Path) -> Result<Recorded> {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
        Recorded::of(&text).with_context(|| file.display().to_string())
    }

    fn of(text: &str) -> Result<Recorded> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines.next().context("it is empty: `walgate guest record` fills it")?;
        let told = parse_table(first).map_err(anyhow::Error::msg).context("line 1")?;
        let head: Head = serde_json::from_str(first).context("line 1")?;
        let change = |(index, line): (usize, &str)| {
            let change = parse_change(&told, line).map_err(anyhow::Error::msg);
            Ok((index + 1, change.with_context(|| format!("line {}", index + 1))?))
        };
        let changes = lines.map(change).collect::<Result<Vec<_>>>()?;
        ensure!(!changes.is_empty(), "it has no rows, only the table");
        let table = Arc::new(head.version().context("line 1")?);
        Ok(Recorded { table, parameters: head.parameters, changes })
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// All batches, in order.
    pub fn batches(&self) -> Result<Vec<Recordings>> {
        let mut all = vec![];
        let mut filling = Filling::new(&self.table);
        for (line, change) in &self.changes {
            let copied = change.op == Told::Snapshot;
            if filling.bytes.len() >= BATCH_BYTES || filling.is_other(copied) {
                all.push(std::mem::replace(&mut filling, Filling::new(&self.table)).finish());
            }
            filling.push(change).with_context(|| format!("line {line}"))?;
            filling.lines.push(*line);
        }
        all.push(filling.finish());
        Ok(all)
    }
}

struct Filling<'a> {
    table: &'a Arc<TableVersion>,
    lines: Vec<usize>,
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    changes: Vec<Change>,
}

impl<'a> Filling<'a> {
    fn new(table: &'a Arc<TableVersion>) -> Self {
        Filling { table, lines: vec![], bytes: vec![], cells: vec![], changes: vec![] }
    }

    fn is_other(&self, copied: bool) -> bool {
        !self.lines.is_empty() && copied != self.changes.is_empty()
    }

    fn push(&mut self, change: &Recording) -> Result<()> {
        let op = match change.op {
            Told::Snapshot => None,
            Told::Insert => Some(Op::Insert),
            Told::Update => Some(Op::Update),
            Told::Delete => Some(Op::Delete),
        };
        let whole =
            |old: &Cells| self.table.schema.columns.iter().all(|c| old.contains_key(&c.name));
        let old_is_key = change.old.as_ref().is_some_and(|old| !whole(old));
        let old = change.old.as_ref().map(|old| self.row(old)).transpose()?;
        let new = change.new.as_ref().map(|new| self.row(new)).transpose()?;
        if let (Some(new), Some(old), false) = (new, old, old_is_key) {
            self.fill_unchanged(new as usize, old as usize);
        }
        if let Some(op) = op {
            let ordinal = self.changes.len() as u32 + 1;
            self.changes.push(Change { op, txn: 0, ordinal, new, old, old_is_key });
        }
        Ok(())
    }

    /// Copies the values that an update left unchanged from the whole old row.
    fn fill_unchanged(&mut self, new: usize, old: usize) {
        for column in 0..self.table.columns.len() {
            if self.cells[new + column] == Cell::Unchanged {
                self.cells[new + column] = self.cells[old + column];
            }
        }
    }

    /// Appends a row; returns the index of its first cell.
    fn row(&mut self, row: &Cells) -> Result<u32> {
        let first = self.cells.len() as u32;
        for (named, column) in self.table.schema.columns.iter().zip(&self.table.columns) {
            let value = row.get(&named.name).unwrap_or(&Value::Null);
            let cell = match recorded_cells::write_cell(&column.ty, value, &mut self.bytes) {
                Ok(cell) => cell,
                Err(what) => bail!("column {} ({}): {what}", named.name, named.type_name),
            };
            self.cells.push(cell);
        }
        Ok(first)
    }

    fn finish(self) -> Recordings {
        let mut batch = RowBatch::new(Arc::clone(self.table));
        batch.bytes = self.bytes;
        let copied = if self.changes.is_empty() { self.lines.len() } else { 0 };
        if copied == 0 {
            batch.txns.push(TxnMark { lsn: Lsn(1), xid: 1, at_micros: 0 });
        }
        let batch = batch.with_rows(Arc::clone(self.table), self.cells, self.changes, copied);
        Recordings { lines: self.lines, batch }
    }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
