//! The drop-in folder of guests: what lies there is compiled, tried on the live table and offered to the session.
//!
//! Nothing here is on the hot path, and nothing becomes live here: that is for the session, between two
//! transactions. A table whose guest is missing or bad does not flow; it never flows unfiltered instead. When a
//! file is looked at is `watch`'s business.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use walgate_wire::{Lsn, Token, hex};

use crate::{
    assets::watch::{Folder, Refused, Shelf},
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

/// Rows of the table that a new guest has to get through first: about so many bytes.
const CANARY_BYTES: usize = 64 << 10;

/// Where the guests of a running gateway come from.
pub struct GuestShelf {
    gateway: Gateway,
    engine: Engine,
    /// Tables that went through a guest when they were last seen, or whose guest the configuration names or pins.
    guarded: HashSet<Token>,
}

/// The folder that the configuration names.
pub async fn folder(gateway: &Gateway, engine: Engine) -> Result<Folder<GuestShelf>, KvError> {
    let mut guarded = HashSet::new();
    for table in &gateway.config.tables {
        let latest = gateway.schemas.latest(&table.token).await?;
        let wanted = table.guest.named || table.guest.sha256.is_some();
        if wanted || latest.is_some_and(|schema| schema.guest.is_some()) {
            guarded.insert(table.token.clone());
        }
    }
    let tokens = gateway.config.tables.iter().map(|table| table.token.clone()).collect();
    let shelf = GuestShelf { gateway: gateway.clone(), engine, guarded };
    Ok(Folder::new(gateway.config.guests.dir.clone(), tokens, shelf))
}

impl Shelf for GuestShelf {
    const WHAT: &'static str = "guest";
    const ENDING: &'static str = ".wasm";

    fn bytes_max(&self) -> usize {
        self.gateway.config.guests.module_bytes
    }

    fn file(&self, token: &Token) -> PathBuf {
        self.gateway.table_by_token(token).map(|table| table.guest.file.clone()).unwrap_or_default()
    }

    async fn offer(&mut self, token: &Token, bytes: Vec<u8>) -> Result<(), Refused> {
        let Some(table) = self.gateway.table_by_token(token).cloned() else { return Ok(()) };
        self.guarded.insert(token.clone());
        // Before anything looks at what is in it.
        if let Some(pinned) = &table.guest.sha256 {
            let sha256 = hex::encode(&Sha256::digest(&bytes));
            if *pinned != sha256 {
                return Err(Refused::Invalid(format!(
                    "its SHA-256 is {sha256}, tables.guest_sha256 accepts {pinned} only"
                )));
            }
        }
        let engine = self.engine.clone();
        let loaded = tokio::task::spawn_blocking(move || engine.load(&bytes)).await;
        let module = loaded.map_err(Refused::invalid)?.map_err(Refused::invalid)?;
        let description = module.description().clone();
        let module = Arc::new(module);
        try_on(&self.gateway, &table, &module).await?;
        tracing::info!(table = %token, guest = description.name, version = description.version, sha256 = description.sha256, "guest is ready");
        self.gateway.status.table(token).set_file_problem(None);
        self.gateway.offer_gate(token, Gate::Guest(module));
        Ok(())
    }

    async fn absent(&mut self, token: &Token) {
        let Some(table) = self.gateway.table_by_token(token) else { return };
        self.gateway.status.table(token).set_file_problem(None);
        if table.guest.optional || !self.guarded.contains(token) {
            return self.gateway.offer_gate(token, Gate::Open);
        }
        let path = self.gateway.config.guests.dir.join(&table.guest.file);
        let reason = format!(
            "its guest {} is not there; put it there, or set guest_optional = true to let every row leave",
            path.display()
        );
        tracing::error!(table = %token, reason, "the table does not flow");
        self.gateway.offer_gate(token, Gate::Shut(reason.into()));
    }

    fn refused(&mut self, token: &Token, problem: &str) -> String {
        self.gateway.status.table(token).set_file_problem(Some(problem));
        match self.gateway.offered_gate(token) {
            Gate::Guest(module) => {
                let walgate_wire::Guest { name, version, .. } = module.description();
                format!("{name} {version} stays in use")
            }
            Gate::Open | Gate::Shut(_) => {
                let reason = format!("its guest cannot be used: {problem}");
                self.gateway.offer_gate(token, Gate::Shut(reason.into()));
                "the table does not flow until it is mended".to_owned()
            }
        }
    }
}

/// Plans the guest against the table as it is, and runs it on some of its rows.
async fn try_on(
    gateway: &Gateway,
    table: &ConfiguredTable,
    module: &Arc<Module>,
) -> Result<(), Refused> {
    let postgres = &gateway.config.postgres;
    let mut catalog = Catalog::connect(postgres).await.map_err(refused)?;
    let (version, _) =
        catalog.load_current(&table.name, table.token.clone(), Lsn(0)).await.map_err(refused)?;
    let version = Arc::new(version);
    let batch = sample_rows(postgres, &version, CANARY_BYTES).await;
    let mut batch = batch.map_err(refused)?;
    let (gate, config) = (Gate::Guest(Arc::clone(module)), table.clone());
    let version = TableVersion::clone(&version);
    let opened = tokio::task::spawn_blocking(move || Outlet::open(&gate, &config, version)).await;
    let outlet = opened.map_err(Refused::invalid)?.map_err(|error| match error {
        OutletError::Guest { source, .. } => Refused::invalid(source),
        OutletError::Shut { .. } => Refused::invalid(error),
    })?;
    let mut pipeline = Pipeline::uncompressed(GatewayIo::of_copied_rows(gateway.clone()));
    pipeline.fetch_missing_values(&outlet, &mut batch).await.map_err(refused)?;
    let tried = tokio::task::spawn_blocking(move || pipeline.try_guest(&outlet, batch)).await;
    tried.map_err(Refused::invalid)?.map_err(|failure| {
        tracing::error!(%failure, "a new guest fails on rows of its table");
        // This may become a reason that consumers read.
        Refused::Invalid(format!("it fails on rows of the table: {}", failure.public_message()))
    })
}

fn refused(error: impl Into<SessionError>) -> Refused {
    let error = error.into();
    match action(&error) {
        Action::Retry => Refused::NotNow(error.to_string()),
        Action::Quarantine | Action::Halt => Refused::Invalid(error.to_string()),
    }
}
