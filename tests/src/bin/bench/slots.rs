//! A slot of which only copies are read: each run of a measurement begins with the same backlog.
//! This file does not know the readers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use walgate_tests::Database;

use crate::process::LOOK_EVERY;

/// The slot that every run copies.
pub const SLOT: &str = "backlog";

/// When a slot became active, by both clocks, and the walsender's pid.
#[derive(Clone, Copy, Debug)]
pub struct InUse {
    pub since: Instant,
    /// Nanoseconds since 1970.
    pub since_nanos: i128,
    pub walsender: u32,
}

pub async fn create(database: &Database) {
    database.sql(&format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")).await;
}

pub async fn copy(database: &Database, name: &str) {
    database.sql(&format!("select pg_copy_logical_replication_slot('{SLOT}', '{name}')")).await;
}

/// Drops a slot once its reader has disconnected.
pub async fn remove(database: &Database, name: &str) {
    let sql = format!("select pg_drop_replication_slot('{name}')");
    walgate_tests::eventually("the slot is free", async || {
        let session = database.open_session().await;
        session.try_sql(&sql).await.map_err(|e| e.to_string())
    })
    .await;
}

/// Waits until a reader is connected.
pub async fn in_use(database: &Database, name: &str) -> Result<InUse> {
    let sql = format!(
        "select coalesce(active_pid, 0) from pg_replication_slots where slot_name = '{name}'"
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let since_nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i128;
        match database.value(&sql).await.parse()? {
            0 => tokio::time::sleep(LOOK_EVERY).await,
            walsender => return Ok(InUse { since: Instant::now(), since_nanos, walsender }),
        }
    }
    bail!("slot {name} has no reader")
}
