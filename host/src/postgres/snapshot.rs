//! A snapshot of a table: the hand-over to the change stream, the relations that hold the rows, and
//! their copy.
//!
//! Chunks, guests and compression are not known here.

mod copy;
mod copy_framing;
mod ctid_ranges;
mod export;
mod partitions;
mod table_lock;

pub use copy::{CopiedRows, SnapshotReader, sample_rows};
pub use copy_framing::CopyFraming;
pub use ctid_ranges::Piece;
pub use export::{ExportedSnapshot, SnapshotWait};

use crate::{
    postgres::{PostgresError, catalog::Catalog},
    rows::TableVersion,
};

/// The pieces of a table for one connection. `catalog` is the connection that exports the snapshot.
pub async fn load_whole_table(
    catalog: &Catalog,
    table: &TableVersion,
) -> Result<Vec<Piece>, PostgresError> {
    let relations = partitions::load_copied_relations(catalog.client(), table).await?;
    Ok(ctid_ranges::plan_pieces(&relations, 1))
}
