//! The drop-in folder of guests: files are compiled, tried on rows of the table, and offered to the
//! session.
//!
//! Nothing here is on the hot path. The session makes a guest live, between two transactions. A
//! table whose guest is missing or invalid is suspended, never published unfiltered. `watch`
//! decides when a file is read.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use walgate_wire::{Lsn, Token, hex};

use crate::{
    assets::watch::{DropInFolder, DropInHandler, OfferError},
    config::ConfiguredTable,
    context::Gateway,
    egress::{
        outlet::{Gate, Outlet, OutletError},
        pipeline::Pipeline,
    },
    error::SessionError,
    guest::{Engine, Module},
    jetstream::kv::KvError,
    pipeline_io::GatewayIo,
    policy::{Action, action},
    postgres::{catalog::Catalog, snapshot::sample_rows},
    rows::TableVersion,
};

/// A new guest must first process about this many bytes of the table's rows.
const CANARY_BYTES: usize = 64 << 10;

/// Compiles guest files, tries them, and offers them to the session.
pub struct GuestHandler {
    gateway: Gateway,
    engine: Engine,
    /// Tables that need a guest: their last schema has one, or the configuration names or pins one.
    guarded: HashSet<Token>,
}

/// The guest folder of the configuration.
pub async fn open_folder(
    gateway: &Gateway,
    engine: Engine,
) -> Result<DropInFolder<GuestHandler>, KvError> {
    let mut guarded = HashSet::new();
    for table in &gateway.config.tables {
        let latest = gateway.schemas.latest(&table.token).await?;
        let is_configured = table.guest.named || table.guest.sha256.is_some();
        if is_configured || latest.is_some_and(|schema| schema.guest.is_some()) {
            guarded.insert(table.token.clone());
        }
    }
    let tokens = gateway.config.tables.iter().map(|table| table.token.clone()).collect();
    let handler = GuestHandler { gateway: gateway.clone(), engine, guarded };
    Ok(DropInFolder::new(gateway.config.guests.dir.clone(), tokens, handler))
}

impl DropInHandler for GuestHandler {
    const WHAT: &'static str = "guest";
    const ENDING: &'static str = ".wasm";

    fn bytes_max(&self) -> usize {
        self.gateway.config.guests.module_bytes
    }

    fn file_of(&self, token: &Token) -> PathBuf {
        self.gateway.table_by_token(token).map(|table| table.guest.file.clone()).unwrap_or_default()
    }

    async fn offer(&mut self, token: &Token, bytes: Vec<u8>) -> Result<(), OfferError> {
        let Some(table) = self.gateway.table_by_token(token).cloned() else { return Ok(()) };
        self.guarded.insert(token.clone());
        // Before any code reads the contents.
        if let Some(pinned) = &table.guest.sha256 {
            let sha256 = hex::encode(&Sha256::digest(&bytes));
            if *pinned != sha256 {
                return Err(OfferError::Invalid(format!(
                    "its SHA-256 is {sha256}, tables.guest_sha256 accepts {pinned} only"
                )));
            }
        }
        let engine = self.engine.clone();
        let loaded = tokio::task::spawn_blocking(move || engine.load(&bytes)).await;
        let module = loaded.map_err(OfferError::invalid)?.map_err(OfferError::invalid)?;
        let module = Arc::new(module);
        try_on_table(&self.gateway, &table, &module).await?;
        let walgate_wire::Guest { name, version, sha256 } = module.description();
        tracing::info!(table = %token, guest = name, version, sha256, "guest is ready");
        self.gateway.status.table(token).set_file_problem(None);
        self.gateway.offer_gate(token, Gate::Guest(module));
        Ok(())
    }

    async fn handle_missing(&mut self, token: &Token) {
        let Some(table) = self.gateway.table_by_token(token) else { return };
        self.gateway.status.table(token).set_file_problem(None);
        if table.guest.optional || !self.guarded.contains(token) {
            return self.gateway.offer_gate(token, Gate::Open);
        }
        let path = self.gateway.config.guests.dir.join(&table.guest.file);
        let reason = format!(
            "its guest {} is not there; put it there, or set guest_optional = true to publish every \
             row",
            path.display()
        );
        tracing::error!(table = %token, reason, "table suspended: guest file missing");
        self.gateway.offer_gate(token, Gate::Shut(reason.into()));
    }

    fn handle_rejected(&mut self, token: &Token, problem: &str) -> String {
        self.gateway.status.table(token).set_file_problem(Some(problem));
        match self.gateway.offered_gate(token) {
            Gate::Guest(module) => {
                let walgate_wire::Guest { name, version, .. } = module.description();
                format!("{name} {version} stays in use")
            }
            Gate::Open | Gate::Shut(_) => {
                let reason = format!("its guest cannot be used: {problem}");
                self.gateway.offer_gate(token, Gate::Shut(reason.into()));
                "the table is suspended until the file is fixed".to_owned()
            }
        }
    }
}

/// Plans the guest for the current shape of the table, and runs it on some of its rows.
async fn try_on_table(
    gateway: &Gateway,
    table: &ConfiguredTable,
    module: &Arc<Module>,
) -> Result<(), OfferError> {
    let postgres = &gateway.config.postgres;
    let mut catalog = Catalog::connect(postgres).await.map_err(source_error)?;
    let (version, _) = catalog
        .load_current(&table.name, table.token.clone(), Lsn(0))
        .await
        .map_err(source_error)?;
    let version = Arc::new(version);
    let batch = sample_rows(postgres, &version, CANARY_BYTES).await;
    let mut batch = batch.map_err(source_error)?;
    let (gate, config) = (Gate::Guest(Arc::clone(module)), table.clone());
    let version = TableVersion::clone(&version);
    let opened = tokio::task::spawn_blocking(move || Outlet::open(&gate, &config, version)).await;
    let outlet = opened.map_err(OfferError::invalid)?.map_err(|error| match error {
        OutletError::Guest { source, .. } => OfferError::invalid(source),
        OutletError::Shut { .. } => OfferError::invalid(error),
    })?;
    let mut pipeline = Pipeline::uncompressed(GatewayIo::of_copied_rows(gateway.clone()));
    pipeline.fetch_missing_values(&outlet, &mut batch).await.map_err(source_error)?;
    let tried = tokio::task::spawn_blocking(move || pipeline.try_guest(&outlet, batch)).await;
    tried.map_err(OfferError::invalid)?.map_err(|failure| {
        tracing::error!(%failure, "new guest fails on rows of its table");
        // Consumers may read this as the reason of a suspended table.
        OfferError::Invalid(format!("it fails on rows of the table: {}", failure.public_message()))
    })
}

fn source_error(error: impl Into<SessionError>) -> OfferError {
    let error = error.into();
    match action(&error) {
        Action::Retry => OfferError::Transient(error.to_string()),
        Action::Quarantine | Action::Halt => OfferError::Invalid(error.to_string()),
    }
}
