//! Guests: WebAssembly, one for a table, that decides which rows and columns are published, and
//! how.
//!
//! An [`Engine`] loads files into [`Module`]s. A module that is bound to a table version is a
//! [`BoundGuest`], which turns batches of that version into batches of its output. Where files and
//! batches come from, and what a halted table means, is not known here. Only `runtime` knows
//! wasmtime.

mod exec;
mod plan;
pub mod recorded_cells;
mod runtime;

use std::time::Duration;

pub use exec::{
    decisions::{AnswerShape, Decisions, Verdict, decode_answer},
    failure::{CallFailure, FailedRow, GuestError, GuestFailure, RowPlace},
    pool::BoundGuest,
};
pub use plan::{
    AnswerColumn, OutputColumn, PlanAnswer, PlanError,
    kinds::Kind as GuestKind,
    output_types::{GuestValue, OutputType, OutputTypeExt},
    shown_type,
};
pub use runtime::{
    component::{GuestComponent, InterfaceError, read_component},
    engine::{Engine, Module},
    limits::Limits,
};

pub use crate::config::OnGuestError;

use crate::rows::batch::RowBatch;

/// A batch that went through its guest.
#[derive(Debug)]
pub struct GuestOutcome {
    /// The published rows, of the output's table version; may be empty.
    pub batch: RowBatch,
    /// Changes and copied rows that are not published, or only as the deletion of the old row.
    /// Failed rows are counted.
    pub dropped: u64,
    pub failed: Vec<FailedRow>,
    /// Time for the batch.
    pub took: Duration,
    /// Of that, time in the guest's own code, with copies into its memory and back.
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
