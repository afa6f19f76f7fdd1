//! The time from COMMIT until a consumer has the change and its transaction is complete. The load
//! is 100 commits per second.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{
    DeliverPolicy,
    pull::{Ordered, OrderedConfig},
};
use futures::StreamExt;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_postgres::NoTls;
use walgate_tests::Site;
use walgate_wire::{
    CONTENT_ENCODING, Caps, Decompressor, Op, PROGRESS_SUBJECT, Position, Progress, Value,
    decode_changes, from_msgpack,
};

use crate::{
    destination,
    ground::Ground,
    orders,
    report::{Goal, Measured},
};

const PERIOD: Duration = Duration::from_millis(10);
const COLUMNS: usize = 11;
const ROWS_BEFORE: u64 = 10_000;
/// The first commits warm caches up and are not counted.
const WARM_UP: usize = 100;

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let commits = ground.pick(800, 3000);
    let site = ground.new_site().await;
    orders::create(&site.database, ROWS_BEFORE).await;
    let gateway = site.gateway(&[orders::TABLE]).start().await;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::New, ..OrderedConfig::default() };
    let messages = destination::cdc_stream(&site.broker)
        .await?
        .create_consumer(config)
        .await?
        .messages()
        .await?;
    let (seen_sender, mut seen) = mpsc::unbounded_channel();
    let consumer = tokio::spawn(report_latencies(messages, seen_sender));
    let committed = write(&site, commits + WARM_UP).await?;
    let mut latencies = vec![];
    for (id, returned) in committed {
        let arrival = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await;
        let Some((seen_id, arrived)) = arrival.context("a change does not arrive")? else {
            consumer.await??;
            anyhow::bail!("the consumer ended");
        };
        ensure!(seen_id == id, "order {seen_id} arrived instead of {id}");
        latencies.push(arrived.saturating_duration_since(returned).as_secs_f64() * 1e3);
    }
    consumer.abort();
    drop(gateway);
    let mut sorted = latencies.split_off(WARM_UP);
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let note = format!(
        "{} single-row commits, 100/s, TCP: from COMMIT's return at the writer to its progress message at an ordered \
         consumer; p90 {:.2}, highest {:.2} ms",
        sorted.len(),
        at(0.9),
        at(1.0)
    );
    let row = |id, value| {
        anyhow::Ok(Measured { goal: Goal::of(id)?, value, runs: vec![value], note: note.clone() })
    };
    Ok(vec![row("latency_p50_ms", at(0.5))?, row("latency_p99_ms", at(0.99))?])
}

/// Inserts and updates in turns. Returns each row's id and the time at which COMMIT returned.
async fn write(site: &Site, commits: usize) -> Result<Vec<(i64, Instant)>> {
    let (client, connection) = tokio_postgres::connect(&site.database.url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let update = client
        .prepare("update orders set status = 'shipped', updated_at = now() where id = $1")
        .await?;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut committed = Vec::with_capacity(commits);
    for number in 0..commits as u64 {
        ticks.tick().await;
        let id = if number % 2 == 0 { ROWS_BEFORE + 1 + number } else { 1 + number };
        if number % 2 == 0 {
            client.batch_execute(&orders::insert_sql(id, id)).await?;
        } else {
            client.execute(&update, &[&(id as i64)]).await?;
        }
        committed.push((id as i64, Instant::now()));
    }
    drop(client);
    connection.await??;
    Ok(committed)
}

/// Reports each change when the progress message that covers it has arrived.
async fn report_latencies(
    mut messages: async_nats::jetstream::consumer::pull::Ordered,
    seen: mpsc::UnboundedSender<(i64, Instant)>,
) -> Result<()> {
    let mut decompressor = Decompressor::new(None)?;
    let mut waiting: HashMap<i64, Position> = HashMap::new();
    let mut order = vec![];
    while let Some(message) = next(&mut messages).await? {
        if message.subject.as_str() == PROGRESS_SUBJECT {
            let progress: Progress = from_msgpack(&message.payload)?;
            let arrived = Instant::now();
            order.retain(|id| {
                let covered =
                    waiting.get(id).is_none_or(|position| *position <= progress.position());
                // The receiver is gone once it has seen enough.
                !(covered && seen.send((*id, arrived)).is_ok())
            });
            continue;
        }
        let encoded =
            message.headers.as_ref().and_then(|headers| headers.get(CONTENT_ENCODING)).is_some();
        let body = match encoded {
            true => decompressor.decompress(&message.payload, &Caps::default())?,
            false => message.payload.to_vec(),
        };
        for change in decode_changes(&body, COLUMNS, &Caps::default())? {
            if let Op::Insert { row } | Op::Update { row, .. } = &change.op
                && let Some(Value::Int(id)) = row.first()
            {
                waiting.insert(*id, change.position);
                order.push(*id);
            }
        }
    }
    Ok(())
}

async fn next(messages: &mut Ordered) -> Result<Option<async_nats::jetstream::Message>> {
    Ok(messages.next().await.transpose()?)
}
