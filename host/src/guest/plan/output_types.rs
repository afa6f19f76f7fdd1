//! The types that a guest's own values may have, and how such a value becomes a cell.
//!
//! Whether it fits its type is for the SDK to say, so that a guest's tests say the same. Which column it is for is not
//! known here.

use walgate_guest::fit::{self, EPOCH_DAYS, EPOCH_MICROS};
pub use walgate_guest::{Type as OutputType, fit::Misfit};

use crate::guest::exec::decisions::Value;
use crate::{
    encode::Packer,
    rows::{Kind, Type, batch::Cell},
};

use OutputType::*;

/// By type, in their order (src/include/catalog/pg_type.dat).
const OIDS: [u32; 16] =
    [16, 21, 23, 20, 700, 701, 1700, 25, 17, 2950, 114, 3802, 1184, 1114, 1082, 1083];

/// All names, for messages.
pub fn names() -> String {
    OutputType::ALL.map(OutputType::name).join(", ")
}

/// What a type that a guest writes is to the host.
pub trait Written: Sized {
    /// The type of a column without its modifier; none if a guest cannot put it out.
    fn of(ty: &Type) -> Option<Self>;
    fn oid(self) -> u32;
    /// Whether a value of type `own` can be left as it is in a column of this type.
    fn holds(self, own: &Type) -> bool;
    /// Appends the value's bytes. The decoder saw to it that the value is of this type's kind.
    fn cell(self, value: &Value<'_>, bytes: &mut Vec<u8>) -> Result<Cell, Misfit>;
}

impl Written for OutputType {
    fn of(ty: &Type) -> Option<OutputType> {
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

    fn holds(self, own: &Type) -> bool {
        OutputType::of(own) == Some(self)
            || (self == Text && matches!(Packer::new(own), Packer::Text))
    }

    fn cell(self, value: &Value<'_>, bytes: &mut Vec<u8>) -> Result<Cell, Misfit> {
        let start = bytes.len();
        match *value {
            Value::Integer(value) => fit::check_integer(self, value)?,
            Value::Float(value) => fit::check_float(self, value)?,
            _ => {}
        }
        match (self, *value) {
            (Bool, Value::Boolean(value)) => bytes.push(u8::from(value)),
            (Int2, Value::Integer(value)) => bytes.extend((value as i16).to_be_bytes()),
            (Int4, Value::Integer(value)) => bytes.extend((value as i32).to_be_bytes()),
            (Int8 | Time, Value::Integer(value)) => bytes.extend(value.to_be_bytes()),
            (Float4, Value::Float(value)) => bytes.extend((value as f32).to_be_bytes()),
            (Float8, Value::Float(value)) => bytes.extend(value.to_be_bytes()),
            (Timestamp | Timestamptz, Value::Integer(micros)) => {
                bytes.extend(timestamp(micros).to_be_bytes());
            }
            (Date, Value::Integer(days)) => bytes.extend(date(days).to_be_bytes()),
            (Uuid | Bytea, Value::Bytes(value)) => bytes.extend_from_slice(value),
            (Numeric | Text | Json | Jsonb, Value::Text(text)) => {
                fit::check_text(self, text)?;
                bytes.extend_from_slice(text.as_bytes());
                return Ok(Cell::Text { start: start as u32, len: text.len() as u32 });
            }
            _ => return Err(Misfit::Untouched),
        }
        Ok(Cell::Binary { start: start as u32, len: (bytes.len() - start) as u32 })
    }
}

/// Of one that fits: since 2000.
fn timestamp(micros: i64) -> i64 {
    if micros == i64::MAX || micros == i64::MIN { micros } else { micros - EPOCH_MICROS }
}

/// Of one that fits: since 2000.
fn date(days: i64) -> i32 {
    match days {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        days => (days - EPOCH_DAYS) as i32,
    }
}

#[cfg(test)]
#[path = "output_types_tests.rs"]
mod tests;
