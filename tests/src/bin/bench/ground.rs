//! The common ground of all measurements: one Postgres for all, a database and a broker for each,
//! and the programs to compare with. This file does not know the measurements.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use walgate_servers::{NatsOptions, find_all_postgres, find_postgres};
use walgate_tests::{Broker, Server, Site, broker::nats_bin};

/// Only the measurement may write: no autovacuum, and no checkpoint forced by WAL volume.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "16GB"),
    ("shared_buffers", "512MB"),
];

pub struct Ground {
    pub quick: bool,
    server: Arc<Server>,
}

impl Ground {
    pub fn open(quick: bool) -> Result<Ground> {
        let bin = match std::env::var_os("WALGATE_POSTGRES_BIN").map(PathBuf::from) {
            Some(folder) => find_postgres(Some(&folder)).ok().map(|found| found.bin),
            None => find_all_postgres().into_iter().next(),
        };
        let bin = bin.context("no Postgres; run `cargo xtask setup`")?;
        Ok(Ground { quick, server: Arc::new(Server::start(&bin, SETTINGS)) })
    }

    pub fn description(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let runs = if self.quick { "quick runs" } else { "full runs" };
        let nats = nats_bin().version;
        format!(
            "PostgreSQL {}, nats-server {nats}, {cores} cores shared by all, fsync off, {runs}",
            self.server.bin().version
        )
    }

    /// A database, an empty broker and a folder for one measurement.
    pub async fn new_site(&self) -> Site {
        Site::new(&self.server).await
    }

    /// The value for the quick or the full form.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.server.bin().program(name)
    }

    pub fn unix_url(&self, site: &Site) -> String {
        self.server.process().unix_url(site.database.name())
    }
}

/// Replaces the broker by an empty one.
pub async fn renew_broker(site: &mut Site) {
    site.broker = Broker::start(NatsOptions::default()).await;
}
