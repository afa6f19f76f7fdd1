//! One running guest: its memory, its limits, its log, and the three calls into it.
//!
//! After a failed call an instance is of no more use: the caller drops it. What the bytes that go in and come
//! out mean is not known here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use wasmtime::{
    ResourceLimiter, Store, StoreContextMut, Trap,
    component::{ComponentExportIndex, ComponentNamedList, Func, InstancePre, Lift, Linker, Lower},
};

use crate::guest::{
    exec::{failure::CallFailure, verdicts::ERROR_BYTES_MAX},
    plan::Answer,
    runtime::{
        calls::{Description, Level, Plan, Table},
        component::HOST,
        engine::Shared,
        epoch_ticker::TICK,
        limits::{Admitted, LogGate, Memory, log_line, shorten},
    },
};

/// For compiled code that runs for the first time, and instances that initialise themselves.
const START: Duration = Duration::from_secs(2);

/// Bytes of names, log lines and the like beside an answer.
const HANDED_OVER_BESIDE: usize = 1 << 20;

/// A compiled guest with its imports.
pub(crate) struct Code {
    pub(in crate::guest) shared: Arc<Shared>,
    pub(super) pre: InstancePre<State>,
    pub(super) describe: ComponentExportIndex,
    pub(super) plan: ComponentExportIndex,
    pub(super) process: ComponentExportIndex,
    /// Of all its instances.
    pub(super) log: Arc<Mutex<LogGate>>,
}

/// What the host keeps of an instance.
pub(super) struct State {
    memory: Memory,
    log: Arc<Mutex<LogGate>>,
    /// Whose log it is: guest and table.
    names: (Arc<str>, Arc<str>),
    /// The last line that the guest logged as an error during this call: why it panicked.
    said: Option<String>,
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.grows(current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.table_grows(current, desired))
    }
}

impl State {
    fn log(&mut self, level: Level, message: &str) {
        if level == Level::Error {
            self.said = Some(shorten(message, ERROR_BYTES_MAX));
        }
        let (guest, table) = (&*self.names.0, &*self.names.1);
        let admitted =
            self.log.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        let Admitted::Yes { suppressed } = admitted else { return };
        if suppressed > 0 {
            tracing::warn!(guest, table, suppressed, "the guest logs more lines than it may");
        }
        let line = log_line(message);
        match level {
            Level::Debug => tracing::debug!(guest, table, "{line}"),
            Level::Info => tracing::info!(guest, table, "{line}"),
            Level::Warn => tracing::warn!(guest, table, "{line}"),
            Level::Error => tracing::error!(guest, table, "{line}"),
        }
    }
}

/// All that a guest can ask of the host.
pub(super) fn link_host(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let log = |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
        store.data_mut().log(level, &message);
        Ok(())
    };
    linker.instance(HOST)?.func_wrap("log", log)
}

/// A guest in progress.
pub(crate) struct Instance {
    shared: Arc<Shared>,
    store: Store<State>,
    process: Func,
}

impl Code {
    pub(super) fn describe(&self) -> Result<Description, CallFailure> {
        let none: Arc<str> = Arc::from("");
        let (mut store, instance) = self.start((none.clone(), none))?;
        let describe = exported(instance.get_func(&mut store, self.describe))?;
        call::<(), (Description,)>(&self.shared, &mut store, &describe, (), START)
            .map(|(description,)| description)
    }

    /// An instance that was told its table, and what it answered. `names`: guest and table, for its log.
    pub(crate) fn plan(
        &self,
        names: (Arc<str>, Arc<str>),
        table: &Table,
    ) -> Result<(Instance, Result<Answer, String>), CallFailure> {
        let (mut store, instance) = self.start(names)?;
        let plan = exported(instance.get_func(&mut store, self.plan))?;
        let (answer,) = call::<(Table,), (Result<Plan, String>,)>(
            &self.shared,
            &mut store,
            &plan,
            (table.clone(),),
            self.shared.limits.batch,
        )?;
        let process = exported(instance.get_func(&mut store, self.process))?;
        let instance = Instance { shared: Arc::clone(&self.shared), store, process };
        Ok((instance, answer.map(Answer::from).map_err(|text| shorten(&text, ERROR_BYTES_MAX))))
    }

    fn start(
        &self,
        names: (Arc<str>, Arc<str>),
    ) -> Result<(Store<State>, wasmtime::component::Instance), CallFailure> {
        let limits = &self.shared.limits;
        let memory = Memory::new(limits.memory_bytes);
        let state = State { memory, log: Arc::clone(&self.log), names, said: None };
        let mut store = Store::new(&self.shared.engine, state);
        // What a guest may hand over in one call: an answer that is a little too large is refused in our own words.
        store.set_hostcall_fuel(limits.output_bytes.saturating_add(HANDED_OVER_BESIDE));
        store.limiter(|state| state);
        store.set_epoch_deadline(ticks(START));
        let running = self.shared.ticker.running();
        let started = self.pre.instantiate(&mut store);
        drop(running);
        match started {
            Ok(instance) => Ok((store, instance)),
            Err(error) if error.is::<Trap>() => {
                Err(failure(&self.shared, &mut store, &error, START))
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
    pub(crate) fn process(&mut self, batch: &[u8]) -> Result<Vec<u8>, CallFailure> {
        let limits = &self.shared.limits;
        if batch.len() > limits.memory_bytes {
            let (bytes, limit) = (batch.len(), limits.memory_bytes);
            return Err(CallFailure::Input { bytes, limit });
        }
        let (answer,) = call::<(&[u8],), (Result<Vec<u8>, String>,)>(
            &self.shared,
            &mut self.store,
            &self.process,
            (batch,),
            limits.batch,
        )?;
        let answer =
            answer.map_err(|text| CallFailure::Refused(shorten(&text, ERROR_BYTES_MAX)))?;
        if answer.len() > limits.output_bytes {
            let (bytes, max) = (answer.len(), limits.output_bytes);
            return Err(CallFailure::Output { bytes, max });
        }
        Ok(answer)
    }
}

fn exported(func: Option<Func>) -> Result<Func, CallFailure> {
    func.ok_or_else(|| CallFailure::Start("a function of its interface is missing".to_owned()))
}

fn call<P, R>(
    shared: &Shared,
    store: &mut Store<State>,
    func: &Func,
    params: P,
    time: Duration,
) -> Result<R, CallFailure>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    store.data_mut().said = None;
    store.set_epoch_deadline(ticks(time));
    let typed = func.typed::<P, R>(&store);
    let typed = typed.map_err(|error| {
        CallFailure::Start(format!("a function is not as the interface says: {error:#}"))
    })?;
    let running = shared.ticker.running();
    let result = typed.call(&mut *store, params);
    drop(running);
    result.map_err(|error| failure(shared, store, &error, time))
}

/// One more, for the tick that may be due at once.
fn ticks(time: Duration) -> u64 {
    time.as_micros().div_ceil(TICK.as_micros()) as u64 + 1
}

fn failure(
    shared: &Shared,
    store: &mut Store<State>,
    error: &wasmtime::Error,
    time: Duration,
) -> CallFailure {
    let State { memory, said, .. } = store.data_mut();
    let said = said.take();
    if let Some(Trap::Interrupt) = error.downcast_ref::<Trap>() {
        return CallFailure::Timeout { after: time, said };
    }
    // Most allocators turn a refusal into an abort.
    if let Some(asked) = memory.take_refused() {
        return CallFailure::OutOfMemory { asked, limit: shared.limits.memory_bytes };
    }
    let reason = error.root_cause().to_string();
    let reason = reason.strip_prefix("wasm trap: ").unwrap_or(&reason);
    CallFailure::Trap { reason: shorten(reason, ERROR_BYTES_MAX), said }
}
