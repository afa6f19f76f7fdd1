//! Finds Postgres and nats-server on this machine and runs private ones: on free ports, in private
//! directories, gone when dropped and gone when their parent dies. It also finds the compiler for
//! guests.
//!
//! Everything here is synchronous. It knows no SQL and no subjects, and downloads nothing.

mod cluster;
mod error;
mod find;
mod nats;
mod port;
mod postgres;
mod process;
mod scratch;
mod user;
mod wasm;

pub use error::Error;
pub use find::{
    Found, NatsBin, Origin, PgBin, Version, cache_dir, cached_dirs, find_all_postgres, find_nats,
    find_postgres,
};
pub use nats::{NatsOptions, PrivateNats};
pub use port::free_port;
pub use postgres::{PgOptions, PrivatePostgres, Recovery};
pub use wasm::{WASM_TARGET, WASM_TOOLCHAIN, WasmToolchain, clean_cargo, find_wasm_toolchain};

pub type Result<T, E = Error> = std::result::Result<T, E>;
