//! The verdicts on the images of a batch, collected range by range from checked answers.
//!
//! Values become cells here: a value that does not fit its column is an error of its row. What a
//! verdict means for a change is not known here.

use std::ops::Range;

use crate::guest::{
    exec::{
        decisions::{Decisions, Verdict},
        images::Image,
    },
    plan::{
        CompiledPlan,
        output_schema::PatchedColumn,
        output_types::{GuestValue, Misfit, OutputTypeExt},
    },
    runtime::limits::{ERROR_BYTES_MAX, shorten_text},
};
use crate::rows::batch::{Cell, RowBatch};

/// What happens to one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVerdict {
    Drop,
    Keep,
    Failed,
}

/// One verdict for each image of a batch.
#[derive(Debug)]
pub struct ImageVerdicts {
    pub by_image: Vec<ImageVerdict>,
    /// Row by row, one for each patched column of the plan; none: untouched.
    patches: Vec<Option<Cell>>,
    /// Failed images and their errors, in no order.
    pub errors: Vec<(usize, String)>,
}

impl ImageVerdicts {
    /// An image without an answer is dropped.
    pub fn new(plan: &CompiledPlan, images: usize) -> ImageVerdicts {
        ImageVerdicts {
            by_image: vec![ImageVerdict::Drop; images],
            patches: vec![None; images * plan.patches.len()],
            errors: vec![],
        }
    }

    /// Cells of the patched columns of one image.
    pub fn patches_of(&self, plan: &CompiledPlan, image: usize) -> &[Option<Cell>] {
        let width = plan.patches.len();
        &self.patches[image * width..(image + 1) * width]
    }

    pub fn all_kept(&self) -> bool {
        self.by_image.iter().all(|&verdict| verdict == ImageVerdict::Keep)
    }

    /// Takes the decisions on the images of `range`, and appends their values to the batch's bytes.
    pub fn absorb_decisions(
        &mut self,
        plan: &CompiledPlan,
        batch: &mut RowBatch,
        images: &[Image],
        range: Range<usize>,
        decisions: &Decisions<'_>,
    ) {
        self.absorb_verdicts(plan, images, range.clone(), decisions);
        for (at, patch) in plan.patches.iter().enumerate() {
            let always = patch.replaces.is_some_and(|(_, holds)| holds) && patch.nullable;
            if decisions.untouched_everywhere(at) && always {
                continue;
            }
            for index in range.clone() {
                let image = &images[index];
                if self.by_image[index] != ImageVerdict::Keep || image.is_key_only() {
                    continue;
                }
                let value = decisions.value(at, index - range.start);
                match patched_cell(patch, batch, image, &value) {
                    Ok(cell) => self.patches[index * plan.patches.len() + at] = cell,
                    Err(misfit) => self.mark_failed(index, describe_misfit(patch, misfit)),
                }
            }
        }
    }

    fn absorb_verdicts(
        &mut self,
        plan: &CompiledPlan,
        images: &[Image],
        range: Range<usize>,
        decisions: &Decisions<'_>,
    ) {
        if decisions.all_kept() {
            return self.by_image[range].fill(ImageVerdict::Keep);
        }
        for index in range.clone() {
            if images[index].is_key_only() {
                self.by_image[index] = ImageVerdict::Keep;
                continue;
            }
            match decisions.verdict(index - range.start) {
                Verdict::Keep => self.by_image[index] = ImageVerdict::Keep,
                Verdict::Drop if plan.answer.filters => self.by_image[index] = ImageVerdict::Drop,
                Verdict::Drop => {
                    let error = "it drops the row, but its plan says that it never drops any";
                    self.mark_failed(index, error.to_owned());
                }
                Verdict::Error(text) => {
                    self.mark_failed(index, shorten_text(text, ERROR_BYTES_MAX))
                }
            }
        }
    }

    pub fn mark_failed(&mut self, image: usize, error: String) {
        self.by_image[image] = ImageVerdict::Failed;
        self.errors.push((image, error));
    }
}

/// The cell of a patched column; none keeps the input's cell.
fn patched_cell(
    patch: &PatchedColumn,
    batch: &mut RowBatch,
    image: &Image,
    value: &GuestValue<'_>,
) -> Result<Option<Cell>, Misfit> {
    match (value, patch.replaces) {
        (GuestValue::Null, _) if patch.nullable => Ok(Some(Cell::Null)),
        (GuestValue::Null, _) => Err(Misfit::Null),
        (GuestValue::Untouched, None) => Err(Misfit::Untouched),
        (GuestValue::Untouched, Some((input, holds))) => {
            match batch.cells[image.first_cell as usize + input] {
                Cell::Null if !patch.nullable => Err(Misfit::Null),
                Cell::Null | Cell::Unchanged => Ok(None),
                _ if holds => Ok(None),
                _ => Err(Misfit::Untouched),
            }
        }
        (value, _) => patch.ty.write_cell(value, &mut batch.bytes).map(Some),
    }
}

fn describe_misfit(patch: &PatchedColumn, misfit: Misfit) -> String {
    format!("its value for column {} ({}) {misfit}", patch.column, patch.ty.name())
}
