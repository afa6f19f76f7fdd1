//! What the values of a column mean: MessagePack has one integer where Postgres has numbers, dates and times.

use walgate_wire::Column;

/// How values of a type are to be read. Types that travel as text, and types that are not known, are
/// [`Kind::Other`]: there the value speaks for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Float,
    Bytes,
    Uuid,
    Timestamptz,
    Timestamp,
    Date,
    Time,
    Json,
    Array(Box<Kind>),
    Other,
}

impl Kind {
    /// By the OID of built-in types (`pg_type.dat`), which never change.
    pub fn of(column: &Column) -> Kind {
        let oid = column.value_oid();
        match Self::scalar(oid) {
            Some(kind) => kind,
            None => match element(oid) {
                Some(oid) => Kind::Array(Box::new(Self::scalar(oid).unwrap_or(Kind::Other))),
                None if column.type_name.ends_with("[]") => Kind::Array(Box::new(Kind::Other)),
                None => Kind::Other,
            },
        }
    }

    fn scalar(oid: u32) -> Option<Kind> {
        Some(match oid {
            16 => Kind::Bool,
            20 | 21 | 23 | 26 => Kind::Int,
            700 | 701 => Kind::Float,
            17 => Kind::Bytes,
            2950 => Kind::Uuid,
            1184 => Kind::Timestamptz,
            1114 => Kind::Timestamp,
            1082 => Kind::Date,
            1083 => Kind::Time,
            114 | 3802 => Kind::Json,
            _ => return None,
        })
    }
}

/// The element type of a built-in array type.
fn element(array: u32) -> Option<u32> {
    Some(match array {
        1000 => 16,
        1016 => 20,
        1005 => 21,
        1007 => 23,
        1028 => 26,
        1021 => 700,
        1022 => 701,
        1001 => 17,
        2951 => 2950,
        1185 => 1184,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        199 => 114,
        3807 => 3802,
        _ => return None,
    })
}
