//! A snapshot of a table: the hand-over to the change stream, which relations hold the rows, their copy.
//!
//! Chunks, guests and compression are not known here.

mod copy;
mod copy_framing;
mod ctid_ranges;
pub mod export;

pub use copy::{CopiedRows, SnapshotReader, relations, sample};
pub use copy_framing::CopyFraming;
pub use ctid_ranges::{CopiedRelation, Piece, plan};
