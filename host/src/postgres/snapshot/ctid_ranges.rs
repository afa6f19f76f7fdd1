//! How a table is cut into pieces that several connections copy: pure.
//!
//! A piece is a range of blocks of one heap, which Postgres 14 and newer read by a Tid Range Scan.
//! A relation without blocks is one piece. Where relations come from and how a piece is read is not
//! known here.

use walgate_wire::Column;

use crate::{
    postgres::quote,
    rows::{Binary, ColumnType, TableVersion},
};

/// 4 MiB: below that the fixed cost of a COPY is noticeable.
const PIECE_BLOCKS_MIN: u64 = 512;
/// 1 GiB: the most that has to be repeated when a connection is lost.
const PIECE_BLOCKS_MAX: u64 = 131_072;
/// So that workers end at about the same time although rows differ.
const PIECES_PER_WORKER: u64 = 4;

/// A relation without partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopiedRelation {
    /// Quoted, with its schema.
    pub name: String,
    /// Size in blocks. `None` for views, foreign tables and other access methods than heap.
    pub blocks: Option<u64>,
}

/// Part of a table, to be copied by one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    relation: CopiedRelation,
    /// First block, and the one after the last. `None`: open-ended.
    from: Option<u64>,
    to: Option<u64>,
}

/// Cuts `relations` for so many connections. The last piece of each heap is open-ended, because the
/// heap may have grown.
pub(super) fn plan_pieces(relations: &[CopiedRelation], workers: usize) -> Vec<Piece> {
    let total: u64 = relations.iter().filter_map(|relation| relation.blocks).sum();
    let wanted = if workers > 1 { workers as u64 * PIECES_PER_WORKER } else { 1 };
    let step = total.div_ceil(wanted).clamp(PIECE_BLOCKS_MIN, PIECE_BLOCKS_MAX);
    relations.iter().flat_map(|relation| split_relation(relation, step)).collect()
}

fn split_relation(relation: &CopiedRelation, step: u64) -> impl Iterator<Item = Piece> {
    let count = relation.blocks.map_or(1, |blocks| blocks.div_ceil(step).max(1));
    (0..count).map(move |index| Piece {
        relation: relation.clone(),
        from: (index > 0).then_some(index * step),
        to: (index + 1 < count).then_some((index + 1) * step),
    })
}

impl Piece {
    /// The COPY of this piece. `filter` is the publication's row filter, as SQL.
    pub fn copy_sql(&self, table: &TableVersion, filter: Option<&str>) -> String {
        let columns = table.schema.columns.iter().zip(&table.columns).map(column_sql);
        let columns = columns.collect::<Vec<_>>().join(", ");
        let bound = |bound: Option<u64>, is: &str| bound.map(|at| format!("ctid {is} '({at},0)'"));
        let conditions = [
            bound(self.from, ">="),
            bound(self.to, "<"),
            filter.map(|filter| format!("({filter})")),
        ];
        let conditions = conditions.into_iter().flatten().collect::<Vec<_>>().join(" AND ");
        let keyword = if conditions.is_empty() { "" } else { " WHERE " };
        let only = if self.relation.blocks.is_some() { "ONLY " } else { "" };
        format!(
            "COPY (SELECT {columns} FROM {only}{}{keyword}{conditions}) TO STDOUT (FORMAT binary)",
            self.relation.name
        )
    }
}

/// Types without a send function are sent as text.
fn column_sql((named, column): (&Column, &ColumnType)) -> String {
    let name = quote::identifier(&named.name);
    if is_text(column) { format!("{name}::pg_catalog.text") } else { name }
}

/// Whether [`Piece::copy_sql`] casts the column to text.
pub(super) fn is_text(column: &ColumnType) -> bool {
    column.binary != Binary::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(name: &str, blocks: u64) -> CopiedRelation {
        CopiedRelation { name: name.into(), blocks: Some(blocks) }
    }

    fn view(name: &str) -> CopiedRelation {
        CopiedRelation { name: name.into(), blocks: None }
    }

    /// Every block of every heap is in exactly one piece, whatever it grows to.
    fn assert_covers(relations: &[CopiedRelation], pieces: &[Piece]) {
        for relation in relations {
            let mut next = Some(0);
            for piece in pieces.iter().filter(|piece| &piece.relation == relation) {
                assert_eq!(piece.from.unwrap_or(0), next.expect("nothing follows an open end"));
                assert!(piece.to.is_none_or(|to| to > piece.from.unwrap_or(0)));
                next = piece.to;
            }
            assert_eq!(next, None, "the last piece is open-ended");
        }
    }

    #[test]
    fn pieces_cover_everything_once() {
        for workers in 1..5 {
            for blocks in [0, 1, 511, 512, 513, 10_000, 1_000_000, 10_000_001] {
                let relations = [heap("a", blocks), view("v"), heap("b", blocks / 3), heap("c", 0)];
                assert_covers(&relations, &plan_pieces(&relations, workers));
            }
        }
    }

    #[test]
    fn small_and_blockless_relations_are_one_piece() {
        assert_eq!(plan_pieces(&[heap("a", 512)], 8).len(), 1);
        assert_eq!(plan_pieces(&[view("v")], 8).len(), 1);
        assert_eq!(plan_pieces(&[heap("a", 0)], 8).len(), 1);
        assert_eq!(plan_pieces(&[], 8), []);
    }

    #[test]
    fn several_workers_get_several_pieces_each() {
        assert_eq!(plan_pieces(&[heap("a", 100_000)], 4).len(), 16);
        assert_eq!(plan_pieces(&[heap("a", 100_000)], 1).len(), 1);
        assert_eq!(plan_pieces(&[heap("a", 10 * PIECE_BLOCKS_MAX)], 1).len(), 10);
    }
}
