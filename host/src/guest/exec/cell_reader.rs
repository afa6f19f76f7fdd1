//! One value in Postgres' binary form → the bytes that stand for it in a guest's buffer.
//!
//! Compiled from the column's packer, whose judgement of what a type is it follows. Where the bytes are put, and
//! whether there is a value at all, is not known here.

use crate::{
    encode::{PackError, Packer},
    rows::Rendered,
};

/// From 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// How the bytes of a value are read.
#[derive(Clone, Debug)]
pub(super) enum Reading {
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
    /// As they are.
    Plain,
    /// Behind a version byte.
    Jsonb,
    /// Packed; without the header of the string that comes out.
    Printed(Packer),
    /// Packed.
    Packed(Packer),
}

impl Reading {
    pub(super) fn new(packer: Packer) -> Reading {
        match packer {
            Packer::Bool => Reading::Bool,
            Packer::Int2 => Reading::Int2,
            Packer::Int4 => Reading::Int4,
            Packer::Int8 | Packer::Time => Reading::Int8,
            Packer::Oid => Reading::Oid,
            Packer::Float4 => Reading::Float4,
            Packer::Float8 => Reading::Float8,
            Packer::Uuid => Reading::Uuid,
            Packer::Timestamp | Packer::TimestampTz => Reading::Timestamp,
            Packer::Date => Reading::Date,
            Packer::Text | Packer::Bytea => Reading::Plain,
            Packer::Jsonb => Reading::Jsonb,
            Packer::Array(_) | Packer::Composite(_) | Packer::Hstore | Packer::Vector => {
                Reading::Packed(packer)
            }
            packer => Reading::Printed(packer),
        }
    }

    /// A value of a type whose values all have one size, as the 8 bytes of the layout.
    #[inline]
    pub(super) fn word(&self, bytes: &[u8]) -> Result<[u8; 8], PackError> {
        let value = match self {
            Reading::Int2 => i64::from(i16::from_be_bytes(fixed(bytes)?)),
            Reading::Int4 => i64::from(i32::from_be_bytes(fixed(bytes)?)),
            Reading::Oid => i64::from(u32::from_be_bytes(fixed(bytes)?)),
            Reading::Timestamp => timestamp(i64::from_be_bytes(fixed(bytes)?)),
            Reading::Date => date(i32::from_be_bytes(fixed(bytes)?)),
            Reading::Float4 => {
                return Ok(f64::from(f32::from_be_bytes(fixed(bytes)?)).to_le_bytes());
            }
            Reading::Float8 => return Ok(f64::from_be_bytes(fixed(bytes)?).to_le_bytes()),
            _ => i64::from_be_bytes(fixed(bytes)?),
        };
        Ok(value.to_le_bytes())
    }

    /// Appends a value of varying length.
    #[inline]
    pub(super) fn append(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        match self {
            Reading::Plain => out.extend_from_slice(bytes),
            Reading::Jsonb => match bytes {
                [1, text @ ..] => out.extend_from_slice(text),
                _ => return Err(PackError::BadJsonb),
            },
            Reading::Printed(packer) => {
                scratch.clear();
                packer.pack(bytes, scratch, rendered)?;
                out.extend_from_slice(text_of(scratch).ok_or(PackError::NotRendered)?);
            }
            Reading::Packed(packer) => packer.pack(bytes, out, rendered)?,
            _ => return Err(PackError::WrongLength),
        }
        Ok(())
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], PackError> {
    bytes.try_into().map_err(|_| PackError::WrongLength)
}

/// Since 1970. The last 30 years before year 294277 are not told apart.
#[inline]
fn timestamp(micros: i64) -> i64 {
    match micros {
        i64::MAX | i64::MIN => micros,
        _ => micros.saturating_add(EPOCH_MICROS).min(i64::MAX - 1),
    }
}

#[inline]
fn date(days: i32) -> i64 {
    match days {
        i32::MAX => i64::MAX,
        i32::MIN => i64::MIN,
        _ => i64::from(days) + EPOCH_DAYS,
    }
}

/// What follows the header of a MessagePack string; none if it is none.
fn text_of(packed: &[u8]) -> Option<&[u8]> {
    let header = match packed.first()? {
        0xa0..=0xbf => 1,
        0xd9 => 2,
        0xda => 3,
        0xdb => 5,
        _ => return None,
    };
    packed.get(header..)
}
