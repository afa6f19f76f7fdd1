//! The kinds in which values are laid out, and the Postgres types of columns that a guest can
//! write.
//!
//! This module knows names and numbers, but no values.

/// How the values of a column are laid out. Buffers contain the discriminant.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// A boolean.
    Boolean = 0,
    /// An int2, int4, int8 or oid, as 64 bits.
    Integer = 1,
    /// A float4 or float8, as 64 bits.
    Float = 2,
    /// Any other type, as text: text, enums, numeric, json, inet, interval, ranges, …
    Text = 3,
    /// A bytea.
    Bytes = 4,
    /// A UUID.
    Uuid = 5,
    /// A timestamp with or without time zone, in µs since 1970.
    Timestamp = 6,
    /// A date, in days since 1970.
    Date = 7,
    /// A time of day, in µs since midnight.
    Time = 8,
    /// An array, composite, hstore or vector, as MessagePack.
    Packed = 9,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 10] = [
        Kind::Boolean,
        Kind::Integer,
        Kind::Float,
        Kind::Text,
        Kind::Bytes,
        Kind::Uuid,
        Kind::Timestamp,
        Kind::Date,
        Kind::Time,
        Kind::Packed,
    ];

    /// The kind of this number.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }

    /// The number of the kind in buffers.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name of the kind in `guest.wit`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Float => "float",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::Uuid => "uuid",
            Kind::Timestamp => "timestamp",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Packed => "packed",
        }
    }

    /// Bytes of each value; `None` for kinds whose values differ in length.
    pub fn width(self) -> Option<usize> {
        match self {
            Kind::Boolean => Some(1),
            Kind::Uuid => Some(16),
            Kind::Integer | Kind::Float | Kind::Timestamp | Kind::Date | Kind::Time => Some(8),
            Kind::Text | Kind::Bytes | Kind::Packed => None,
        }
    }

    /// The kind of a column of this Postgres type.
    ///
    /// An unknown type is assumed to be text. Therefore a composite has to be declared as packed.
    pub fn of_type(type_name: &str) -> Kind {
        let base = base_type(type_name);
        if base.ends_with("[]") {
            return Kind::Packed;
        }
        match base.as_str() {
            "oid" => Kind::Integer,
            "hstore" | "vector" => Kind::Packed,
            name => Type::parse(name).map_or(Kind::Text, Type::kind),
        }
    }
}

/// The Postgres types of columns that a guest can write.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, without modifiers.
    Numeric,
    /// `text`
    Text,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `timestamp with time zone`
    Timestamptz,
    /// `timestamp without time zone`
    Timestamp,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
}

impl Type {
    /// All types, in the order of their discriminants.
    pub const ALL: [Type; 16] = [
        Type::Bool,
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Float4,
        Type::Float8,
        Type::Numeric,
        Type::Text,
        Type::Bytea,
        Type::Uuid,
        Type::Json,
        Type::Jsonb,
        Type::Timestamptz,
        Type::Timestamp,
        Type::Date,
        Type::Time,
    ];

    /// The name as Postgres' `format_type` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "boolean",
            Type::Int2 => "smallint",
            Type::Int4 => "integer",
            Type::Int8 => "bigint",
            Type::Float4 => "real",
            Type::Float8 => "double precision",
            Type::Numeric => "numeric",
            Type::Text => "text",
            Type::Bytea => "bytea",
            Type::Uuid => "uuid",
            Type::Json => "json",
            Type::Jsonb => "jsonb",
            Type::Timestamptz => "timestamp with time zone",
            Type::Timestamp => "timestamp without time zone",
            Type::Date => "date",
            Type::Time => "time without time zone",
        }
    }

    /// Parses the type of an output column. Modifiers are not allowed: `numeric`, not
    /// `numeric(10,2)`.
    pub fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "bool" | "boolean" => Type::Bool,
            "int2" | "smallint" => Type::Int2,
            "int4" | "integer" => Type::Int4,
            "int8" | "bigint" => Type::Int8,
            "float4" | "real" => Type::Float4,
            "float8" | "double precision" => Type::Float8,
            "numeric" => Type::Numeric,
            "text" => Type::Text,
            "bytea" => Type::Bytea,
            "uuid" => Type::Uuid,
            "json" => Type::Json,
            "jsonb" => Type::Jsonb,
            "timestamptz" | "timestamp with time zone" => Type::Timestamptz,
            "timestamp" | "timestamp without time zone" => Type::Timestamp,
            "date" => Type::Date,
            "time" | "time without time zone" => Type::Time,
            _ => return None,
        })
    }

    /// The kind of the type's values.
    pub fn kind(self) -> Kind {
        match self {
            Type::Bool => Kind::Boolean,
            Type::Int2 | Type::Int4 | Type::Int8 => Kind::Integer,
            Type::Float4 | Type::Float8 => Kind::Float,
            Type::Numeric | Type::Text | Type::Json | Type::Jsonb => Kind::Text,
            Type::Bytea => Kind::Bytes,
            Type::Uuid => Kind::Uuid,
            Type::Timestamptz | Type::Timestamp => Kind::Timestamp,
            Type::Date => Kind::Date,
            Type::Time => Kind::Time,
        }
    }

    /// The output type of a replaced column that keeps its type `type_name`.
    ///
    /// Modifiers are removed, and character types become text. `None` if a guest cannot write the
    /// type; then `replace` must name another type.
    pub fn of_replaced(type_name: &str) -> Option<Type> {
        match base_type(type_name).as_str() {
            "character varying" | "varchar" | "character" | "char" | "bpchar" | "name"
            | "citext" => Some(Type::Text),
            name => Type::parse(name),
        }
    }
}

/// Removes the modifiers of a type: `timestamp(3) with time zone` → `timestamp with time zone`.
pub(crate) fn base_type(type_name: &str) -> String {
    match (type_name.find('('), type_name.find(')')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", type_name[..open].trim_end(), &type_name[close + 1..])
        }
        _ => type_name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_interface() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(kind.number(), number);
            assert_eq!(Kind::from_number(number), Some(kind));
        }
        assert_eq!(Kind::from_number(10), None);
    }

    #[test]
    fn types_have_their_names() {
        for (place, ty) in Type::ALL.into_iter().enumerate() {
            assert_eq!((ty as usize, Type::parse(ty.name())), (place, Some(ty)));
        }
    }

    #[test]
    fn modifiers_do_not_change_the_kind() {
        assert_eq!(Kind::of_type("timestamp(3) with time zone"), Kind::Timestamp);
        assert_eq!(Kind::of_type("numeric(10,2)"), Kind::Text);
        assert_eq!(Kind::of_type("numeric(10,2)[]"), Kind::Packed);
        assert_eq!(Kind::of_type("order_status"), Kind::Text);
        assert_eq!(Type::of_replaced("character varying(20)"), Some(Type::Text));
        assert_eq!(Type::of_replaced("numeric(10,2)"), Some(Type::Numeric));
        assert_eq!(Type::of_replaced("inet"), None);
    }
}
