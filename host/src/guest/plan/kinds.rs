//! Maps Postgres types to the ten kinds of value that guests know.
//!
//! Follows the packer: types that it prints are text, types that it nests are packed. The layout of
//! values in a buffer is not known here.

pub use walgate_guest::Kind;

use crate::{encode::Packer, rows::Type};

/// The kind in which a guest sees values of this type.
pub fn kind_of(ty: &Type) -> Kind {
    match Packer::new(ty) {
        Packer::Bool => Kind::Boolean,
        Packer::Int2 | Packer::Int4 | Packer::Int8 | Packer::Oid => Kind::Integer,
        Packer::Float4 | Packer::Float8 => Kind::Float,
        Packer::Bytea => Kind::Bytes,
        Packer::Uuid => Kind::Uuid,
        Packer::Timestamp | Packer::TimestampTz => Kind::Timestamp,
        Packer::Date => Kind::Date,
        Packer::Time => Kind::Time,
        Packer::Array(_) | Packer::Composite(_) | Packer::Hstore | Packer::Vector => Kind::Packed,
        Packer::Numeric
        | Packer::Text
        | Packer::Char
        | Packer::Jsonb
        | Packer::TimeTz
        | Packer::Interval
        | Packer::Address(_)
        | Packer::Mac
        | Packer::Bits
        | Packer::Printed(_)
        | Packer::Rendered(_) => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_kind() {
        for (oid, kind) in [
            (16, Kind::Boolean),
            (21, Kind::Integer),
            (26, Kind::Integer),
            (700, Kind::Float),
            (1043, Kind::Text),
            (1700, Kind::Text),
            (3802, Kind::Text),
            (1186, Kind::Text),
            (600, Kind::Text),
            (17, Kind::Bytes),
            (2950, Kind::Uuid),
            (1184, Kind::Timestamp),
            (1082, Kind::Date),
            (1083, Kind::Time),
        ] {
            assert_eq!(kind_of(&Type::base(oid)), kind, "{oid}");
        }
        let array = crate::rows::Kind::Array(Box::new(Type::base(25)));
        assert_eq!(kind_of(&Type { oid: 1009, kind: array }), Kind::Packed);
        assert_eq!(kind_of(&Type { oid: 99_999, kind: crate::rows::Kind::Enum }), Kind::Text);
    }
}
