//! A table for unit tests of this crate.

use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState};

/// `public.t` with these columns (name, oid) in revision 1.
pub(crate) fn schema(columns: &[(&str, u32)]) -> Schema {
    let column = |(attnum, &(name, oid)): (i16, &(&str, u32))| Column {
        name: name.into(),
        type_name: format!("oid {oid}"),
        oid,
        base_oid: None,
        made_of: None,
        attnum,
        nullable: true,
        key: false,
    };
    let name = TableName::new("public", "t");
    Schema {
        table: name.to_string(),
        token: name.token(),
        relid: None,
        revision: 1,
        state: TableState::Live,
        columns: (1..).zip(columns).map(column).collect(),
        key: vec![],
        identity: Identity::Full,
        old: vec![],
        guest: None,
        lsn: Lsn(0),
        reason: None,
    }
}
