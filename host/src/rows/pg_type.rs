//! The structure of Postgres types, as far as the binary form of values needs it.
//!
//! Pure data. How it is read from the catalog, and how values become MessagePack, is not known
//! here.

use serde::{Deserialize, Serialize};

/// Built-in types whose binary form the packer reads itself ([`Kind::Base`]).
pub const NATIVE_OIDS: &[u32] = &[
    16,   // bool
    17,   // bytea
    18,   // "char"
    19,   // name
    20,   // int8
    21,   // int2
    23,   // int4
    25,   // text
    26,   // oid
    114,  // json
    142,  // xml
    700,  // float4
    701,  // float8
    1042, // bpchar
    1043, // varchar
    1082, // date
    1083, // time
    1114, // timestamp
    1184, // timestamptz
    1700, // numeric
    2950, // uuid
    3802, // jsonb
];

/// A type, domains resolved. Serialised where rows are recorded for guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Type {
    /// Of the base type where the declared one is a domain; `text` for citext.
    pub oid: u32,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One of [`NATIVE_OIDS`].
    Base,
    /// The label, in binary as in text.
    Enum,
    Array(Box<Type>),
    /// Fields in order, dropped ones left out.
    Composite {
        name: String,
        fields: Vec<(String, Type)>,
    },
    Hstore,
    /// pgvector's `vector`.
    Vector,
    /// Anything else: the server has to print it.
    Rendered,
}

impl Type {
    pub fn base(oid: u32) -> Type {
        Type { oid, kind: Kind::Base }
    }

    pub fn rendered(oid: u32) -> Type {
        Type { oid, kind: Kind::Rendered }
    }
}

/// How a type travels where binary is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Yes,
    /// The type has no send function: it travels as text, and a COPY has to cast it to text.
    TextInstead,
    /// The type has one, a part of it has not: Postgres fails when it meets a value.
    Fails,
}

/// Whether the type is one of [`NATIVE_OIDS`].
pub fn is_native(oid: u32) -> bool {
    NATIVE_OIDS.binary_search(&oid).is_ok()
}
