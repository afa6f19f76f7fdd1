//! One batch through a guest: shown rows, the flat buffer, the answer, what becomes of each change.
//!
//! Pure but for the call itself, which is `runtime`'s.

pub mod apply;
pub mod bisect;
pub mod cell_reader;
pub mod decisions;
pub mod failure;
pub mod images;
pub mod layout;
pub mod pool;
pub mod values;
pub mod verdicts;
