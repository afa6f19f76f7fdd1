//! What was decided of the images of a batch so far: slice by slice, from answers that were checked.
//!
//! Values become cells here, so that what does not fit its column is an error of its row. What a verdict means
//! for a change is not known here.

use std::ops::Range;

use crate::guest::{
    exec::{
        decisions::{Decisions, Value, Verdict},
        images::Image,
    },
    plan::{
        Patch, Plan,
        output_types::{Misfit, Written},
    },
    runtime::limits::shorten,
};
use crate::rows::batch::{Cell, RowBatch};

/// Longest text of a guest's that is repeated to an operator.
pub(crate) const ERROR_BYTES_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Drop,
    Keep,
    Failed,
}

/// By image.
#[derive(Debug)]
pub struct Settled {
    pub fates: Vec<Fate>,
    /// Row by row, one for each patch of the plan; none: untouched.
    patches: Vec<Option<Cell>>,
    /// Images that failed and why, in no order.
    pub errors: Vec<(usize, String)>,
}

impl Settled {
    /// Nothing is decided yet: what stays so is dropped.
    pub fn new(plan: &Plan, images: usize) -> Settled {
        Settled {
            fates: vec![Fate::Drop; images],
            patches: vec![None; images * plan.patches.len()],
            errors: vec![],
        }
    }

    pub fn patches(&self, plan: &Plan, image: usize) -> &[Option<Cell>] {
        let width = plan.patches.len();
        &self.patches[image * width..(image + 1) * width]
    }

    pub fn all_kept(&self) -> bool {
        self.fates.iter().all(|&fate| fate == Fate::Keep)
    }

    /// Takes over what was answered for the images of `range`; appends their values to the batch's bytes.
    pub fn take(
        &mut self,
        plan: &Plan,
        batch: &mut RowBatch,
        images: &[Image],
        range: Range<usize>,
        decisions: &Decisions<'_>,
    ) {
        self.take_verdicts(plan, images, range.clone(), decisions);
        for (at, patch) in plan.patches.iter().enumerate() {
            let always = patch.replaces.is_some_and(|(_, holds)| holds) && patch.nullable;
            if decisions.untouched_everywhere(at) && always {
                continue;
            }
            for index in range.clone() {
                let image = &images[index];
                if self.fates[index] != Fate::Keep || image.is_key_only() {
                    continue;
                }
                let value = decisions.value(at, index - range.start);
                match patched(patch, batch, image, &value) {
                    Ok(cell) => self.patches[index * plan.patches.len() + at] = cell,
                    Err(misfit) => self.fail(index, describe(patch, misfit)),
                }
            }
        }
    }

    fn take_verdicts(
        &mut self,
        plan: &Plan,
        images: &[Image],
        range: Range<usize>,
        decisions: &Decisions<'_>,
    ) {
        if decisions.all_kept() {
            return self.fates[range].fill(Fate::Keep);
        }
        for index in range.clone() {
            if images[index].is_key_only() {
                self.fates[index] = Fate::Keep;
                continue;
            }
            match decisions.verdict(index - range.start) {
                Verdict::Keep => self.fates[index] = Fate::Keep,
                Verdict::Drop if plan.answer.filters => self.fates[index] = Fate::Drop,
                Verdict::Drop => {
                    let said = "it drops the row, but its plan says that it never drops any";
                    self.fail(index, said.to_owned());
                }
                Verdict::Error(text) => self.fail(index, shorten(text, ERROR_BYTES_MAX)),
            }
        }
    }

    pub fn fail(&mut self, image: usize, error: String) {
        self.fates[image] = Fate::Failed;
        self.errors.push((image, error));
    }
}

/// The cell of a patched column; none leaves what was there.
fn patched(
    patch: &Patch,
    batch: &mut RowBatch,
    image: &Image,
    value: &Value<'_>,
) -> Result<Option<Cell>, Misfit> {
    match (value, patch.replaces) {
        (Value::Null, _) if patch.nullable => Ok(Some(Cell::Null)),
        (Value::Null, _) => Err(Misfit::Null),
        (Value::Untouched, None) => Err(Misfit::Untouched),
        (Value::Untouched, Some((input, holds))) => {
            match batch.cells[image.first_cell as usize + input] {
                Cell::Null if !patch.nullable => Err(Misfit::Null),
                Cell::Null | Cell::Unchanged => Ok(None),
                _ if holds => Ok(None),
                _ => Err(Misfit::Untouched),
            }
        }
        (value, _) => patch.ty.cell(value, &mut batch.bytes).map(Some),
    }
}

fn describe(patch: &Patch, misfit: Misfit) -> String {
    format!("its value for column {} ({}) {misfit}", patch.column, patch.ty.name())
}
