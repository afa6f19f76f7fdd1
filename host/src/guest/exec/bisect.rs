//! A batch through a guest; and when the guest fails, once more with a fresh instance, then piece by piece until
//! the rows that it fails on are found.
//!
//! No row leaves that the guest has not answered for. What the policy of a table means beyond this batch is not
//! known here.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::guest::{
    OnGuestError, Outcome,
    exec::{
        apply::{Applied, apply, lacks_old_row, names_by_key},
        decisions::{Shape, decode},
        failure::{CallFailure, FailedRow, GuestFailure, Place},
        images::{Image, images, middle, part},
        pool::{Bound, Worker},
        verdicts::Settled,
    },
};
use crate::{
    encode::RowError,
    rows::{Rendered, batch::RowBatch},
};

/// Beyond so many in one batch it is the guest that is broken, not the rows.
const POISON_ROWS_MAX: usize = 16;

const NO_OLD_ROW: &str = "Postgres did not send the old row, without which the replaced key is not known: \
                          set REPLICA IDENTITY FULL on every partition of the table";

impl Bound {
    /// What a new guest has to get through before it serves: some rows of the table, of which `on_error` may set a few
    /// aside but not all; a call without any, where the table has none.
    pub fn try_on(
        &self,
        batch: RowBatch,
        rendered: &mut Rendered,
        on_error: OnGuestError,
    ) -> Result<(), GuestFailure> {
        let mut run = Run::new(self, batch, rendered, on_error, Instant::now());
        if run.images.is_empty() {
            let worker = run.fresh()?;
            return match run.piece(0..0, worker) {
                Ok(_) => Ok(()),
                Err(Failure::Unreadable(error)) => Err(error.into()),
                Err(Failure::Call(failure)) => Err(run.broken(failure)),
            };
        }
        run.whole()?;
        let failed = run.failed()?;
        match failed.last() {
            Some(last) if failed.len() == run.batch.len() => {
                Err(run.too_many(failed.len(), last.error.clone()))
            }
            _ => Ok(()),
        }
    }

    /// A batch of the input's table version in, one of the output's out. Blocks for as long as the guest
    /// works. Everything that is read and rendered by the server has to be known.
    pub fn run(
        &self,
        batch: RowBatch,
        rendered: &mut Rendered,
        on_error: OnGuestError,
    ) -> Result<Outcome, GuestFailure> {
        let began = Instant::now();
        if batch.table.columns != self.plan.table.columns {
            return Err(GuestFailure::OtherTable { table: batch.table.name.to_string() });
        }
        let mut run = Run::new(self, batch, rendered, on_error, began);
        run.whole()?;
        let failed = run.failed()?;
        let Run { batch, images, settled, called, .. } = run;
        let Applied { batch, dropped } = apply(&self.plan, batch, &images, &settled);
        Ok(Outcome { batch, dropped, failed, took: began.elapsed(), called })
    }
}

/// Why a piece of a batch came to nothing.
enum Failure {
    /// The guest was not asked.
    Unreadable(RowError),
    Call(CallFailure),
}

struct Run<'a> {
    bound: &'a Bound,
    batch: RowBatch,
    rendered: &'a mut Rendered,
    on_error: OnGuestError,
    began: Instant,
    images: Vec<Image>,
    settled: Settled,
    called: Duration,
}

impl<'a> Run<'a> {
    fn new(
        bound: &'a Bound,
        batch: RowBatch,
        rendered: &'a mut Rendered,
        on_error: OnGuestError,
        began: Instant,
    ) -> Run<'a> {
        let images = images(&batch, &bound.plan.reads_values);
        let settled = Settled::new(&bound.plan, images.len());
        Run { bound, batch, rendered, on_error, began, images, settled, called: Duration::ZERO }
    }

    /// The whole batch, twice if need be, then in pieces.
    fn whole(&mut self) -> Result<(), GuestFailure> {
        let all = 0..self.images.len();
        if all.is_empty() {
            return Ok(());
        }
        let worker = self.bound.worker().map_err(|failure| self.broken(failure))?;
        let first = match self.piece(all.clone(), worker) {
            Ok(worker) => {
                self.bound.put_back(worker);
                return Ok(());
            }
            Err(Failure::Unreadable(error)) => return Err(error.into()),
            Err(Failure::Call(failure)) => failure,
        };
        let (guest, table) = (&self.bound.guest.name, self.batch.table.name.to_string());
        tracing::warn!(
            guest,
            table,
            rows = all.len(),
            "the guest's process {first}; trying again with a fresh instance"
        );
        let worker = self.fresh()?;
        match self.piece(all.clone(), worker) {
            Ok(worker) => {
                self.bound.put_back(worker);
                Ok(())
            }
            Err(Failure::Unreadable(error)) => Err(error.into()),
            Err(Failure::Call(failure)) => self.search(all, failure),
        }
    }

    /// Halves what failed until it is one change, or one row of it.
    fn search(&mut self, all: Range<usize>, failure: CallFailure) -> Result<(), GuestFailure> {
        let time_max = self.bound.patience();
        let found = self.halve(all, failure, time_max);
        self.bound.lose(self.began.elapsed());
        found
    }

    fn halve(
        &mut self,
        all: Range<usize>,
        failure: CallFailure,
        time_max: Duration,
    ) -> Result<(), GuestFailure> {
        let mut poison = 0;
        let mut left = vec![];
        self.cut(all, &failure, &mut left, &mut poison)?;
        let mut last = failure;
        let mut reused: Option<Worker> = None;
        while let Some(range) = left.pop() {
            if poison > POISON_ROWS_MAX {
                return Err(self.too_many(poison, format!("its process {last}")));
            }
            if self.began.elapsed() > time_max {
                return Err(self.too_slow(&last));
            }
            // What an instance went through before must not be a change's fault.
            let single = middle(&self.images, &range).is_none();
            let worker = match reused.take().filter(|_| !single) {
                Some(worker) => worker,
                None => self.fresh()?,
            };
            match self.piece(range.clone(), worker) {
                Ok(worker) => reused = Some(worker),
                Err(Failure::Unreadable(error)) => return Err(error.into()),
                Err(Failure::Call(failure)) => {
                    self.cut(range, &failure, &mut left, &mut poison)?;
                    last = failure;
                }
            }
        }
        if let Some(worker) = reused {
            self.bound.put_back(worker);
        }
        Ok(())
    }

    /// What failed is left as two halves, or is a poison row.
    fn cut(
        &mut self,
        range: Range<usize>,
        failure: &CallFailure,
        left: &mut Vec<Range<usize>>,
        poison: &mut usize,
    ) -> Result<(), GuestFailure> {
        let middle = middle(&self.images, &range).or_else(|| part(&mut self.images, &range));
        if let Some(middle) = middle {
            // The first half is popped first.
            left.extend([middle..range.end, range.start..middle]);
            return Ok(());
        }
        *poison += 1;
        let error = format!("its process {failure}");
        range.for_each(|image| self.settled.fail(image, error.clone()));
        match self.on_error {
            OnGuestError::Halt => self.failed().map(|_| ()),
            OnGuestError::DeadLetter | OnGuestError::Drop => Ok(()),
        }
    }

    /// Shows some images to a guest and takes over what it answers. Gives the instance back if it is still
    /// good.
    fn piece(&mut self, range: Range<usize>, mut worker: Worker) -> Result<Worker, Failure> {
        let Bound { plan, layout, .. } = self.bound;
        let shown = &self.images[range.clone()];
        layout
            .fill(&self.batch, shown, self.rendered, &mut worker.buffer)
            .map_err(Failure::Unreadable)?;
        let began = Instant::now();
        let answer = worker.instance.process(&worker.buffer.bytes).map_err(Failure::Call)?;
        self.called += began.elapsed();
        let shape = Shape { rows: range.len(), columns: &plan.shape };
        let decisions = decode(&answer, &shape).map_err(|garbage| Failure::Call(garbage.into()))?;
        self.settled.take(plan, &mut self.batch, &self.images, range, &decisions);
        Ok(worker)
    }

    /// The rows that failed, in their order; an error if the first of them stops the table.
    fn failed(&self) -> Result<Vec<FailedRow>, GuestFailure> {
        let of =
            |(image, error): &(usize, String)| (self.images[*image].of as usize, error.clone());
        // As an old row it says nothing new: it was told when it came, and its key names it.
        let halts = self.on_error == OnGuestError::Halt;
        let told = halts || !names_by_key(&self.bound.plan);
        let errors = self.settled.errors.iter();
        let errors = errors.filter(|(image, _)| told || self.images[*image].is_new());
        let mut failed: Vec<(usize, String)> = errors.map(of).collect();
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
                place: self.place(*index),
                error: error.clone(),
            });
        }
        let keep = self.on_error == OnGuestError::DeadLetter;
        let row = |(index, error): (usize, String)| FailedRow {
            index,
            place: self.place(index),
            error,
            row: keep.then(|| self.batch.only(index)),
        };
        Ok(failed.into_iter().map(row).collect())
    }

    fn place(&self, index: usize) -> Place {
        match self.batch.changes.get(index) {
            Some(change) => Place::Change(self.batch.position(change)),
            None => Place::Copied(index),
        }
    }

    fn fresh(&self) -> Result<Worker, GuestFailure> {
        self.bound.fresh().map_err(|failure| self.broken(failure))
    }

    fn broken(&self, failure: CallFailure) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::Guest { guest, table, failure }
    }

    fn too_many(&self, rows: usize, error: String) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::TooManyRows { guest, table, rows, error }
    }

    fn too_slow(&self, last: &CallFailure) -> GuestFailure {
        let (guest, table) = (self.bound.guest.name.clone(), self.batch.table.name.to_string());
        GuestFailure::TooSlow { guest, table, error: format!("its process {last}") }
    }
}
