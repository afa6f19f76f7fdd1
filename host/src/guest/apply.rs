//! What was decided of the images × the batch → the batch as it leaves.
//!
//! Pure. The table in `change` is the filter's semantics: a row that leaves the filter is deleted, one that
//! enters is inserted, and a failed one never leaves as it was. Cells are laid anew, bytes are not copied.

use super::{
    images::Image,
    plan::Plan,
    settled::{Fate, Settled},
};
use crate::batch::{Cell, Change, Op, RowBatch};

/// The batch as it leaves, and how many of its rows did not leave as they came.
#[derive(Debug)]
pub struct Applied {
    pub batch: RowBatch,
    /// Changes and copied rows that left not at all, or as the deletion of what was there before.
    pub dropped: u64,
}

/// `images` are those that were shown, `settled` says what became of each.
pub fn apply(plan: &Plan, batch: RowBatch, images: &[Image], settled: &Settled) -> Applied {
    let copied = batch.changes.is_empty();
    if plan.keeps_rows() && settled.all_kept() && (copied || shows_all(&batch, images)) {
        let mut batch = batch;
        batch.table = plan.output.clone();
        return Applied { batch, dropped: 0 };
    }
    let mut output = Output {
        plan,
        settled,
        cells: Vec::with_capacity(
            batch.cells.len() / plan.table.columns.len().max(1) * plan.cells.len(),
        ),
        changes: Vec::with_capacity(batch.changes.len()),
        dropped: 0,
    };
    let mut rows = 0;
    if copied {
        for (index, image) in images.iter().enumerate() {
            if settled.fates[index] == Fate::Keep {
                output.row(batch.row_at(image.first_cell), Some(index));
                rows += 1;
            } else {
                output.dropped += 1;
            }
        }
    } else {
        output.changes(&batch, images);
    }
    let Output { cells, changes, dropped, .. } = output;
    Applied { batch: batch.with_rows(plan.output.clone(), cells, changes, rows), dropped }
}

/// Whether the change cannot be told to consumers: the guest replaces the key by which they find its row, and
/// Postgres did not send the old row from which it could tell the replaced key.
pub fn lacks_old_row(plan: &Plan, change: &Change) -> bool {
    let full = change.old.is_some() && !change.old_is_key;
    plan.replaces_key && !full && matches!(change.op, Op::Update | Op::Delete)
}

/// Whether no row is missing because a cell of it is not known.
fn shows_all(batch: &RowBatch, images: &[Image]) -> bool {
    let new = images.iter().filter(|image| image.is_new()).count();
    batch.changes.iter().filter(|change| change.new.is_some()).count() == new
}

struct Output<'a> {
    plan: &'a Plan,
    settled: &'a Settled,
    cells: Vec<Cell>,
    changes: Vec<Change>,
    dropped: u64,
}

/// An image of a change: where its row is, its number, and what became of it.
#[derive(Clone, Copy)]
struct Seen {
    first_cell: u32,
    index: usize,
    fate: Fate,
}

impl Output<'_> {
    fn changes(&mut self, batch: &RowBatch, images: &[Image]) {
        let mut next = 0;
        for (of, change) in batch.changes.iter().enumerate() {
            let (mut old, mut new) = (None, None);
            while let Some(image) = images.get(next).filter(|image| image.of as usize == of) {
                let fate = self.settled.fates[next];
                let seen = Some(Seen { first_cell: image.first_cell, index: next, fate });
                *(if image.is_new() { &mut new } else { &mut old }) = seen;
                next += 1;
            }
            self.change(batch, change, old, new);
        }
    }

    fn change(&mut self, batch: &RowBatch, change: &Change, old: Option<Seen>, new: Option<Seen>) {
        let full = change.old.is_some() && !change.old_is_key;
        if lacks_old_row(self.plan, change) {
            self.dropped += 1;
            return;
        }
        if [old, new].into_iter().flatten().any(|seen| seen.fate == Fate::Failed) {
            self.dropped += 1;
            // Consumers may have the row as it was before: it goes.
            if matches!(change.op, Op::Update | Op::Delete) {
                self.delete_by_key(batch, change);
            }
            return;
        }
        let kept = |seen: Option<Seen>| seen.filter(|seen| seen.fate == Fate::Keep);
        let row = |seen: Seen| batch.row_at(seen.first_cell);
        match change.op {
            Op::Truncate => self.changes.push(*change),
            Op::Insert => match kept(new) {
                Some(new) => {
                    let new = self.row(row(new), Some(new.index));
                    self.push(change, Op::Insert, Some(new), None, false);
                }
                None => self.dropped += 1,
            },
            Op::Update if full => self.update_full(batch, change, kept(old), kept(new)),
            Op::Update => match kept(new) {
                Some(new) => {
                    let old = change.old.map(|first| self.row(batch.row_at(first), None));
                    let new = self.row(row(new), Some(new.index));
                    self.push(change, Op::Update, Some(new), old, true);
                }
                None => {
                    self.dropped += 1;
                    self.delete_by_key(batch, change);
                }
            },
            Op::Delete if full => match kept(old) {
                Some(old) => {
                    let old = self.row(row(old), Some(old.index));
                    self.push(change, Op::Delete, None, Some(old), false);
                }
                None => self.dropped += 1,
            },
            Op::Delete => self.delete_by_key(batch, change),
        }
    }

    fn update_full(
        &mut self,
        batch: &RowBatch,
        change: &Change,
        old: Option<Seen>,
        new: Option<Seen>,
    ) {
        let row = |seen: Seen| batch.row_at(seen.first_cell);
        let old_row = old.map(|old| self.row(row(old), Some(old.index)));
        let new_row = new.map(|new| self.row(row(new), Some(new.index)));
        match (old_row, new_row) {
            (Some(_), Some(_)) => self.push(change, Op::Update, new_row, old_row, false),
            (Some(_), None) => {
                self.dropped += 1;
                self.push(change, Op::Delete, None, old_row, false);
            }
            // An insert has no way to say that a cell is unchanged.
            (None, Some(first)) if self.has_unchanged(first) => {
                self.push(change, Op::Update, new_row, None, false);
            }
            (None, Some(_)) => self.push(change, Op::Insert, new_row, None, false),
            (None, None) => self.dropped += 1,
        }
    }

    fn has_unchanged(&self, first: u32) -> bool {
        self.cells[first as usize..].contains(&Cell::Unchanged)
    }

    /// Deletes by the key of the old row, or of the new one, which then has the same. Without a key there is
    /// nothing to find the row by.
    fn delete_by_key(&mut self, batch: &RowBatch, change: &Change) {
        let Some(first) = change.old.or(change.new) else { return };
        // A replaced key is not known of a row that the guest did not answer for.
        if self.plan.replaces_key || !self.plan.has_key {
            return;
        }
        let (row, columns) = (batch.row_at(first), &self.plan.table.columns);
        let old = self.cells.len() as u32;
        self.cells.extend(self.plan.cells.iter().map(|cells| match cells.input() {
            Some(input) if columns[input].key => row[input],
            _ => Cell::Null,
        }));
        self.push(change, Op::Delete, None, Some(old), true);
    }

    /// Lays a row of the input as one of the output; patched where it is the image with this number.
    fn row(&mut self, row: &[Cell], image: Option<usize>) -> u32 {
        let first = self.cells.len();
        for run in &self.plan.copied {
            self.cells.extend_from_slice(&row[run.clone()]);
        }
        self.cells.resize(first + self.plan.cells.len(), Cell::Null);
        let patches = image.map_or(&[][..], |image| self.settled.patches(self.plan, image));
        for (place, patch) in self.plan.places.iter().zip(patches) {
            if let Some(cell) = patch {
                self.cells[first + place] = *cell;
            }
        }
        first as u32
    }

    fn push(
        &mut self,
        change: &Change,
        op: Op,
        new: Option<u32>,
        old: Option<u32>,
        old_is_key: bool,
    ) {
        let old_is_key = old_is_key && old.is_some();
        self.changes.push(Change { op, new, old, old_is_key, ..*change });
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
