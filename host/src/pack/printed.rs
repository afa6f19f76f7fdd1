//! Values whose MessagePack form says nothing without their type, as Postgres prints them.
//!
//! Where they are used is decided by `pack`: a schema names the types of columns, not those of fields.

use walgate_wire::{hex, pack};

use super::{PackError, fixed, time};

/// What is printed.
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
            Printed::Bytea => pack::str(out, &format!("\\x{}", hex(bytes))),
            Printed::Uuid => {
                let digits = hex(&fixed::<16>(bytes)?);
                let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20]];
                pack::str(out, &format!("{}-{}", groups.join("-"), &digits[20..]));
            }
            Printed::Timestamp => time::pack_timestamp_text(bytes, "", out)?,
            Printed::TimestampTz => time::pack_timestamp_text(bytes, "+00", out)?,
            Printed::Date => time::pack_date_text(bytes, out)?,
            Printed::Time => time::pack_time_text(bytes, out)?,
        }
        Ok(())
    }
}
