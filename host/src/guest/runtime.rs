//! The wasm runtime: what a file offers, one engine, running instances with their limits.
//!
//! The only place that knows wasmtime. Rows and tables are not known here.

pub mod calls;
pub mod component;
pub mod engine;
pub mod epoch_ticker;
pub mod instance;
pub mod limits;
