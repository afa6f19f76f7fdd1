//! Row shapes: batches, cells, tuples and types as plain data, the ground floor of the gateway.
//!
//! Pure. Every stage imports them; they import `wire` alone. Where rows come from, and where they
//! go, is not known here.

pub mod batch;
pub mod pg_type;
pub mod rendered;
pub mod shape;
#[cfg(test)]
pub(crate) mod test_support;
pub mod tuple;

pub use batch::{BatchError, Cell, Change, Mark, Op, RowBatch, TxnMark};
pub use pg_type::{Binary, Kind, NATIVE_OIDS, Type, is_native};
pub use rendered::Rendered;
pub use shape::{ColumnType, TableVersion};
pub use tuple::{Malformed, OldTuple, Tuple, walk};
