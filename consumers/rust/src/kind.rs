//! The meaning of a column's values: MessagePack has one integer type where Postgres has numbers,
//! dates and times.

use walgate_wire::Column;

/// How the values of a column are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `boolean`
    Bool,
    /// `bigint`, `integer`, `smallint`, `oid`
    Int,
    /// `real`, `double precision`
    Float,
    /// `bytea`
    Bytes,
    /// `uuid`: 16 bytes.
    Uuid,
    /// `timestamptz`: microseconds since 1970, UTC.
    Timestamptz,
    /// `timestamp`: microseconds since 1970.
    Timestamp,
    /// `date`: days since 1970.
    Date,
    /// `time`: microseconds since midnight.
    Time,
    /// `json`, `jsonb`: text.
    Json,
    /// An array with elements of this kind.
    Array(Box<ValueKind>),
    /// Types that are published as text, and unknown types.
    Other,
}

impl ValueKind {
    /// By the OID of the column's type. OIDs of built-in types (`pg_type.dat`) never change.
    pub fn of_column(column: &Column) -> ValueKind {
        let oid = column.value_oid();
        match Self::from_scalar_oid(oid) {
            Some(kind) => kind,
            None => match array_element_oid(oid) {
                Some(oid) => ValueKind::Array(Box::new(
                    Self::from_scalar_oid(oid).unwrap_or(ValueKind::Other),
                )),
                None if column.type_name.ends_with("[]") => {
                    ValueKind::Array(Box::new(ValueKind::Other))
                }
                None => ValueKind::Other,
            },
        }
    }

    fn from_scalar_oid(oid: u32) -> Option<ValueKind> {
        Some(match oid {
            16 => ValueKind::Bool,
            20 | 21 | 23 | 26 => ValueKind::Int,
            700 | 701 => ValueKind::Float,
            17 => ValueKind::Bytes,
            2950 => ValueKind::Uuid,
            1184 => ValueKind::Timestamptz,
            1114 => ValueKind::Timestamp,
            1082 => ValueKind::Date,
            1083 => ValueKind::Time,
            114 | 3802 => ValueKind::Json,
            _ => return None,
        })
    }
}

/// The element type of a built-in array type.
fn array_element_oid(array: u32) -> Option<u32> {
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
