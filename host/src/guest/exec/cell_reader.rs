//! One value in Postgres' binary form → its bytes in a guest's buffer.
//!
//! A reader is compiled from the column's packer, and classifies types as the packer does. Where
//! the bytes are put, and whether there is a value at all, is not known here.

use crate::{
    encode::{PackError, Packer},
    rows::Rendered,
};

/// From 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// How the bytes of a value are read.
#[derive(Clone, Debug)]
pub(super) enum CellReader {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Uuid,
    Timestamp,
    Date,
    /// The bytes as they are.
    Plain,
    /// JSON text after a version byte.
    Jsonb,
    /// As the packer writes it, without the header of the string.
    Printed(Packer),
    /// As the packer writes it: MessagePack.
    Packed(Packer),
}

impl CellReader {
    pub(super) fn new(packer: Packer) -> CellReader {
        match packer {
            Packer::Bool => CellReader::Bool,
            Packer::Int2 => CellReader::Int2,
            Packer::Int4 => CellReader::Int4,
            Packer::Int8 | Packer::Time => CellReader::Int8,
            Packer::Oid => CellReader::Oid,
            Packer::Float4 => CellReader::Float4,
            Packer::Float8 => CellReader::Float8,
            Packer::Uuid => CellReader::Uuid,
            Packer::Timestamp | Packer::TimestampTz => CellReader::Timestamp,
            Packer::Date => CellReader::Date,
            Packer::Text | Packer::Bytea => CellReader::Plain,
            Packer::Jsonb => CellReader::Jsonb,
            Packer::Array(_) | Packer::Composite(_) | Packer::Hstore | Packer::Vector => {
                CellReader::Packed(packer)
            }
            packer => CellReader::Printed(packer),
        }
    }

    /// A value of a type whose values all have one size, as the 8 bytes of the layout.
    #[inline]
    pub(super) fn read_word(&self, bytes: &[u8]) -> Result<[u8; 8], PackError> {
        let value = match self {
            CellReader::Int2 => i64::from(i16::from_be_bytes(fixed_bytes(bytes)?)),
            CellReader::Int4 => i64::from(i32::from_be_bytes(fixed_bytes(bytes)?)),
            CellReader::Oid => i64::from(u32::from_be_bytes(fixed_bytes(bytes)?)),
            CellReader::Timestamp => unix_micros(i64::from_be_bytes(fixed_bytes(bytes)?)),
            CellReader::Date => unix_days(i32::from_be_bytes(fixed_bytes(bytes)?)),
            CellReader::Float4 => {
                return Ok(f64::from(f32::from_be_bytes(fixed_bytes(bytes)?)).to_le_bytes());
            }
            CellReader::Float8 => return Ok(f64::from_be_bytes(fixed_bytes(bytes)?).to_le_bytes()),
            _ => i64::from_be_bytes(fixed_bytes(bytes)?),
        };
        Ok(value.to_le_bytes())
    }

    /// Appends a value of varying length.
    #[inline]
    pub(super) fn append_value(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        match self {
            CellReader::Plain => out.extend_from_slice(bytes),
            CellReader::Jsonb => match bytes {
                [1, text @ ..] => out.extend_from_slice(text),
                _ => return Err(PackError::BadJsonb),
            },
            CellReader::Printed(packer) => {
                scratch.clear();
                packer.pack(bytes, scratch, rendered)?;
                out.extend_from_slice(string_body(scratch).ok_or(PackError::NotRendered)?);
            }
            CellReader::Packed(packer) => packer.pack(bytes, out, rendered)?,
            _ => return Err(PackError::WrongLength),
        }
        Ok(())
    }
}

#[inline]
fn fixed_bytes<const N: usize>(bytes: &[u8]) -> Result<[u8; N], PackError> {
    bytes.try_into().map_err(|_| PackError::WrongLength)
}

/// Microseconds since 1970. Values of the last 30 years before year 294277 become the same value.
#[inline]
fn unix_micros(micros: i64) -> i64 {
    match micros {
        i64::MAX | i64::MIN => micros,
        _ => micros.saturating_add(EPOCH_MICROS).min(i64::MAX - 1),
    }
}

#[inline]
fn unix_days(days: i32) -> i64 {
    match days {
        i32::MAX => i64::MAX,
        i32::MIN => i64::MIN,
        _ => i64::from(days) + EPOCH_DAYS,
    }
}

/// The text after the header of a MessagePack string; none if it is not a string.
fn string_body(packed: &[u8]) -> Option<&[u8]> {
    let header = match packed.first()? {
        0xa0..=0xbf => 1,
        0xd9 => 2,
        0xda => 3,
        0xdb => 5,
        _ => return None,
    };
    packed.get(header..)
}
