//! Values whose MessagePack form needs their type, as the text that Postgres prints.
//!
//! [`Packer`](crate::encode::Packer) uses them inside composites: a schema names the types of
//! columns, not those of fields.

use walgate_wire::{hex, pack};

use crate::encode::{PackError, fixed_bytes, time};

/// The type that is printed.
#[derive(Clone, Copy, Debug)]
pub enum Printed {
    /// `\x00ff`
    Bytea,
    Uuid,
    Timestamp,
    /// In UTC: `2024-01-01 00:00:00.5+00`.
    TimestampTz,
    Date,
    Time,
}

impl Printed {
    pub(super) fn pack(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        match self {
            Printed::Bytea => {
                pack::str_header(out, 2 + bytes.len() * 2);
                out.extend(b"\\x");
                hex::append(out, bytes);
            }
            Printed::Uuid => {
                let uuid = fixed_bytes::<16>(bytes)?;
                pack::str_header(out, 36);
                hex::append(out, &uuid[..4]);
                for group in [&uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]] {
                    out.push(b'-');
                    hex::append(out, group);
                }
            }
            Printed::Timestamp => time::pack_timestamp_text(bytes, "", out)?,
            Printed::TimestampTz => time::pack_timestamp_text(bytes, "+00", out)?,
            Printed::Date => time::pack_date_text(bytes, out)?,
            Printed::Time => time::pack_time_text(bytes, out)?,
        }
        Ok(())
    }
}
