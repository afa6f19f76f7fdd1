//! Tables and tuples for unit tests.

use std::sync::Arc;

use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState};

use crate::rows::{Binary, ColumnType, TableVersion, Type};

/// `public.{name}` with text columns `c0`, `c1` … of which the first is the key.
pub fn table_version(name: &str, relid: u32, columns: usize) -> Arc<TableVersion> {
    let name = TableName::new("public", name);
    let column = |index: usize| Column {
        name: format!("c{index}"),
        type_name: "text".into(),
        oid: 25,
        base_oid: None,
        made_of: None,
        attnum: index as i16 + 1,
        nullable: index > 0,
        key: index == 0,
    };
    let cell = |index: usize| ColumnType {
        oid: 25,
        typmod: -1,
        ty: Type::base(25),
        binary: Binary::Yes,
        key: index == 0,
    };
    let schema = Schema {
        table: name.to_string(),
        token: name.token(),
        relid: None,
        revision: 1,
        state: TableState::Live,
        columns: (0..columns).map(column).collect(),
        key: vec!["c0".into()],
        identity: Identity::Default,
        old: vec![0],
        guest: None,
        lsn: Lsn(0),
        reason: None,
    };
    let columns = (0..columns).map(cell).collect();
    Arc::new(TableVersion { token: name.token(), name, relid, schema, columns })
}

/// A tuple in pgoutput's form: kind and bytes of each column.
pub fn tuple(cells: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = (cells.len() as u16).to_be_bytes().to_vec();
    for &(kind, bytes) in cells {
        out.push(kind);
        if kind == b'b' || kind == b't' {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
    out
}
