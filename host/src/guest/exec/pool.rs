//! A guest that is bound to one table: its plan, and its idle instances.
//!
//! How a batch goes through an instance is not known here, see `bisect`.

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
        layout::{GuestBuffer, Layout},
    },
    plan::{CompiledPlan, PlanAnswer},
    runtime::{
        calls::WitTable,
        engine::Module,
        instance::{GuestCode, Instance},
        limits::FailureTimeBudget,
    },
};
use crate::rows::TableVersion;

/// Idle instances. More are needed only while more tasks than these work on one table.
const IDLE_MAX: usize = 8;
/// Time for failing calls, in time limits of a batch. A guest that needs more is broken.
const FAILURE_BATCHES_MAX: u32 = 64;

/// A guest at work for one table version.
pub struct BoundGuest {
    pub(super) plan: CompiledPlan,
    pub(super) layout: Layout,
    pub(super) guest: Guest,
    code: Arc<GuestCode>,
    described: WitTable,
    names: (Arc<str>, Arc<str>),
    idle: Mutex<Vec<GuestWorker>>,
    failure_time: Mutex<FailureTimeBudget>,
}

/// An instance that knows its table, and the buffer for its batches.
pub(super) struct GuestWorker {
    pub(super) instance: Instance,
    pub(super) buffer: GuestBuffer,
}

impl Module {
    /// Describes the table to the guest and checks its plan. Blocks for as long as the guest takes.
    pub fn bind(
        &self,
        table: Arc<TableVersion>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<BoundGuest, GuestError> {
        let guest = self.description().clone();
        let names: (Arc<str>, Arc<str>) =
            (Arc::from(&*guest.name), Arc::from(table.name.to_string()));
        let described = WitTable::new(&table, parameters);
        let (instance, answer) = self.code.start_and_plan(names.clone(), &described)?;
        let answer = answer.map_err(|reason| GuestError::Refused {
            guest: guest.name.clone(),
            table: table.name.to_string(),
            reason,
        })?;
        let plan = CompiledPlan::new(Arc::clone(&table), answer, guest.clone());
        let plan = plan.map_err(|source| GuestError::Plan {
            guest: guest.name.clone(),
            table: table.name.to_string(),
            source,
        })?;
        let idle = Mutex::new(vec![GuestWorker { instance, buffer: GuestBuffer::default() }]);
        let layout = Layout::new(&plan);
        let code = Arc::clone(&self.code);
        let failure_time_max = code.shared.limits.batch.saturating_mul(FAILURE_BATCHES_MAX);
        let failure_time = Mutex::new(FailureTimeBudget::new(failure_time_max, Instant::now()));
        Ok(BoundGuest { layout, plan, guest, code, described, names, idle, failure_time })
    }
}

impl BoundGuest {
    /// The table version that the guest was bound to.
    pub fn input(&self) -> &Arc<TableVersion> {
        &self.plan.table
    }

    /// The published table. The caller sets its revision, state and position.
    pub fn output(&self) -> &Arc<TableVersion> {
        &self.plan.output
    }

    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The plan as the guest answered it.
    pub fn answer(&self) -> &PlanAnswer {
        &self.plan.answer
    }

    /// Sets the registered schema, which published batches name.
    pub fn with_schema(&mut self, schema: Schema) {
        let output = TableVersion { schema, ..(*self.plan.output).clone() };
        self.plan.output = Arc::new(output);
    }

    /// Columns of the input whose unchanged cells have to be looked up before [`BoundGuest::run`].
    pub fn needs_values(&self, on_error: OnGuestError) -> Vec<usize> {
        self.plan.needs_values(on_error)
    }

    /// The time that failing calls may take from now on.
    pub(super) fn failure_time_left(&self) -> Duration {
        self.failure_time.lock().unwrap_or_else(PoisonError::into_inner).refill(Instant::now())
    }

    /// Counts the time that finding failed rows took.
    pub(super) fn spend_failure_time(&self, took: Duration) {
        self.failure_time.lock().unwrap_or_else(PoisonError::into_inner).spend(took);
    }

    /// An idle worker, or a new one.
    pub(super) fn take_worker(&self) -> Result<GuestWorker, CallFailure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.start_worker(), Ok)
    }

    pub(super) fn start_worker(&self) -> Result<GuestWorker, CallFailure> {
        let (instance, answer) = self.code.start_and_plan(self.names.clone(), &self.described)?;
        if answer.as_ref() != Ok(&self.plan.answer) {
            return Err(CallFailure::PlanChanged);
        }
        Ok(GuestWorker { instance, buffer: GuestBuffer::default() })
    }

    pub(super) fn put_back(&self, worker: GuestWorker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(worker);
        }
    }
}
