//! Everything that comes from Postgres: the change stream, the catalog, the slot.
//!
//! The only module of the gateway that speaks to Postgres; some commands do so, too. It does not know NATS, consumers,
//! or what becomes of a row batch.

pub mod catalog;
pub mod endpoint;
mod error;
pub mod quote;
pub mod replication;
pub mod server_render;
pub mod slot;
pub mod snapshot;
pub mod toast_lookup;

pub use error::{ErrorKind, PostgresError};

/// What every connection sets, so that text output is exact and the same wherever a value is printed.
const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];
