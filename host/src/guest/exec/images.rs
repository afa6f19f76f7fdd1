//! The images of a batch: the rows that a guest is shown, in the order of the batch.
//!
//! An image is the old or the new row of a change, or a copied row. What rows hold, and what the
//! guest decides, is not known here.

use std::ops::Range;

use crate::rows::batch::{Cell, Op, RowBatch};

/// Bits of a row's flags; the two lowest are the operation.
pub const OP_SNAPSHOT: u8 = 0;
pub const OP_INSERT: u8 = 1;
pub const OP_UPDATE: u8 = 2;
pub const OP_DELETE: u8 = 3;
/// The row as it was before.
pub const OLD: u8 = 4;
/// Key columns only; its verdict does not count.
pub const KEY_ONLY: u8 = 8;
/// The row before this one is this row's old image.
pub const AFTER_OLD: u8 = 16;

/// One row that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Index of the change, or number of the copied row.
    pub change_index: u32,
    pub first_cell: u32,
    pub flags: u8,
}

impl Image {
    pub fn is_new(&self) -> bool {
        self.flags & OLD == 0
    }

    pub fn is_key_only(&self) -> bool {
        self.flags & KEY_ONLY != 0
    }
}

/// The images of a batch. `values`: columns that the guest sees only with a value or null. A row
/// that misses one of these values has no image.
pub fn collect_images(batch: &RowBatch, values: &[usize]) -> Vec<Image> {
    let width = batch.table.columns.len() as u32;
    if batch.changes.is_empty() {
        let row =
            |row: u32| Image { change_index: row, first_cell: row * width, flags: OP_SNAPSHOT };
        return (0..batch.len() as u32).map(row).collect();
    }
    let mut out = Vec::with_capacity(batch.changes.len());
    for (index, change) in batch.changes.iter().enumerate() {
        let change_index = index as u32;
        let shown = |first: u32| {
            let row = batch.row_at(first);
            values.iter().all(|&column| row[column] != Cell::Unchanged)
        };
        match (change.op, change.new, change.old) {
            (Op::Insert, Some(first_cell), _) => {
                out.push(Image { change_index, first_cell, flags: OP_INSERT });
            }
            (Op::Update, Some(new), old) => {
                let before = old.map(|first_cell| {
                    let key_only = if change.old_is_key { KEY_ONLY } else { 0 };
                    Image { change_index, first_cell, flags: OP_UPDATE | OLD | key_only }
                });
                let after = if before.is_some() { AFTER_OLD } else { 0 };
                let new = Image { change_index, first_cell: new, flags: OP_UPDATE | after };
                let new = Some(new).filter(|new| shown(new.first_cell));
                // An old key is of no use without the new row that it belongs to.
                let before = before.filter(|old| new.is_some() || !old.is_key_only());
                out.extend(before.into_iter().chain(new));
            }
            (Op::Delete, _, Some(first_cell)) if !change.old_is_key => {
                out.push(Image { change_index, first_cell, flags: OP_DELETE | OLD });
            }
            _ => {}
        }
    }
    out
}

/// Where to split the images of `range` into two halves without splitting a change. None if the
/// range is one change.
pub fn split_between_changes(images: &[Image], range: &Range<usize>) -> Option<usize> {
    let half = range.start + range.len() / 2;
    let change_at = |at: usize| images.get(at).map(|image| image.change_index);
    let begins =
        |at: &usize| *at > range.start && *at < range.end && change_at(*at) != change_at(*at - 1);
    (range.start + 1..=half).rev().chain(half + 1..range.end).find(begins)
}

/// Splits the two images of one change, to find on which of them the guest fails. The new row is
/// then shown as if Postgres had not sent its old row. None if there is no whole old row.
pub fn split_old_from_new(images: &mut [Image], range: &Range<usize>) -> Option<usize> {
    match images.get_mut(range.clone()) {
        Some([old, new]) if !old.is_key_only() => {
            new.flags &= !AFTER_OLD;
            Some(range.start + 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rows::test_support::{table_version, tuple},
        rows::{OldTuple, Tuple, batch::TxnMark},
    };
    use walgate_wire::Lsn;

    #[test]
    fn each_change_shows_its_images() {
        let txn = TxnMark { lsn: Lsn(1), xid: 1, at_micros: 0 };
        let mut batch = RowBatch::new(table_version("t", 1, 2));
        let row = tuple(&[(b'b', b"1"), (b'b', b"x")]);
        let unchanged = tuple(&[(b'b', b"1"), (b'u', b"")]);
        let new = Some(Tuple { bytes: &row });
        let key = Some(OldTuple { tuple: Tuple { bytes: &row }, key_only: true });
        let full = Some(OldTuple { tuple: Tuple { bytes: &row }, key_only: false });
        let left = Some(Tuple { bytes: &unchanged });
        batch.push_change(txn, 1, Op::Insert, new, None).unwrap();
        batch.push_change(txn, 2, Op::Update, new, key).unwrap();
        batch.push_change(txn, 3, Op::Update, new, full).unwrap();
        batch.push_change(txn, 4, Op::Update, left, None).unwrap();
        batch.push_change(txn, 5, Op::Delete, None, key).unwrap();
        batch.push_change(txn, 6, Op::Delete, None, full).unwrap();
        batch.push_change(txn, 7, Op::Truncate, None, None).unwrap();
        let found = collect_images(&batch, &[1]);
        let flags: Vec<(u32, u8)> =
            found.iter().map(|image| (image.change_index, image.flags)).collect();
        let expected = [(0, 1), (1, 2 + 4 + 8), (1, 2 + 16), (2, 2 + 4), (2, 2 + 16), (5, 3 + 4)];
        assert_eq!(flags, expected);
        let found = collect_images(&batch, &[]);
        assert_eq!(found.iter().filter(|image| image.change_index == 3).count(), 1);
    }

    #[test]
    fn halves_keep_changes_whole() {
        let image = |change_index| Image { change_index, first_cell: 0, flags: 0 };
        let images: Vec<Image> = [0, 1, 1, 2, 2].map(image).to_vec();
        assert_eq!(split_between_changes(&images, &(0..5)), Some(1));
        assert_eq!(split_between_changes(&images, &(1..5)), Some(3));
        assert_eq!(split_between_changes(&images, &(1..3)), None);
        assert_eq!(split_between_changes(&images, &(0..1)), None);
        assert_eq!(split_between_changes(&images, &(2..4)), Some(3));
    }

    #[test]
    fn old_and_new_row_are_parted() {
        let image = |flags| Image { change_index: 1, first_cell: 0, flags };
        let (old, new) = (image(OP_UPDATE | OLD), image(OP_UPDATE | AFTER_OLD));
        let mut whole = [old, new];
        assert_eq!(split_old_from_new(&mut whole, &(0..2)), Some(1));
        assert_eq!(whole, [old, image(OP_UPDATE)]);
        assert_eq!(split_old_from_new(&mut whole, &(1..2)), None);
        let mut key = [image(OP_UPDATE | OLD | KEY_ONLY), new];
        assert_eq!(split_old_from_new(&mut key, &(0..2)), None, "a key says nothing alone");
    }
}
