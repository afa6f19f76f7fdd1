//! Takes a batch through a guest. If the guest fails, finds the rows that it fails on.
//!
//! A failed batch is tried again with a new instance, then range by range. No row is published
//! without an answer of the guest. What the policy of a table means beyond this batch is not known
//! here.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::guest::{
    GuestOutcome, OnGuestError,
    exec::{
        apply::{AppliedBatch, apply_verdicts, lacks_old_row, names_by_key},
        decisions::{AnswerShape, decode_answer},
        failure::{CallFailure, FailedRow, GuestFailure, RowPlace},
        images::{Image, collect_images, split_between_changes, split_old_from_new},
        pool::{BoundGuest, GuestWorker},
        verdicts::ImageVerdicts,
    },
};
use crate::{
    encode::RowError,
    rows::{Rendered, batch::RowBatch},
};

/// With more poison rows in one batch the guest is broken, not the rows.
const POISON_ROWS_MAX: usize = 16;

const NO_OLD_ROW: &str = "Postgres did not send the old row, without which the replaced key is not known: \
                          set REPLICA IDENTITY FULL on every partition of the table";

impl BoundGuest {
    /// The trial that a new guest has to pass before it serves: some rows of its table. By
    /// `on_error` it may fail on some of them, but not on all. For an empty table it is a call
    /// without rows.
    pub fn try_on(
        &self,
        batch: RowBatch,
        rendered: &mut Rendered,
        on_error: OnGuestError,
    ) -> Result<(), GuestFailure> {
        let mut run = BatchRun::new(self, batch, rendered, on_error, Instant::now());
        if run.images.is_empty() {
            let worker = run.start_worker()?;
            return match run.try_range(0..0, worker) {
                Ok(_) => Ok(()),
                Err(RangeFailure::Unreadable(error)) => Err(error.into()),
                Err(RangeFailure::Call(failure)) => Err(run.guest_failed(failure)),
            };
        }
        run.try_whole_batch()?;
        let failed = run.failed_rows()?;
        match failed.last() {
            Some(last) if failed.len() == run.batch.len() => {
                Err(run.too_many(failed.len(), last.error.clone()))
            }
            _ => Ok(()),
        }
    }

    /// A batch of the input's table version in, one of the output's out. Blocks for as long as the
    /// guest works. All values that the guest reads, and all texts of the server, have to be known.
    pub fn run(
        &self,
        batch: RowBatch,
        rendered: &mut Rendered,
        on_error: OnGuestError,
    ) -> Result<GuestOutcome, GuestFailure> {
        let began = Instant::now();
        if batch.table.columns != self.plan.table.columns {
            return Err(GuestFailure::OtherTable { table: batch.table.name.to_string() });
        }
        let mut run = BatchRun::new(self, batch, rendered, on_error, began);
        run.try_whole_batch()?;
        let failed = run.failed_rows()?;
        let BatchRun { batch, images, verdicts, called, .. } = run;
        let AppliedBatch { batch, dropped } = apply_verdicts(&self.plan, batch, &images, &verdicts);
        Ok(GuestOutcome { batch, dropped, failed, took: began.elapsed(), called })
    }
}

/// Why the guest has no answer for a range of images.
enum RangeFailure {
    /// The guest was not called: a value cannot be shown to it.
    Unreadable(RowError),
    Call(CallFailure),
}

struct BatchRun<'a> {
    bound: &'a BoundGuest,
    batch: RowBatch,
    rendered: &'a mut Rendered,
    on_error: OnGuestError,
    began: Instant,
    images: Vec<Image>,
    verdicts: ImageVerdicts,
    called: Duration,
}

impl<'a> BatchRun<'a> {
    fn new(
        bound: &'a BoundGuest,
        batch: RowBatch,
        rendered: &'a mut Rendered,
        on_error: OnGuestError,
        began: Instant,
    ) -> BatchRun<'a> {
        let images = collect_images(&batch, &bound.plan.reads_values);
        let verdicts = ImageVerdicts::new(&bound.plan, images.len());
        BatchRun {
            bound,
            batch,
            rendered,
            on_error,
            began,
            images,
            verdicts,
            called: Duration::ZERO,
        }
    }

    /// Shows the guest the whole batch, twice if need be. If both calls fail, bisects.
    fn try_whole_batch(&mut self) -> Result<(), GuestFailure> {
        let all = 0..self.images.len();
        if all.is_empty() {
            return Ok(());
        }
        let worker = self.bound.take_worker().map_err(|failure| self.guest_failed(failure))?;
        let first = match self.try_range(all.clone(), worker) {
            Ok(worker) => {
                self.bound.put_back(worker);
                return Ok(());
            }
            Err(RangeFailure::Unreadable(error)) => return Err(error.into()),
            Err(RangeFailure::Call(failure)) => failure,
        };
        let (guest, table) = (&self.bound.guest.name, self.batch.table.name.to_string());
        tracing::warn!(
            guest,
            table,
            rows = all.len(),
            "guest call failed, trying again with a new instance: its process() {first}"
        );
        let worker = self.start_worker()?;
        match self.try_range(all.clone(), worker) {
            Ok(worker) => {
                self.bound.put_back(worker);
                Ok(())
            }
            Err(RangeFailure::Unreadable(error)) => Err(error.into()),
            Err(RangeFailure::Call(failure)) => self.bisect_in_time(all, failure),
        }
    }

    /// Bisects within the time that the guest may still spend on failures.
    fn bisect_in_time(
        &mut self,
        all: Range<usize>,
        failure: CallFailure,
    ) -> Result<(), GuestFailure> {
        let time_max = self.bound.failure_time_left();
        let found = self.bisect(all, failure, time_max);
        self.bound.spend_failure_time(self.began.elapsed());
        found
    }

    /// Halves failed ranges until each is one change, or one row of it.
    fn bisect(
        &mut self,
        all: Range<usize>,
        failure: CallFailure,
        time_max: Duration,
    ) -> Result<(), GuestFailure> {
        let mut poison = 0;
        let mut left = vec![];
        self.split_or_blame(all, &failure, &mut left, &mut poison)?;
        let mut last = failure;
        let mut reused: Option<GuestWorker> = None;
        while let Some(range) = left.pop() {
            if poison > POISON_ROWS_MAX {
                return Err(self.too_many(poison, format!("its process() {last}")));
            }
            if self.began.elapsed() > time_max {
                return Err(self.too_slow(&last));
            }
            // A single change is not blamed for what earlier calls did to the instance.
            let single = split_between_changes(&self.images, &range).is_none();
            let worker = match reused.take().filter(|_| !single) {
                Some(worker) => worker,
                None => self.start_worker()?,
            };
            match self.try_range(range.clone(), worker) {
                Ok(worker) => reused = Some(worker),
                Err(RangeFailure::Unreadable(error)) => return Err(error.into()),
                Err(RangeFailure::Call(failure)) => {
                    self.split_or_blame(range, &failure, &mut left, &mut poison)?;
                    last = failure;
                }
            }
        }
        if let Some(worker) = reused {
            self.bound.put_back(worker);
        }
        Ok(())
    }

    /// Splits a failed range into two halves that are left to try, or blames its row.
    fn split_or_blame(
        &mut self,
        range: Range<usize>,
        failure: &CallFailure,
        left: &mut Vec<Range<usize>>,
        poison: &mut usize,
    ) -> Result<(), GuestFailure> {
        let middle = split_between_changes(&self.images, &range)
            .or_else(|| split_old_from_new(&mut self.images, &range));
        if let Some(middle) = middle {
            // The first half is popped first.
            left.extend([middle..range.end, range.start..middle]);
            return Ok(());
        }
        *poison += 1;
        let error = format!("its process() {failure}");
        range.for_each(|image| self.verdicts.mark_failed(image, error.clone()));
        match self.on_error {
            OnGuestError::Halt => self.failed_rows().map(|_| ()),
            OnGuestError::DeadLetter | OnGuestError::Drop => Ok(()),
        }
    }

    /// Shows some images to the guest and absorbs its decisions. Gives the instance back if it is
    /// still usable.
    fn try_range(
        &mut self,
        range: Range<usize>,
        mut worker: GuestWorker,
    ) -> Result<GuestWorker, RangeFailure> {
        let BoundGuest { plan, layout, .. } = self.bound;
        let shown = &self.images[range.clone()];
        layout
            .fill_buffer(&self.batch, shown, self.rendered, &mut worker.buffer)
            .map_err(RangeFailure::Unreadable)?;
        let began = Instant::now();
        let answer = worker.instance.process(&worker.buffer.bytes).map_err(RangeFailure::Call)?;
        self.called += began.elapsed();
        let shape = AnswerShape { rows: range.len(), columns: &plan.answer_columns };
        let decisions =
            decode_answer(&answer, &shape).map_err(|error| RangeFailure::Call(error.into()))?;
        self.verdicts.absorb_decisions(plan, &mut self.batch, &self.images, range, &decisions);
        Ok(worker)
    }

    /// The failed rows in the order of the batch. An error if the policy is to halt.
    fn failed_rows(&self) -> Result<Vec<FailedRow>, GuestFailure> {
        let by_change = |(image, error): &(usize, String)| {
            (self.images[*image].change_index as usize, error.clone())
        };
        // A failure on an old row is not news: it was reported when that row was new. Its key names
        // it.
        let halts = self.on_error == OnGuestError::Halt;
        let reports_old = halts || !names_by_key(&self.bound.plan);
        let errors = self.verdicts.errors.iter();
        let errors = errors.filter(|(image, _)| reports_old || self.images[*image].is_new());
        let mut failed: Vec<(usize, String)> = errors.map(by_change).collect();
        if self.bound.plan.replaces_key {
            let changes = self.batch.changes.iter().enumerate();
            let lacking = changes.filter(|(_, change)| lacks_old_row(&self.bound.plan, change));
            failed.extend(lacking.map(|(index, _)| (index, NO_OLD_ROW.to_owned())));
        }
        failed.sort_by_key(|(index, _)| *index);
        failed.dedup_by_key(|(index, _)| *index);
        if let (OnGuestError::Halt, Some((index, error))) = (self.on_error, failed.first()) {
            return Err(GuestFailure::Row {
                guest: self.bound.guest.name.clone(),
                table: self.batch.table.name.to_string(),
                place: self.place_of(*index),
                error: error.clone(),
            });
        }
        let keep = self.on_error == OnGuestError::DeadLetter;
        let row = |(index, error): (usize, String)| FailedRow {
            index,
            place: self.place_of(index),
            error,
            row: keep.then(|| self.batch.only(index)),
        };
        Ok(failed.into_iter().map(row).collect())
    }

    fn place_of(&self, index: usize) -> RowPlace {
        match self.batch.changes.get(index) {
            Some(change) => RowPlace::Change(self.batch.position(change)),
            None => RowPlace::Copied(index),
        }
    }

    fn start_worker(&self) -> Result<GuestWorker, GuestFailure> {
        self.bound.start_worker().map_err(|failure| self.guest_failed(failure))
    }

    fn guest_failed(&self, failure: CallFailure) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::Guest { guest, table, failure }
    }

    fn too_many(&self, rows: usize, error: String) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::TooManyRows { guest, table, rows, error }
    }

    fn too_slow(&self, last: &CallFailure) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::TooSlow { guest, table, error: format!("its process() {last}") }
    }
}
