//! Guests: per-table WebAssembly that decides which rows and columns leave, and what they hold.
//!
//! An [`Engine`] loads files into [`Module`]s; a module bound to a table version is a [`Bound`], which turns
//! batches of that version into batches of its output. Where files and batches come from, and what a halted
//! table means, is not known here. Only `engine`, `instance` and `calls` know the wasm runtime.

mod apply;
mod calls;
pub mod decisions;
mod engine;
mod failure;
mod images;
mod instance;
mod interface;
mod isolate;
pub mod kind;
mod layout;
mod leaving;
mod limits;
mod output;
mod plan;
mod pool;
mod reading;
mod settled;
mod ticker;
mod values;

use std::time::Duration;

pub use engine::{Engine, Module};
pub use failure::{CallFailure, FailedRow, GuestError, GuestFailure, Place};
pub use interface::{Component, InterfaceError, component};
pub use limits::Limits;
pub use output::{OutputType, Written};
pub use plan::{Answer, Output, PlanError, told};
pub use pool::Bound;

pub use crate::config::OnGuestError;

use crate::batch::RowBatch;

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
