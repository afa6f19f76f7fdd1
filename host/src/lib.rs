//! The Walgate gateway. `ARCHITECTURE.md` is the map; `supervisor` wires the stages together.

// rustfmt sorts these names; `tests/tests/folder_order.rs` holds their order as stages.
pub mod assets;
pub mod cdc;
pub mod clock;
pub mod config;
pub mod context;
pub mod egress;
pub mod encode;
pub mod error;
pub mod guest;
pub mod jetstream;
pub mod observe;
pub mod pipeline_io;
mod policy;
pub mod postgres;
pub mod rows;
pub mod schema_registry;
pub mod snapshot;
pub mod supervisor;
pub mod tables;
pub mod wal_budget;
