//! Guests: per-table WebAssembly that decides which rows and columns leave, and what they hold.
//!
//! An [`Engine`] loads files into [`Module`]s; a module bound to a table version is a [`Bound`], which turns
//! batches of that version into batches of its output. Where files and batches come from, and what a halted
//! table means, is not known here. Only `engine`, `instance` and `calls` know the wasm runtime.

pub mod exec;
pub mod plan;
pub mod recorded_cells;
pub mod runtime;

use std::time::Duration;

pub use exec::{
    failure::{CallFailure, FailedRow, GuestError, GuestFailure, Place},
    pool::Bound,
};
pub use plan::{
    Answer, Output, PlanError,
    output_types::{OutputType, Written},
    told,
};
pub use runtime::{
    component::{Component, InterfaceError, component},
    engine::{Engine, Module},
    limits::Limits,
};

pub use crate::config::OnGuestError;

use crate::rows::batch::RowBatch;

/// A batch as it leaves its guest.
#[derive(Debug)]
pub struct Outcome {
    /// Of the output's table version; may be empty.
    pub batch: RowBatch,
    /// Changes and copied rows that left not at all, or as the deletion of what was there; failed ones included.
    pub dropped: u64,
    pub failed: Vec<FailedRow>,
    /// All of it.
    pub took: Duration,
    /// In the guest's own code, and on the way into its memory and back.
    pub called: Duration,
}

#[cfg(test)]
mod misbehaviour_tests;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors_tests;
