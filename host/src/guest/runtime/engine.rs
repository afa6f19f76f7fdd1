//! The wasm runtime: set up once, compiles guests, interrupts what runs too long.
//!
//! Compiling takes milliseconds to seconds and blocks: keep it off the hot path. Plans and rows are
//! not known here.

use std::{
    fmt::Display,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use sha2::{Digest, Sha256};
use walgate_wire::{Guest, hex};
use wasmtime::{
    Cache, CacheConfig, Config, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};

use crate::guest::{
    Limits,
    exec::failure::{CallFailure, GuestError},
    runtime::{
        component::{self, TRANSFORM},
        epoch_ticker::Ticker,
        instance::{EngineShared, GuestCode, InstanceState, link_host},
        limits::{LogGate, TABLE_ELEMENTS_MAX},
    },
};

const DESCRIPTION_BYTES_MAX: usize = 100;

/// Runs guests; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<EngineShared>);

/// A guest, compiled and asked for its name. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(in crate::guest) code: Arc<GuestCode>,
    description: Arc<Guest>,
}

impl Engine {
    /// `cache`: a directory for compiled code. Only the gateway may write it: its files run as they
    /// are.
    pub fn new(limits: Limits, cache: Option<&Path>) -> Result<Engine, GuestError> {
        let cache = cache.map(open_code_cache).transpose()?;
        let config = |pooled| engine_config(&limits, cache.clone(), pooled);
        let engine = wasmtime::Engine::new(&config(true)).or_else(|error| {
            tracing::info!(
                error = format!("{error:#}"),
                "guest instances are allocated one by one: no address space for a pool"
            );
            wasmtime::Engine::new(&config(false)).map_err(runtime_error)
        })?;
        let weak = engine.weak();
        let ticker = Ticker::start(move || {
            if let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
            }
        });
        let ticker = ticker.map_err(|error| GuestError::Runtime(error.to_string()))?;
        Ok(Engine(Arc::new(EngineShared { engine, limits, ticker, cache })))
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How many guests were not compiled because their code was in the cache.
    pub fn cache_hits(&self) -> usize {
        self.0.cache.as_ref().map_or(0, Cache::cache_hits)
    }

    /// Checks and compiles a file, and asks the guest for its name. Blocks.
    pub fn load(&self, file: &[u8]) -> Result<Module, GuestError> {
        let max = self.0.limits.module_bytes;
        if file.len() > max {
            return Err(GuestError::ModuleSize { bytes: file.len(), max });
        }
        let component::GuestComponent { bytes, transform, stubbed, .. } =
            component::read_component(file)?;
        let component = Component::from_binary(&self.0.engine, &bytes)
            .map_err(|error| GuestError::Compile(format!("{error:#}")))?;
        let code = self.link_code(&component, &transform, &stubbed)?;
        let description =
            code.describe().map_err(|failure| GuestError::Call { what: "describe", failure })?;
        let good = |text: &str| {
            (1..=DESCRIPTION_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        let (name, version) = (description.name, description.version);
        if !good(&name) || !good(&version) {
            return Err(GuestError::Description);
        }
        if !stubbed.is_empty() {
            tracing::info!(
                guest = name,
                version,
                imports = stubbed.join(", "),
                "guest imports system interfaces: calling one traps"
            );
        }
        let sha256 = hex::encode(&Sha256::digest(file));
        let description = Arc::new(Guest { name, version, sha256 });
        Ok(Module { code: Arc::new(code), description })
    }

    fn link_code(
        &self,
        component: &Component,
        transform: &str,
        stubbed: &[String],
    ) -> Result<GuestCode, GuestError> {
        let encode = |error: wasmtime::Error| {
            GuestError::Interface(component::InterfaceError::Encode(format!("{error:#}")))
        };
        let mut linker: Linker<InstanceState> = Linker::new(&self.0.engine);
        link_host(&mut linker).map_err(runtime_error)?;
        if !stubbed.is_empty() {
            linker.define_unknown_imports_as_traps(component).map_err(runtime_error)?;
        }
        let instance = component.get_export_index(None, transform);
        let function = |name: &str| {
            let index = component.get_export_index(instance.as_ref(), name);
            index.ok_or_else(|| {
                let what = format!("{TRANSFORM} without the function {name}");
                component::InterfaceError::NoTransform(vec![what])
            })
        };
        let log = LogGate::new(self.0.limits.log_lines_per_s, Instant::now());
        Ok(GuestCode {
            log: Arc::new(Mutex::new(log)),
            describe: function("describe")?,
            plan: function("plan")?,
            process: function("process")?,
            pre: linker.instantiate_pre(component).map_err(encode)?,
            shared: Arc::clone(&self.0),
        })
    }
}

impl Module {
    /// Name, version and SHA-256 of the file.
    pub fn description(&self) -> &Guest {
        &self.description
    }
}

fn runtime_error(error: wasmtime::Error) -> GuestError {
    GuestError::Runtime(format!("{error:#}"))
}

fn open_code_cache(directory: &Path) -> Result<Cache, GuestError> {
    let unusable = |error: &dyn Display| {
        GuestError::Runtime(format!(
            "{} cannot hold compiled guests: {error:#}; name a directory that the gateway may write",
            directory.display()
        ))
    };
    let mut cache = CacheConfig::new();
    // wasmtime refuses a relative path.
    cache.with_directory(std::path::absolute(directory).map_err(|error| unusable(&error))?);
    Cache::new(cache).map_err(|error| unusable(&error))
}

fn engine_config(limits: &Limits, cache: Option<Cache>, pooled: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.parallel_compilation(true);
    config.wasm_component_model(true);
    // Guests are called, not awaited.
    config.concurrency_support(false);
    config.cache(cache);
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.max_memory_size(limits.memory_bytes).table_elements(TABLE_ELEMENTS_MAX);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

impl From<CallFailure> for GuestError {
    fn from(failure: CallFailure) -> GuestError {
        GuestError::Call { what: "plan", failure }
    }
}
