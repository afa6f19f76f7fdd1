//! A value in Postgres' binary form → MessagePack, in one pass and without intermediate values.
//!
//! A [`Packer`] is compiled once from a column's type. After that a value costs a branch and a
//! copy. Texts that only the server can print are looked up in [`Rendered`], and noted there while
//! they are unknown. Connections are not known here, nor, outside `rows`, where bytes come from and
//! go to.
//!
//! Binary forms: `*_send` in src/backend/utils/adt of Postgres.

mod address;
mod nested;
mod numeric;
mod rows;
mod text_forms;
mod time;

pub use rows::{RowError, TablePacker};

use walgate_wire::pack;

use crate::rows::{Kind, Rendered, Type};
use nested::{ArrayPacker, CompositePacker};
use text_forms::Printed;

/// Why a value cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("its binary value has a length that the type does not have")]
    WrongLength,
    #[error("its binary value ends too early")]
    EndsEarly,
    #[error("its binary value goes on after its end")]
    TrailingBytes,
    #[error("its binary value is not a numeric")]
    BadNumeric,
    #[error("its binary value has a time of day beyond a day")]
    BadTime,
    #[error("its binary value is not a jsonb of version 1")]
    BadJsonb,
    #[error("its binary value is not an IP address")]
    BadAddress,
    #[error("its binary value has array dimensions that its bytes do not hold")]
    BadArray,
    #[error("a composite or array in it was altered after this row was written")]
    Altered,
    #[error("the server was not asked to print it")]
    NotRendered,
    #[error("its old value was left out of the row")]
    Missing,
}

/// How the values of one type are packed.
#[derive(Clone, Debug)]
pub enum Packer {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    /// The bytes are the text.
    Text,
    /// `"char"`: one byte.
    Char,
    Jsonb,
    Bytea,
    Uuid,
    Timestamp,
    TimestampTz,
    Date,
    Time,
    TimeTz,
    Interval,
    /// `inet` and `cidr`, with their oid.
    Address(u32),
    /// `macaddr` and `macaddr8`.
    Mac,
    /// `bit` and `varbit`.
    Bits,
    Array(Box<ArrayPacker>),
    Composite(Box<CompositePacker>),
    Hstore,
    Vector,
    /// Inside a composite, as Postgres prints it: consumers do not know the types of its fields.
    Printed(Printed),
    /// The server prints it; the oid to ask for.
    Rendered(u32),
}

const CHAR: u32 = 18;
const INTERVAL: u32 = 1186;

impl Packer {
    pub fn new(ty: &Type) -> Packer {
        match &ty.kind {
            Kind::Base | Kind::Rendered => Self::of_builtin(ty.oid),
            Kind::Enum => Packer::Text,
            Kind::Array(element) => Packer::Array(Box::new(ArrayPacker::new(element))),
            Kind::Composite { fields, .. } => {
                Packer::Composite(Box::new(CompositePacker::new(fields)))
            }
            Kind::Hstore => Packer::Hstore,
            Kind::Vector => Packer::Vector,
        }
    }

    /// For a field of a composite, at any depth.
    fn of_field(ty: &Type) -> Packer {
        match &ty.kind {
            Kind::Array(element) => Packer::Array(Box::new(ArrayPacker::of_field(element))),
            _ => match Self::new(ty) {
                Packer::Bytea => Packer::Printed(Printed::Bytea),
                Packer::Uuid => Packer::Printed(Printed::Uuid),
                Packer::Timestamp => Packer::Printed(Printed::Timestamp),
                Packer::TimestampTz => Packer::Printed(Printed::TimestampTz),
                Packer::Date => Packer::Printed(Printed::Date),
                Packer::Time => Packer::Printed(Printed::Time),
                other => other,
            },
        }
    }

    /// Oids of built-in types never change: src/include/catalog/pg_type.dat.
    fn of_builtin(oid: u32) -> Packer {
        match oid {
            16 => Packer::Bool,
            17 => Packer::Bytea,
            CHAR => Packer::Char,
            20 => Packer::Int8,
            21 => Packer::Int2,
            23 => Packer::Int4,
            19 | 25 | 114 | 142 | 1042 | 1043 => Packer::Text,
            26 => Packer::Oid,
            650 | 869 => Packer::Address(oid),
            700 => Packer::Float4,
            701 => Packer::Float8,
            774 | 829 => Packer::Mac,
            1082 => Packer::Date,
            1083 => Packer::Time,
            1114 => Packer::Timestamp,
            1184 => Packer::TimestampTz,
            INTERVAL => Packer::Interval,
            1266 => Packer::TimeTz,
            1560 | 1562 => Packer::Bits,
            1700 => Packer::Numeric,
            2950 => Packer::Uuid,
            3802 => Packer::Jsonb,
            _ => Packer::Rendered(oid),
        }
    }

    /// Whether values are integers that a chunk holds as differences.
    pub fn is_delta(&self) -> bool {
        use Packer::*;
        matches!(self, Int2 | Int4 | Int8 | Oid | Timestamp | TimestampTz | Date | Time)
    }

    /// Whether values have to be inspected before they are packed. The server may have to print
    /// some, and a composite type may have been altered without an announcement.
    pub fn renders(&self) -> bool {
        match self {
            Packer::Rendered(_)
            | Packer::Char
            | Packer::Interval
            | Packer::Address(_)
            | Packer::Composite(_) => true,
            Packer::Array(array) => array.renders(),
            _ => false,
        }
    }

    /// Appends one value. A value whose text is unknown is noted in `rendered` and packed as nil.
    pub fn pack(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        match self {
            Packer::Text => pack::str_bytes(out, bytes),
            Packer::Bool => pack::bool(out, fixed_bytes::<1>(bytes)? != [0]),
            Packer::Int2 => pack::int(out, read_int2(bytes)?),
            Packer::Int4 => pack::int(out, read_int4(bytes)?),
            Packer::Int8 => pack::int(out, read_int8(bytes)?),
            Packer::Oid => pack::int(out, read_oid(bytes)?),
            Packer::Float4 => pack::f32_bits(out, fixed_bytes(bytes)?),
            Packer::Float8 => pack::f64_bits(out, fixed_bytes(bytes)?),
            Packer::Uuid => pack::bin(out, &fixed_bytes::<16>(bytes)?),
            Packer::Bytea => pack::bin(out, bytes),
            Packer::Numeric => numeric::pack_numeric(bytes, out)?,
            Packer::Jsonb => pack::str_bytes(out, jsonb_text(bytes)?),
            Packer::Timestamp => match time::unix_micros(bytes)? {
                Some(micros) => pack::int(out, micros),
                None => time::pack_timestamp_text(bytes, "", out)?,
            },
            Packer::TimestampTz => match time::unix_micros(bytes)? {
                Some(micros) => pack::int(out, micros),
                None => time::pack_timestamp_text(bytes, "+00", out)?,
            },
            Packer::Date => match time::unix_days(bytes)? {
                Some(days) => pack::int(out, days),
                None => time::pack_date_text(bytes, out)?,
            },
            Packer::Time => pack::int(out, time::micros_of_day(bytes)?),
            Packer::TimeTz => time::pack_timetz(bytes, out)?,
            Packer::Interval => {
                if !time::pack_interval(bytes, out)? {
                    rendered.pack(INTERVAL, bytes, out);
                }
            }
            Packer::Char => match fixed_bytes::<1>(bytes)? {
                [0] => pack::str(out, ""),
                [byte @ 1..=0x7f] => pack::str_bytes(out, &[byte]),
                // Printed as it is before Postgres 16, in octal since.
                _ => rendered.pack(CHAR, bytes, out),
            },
            Packer::Address(oid) => {
                if !address::pack_address(bytes, out)? {
                    rendered.pack(*oid, bytes, out);
                }
            }
            Packer::Mac => address::pack_mac(bytes, out)?,
            Packer::Bits => address::pack_bits(bytes, out)?,
            Packer::Array(array) => array.pack(bytes, out, rendered)?,
            Packer::Composite(composite) => composite.pack(bytes, out, rendered)?,
            Packer::Hstore => nested::pack_hstore(bytes, out)?,
            Packer::Vector => nested::pack_vector(bytes, out)?,
            Packer::Printed(printed) => printed.pack(bytes, out)?,
            Packer::Rendered(oid) => rendered.pack(*oid, bytes, out),
        }
        Ok(())
    }
}

#[inline]
fn fixed_bytes<const N: usize>(bytes: &[u8]) -> Result<[u8; N], PackError> {
    bytes.try_into().map_err(|_| PackError::WrongLength)
}

#[inline]
fn read_int2(bytes: &[u8]) -> Result<i64, PackError> {
    Ok(i64::from(i16::from_be_bytes(fixed_bytes(bytes)?)))
}

#[inline]
fn read_int4(bytes: &[u8]) -> Result<i64, PackError> {
    Ok(i64::from(i32::from_be_bytes(fixed_bytes(bytes)?)))
}

#[inline]
fn read_int8(bytes: &[u8]) -> Result<i64, PackError> {
    Ok(i64::from_be_bytes(fixed_bytes(bytes)?))
}

#[inline]
fn read_oid(bytes: &[u8]) -> Result<i64, PackError> {
    Ok(i64::from(u32::from_be_bytes(fixed_bytes(bytes)?)))
}

/// The JSON text after the version byte.
fn jsonb_text(bytes: &[u8]) -> Result<&[u8], PackError> {
    match bytes {
        [1, text @ ..] => Ok(text),
        _ => Err(PackError::BadJsonb),
    }
}

#[cfg(test)]
mod tests;
