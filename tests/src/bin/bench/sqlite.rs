//! How fast `walgate replicate` fills a SQLite file and applies changes to it, with nothing else
//! running.
//!
//! The time starts with the process and ends when a reader of the file sees the rows.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use walgate_tests::{Replica, replica::Target};

use crate::{
    destination,
    ground::Ground,
    orders,
    process::LOOK_EVERY,
    report::{Measured, thousands},
    row, snapshot,
};

const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let rows: u64 = ground.pick(300_000, 1_000_000);
    let transactions: u64 = ground.pick(10_000, 30_000);
    let site = ground.new_site().await;
    orders::create(&site.database, rows).await;
    let gateway = site.gateway(&[orders::TABLE]).start().await;
    snapshot::take(&site, orders::TOKEN).await?;
    let progress = destination::watch_progress(&site.broker).await?;
    let stopped = gateway.stop();
    let mut loads = vec![];
    let mut replicas = vec![];
    for _ in 0..ground.pick(2, 3) {
        let began = Instant::now();
        let replica = site.sqlite_replica(&[orders::TABLE]);
        wait_for_row(&replica, &format!("select 1 from orders where id = {rows}")).await?;
        loads.push(rows as f64 / began.elapsed().as_secs_f64());
        replica.stop();
        replicas.push(replica);
    }
    let changes = transactions * orders::CHANGES_PER_TRANSACTION;
    let gateway = stopped.start().await;
    orders::write_transactions(&site.database, rows + 1, rows, transactions).await;
    let end = orders::write_last(&site.database).await?;
    destination::wait_until_stored(&site.broker, progress, end).await?;
    gateway.stop();
    let mut applied = vec![];
    for replica in &mut replicas {
        let began = Instant::now();
        replica.start_again();
        wait_for_row(replica, "select 1 from orders where id = 1 and note = 'the last change'")
            .await?;
        applied.push(changes as f64 / began.elapsed().as_secs_f64());
        replica.stop();
        let expected = (rows + transactions * 7) as i64;
        let found = query_row::<i64>(replica, "select count(*) from orders")?;
        ensure!(found == Some(expected), "{found:?} rows in the replica instead of {expected}");
    }
    let load_note = format!(
        "{} orders from a snapshot that is in NATS, into a new file",
        thousands(rows as i64)
    );
    let note = format!(
        "{} changes in transactions of 10 (7 inserts, 3 updates) that wait in NATS; file in WAL mode, synchronous NORMAL",
        thousands(changes as i64)
    );
    Ok(vec![
        row("sqlite_snapshot_rows_s", loads, load_note)?,
        row("sqlite_changes_s", applied, note)?,
    ])
}

/// Waits until a query returns a row.
async fn wait_for_row(replica: &Replica, sql: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // The table does not exist until the copy is complete.
        if let Ok(Some(_)) = query_row::<i64>(replica, sql) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("the replica does not get there; its log:\n{}", replica.log())
}

fn query_row<T: rusqlite::types::FromSql>(replica: &Replica, sql: &str) -> Result<Option<T>> {
    let connection =
        Connection::open_with_flags(replica_file(replica)?, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?)
}

fn replica_file(replica: &Replica) -> Result<&PathBuf> {
    match &replica.target {
        Target::Sqlite(file) => Ok(file),
        _ => bail!("a replica in SQLite was started"),
    }
}
