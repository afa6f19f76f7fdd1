//! A guest that is bound to one table: its plan, and its instances, which wait here between batches.
//!
//! What is done with a batch is `isolate`'s business.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use walgate_wire::{Guest, Schema};

use crate::guest::{
    OnGuestError,
    exec::{
        failure::{CallFailure, GuestError},
        layout::{Buffer, Layout},
    },
    plan::{Answer, Plan},
    runtime::{
        calls::Table,
        engine::Module,
        instance::{Code, Instance},
        limits::Patience,
    },
};
use crate::rows::TableVersion;

/// Instances that wait; more are only needed while more tasks than these work on one table.
const IDLE_MAX: usize = 8;
/// Time limits of a batch that may go by in calls that fail, before it is the guest that is broken.
const LOST_BATCHES_MAX: u32 = 64;

/// A guest at work for one table version.
pub struct Bound {
    pub(super) plan: Plan,
    pub(super) layout: Layout,
    pub(super) guest: Guest,
    code: Arc<Code>,
    told: Table,
    names: (Arc<str>, Arc<str>),
    idle: Mutex<Vec<Worker>>,
    patience: Mutex<Patience>,
}

/// An instance that knows its table, and the buffer that batches are laid out in for it.
pub(super) struct Worker {
    pub(super) instance: Instance,
    pub(super) buffer: Buffer,
}

impl Module {
    /// Tells the guest of a table and checks what it plans. Blocks for as long as the guest thinks.
    pub fn bind(
        &self,
        table: Arc<TableVersion>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Bound, GuestError> {
        let guest = self.description().clone();
        let names: (Arc<str>, Arc<str>) =
            (Arc::from(&*guest.name), Arc::from(table.name.to_string()));
        let told = Table::new(&table, parameters);
        let (instance, answer) = self.code.plan(names.clone(), &told)?;
        let answer = answer.map_err(|reason| GuestError::Refused {
            guest: guest.name.clone(),
            table: table.name.to_string(),
            reason,
        })?;
        let plan = Plan::new(Arc::clone(&table), answer, guest.clone());
        let plan = plan.map_err(|source| GuestError::Plan {
            guest: guest.name.clone(),
            table: table.name.to_string(),
            source,
        })?;
        let idle = Mutex::new(vec![Worker { instance, buffer: Buffer::default() }]);
        let layout = Layout::new(&plan);
        let code = Arc::clone(&self.code);
        let lost_max = code.shared.limits.batch.saturating_mul(LOST_BATCHES_MAX);
        let patience = Mutex::new(Patience::new(lost_max, Instant::now()));
        Ok(Bound { layout, plan, guest, code, told, names, idle, patience })
    }
}

impl Bound {
    /// The table version that the guest was bound to.
    pub fn input(&self) -> &Arc<TableVersion> {
        &self.plan.table
    }

    /// The table as it leaves the guest. Revision, state and position are the caller's to set.
    pub fn output(&self) -> &Arc<TableVersion> {
        &self.plan.output
    }

    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// What the guest wants of the table, as it answered.
    pub fn answer(&self) -> &Answer {
        &self.plan.answer
    }

    /// Sets what the batches that leave name as their schema: the output's, registered.
    pub fn with_schema(&mut self, schema: Schema) {
        let output = TableVersion { schema, ..(*self.plan.output).clone() };
        self.plan.output = Arc::new(output);
    }

    /// Columns of the input whose unchanged cells have to be looked up before [`Bound::run`].
    pub fn needs_values(&self, on_error: OnGuestError) -> Vec<usize> {
        self.plan.needs_values(on_error)
    }

    /// How long calls that fail may take from now on.
    pub(super) fn patience(&self) -> Duration {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner).left(Instant::now())
    }

    /// So long it took to find out which rows the guest fails on.
    pub(super) fn lose(&self, took: Duration) {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner).lose(took);
    }

    /// One that waits, or a fresh one.
    pub(super) fn worker(&self) -> Result<Worker, CallFailure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.fresh(), Ok)
    }

    pub(super) fn fresh(&self) -> Result<Worker, CallFailure> {
        let (instance, answer) = self.code.plan(self.names.clone(), &self.told)?;
        if answer.as_ref() != Ok(&self.plan.answer) {
            return Err(CallFailure::PlanChanged);
        }
        Ok(Worker { instance, buffer: Buffer::default() })
    }

    pub(super) fn put_back(&self, worker: Worker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(worker);
        }
    }
}
