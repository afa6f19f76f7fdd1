//! The tables whose rows the targets read.

use std::sync::Arc;

use walgate_host::rows::{Binary, ColumnType, Kind, TableVersion, Type};
use walgate_wire::{Column, Identity, Lsn, Schema, TableName, TableState};

/// A table of text columns. The first is the key.
pub fn text_table(columns: usize) -> Arc<TableVersion> {
    table_of(vec![Type::base(25); columns])
}

/// One of three tables. Together they cover every way to pack a value.
pub fn typed_table(which: u8) -> Arc<TableVersion> {
    let base = |oids: &[u32]| oids.iter().map(|&oid| Type::base(oid)).collect();
    table_of(match which % 3 {
        0 => base(&[20, 25, 16, 1184, 1700, 2950, 3802]),
        1 => base(&[
            21, 23, 26, 700, 701, 17, 18, 1114, 1082, 1083, 1266, 1186, 1560, 869, 829, 3904,
        ]),
        _ => vec![
            Type::base(20),
            array_of(1016, Type::base(20)),
            array_of(1231, Type::base(1700)),
            Type { oid: 70_001, kind: Kind::Enum },
            composite_type(),
            array_of(70_003, composite_type()),
            Type { oid: 70_004, kind: Kind::Hstore },
            Type { oid: 70_005, kind: Kind::Vector },
        ],
    })
}

fn array_of(oid: u32, element: Type) -> Type {
    Type { oid, kind: Kind::Array(Box::new(element)) }
}

/// A composite with a field of every kind that is printed inside composites.
fn composite_type() -> Type {
    let fields = [17, 2950, 1114, 1184, 1082, 1083, 25, 1186]
        .map(|oid| (format!("f{oid}"), Type::base(oid)));
    let kind = Kind::Composite { name: "address".into(), fields: fields.to_vec() };
    Type { oid: 70_002, kind }
}

fn table_of(types: Vec<Type>) -> Arc<TableVersion> {
    let name = TableName::new("public", "t");
    let column = |(index, ty): (usize, &Type)| Column {
        name: format!("c{index}"),
        type_name: String::new(),
        oid: ty.oid,
        base_oid: None,
        made_of: None,
        attnum: index as i16 + 1,
        nullable: index > 0,
        key: index == 0,
    };
    let schema = Schema {
        table: name.to_string(),
        token: name.token(),
        revision: 1,
        state: TableState::Live,
        columns: types.iter().enumerate().map(column).collect(),
        key: vec!["c0".into()],
        identity: Identity::Default,
        old: vec![0],
        guest: None,
        lsn: Lsn(0),
        relid: None,
        reason: None,
    };
    let column = |(index, ty): (usize, Type)| ColumnType {
        oid: ty.oid,
        typmod: -1,
        ty,
        binary: Binary::Yes,
        key: index == 0,
    };
    let columns = types.into_iter().enumerate().map(column).collect();
    Arc::new(TableVersion { token: name.token(), name, relid: 1, schema, columns })
}
