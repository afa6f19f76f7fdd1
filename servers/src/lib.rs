//! Finds Postgres and nats-server on this machine and runs private ones: on free ports, in private
//! directories, gone when dropped and gone when their parent dies. Also finds, or makes, the compiler that guests need.
//!
//! Everything here is synchronous and knows nothing of what the servers are for: no SQL, no subjects.

mod cache;
mod cluster;
mod error;
#[cfg(feature = "fetch")]
mod fetch;
mod find;
mod nats;
mod port;
mod postgres;
mod process;
mod scratch;
mod user;
mod wasm;
#[cfg(feature = "fetch")]
mod wheels;

pub use error::Error;
#[cfg(feature = "fetch")]
pub use fetch::{ensure_nats, ensure_postgres, fetch_postgres};
pub use find::{
    Found, NatsBin, Origin, PgBin, Version, cache_dir, find_all_postgres, find_nats, find_postgres,
};
pub use nats::{NatsOptions, PrivateNats};
pub use port::free_port;
pub use postgres::{PgOptions, PrivatePostgres, Recovery};
pub use wasm::{WasmToolchain, find_wasm_toolchain, wasm_toolchain};

pub type Result<T, E = Error> = std::result::Result<T, E>;
