//! How long a consumer receives nothing while a guest is swapped under load.
//!
//! The guests `users` and `users_next` replace each other while a writer inserts without pause.
//! Each file is new to the gateway, so each swap includes a compilation, which takes one core of
//! this machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{
    DeliverPolicy,
    pull::{Ordered, OrderedConfig},
};
use futures::StreamExt;
use tokio::sync::mpsc;
use walgate_tests::{load::Writer, site::guest_bytes};
use walgate_wire::SCHEMA;

use super::{FILE, GUEST};
use crate::{
    destination,
    ground::Ground,
    median,
    report::{Measured, thousands},
    row, users,
};

const NEXT: &str = "users_next";
const ROWS_BEFORE: u64 = 20_000;
/// Rows of one transaction: enough for the guest to keep some.
const ROWS_PER_SCRIPT: u64 = 5;
const PAUSE: &str = "select pg_sleep(0.001)";
/// The load is observed for this long without a swap, before each swap.
const CALM: Duration = Duration::from_secs(1);
/// The load is observed for this long after the first message of the next guest.
const AFTER: Duration = Duration::from_millis(500);
const LIVE_WITHIN: Duration = Duration::from_secs(30);

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let site = ground.new_site().await;
    users::create(&site.database, ROWS_BEFORE).await;
    site.drop_guest(GUEST, FILE);
    let gateway = site.gateway(&[users::TABLE]).start().await;
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::New,
        filter_subject: format!("cdc.{}", users::TOKEN),
        ..OrderedConfig::default()
    };
    let messages = destination::cdc_stream(&site.broker)
        .await?
        .create_consumer(config)
        .await?
        .messages()
        .await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let consumer = tokio::spawn(consume(messages, sender));
    let writer = Writer::start(&site.database, |number| {
        let first = ROWS_BEFORE + 1 + number * ROWS_PER_SCRIPT;
        format!("{}; {PAUSE}", users::insert_sql(first, first + ROWS_PER_SCRIPT - 1))
    })
    .await;
    let begun = Instant::now();
    let mut arrivals = Arrivals::start_consumer(receiver).await?;
    arrivals.longest_gap(CALM, |seen, began| seen.at >= began + CALM).await?;
    let mut calm = vec![];
    let mut swapped = vec![];
    let mut took = vec![];
    for number in 0..ground.pick(5, 15) {
        calm.push(arrivals.longest_gap(CALM, |seen, began| seen.at >= began + CALM).await?);
        let before = arrivals.last.revision;
        let next = guest_bytes(if number % 2 == 0 { NEXT } else { GUEST });
        let dropped = Instant::now();
        site.drop_file(&with_custom_section(next, number), FILE);
        let until = arrivals.longest_gap(LIVE_WITHIN, |seen, _| seen.revision != before).await?;
        took.push(dropped.elapsed().as_secs_f64() * 1e3);
        let after = arrivals.longest_gap(AFTER, |seen, began| seen.at >= began + AFTER).await?;
        swapped.push(until.max(after));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rows = writer.finish().await * ROWS_PER_SCRIPT;
    consumer.abort();
    drop(gateway);
    let highest = |gaps: &[f64]| gaps.iter().copied().fold(0.0, f64::max);
    let note = format!(
        "longest gap at an ordered consumer of cdc.users from dropping the file in until {} ms after the first message of \
         the next guest, at {} rows/s in transactions of {ROWS_PER_SCRIPT}; highest of all swaps {:.1} ms. Without a swap, \
         longest gap in 1 s: {:.1} ms, highest {:.1}. The next guest was live after {:.0} ms, of which 250 wait for the \
         file to be whole",
        AFTER.as_millis(),
        thousands((rows as f64 / seconds) as i64),
        highest(&swapped),
        median(&calm)?,
        highest(&calm),
        median(&took)?,
    );
    Ok(vec![row("guest_swap_gap_ms", swapped, note)?])
}

/// The same guest in a file that no cache holds: it has one more custom section without a meaning.
fn with_custom_section(mut guest: Vec<u8>, number: u8) -> Vec<u8> {
    const NAME: &[u8] = b"swap";
    guest.extend([0, 2 + NAME.len() as u8, NAME.len() as u8]);
    guest.extend_from_slice(NAME);
    guest.push(number);
    guest
}

/// A received message with changes.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    /// The revision of its schema, which names the guest.
    revision: u64,
}

/// Messages in the order of their arrival.
struct Arrivals {
    receiver: mpsc::UnboundedReceiver<Seen>,
    last: Seen,
}

impl Arrivals {
    async fn start_consumer(mut receiver: mpsc::UnboundedReceiver<Seen>) -> Result<Arrivals> {
        let last = next(&mut receiver).await?;
        Ok(Arrivals { receiver, last })
    }

    /// The longest time between two messages, in milliseconds, until a message is `done`. That
    /// message has to arrive at most [`LIVE_WITHIN`] after `expected`.
    async fn longest_gap(
        &mut self,
        expected: Duration,
        done: impl Fn(&Seen, Instant) -> bool,
    ) -> Result<f64> {
        let began = self.last.at;
        let mut longest = Duration::ZERO;
        loop {
            let seen = next(&mut self.receiver).await?;
            longest = longest.max(seen.at.saturating_duration_since(self.last.at));
            self.last = seen;
            if done(&seen, began) {
                return Ok(longest.as_secs_f64() * 1e3);
            }
            ensure!(seen.at < began + expected + LIVE_WITHIN, "the next guest does not get live");
        }
    }
}

async fn next(receiver: &mut mpsc::UnboundedReceiver<Seen>) -> Result<Seen> {
    let seen = tokio::time::timeout(LIVE_WITHIN, receiver.recv()).await;
    seen.context("no message arrives")?.context("the consumer ended")
}

async fn consume(mut messages: Ordered, sender: mpsc::UnboundedSender<Seen>) -> Result<()> {
    while let Some(message) = messages.next().await.transpose()? {
        let at = Instant::now();
        let schema = message.headers.as_ref().and_then(|headers| headers.get(SCHEMA));
        let revision = schema.context("a message without a schema")?.as_str().parse()?;
        // The receiver is gone once it has seen enough.
        let _ = sender.send(Seen { at, revision });
    }
    Ok(())
}
