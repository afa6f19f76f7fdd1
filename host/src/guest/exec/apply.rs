//! What was decided of the images × the batch → the batch as it leaves.
//!
//! Pure. `change` is the filter's semantics: a row that leaves the filter is deleted, one that enters is inserted, and
//! a failed one never leaves: neither does what consumers have of it stay. Cells are laid anew, bytes are not copied.

use crate::guest::{
    exec::{
        images::Image,
        verdicts::{Fate, Settled},
    },
    plan::Plan,
};
use crate::rows::batch::{Cell, Change, Op, RowBatch};

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

/// Whether consumers find a row by its key as Postgres sent it: also one that the guest did not answer for.
pub fn names_by_key(plan: &Plan) -> bool {
    plan.has_key && !plan.replaces_key
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
        let new = new.filter(|seen| seen.fate == Fate::Keep);
        let new = new.map(|seen| self.row(batch.row_at(seen.first_cell), Some(seen.index)));
        let before = match change.op {
            Op::Truncate => return self.changes.push(*change),
            Op::Insert => None,
            Op::Update | Op::Delete if full => self.before(batch, change, old),
            Op::Update if new.is_some() && change.old.is_none() => None,
            Op::Update | Op::Delete => self.by_key(batch, change),
        };
        let (old, old_is_key) = before.unzip();
        let op = match (new, old) {
            (Some(_), Some(_)) => Op::Update,
            // Without the whole old row it is not known whether the row enters. Where it is, an insert has no way to
            // say that a cell is unchanged.
            (Some(new), None) if change.op == Op::Update && (!full || self.has_unchanged(new)) => {
                Op::Update
            }
            (Some(_), None) => Op::Insert,
            (None, Some(_)) => Op::Delete,
            (None, None) => {
                self.dropped += 1;
                return;
            }
        };
        self.dropped += u64::from(op == Op::Delete && change.op == Op::Update);
        let old_is_key = old_is_key.unwrap_or(false);
        self.changes.push(Change { op, new, old, old_is_key, ..*change });
    }

    /// What names the row at consumers as it was before, of which Postgres sent the whole: the row as it left then;
    /// nothing, if it did not. Where the guest failed on it, consumers may have it or not: its key names it in either
    /// case.
    fn before(
        &mut self,
        batch: &RowBatch,
        change: &Change,
        old: Option<Seen>,
    ) -> Option<(u32, bool)> {
        let old = old?;
        match old.fate {
            Fate::Keep => Some((self.row(batch.row_at(old.first_cell), Some(old.index)), false)),
            Fate::Drop => None,
            Fate::Failed => self.by_key(batch, change),
        }
    }

    fn has_unchanged(&self, first: u32) -> bool {
        let first = first as usize;
        self.cells[first..first + self.plan.cells.len()].contains(&Cell::Unchanged)
    }

    /// The key of the old row, or of the new one, which then has the same; none where it names nothing at consumers.
    fn by_key(&mut self, batch: &RowBatch, change: &Change) -> Option<(u32, bool)> {
        let first = change.old.or(change.new).filter(|_| names_by_key(self.plan))?;
        let (row, columns) = (batch.row_at(first), &self.plan.table.columns);
        let key = self.cells.len() as u32;
        self.cells.extend(self.plan.cells.iter().map(|cells| match cells.input() {
            Some(input) if columns[input].key => row[input],
            _ => Cell::Null,
        }));
        Some((key, true))
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
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
