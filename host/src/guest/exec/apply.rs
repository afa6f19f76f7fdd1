//! Verdicts of the images × the batch → the published batch.
//!
//! Pure. `push_change` holds the filter's semantics. A row that leaves the filter is deleted, one
//! that enters it is inserted. A failed row is never published, and consumers do not keep an older
//! version of it. Cells are laid out again, bytes are not copied.

use crate::guest::{
    exec::{
        images::Image,
        verdicts::{ImageVerdict, ImageVerdicts},
    },
    plan::CompiledPlan,
};
use crate::rows::batch::{Cell, Change, Op, RowBatch};

/// The published batch, and how many of its rows are not published as they came.
#[derive(Debug)]
pub struct AppliedBatch {
    pub batch: RowBatch,
    /// Changes and copied rows that are not published, or only as the deletion of the old row.
    pub dropped: u64,
}

/// `images` are those that the guest was shown, `verdicts` has one for each.
pub fn apply_verdicts(
    plan: &CompiledPlan,
    batch: RowBatch,
    images: &[Image],
    verdicts: &ImageVerdicts,
) -> AppliedBatch {
    let copied = batch.changes.is_empty();
    if plan.keeps_rows() && verdicts.all_kept() && (copied || shows_all(&batch, images)) {
        let mut batch = batch;
        batch.table = plan.output.clone();
        return AppliedBatch { batch, dropped: 0 };
    }
    let mut output = OutputRows {
        plan,
        verdicts,
        cells: Vec::with_capacity(
            batch.cells.len() / plan.table.columns.len().max(1) * plan.cells.len(),
        ),
        changes: Vec::with_capacity(batch.changes.len()),
        dropped: 0,
    };
    let mut rows = 0;
    if copied {
        for (index, image) in images.iter().enumerate() {
            if verdicts.by_image[index] == ImageVerdict::Keep {
                output.push_row(batch.row_at(image.first_cell), Some(index));
                rows += 1;
            } else {
                output.dropped += 1;
            }
        }
    } else {
        output.push_changes(&batch, images);
    }
    let OutputRows { cells, changes, dropped, .. } = output;
    AppliedBatch { batch: batch.with_rows(plan.output.clone(), cells, changes, rows), dropped }
}

/// Whether the change cannot be published: the guest replaces the key by which consumers find its
/// row. To know the replaced key it needs the old row, which Postgres did not send.
pub fn lacks_old_row(plan: &CompiledPlan, change: &Change) -> bool {
    let full = change.old.is_some() && !change.old_is_key;
    plan.replaces_key && !full && matches!(change.op, Op::Update | Op::Delete)
}

/// Whether consumers find a row by the key that Postgres sent, even if the guest failed on the row.
pub fn names_by_key(plan: &CompiledPlan) -> bool {
    plan.has_key && !plan.replaces_key
}

/// Whether each new row has an image: none misses a value that the guest reads.
fn shows_all(batch: &RowBatch, images: &[Image]) -> bool {
    let new = images.iter().filter(|image| image.is_new()).count();
    batch.changes.iter().filter(|change| change.new.is_some()).count() == new
}

struct OutputRows<'a> {
    plan: &'a CompiledPlan,
    verdicts: &'a ImageVerdicts,
    cells: Vec<Cell>,
    changes: Vec<Change>,
    dropped: u64,
}

/// An image of a change: where its row is, its number, and its verdict.
#[derive(Clone, Copy)]
struct SeenImage {
    first_cell: u32,
    index: usize,
    verdict: ImageVerdict,
}

impl OutputRows<'_> {
    fn push_changes(&mut self, batch: &RowBatch, images: &[Image]) {
        let mut next = 0;
        for (change_index, change) in batch.changes.iter().enumerate() {
            let (mut old, mut new) = (None, None);
            while let Some(image) =
                images.get(next).filter(|image| image.change_index as usize == change_index)
            {
                let verdict = self.verdicts.by_image[next];
                let seen = Some(SeenImage { first_cell: image.first_cell, index: next, verdict });
                *(if image.is_new() { &mut new } else { &mut old }) = seen;
                next += 1;
            }
            self.push_change(batch, change, old, new);
        }
    }

    fn push_change(
        &mut self,
        batch: &RowBatch,
        change: &Change,
        old: Option<SeenImage>,
        new: Option<SeenImage>,
    ) {
        let full = change.old.is_some() && !change.old_is_key;
        if lacks_old_row(self.plan, change) {
            self.dropped += 1;
            return;
        }
        let new = new.filter(|seen| seen.verdict == ImageVerdict::Keep);
        let new = new.map(|seen| self.push_row(batch.row_at(seen.first_cell), Some(seen.index)));
        let before = match change.op {
            Op::Truncate => return self.changes.push(*change),
            Op::Insert => None,
            Op::Update | Op::Delete if full => self.published_old_row(batch, change, old),
            Op::Update if new.is_some() && change.old.is_none() => None,
            Op::Update | Op::Delete => self.old_key(batch, change),
        };
        let (old, old_is_key) = before.unzip();
        let op = match (new, old) {
            (Some(_), Some(_)) => Op::Update,
            // Without the whole old row the gateway does not know whether the row enters the
            // filter. With it, an insert still cannot mark a cell as unchanged.
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

    /// The old row as it was published, if Postgres sent the whole of it. None if it was filtered
    /// out. If the guest failed on it, consumers may have it or not: its key names it in either
    /// case.
    fn published_old_row(
        &mut self,
        batch: &RowBatch,
        change: &Change,
        old: Option<SeenImage>,
    ) -> Option<(u32, bool)> {
        let old = old?;
        match old.verdict {
            ImageVerdict::Keep => {
                Some((self.push_row(batch.row_at(old.first_cell), Some(old.index)), false))
            }
            ImageVerdict::Drop => None,
            ImageVerdict::Failed => self.old_key(batch, change),
        }
    }

    fn has_unchanged(&self, first: u32) -> bool {
        let first = first as usize;
        self.cells[first..first + self.plan.cells.len()].contains(&Cell::Unchanged)
    }

    /// The key of the old row, or of the new one, whose key is then the same. None if consumers do
    /// not find rows by it.
    fn old_key(&mut self, batch: &RowBatch, change: &Change) -> Option<(u32, bool)> {
        let first = change.old.or(change.new).filter(|_| names_by_key(self.plan))?;
        let (row, columns) = (batch.row_at(first), &self.plan.table.columns);
        let key = self.cells.len() as u32;
        self.cells.extend(self.plan.cells.iter().map(|cells| match cells.input() {
            Some(input) if columns[input].key => row[input],
            _ => Cell::Null,
        }));
        Some((key, true))
    }

    /// Appends a row of the input as one of the output, with the patches of `image`.
    fn push_row(&mut self, row: &[Cell], image: Option<usize>) -> u32 {
        let first = self.cells.len();
        for run in &self.plan.copied {
            self.cells.extend_from_slice(&row[run.clone()]);
        }
        self.cells.resize(first + self.plan.cells.len(), Cell::Null);
        let patches = image.map_or(&[][..], |image| self.verdicts.patches_of(self.plan, image));
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
