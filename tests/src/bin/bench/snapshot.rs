//! How fast a table's contents reach the stream, and the gateway's CPU time and memory for that.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use tokio_postgres::NoTls;
use walgate_tests::{Site, snapshot};
use walgate_wire::{InitMeta, from_msgpack};

use crate::{
    ground::Ground,
    median, orders,
    process::{cpu_seconds, resident_memory},
    report::{Measured, rate, thousands},
    row,
};

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let rows: u64 = ground.pick(500_000, 1_000_000);
    let site = ground.new_site().await;
    orders::create(&site.database, rows).await;
    let gateway = site.gateway(&[orders::TABLE]).start().await;
    let pid = gateway.program().pid();
    let (copied_bytes, _) = copy(&site).await?;
    let mut runs = Runs::default();
    for _ in 0..ground.pick(3, 5) {
        let (_, copied) = copy(&site).await?;
        let cpu = cpu_seconds(pid)?;
        let (meta, taken) = take(&site, orders::TOKEN).await?;
        ensure!(meta.row_count == rows, "{} rows instead of {rows}", meta.row_count);
        runs.copy.push(rows as f64 / copied);
        runs.ours.push(rows as f64 / taken);
        runs.cpu.push((cpu_seconds(pid)? - cpu) / rows as f64 * 1e6);
        runs.sent.push(meta.bytes as f64 / rows as f64);
    }
    let ratios = runs.ours.iter().zip(&runs.copy).map(|(ours, copy)| ours / copy).collect();
    let note = format!(
        "{} rows of {:.0} B, from the request to init.meta, 2 workers, zstd 1, TCP: {} at {:.1} CPU s a million, \
         {:.0} B a row sent; one COPY BINARY to nowhere {}",
        thousands(rows as i64),
        copied_bytes as f64 / rows as f64,
        rate(median(&runs.ours)?),
        median(&runs.cpu)?,
        median(&runs.sent)?,
        rate(median(&runs.copy)?),
    );
    let memory = resident_memory(pid)?;
    let memory_note = format!(
        "peak over {} snapshots in a row; {:.0} MB after them",
        runs.ours.len(),
        memory.now_mb
    );
    Ok(vec![
        row("snapshot_ratio", ratios, note)?,
        row("rss_snapshot_mb", vec![memory.peak_mb], memory_note)?,
    ])
}

#[derive(Default)]
struct Runs {
    /// Rows per second.
    copy: Vec<f64>,
    ours: Vec<f64>,
    /// CPU seconds of the gateway for a million rows.
    cpu: Vec<f64>,
    /// Bytes per row.
    sent: Vec<f64>,
}

/// Bytes and seconds of COPY alone, the limit.
async fn copy(site: &Site) -> Result<(u64, f64)> {
    let (client, connection) = tokio_postgres::connect(&site.database.url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let began = Instant::now();
    let mut stream = Box::pin(client.copy_out("COPY orders TO STDOUT (FORMAT binary)").await?);
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        bytes += piece?.len() as u64;
    }
    let seconds = began.elapsed().as_secs_f64();
    drop((stream, client));
    connection.await??;
    Ok((bytes, seconds))
}

/// Requests a snapshot. Returns its `init.meta`, and the seconds until that arrived. The gateway
/// publishes it when every chunk is acknowledged.
pub async fn take(site: &Site, token: &str) -> Result<(InitMeta, f64)> {
    let mut metas = site.broker.client().subscribe(format!("init.meta.{token}")).await?;
    site.broker.client().flush().await?;
    let mut began = Instant::now();
    while !snapshot::request(&site.broker, token).await {
        // The previous request was answered, and is not yet deleted from its stream.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        began = Instant::now();
    }
    let meta = metas.next().await.context("the broker is gone")?;
    Ok((from_msgpack(&meta.payload)?, began.elapsed().as_secs_f64()))
}
