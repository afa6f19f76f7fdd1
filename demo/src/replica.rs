//! The replica of the demo: the consumer library with its SQLite sink, as an edge program would run
//! it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;
use walgate_consumer::{Consumer, ConsumerStatus, SqliteSink, TablePhase};
use walgate_wire::Token;

use crate::{latency, shop, site::Site};
use walgate_verify::target::Target;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The consumer's state, as the demo reads it.
#[derive(Debug)]
pub struct Replica {
    path: PathBuf,
    status: watch::Receiver<ConsumerStatus>,
}

/// A consumer before its start.
pub struct Running(Consumer<SqliteSink>);

impl Running {
    /// Runs until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let stopped = async move {
            let _ = stop.wait_for(|&stop| stop).await;
        };
        self.0.run(stopped).await.context("the replica's consumer")
    }
}

impl Replica {
    pub async fn open(site: &Site) -> Result<(Replica, Running)> {
        let path = site.replica();
        let mut builder = Consumer::builder().nats(site.nats.url());
        for table in shop::TABLES {
            builder = builder.table(table);
        }
        let consumer = builder.sink(SqliteSink::new(&path)).build().await?;
        let replica = Replica { path, status: consumer.status() };
        Ok((replica, Running(consumer)))
    }

    pub fn target(&self) -> Target {
        Target::Sqlite(self.path.clone())
    }

    /// Waits until every table is loaded and follows its changes. Returns the number of loaded
    /// rows.
    pub async fn wait_until_live(&mut self, at_most: Duration) -> Result<u64> {
        let is_live = |status: &ConsumerStatus| {
            let mut tables = status.tables.values();
            // The consumer lists no tables until it has started.
            status.tables.len() == shop::TABLES.len()
                && tables.all(|table| table.phase == TablePhase::Live)
        };
        let live = tokio::time::timeout(at_most, self.status.wait_for(is_live)).await;
        let status = live.context("the replica has not loaded its tables in time")??.clone();
        Ok(status.tables.values().map(|table| table.snapshot_rows).sum())
    }

    /// Waits until a reader of the file sees this order.
    pub async fn wait_for_order(&self, order: i64, at_most: Duration) -> Result<()> {
        let begun = Instant::now();
        let reader = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        while !latency::is_there(&reader, order) {
            ensure!(
                begun.elapsed() < at_most,
                "the replica has not caught up within {} s",
                at_most.as_secs()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The dictionary named by the last message of each table, for example `users_dict@7`.
    pub fn dictionaries(&self) -> Vec<(Token, Option<String>)> {
        let status = self.status.borrow();
        status
            .tables
            .iter()
            .map(|(token, table)| (token.clone(), table.dictionary.clone()))
            .collect()
    }
}
