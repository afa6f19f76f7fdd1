//! One running guest: its memory, its limits, its log, and the three calls into it.
//!
//! After a failed call an instance is unusable: the caller drops it. The meaning of the bytes that
//! go in and come out is not known here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use wasmtime::{
    Cache, ResourceLimiter, Store, StoreContextMut, Trap,
    component::{ComponentExportIndex, ComponentNamedList, Func, InstancePre, Lift, Linker, Lower},
};

use crate::guest::{
    exec::failure::CallFailure,
    plan::PlanAnswer,
    runtime::{
        calls::{WitDescription, WitLogLevel, WitPlan, WitTable},
        component::HOST,
        epoch_ticker::{TICK, Ticker},
        limits::{
            ERROR_BYTES_MAX, Limits, LogAdmission, LogGate, MemoryAccount, format_log_line,
            shorten_text,
        },
    },
};

/// Time limit for the start of an instance, which may initialise itself.
const START: Duration = Duration::from_secs(2);

/// Bytes of names, log lines and the like beside an answer.
const HANDED_OVER_BESIDE: usize = 1 << 20;

/// What all instances of an engine share.
pub struct EngineShared {
    pub(super) engine: wasmtime::Engine,
    pub limits: Limits,
    pub(super) ticker: Ticker,
    pub(super) cache: Option<Cache>,
}

/// A compiled guest with its imports.
pub struct GuestCode {
    pub shared: Arc<EngineShared>,
    pub(super) pre: InstancePre<InstanceState>,
    pub(super) describe: ComponentExportIndex,
    pub(super) plan: ComponentExportIndex,
    pub(super) process: ComponentExportIndex,
    /// Shared by all its instances.
    pub(super) log: Arc<Mutex<LogGate>>,
}

/// The host's state of an instance.
pub(super) struct InstanceState {
    memory: MemoryAccount,
    log: Arc<Mutex<LogGate>>,
    /// Guest and table, for the log.
    names: (Arc<str>, Arc<str>),
    /// The last line that the guest logged as an error during this call: why it panicked.
    last_error_line: Option<String>,
}

impl ResourceLimiter for InstanceState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.try_grow(current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.try_grow_table(current, desired))
    }
}

impl InstanceState {
    fn write_log(&mut self, level: WitLogLevel, message: &str) {
        if level == WitLogLevel::Error {
            self.last_error_line = Some(shorten_text(message, ERROR_BYTES_MAX));
        }
        let (guest, table) = (&*self.names.0, &*self.names.1);
        let admitted =
            self.log.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        let LogAdmission::Yes { suppressed } = admitted else { return };
        if suppressed > 0 {
            tracing::warn!(guest, table, suppressed, "guest log lines suppressed: over the limit");
        }
        let line = format_log_line(message);
        match level {
            WitLogLevel::Debug => tracing::debug!(guest, table, "{line}"),
            WitLogLevel::Info => tracing::info!(guest, table, "{line}"),
            WitLogLevel::Warn => tracing::warn!(guest, table, "{line}"),
            WitLogLevel::Error => tracing::error!(guest, table, "{line}"),
        }
    }
}

/// Links the functions that the host offers to guests.
pub(super) fn link_host(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    let log = |mut store: StoreContextMut<'_, InstanceState>,
               (level, message): (WitLogLevel, String)| {
        store.data_mut().write_log(level, &message);
        Ok(())
    };
    linker.instance(HOST)?.func_wrap("log", log)
}

/// A guest in progress.
pub struct Instance {
    shared: Arc<EngineShared>,
    store: Store<InstanceState>,
    process: Func,
}

impl GuestCode {
    pub(super) fn describe(&self) -> Result<WitDescription, CallFailure> {
        let none: Arc<str> = Arc::from("");
        let (mut store, instance) = self.instantiate((none.clone(), none))?;
        let describe = require_export(instance.get_func(&mut store, self.describe))?;
        call_export::<(), (WitDescription,)>(&self.shared, &mut store, &describe, (), START)
            .map(|(description,)| description)
    }

    /// A new instance for a table, and its plan. `names`: guest and table, for its log.
    pub fn start_and_plan(
        &self,
        names: (Arc<str>, Arc<str>),
        table: &WitTable,
    ) -> Result<(Instance, Result<PlanAnswer, String>), CallFailure> {
        let (mut store, instance) = self.instantiate(names)?;
        let plan = require_export(instance.get_func(&mut store, self.plan))?;
        let (answer,) = call_export::<(WitTable,), (Result<WitPlan, String>,)>(
            &self.shared,
            &mut store,
            &plan,
            (table.clone(),),
            self.shared.limits.batch,
        )?;
        let process = require_export(instance.get_func(&mut store, self.process))?;
        let instance = Instance { shared: Arc::clone(&self.shared), store, process };
        Ok((
            instance,
            answer.map(PlanAnswer::from).map_err(|text| shorten_text(&text, ERROR_BYTES_MAX)),
        ))
    }

    fn instantiate(
        &self,
        names: (Arc<str>, Arc<str>),
    ) -> Result<(Store<InstanceState>, wasmtime::component::Instance), CallFailure> {
        let limits = &self.shared.limits;
        let memory = MemoryAccount::new(limits.memory_bytes);
        let state =
            InstanceState { memory, log: Arc::clone(&self.log), names, last_error_line: None };
        let mut store = Store::new(&self.shared.engine, state);
        // The limit leaves room above `output_bytes`: an answer a little too large gets our own
        // error.
        store.set_hostcall_fuel(limits.output_bytes.saturating_add(HANDED_OVER_BESIDE));
        store.limiter(|state| state);
        store.set_epoch_deadline(deadline_ticks(START));
        let running = self.shared.ticker.start_ticking();
        let started = self.pre.instantiate(&mut store);
        drop(running);
        match started {
            Ok(instance) => Ok((store, instance)),
            Err(error) if error.is::<Trap>() => {
                Err(call_failure(&self.shared, &mut store, &error, START))
            }
            Err(error) => match store.data_mut().memory.take_refused() {
                Some(asked) => Err(CallFailure::OutOfMemory { asked, limit: limits.memory_bytes }),
                None => Err(CallFailure::Start(format!("{error:#}"))),
            },
        }
    }
}

impl Instance {
    /// A batch in, the answer out.
    pub fn process(&mut self, batch: &[u8]) -> Result<Vec<u8>, CallFailure> {
        let limits = &self.shared.limits;
        if batch.len() > limits.memory_bytes {
            let (bytes, limit) = (batch.len(), limits.memory_bytes);
            return Err(CallFailure::Input { bytes, limit });
        }
        let (answer,) = call_export::<(&[u8],), (Result<Vec<u8>, String>,)>(
            &self.shared,
            &mut self.store,
            &self.process,
            (batch,),
            limits.batch,
        )?;
        let answer =
            answer.map_err(|text| CallFailure::Refused(shorten_text(&text, ERROR_BYTES_MAX)))?;
        if answer.len() > limits.output_bytes {
            let (bytes, max) = (answer.len(), limits.output_bytes);
            return Err(CallFailure::Output { bytes, max });
        }
        Ok(answer)
    }
}

fn require_export(func: Option<Func>) -> Result<Func, CallFailure> {
    func.ok_or_else(|| CallFailure::Start("a function of its interface is missing".to_owned()))
}

fn call_export<P, R>(
    shared: &EngineShared,
    store: &mut Store<InstanceState>,
    func: &Func,
    params: P,
    time: Duration,
) -> Result<R, CallFailure>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    store.data_mut().last_error_line = None;
    store.set_epoch_deadline(deadline_ticks(time));
    let typed = func.typed::<P, R>(&store);
    let typed = typed.map_err(|error| {
        CallFailure::Start(format!("a function is not as the interface says: {error:#}"))
    })?;
    let running = shared.ticker.start_ticking();
    let result = typed.call(&mut *store, params);
    drop(running);
    result.map_err(|error| call_failure(shared, store, &error, time))
}

/// Plus one, because the next tick may be due at once.
fn deadline_ticks(time: Duration) -> u64 {
    time.as_micros().div_ceil(TICK.as_micros()) as u64 + 1
}

fn call_failure(
    shared: &EngineShared,
    store: &mut Store<InstanceState>,
    error: &wasmtime::Error,
    time: Duration,
) -> CallFailure {
    let InstanceState { memory, last_error_line, .. } = store.data_mut();
    let said = last_error_line.take();
    if let Some(Trap::Interrupt) = error.downcast_ref::<Trap>() {
        return CallFailure::Timeout { after: time, said };
    }
    // Most allocators turn a refusal into an abort.
    if let Some(asked) = memory.take_refused() {
        return CallFailure::OutOfMemory { asked, limit: shared.limits.memory_bytes };
    }
    let reason = error.root_cause().to_string();
    let reason = reason.strip_prefix("wasm trap: ").unwrap_or(&reason);
    CallFailure::Trap { reason: shorten_text(reason, ERROR_BYTES_MAX), said }
}
