//! The published table behind a guest: its columns, and where their cells come from.
//!
//! Pure. Whether the plan fits the table is checked elsewhere.

use std::{collections::HashSet, ops::Range};

use walgate_wire::{Column, Guest, Schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::guest::plan::output_types::{OutputType, OutputTypeExt};
use crate::rows::{Binary, ColumnType, TableVersion, Type};

/// Attnums of added columns are below those of the catalog and of dropped columns.
const ADDED_ATTNUM_FIRST: i16 = -2000;
const ADDED_ATTNUMS: u64 = 30_000;

/// A column that the guest writes.
#[derive(Clone, Debug)]
pub struct PatchedColumn {
    pub column: String,
    pub ty: OutputType,
    pub nullable: bool,
    /// The column that it replaces, and whether that column's values can stay as they are.
    pub replaces: Option<(usize, bool)>,
}

/// Where the cells of one output column come from: indexes into the table's columns and into the
/// patched columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellSource {
    Input(usize),
    Replaced { input: usize, patch: usize },
    Added { patch: usize },
}

impl CellSource {
    /// The input column whose cell is published if the guest leaves it untouched.
    pub fn input(self) -> Option<usize> {
        match self {
            CellSource::Input(input) | CellSource::Replaced { input, .. } => Some(input),
            CellSource::Added { .. } => None,
        }
    }

    /// The patched column that provides the cell otherwise.
    pub fn patch(self) -> Option<usize> {
        match self {
            CellSource::Input(_) => None,
            CellSource::Replaced { patch, .. } | CellSource::Added { patch } => Some(patch),
        }
    }
}

/// The table's columns in their order without the hidden ones, then the added ones.
pub(super) fn cell_sources(
    table: &TableVersion,
    patches: &[PatchedColumn],
    hidden: &HashSet<usize>,
) -> Vec<CellSource> {
    let of_table = (0..table.columns.len()).filter(|index| !hidden.contains(index)).map(|input| {
        let replaces =
            |patch: &PatchedColumn| patch.replaces.is_some_and(|(index, _)| index == input);
        match patches.iter().position(replaces) {
            Some(patch) => CellSource::Replaced { input, patch },
            None => CellSource::Input(input),
        }
    });
    let added = patches.iter().enumerate().filter(|(_, patch)| patch.replaces.is_none());
    of_table.chain(added.map(|(patch, _)| CellSource::Added { patch })).collect()
}

/// Published columns of the input, in runs.
pub(super) fn input_runs(cells: &[CellSource]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for input in cells.iter().filter_map(|cells| cells.input()) {
        match runs.last_mut() {
            Some(run) if run.end == input => run.end += 1,
            _ => runs.push(input..input + 1),
        }
    }
    runs
}

/// For each patched column, its index in the output.
pub(super) fn patch_places(cells: &[CellSource], patches: usize) -> Vec<usize> {
    let of = |wanted: usize| cells.iter().position(|cells| cells.patch() == Some(wanted));
    (0..patches).filter_map(of).collect()
}

/// The table as consumers see it. The caller sets its revision, state and position.
pub(super) fn output_table(
    table: &TableVersion,
    patches: &[PatchedColumn],
    cells: &[CellSource],
    guest: Guest,
) -> TableVersion {
    let mut taken = HashSet::new();
    let mut added: Vec<&str> =
        patches.iter().filter(|p| p.replaces.is_none()).map(|p| &*p.column).collect();
    added.sort_unstable();
    let attnums: Vec<(&str, i16)> =
        added.into_iter().map(|name| (name, added_attnum(name, &mut taken))).collect();
    let attnum = |name: &str| attnums.iter().find(|(n, _)| *n == name).map_or(0, |(_, a)| *a);
    let named = cells.iter().map(|cells| match *cells {
        CellSource::Input(input) => table.schema.columns[input].clone(),
        CellSource::Replaced { input, patch } => {
            let PatchedColumn { ty, nullable, .. } = patches[patch];
            let (oid, type_name) = (ty.oid(), ty.name().to_owned());
            Column {
                oid,
                base_oid: None,
                type_name,
                nullable,
                ..table.schema.columns[input].clone()
            }
        }
        CellSource::Added { patch } => {
            let PatchedColumn { ref column, ty, nullable, .. } = patches[patch];
            let (name, type_name, oid) = (column.clone(), ty.name().to_owned(), ty.oid());
            Column {
                attnum: attnum(&name),
                name,
                type_name,
                oid,
                base_oid: None,
                made_of: None,
                nullable,
                key: false,
            }
        }
    });
    let columns = cells.iter().map(|cells| match *cells {
        CellSource::Input(input) => table.columns[input].clone(),
        CellSource::Replaced { input, patch } => {
            column_type(patches[patch].ty, table.columns[input].key)
        }
        CellSource::Added { patch } => column_type(patches[patch].ty, false),
    });
    let place = |&old: &u32| cells.iter().position(|cells| cells.input() == Some(old as usize));
    let old = table.schema.old.iter().filter_map(place).map(|index| index as u32).collect();
    let schema = Schema {
        revision: 0,
        columns: named.collect(),
        old,
        guest: Some(guest),
        ..table.schema.clone()
    };
    TableVersion {
        name: table.name.clone(),
        token: table.token.clone(),
        relid: table.relid,
        schema,
        columns: columns.collect(),
    }
}

fn column_type(ty: OutputType, key: bool) -> ColumnType {
    let oid = ty.oid();
    ColumnType { oid, typmod: -1, ty: Type::base(oid), binary: Binary::Yes, key }
}

/// Depends on the name alone, unless two names collide: the number outlives versions of the guest.
fn added_attnum(name: &str, taken: &mut HashSet<i16>) -> i16 {
    let mut offset = (xxh3_64(name.as_bytes()) % ADDED_ATTNUMS) as i16;
    while !taken.insert(ADDED_ATTNUM_FIRST - offset) {
        offset = (offset + 1) % ADDED_ATTNUMS as i16;
    }
    ADDED_ATTNUM_FIRST - offset
}
