//! The gateway's resident memory: idle, during a huge transaction, and while NATS does not answer.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use walgate_tests::load::Writer;

use crate::{
    destination,
    ground::Ground,
    orders,
    process::resident_memory,
    report::{Measured, thousands},
    row,
};

const ROWS_BEFORE: u64 = 10_000;
const COLUMNS: usize = 11;
/// Rows of one transaction under load, and the pause after it: 50,000 rows per second.
const ROWS_PER_SCRIPT: u64 = 1000;
const PAUSE: &str = "select pg_sleep(0.015)";

pub async fn idle_and_transaction(ground: &Ground) -> Result<Vec<Measured>> {
    let site = ground.new_site().await;
    orders::create(&site.database, ROWS_BEFORE).await;
    let gateway = site.gateway(&[orders::TABLE]).start().await;
    let pid = gateway.program().pid();
    let idle_seconds = ground.pick(5, 20);
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let idle = resident_memory(pid)?;
    let progress = destination::watch_progress(&site.broker).await?;
    let rows = 1_000_000;
    let begun = Instant::now();
    orders::insert(&site.database, ROWS_BEFORE + 1, ROWS_BEFORE + rows).await;
    let written = begun.elapsed().as_secs_f64();
    let end = orders::write_last(&site.database).await?;
    destination::wait_until_stored(&site.broker, progress, end).await?;
    let busy = resident_memory(pid)?;
    let stored = destination::read_contents(&site.broker, COLUMNS).await?;
    ensure!(stored.changes == rows + 1, "{} changes instead of {}", stored.changes, rows + 1);
    let idle_note =
        format!("after {idle_seconds} s without changes; peak of the start {:.1} MB", idle.peak_mb);
    let note = format!(
        "peak over one transaction of {} rows, written in {written:.1} s and in the stream {:.1} s after its begin; \
         {:.1} MB after it",
        thousands(rows as i64),
        begun.elapsed().as_secs_f64(),
        busy.now_mb
    );
    Ok(vec![
        row("rss_idle_mb", vec![idle.now_mb], idle_note)?,
        row("rss_txn_mb", vec![busy.peak_mb], note)?,
    ])
}

pub async fn during_stall(ground: &Ground) -> Result<Vec<Measured>> {
    let mut site = ground.new_site().await;
    orders::create(&site.database, ROWS_BEFORE).await;
    let gateway = site.gateway(&[orders::TABLE]).start().await;
    let pid = gateway.program().pid();
    let writer = Writer::start(&site.database, |number| {
        let first = ROWS_BEFORE + 1 + number * ROWS_PER_SCRIPT;
        format!("{}; {PAUSE}", orders::insert_sql(first, first + ROWS_PER_SCRIPT - 1))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resident_memory(pid)?;
    let stalled_seconds = ground.pick(15, 60);
    let written_before = writer.script_count();
    site.broker.server.pause()?;
    tokio::time::sleep(Duration::from_secs(stalled_seconds)).await;
    let written = (writer.script_count() - written_before) * ROWS_PER_SCRIPT;
    let stalled = resident_memory(pid)?;
    site.broker.server.resume()?;
    let scripts = writer.finish().await;
    let progress = destination::watch_progress(&site.broker).await?;
    let end = orders::write_last(&site.database).await?;
    destination::wait_until_stored(&site.broker, progress, end).await?;
    let after = resident_memory(pid)?;
    let stored = destination::read_contents(&site.broker, COLUMNS).await?;
    let expected = scripts * ROWS_PER_SCRIPT + 1;
    ensure!(
        stored.changes == expected,
        "{} changes in the stream instead of {expected}",
        stored.changes
    );
    let note = format!(
        "peak with NATS stopped for {stalled_seconds} s while {} rows/s were written, and until all was in the stream; \
         {:.1} MB before, {:.1} at the end of the stall, {:.1} after all",
        thousands((written / stalled_seconds) as i64),
        before.now_mb,
        stalled.now_mb,
        after.now_mb
    );
    Ok(vec![row("rss_stall_mb", vec![after.peak_mb], note)?])
}
