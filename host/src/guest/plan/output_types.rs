//! The types that a guest's own values may have, and how such a value becomes a cell.
//!
//! The SDK decides whether a value fits its type: a guest's own tests then find the same. The
//! column of a value is not known here.

use walgate_guest::fit::{self, EPOCH_DAYS, EPOCH_MICROS};
pub use walgate_guest::{Type as OutputType, fit::Misfit};

use crate::{
    encode::Packer,
    rows::{Kind, Type, batch::Cell},
};

use OutputType::*;

/// By type, in their order (src/include/catalog/pg_type.dat).
const OIDS: [u32; 16] =
    [16, 21, 23, 20, 700, 701, 1700, 25, 17, 2950, 114, 3802, 1184, 1114, 1082, 1083];

/// The value that a guest gives for one column of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GuestValue<'a> {
    Untouched,
    Null,
    Boolean(bool),
    /// An integer, a timestamp, a date or a time.
    Integer(i64),
    Float(f64),
    Text(&'a str),
    /// Bytes, or a uuid.
    Bytes(&'a [u8]),
}

/// All names, for messages.
pub fn type_names() -> String {
    OutputType::ALL.map(OutputType::name).join(", ")
}

/// The host's view of a type that guests write.
pub trait OutputTypeExt: Sized {
    /// The type of a column without its modifier; none if a guest cannot put it out.
    fn from_type(ty: &Type) -> Option<Self>;
    fn oid(self) -> u32;
    /// Whether a value of type `own` can be left as it is in a column of this type.
    fn can_hold(self, own: &Type) -> bool;
    /// Appends the value's bytes. The decoder has checked that the value is of this type's kind.
    fn write_cell(self, value: &GuestValue<'_>, bytes: &mut Vec<u8>) -> Result<Cell, Misfit>;
}

impl OutputTypeExt for OutputType {
    fn from_type(ty: &Type) -> Option<OutputType> {
        let base = ty.kind == Kind::Base;
        match ty.oid {
            // name, char(n), varchar; citext and domains were resolved by the catalog.
            19 | 1042 | 1043 if base => Some(Text),
            oid => OutputType::ALL.into_iter().find(|own| base && own.oid() == oid),
        }
    }

    fn oid(self) -> u32 {
        OIDS[self as usize]
    }

    fn can_hold(self, own: &Type) -> bool {
        OutputType::from_type(own) == Some(self)
            || (self == Text && matches!(Packer::new(own), Packer::Text))
    }

    fn write_cell(self, value: &GuestValue<'_>, bytes: &mut Vec<u8>) -> Result<Cell, Misfit> {
        let start = bytes.len();
        match *value {
            GuestValue::Integer(value) => fit::check_integer(self, value)?,
            GuestValue::Float(value) => fit::check_float(self, value)?,
            _ => {}
        }
        match (self, *value) {
            (Bool, GuestValue::Boolean(value)) => bytes.push(u8::from(value)),
            (Int2, GuestValue::Integer(value)) => bytes.extend((value as i16).to_be_bytes()),
            (Int4, GuestValue::Integer(value)) => bytes.extend((value as i32).to_be_bytes()),
            (Int8 | Time, GuestValue::Integer(value)) => bytes.extend(value.to_be_bytes()),
            (Float4, GuestValue::Float(value)) => bytes.extend((value as f32).to_be_bytes()),
            (Float8, GuestValue::Float(value)) => bytes.extend(value.to_be_bytes()),
            (Timestamp | Timestamptz, GuestValue::Integer(micros)) => {
                bytes.extend(postgres_micros(micros).to_be_bytes());
            }
            (Date, GuestValue::Integer(days)) => bytes.extend(postgres_days(days).to_be_bytes()),
            (Uuid | Bytea, GuestValue::Bytes(value)) => bytes.extend_from_slice(value),
            (Numeric | Text | Json | Jsonb, GuestValue::Text(text)) => {
                fit::check_text(self, text)?;
                bytes.extend_from_slice(text.as_bytes());
                return Ok(Cell::Text { start: start as u32, len: text.len() as u32 });
            }
            _ => return Err(Misfit::Untouched),
        }
        Ok(Cell::Binary { start: start as u32, len: (bytes.len() - start) as u32 })
    }
}

/// Microseconds since 2000, of a value that fits.
fn postgres_micros(micros: i64) -> i64 {
    if micros == i64::MAX || micros == i64::MIN { micros } else { micros - EPOCH_MICROS }
}

/// Days since 2000, of a value that fits.
fn postgres_days(days: i64) -> i32 {
    match days {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        days => (days - EPOCH_DAYS) as i32,
    }
}

#[cfg(test)]
#[path = "output_types_tests.rs"]
mod tests;
