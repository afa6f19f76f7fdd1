//! The time from the start of the process to its first change in the stream.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;

use crate::{ground::Ground, orders, report::Measured, row};

const ROWS: u64 = 1000;

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let site = ground.new_site().await;
    orders::create(&site.database, ROWS).await;
    let mut stopped = site.gateway(&[orders::TABLE]).start().await.stop();
    let mut runs = vec![];
    for number in 0..ground.pick(5, 11) {
        orders::insert(&site.database, ROWS + 1 + number, ROWS + 1 + number).await;
        let mut changes = site.broker.client().subscribe(format!("cdc.{}", orders::TOKEN)).await?;
        site.broker.client().flush().await?;
        let began = Instant::now();
        let gateway = stopped.spawn();
        let arrived = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
        arrived.context("no change is published")?.context("the broker is gone")?;
        runs.push(began.elapsed().as_secs_f64() * 1e3);
        gateway.wait_until_ready().await;
        stopped = gateway.stop();
    }
    let note = "from starting the process to its first change at a subscriber; slot, streams and one waiting change \
                are there; TCP";
    Ok(vec![row("start_ms", runs, note)?])
}
