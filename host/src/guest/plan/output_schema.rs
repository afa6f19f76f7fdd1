//! The table as it leaves a guest: its columns, and how their cells are read.
//!
//! Pure. That the plan fits the table was checked before.

use std::{collections::HashSet, ops::Range};

use walgate_wire::{Column, Guest, Schema};
use xxhash_rust::xxh3::xxh3_64;

use crate::guest::plan::{
    Cells, Patch,
    output_types::{OutputType, Written},
};
use crate::rows::{Binary, ColumnType, TableVersion, Type};

/// Attnums of added columns lie below those of the catalog and of columns that it has forgotten.
const ADDED_ATTNUM_FIRST: i16 = -2000;
const ADDED_ATTNUMS: u64 = 30_000;

/// The table's columns in their order without the hidden ones, then the added ones.
pub(super) fn cells(
    table: &TableVersion,
    patches: &[Patch],
    hidden: &HashSet<usize>,
) -> Vec<Cells> {
    let of_table = (0..table.columns.len()).filter(|index| !hidden.contains(index)).map(|input| {
        let replaces = |patch: &Patch| patch.replaces.is_some_and(|(index, _)| index == input);
        match patches.iter().position(replaces) {
            Some(patch) => Cells::Replaced { input, patch },
            None => Cells::Input(input),
        }
    });
    let added = patches.iter().enumerate().filter(|(_, patch)| patch.replaces.is_none());
    of_table.chain(added.map(|(patch, _)| Cells::Added { patch })).collect()
}

/// Columns of the input that leave, in runs.
pub(super) fn copied(cells: &[Cells]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for input in cells.iter().filter_map(|cells| cells.input()) {
        match runs.last_mut() {
            Some(run) if run.end == input => run.end += 1,
            _ => runs.push(input..input + 1),
        }
    }
    runs
}

/// By patch: the column of the output that it is laid over.
pub(super) fn places(cells: &[Cells], patches: usize) -> Vec<usize> {
    let of = |wanted: usize| cells.iter().position(|cells| cells.patch() == Some(wanted));
    (0..patches).filter_map(of).collect()
}

/// The table as consumers see it. Revision, state and position are the caller's to set.
pub(super) fn output(
    table: &TableVersion,
    patches: &[Patch],
    cells: &[Cells],
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
        Cells::Input(input) => table.schema.columns[input].clone(),
        Cells::Replaced { input, patch } => {
            let Patch { ty, nullable, .. } = patches[patch];
            let (oid, type_name) = (ty.oid(), ty.name().to_owned());
            Column {
                oid,
                base_oid: None,
                type_name,
                nullable,
                ..table.schema.columns[input].clone()
            }
        }
        Cells::Added { patch } => {
            let Patch { ref column, ty, nullable, .. } = patches[patch];
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
        Cells::Input(input) => table.columns[input].clone(),
        Cells::Replaced { input, patch } => {
            column_type(patches[patch].ty, table.columns[input].key)
        }
        Cells::Added { patch } => column_type(patches[patch].ty, false),
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

/// Depends on the name alone as long as no two names collide, so that it outlives versions of the guest.
fn added_attnum(name: &str, taken: &mut HashSet<i16>) -> i16 {
    let mut offset = (xxh3_64(name.as_bytes()) % ADDED_ATTNUMS) as i16;
    while !taken.insert(ADDED_ATTNUM_FIRST - offset) {
        offset = (offset + 1) % ADDED_ATTNUMS as i16;
    }
    ADDED_ATTNUM_FIRST - offset
}
