//! Everything that comes from Postgres: the change stream, the catalog, the slot.
//!
//! The only module of the gateway that speaks to Postgres. Some commands have clients of their own.
//! NATS, consumers and the use of a row batch are not known here.

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

/// Settings of every connection, so that text output is exact and always the same.
const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];
