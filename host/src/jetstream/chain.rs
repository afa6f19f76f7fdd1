//! Publishing to JetStream: the chain of changes, and message by message what belongs to snapshots, and dead letters.
//! The only publisher but for `kv`, which writes the buckets.
//!
//! Every change message states the message that it follows, so that the stream refuses a duplicate, a reordered retry or
//! a second gateway. At the first doubt the chain breaks and stays broken: its owner reads the stream's tail and opens a
//! new one. What is inside a body is not known here.

use std::{
    fmt,
    num::ParseIntError,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use walgate_wire::{CHAIN, EXPECTED_LAST_MSG_ID, EXPECTED_LAST_SEQUENCE, Lsn, MSG_ID, Part};

use super::{
    ack_ledger::{Durable, Ledger},
    publisher::{HEADER_ROOM_BYTES, Headers, Outgoing, part_headers},
};

/// Bodies and headers that may be in flight to the stream.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Messages that may be in flight to the stream.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 2048;
/// What a message costs in flight beside its body: headers, subject, bookkeeping.
const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// After this long without any acknowledgement the chain is in doubt.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the connection itself is looked at while no acknowledgement arrives.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Why a chain ended. What the stream holds of it its tail tells.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Broken {
    #[error("another gateway wrote to the stream, or an acknowledgement was lost: {0}")]
    Refused(String),
    #[error(
        "the stream is full: {0}; consumers have to read on, or nats.cdc_max_bytes has to grow"
    )]
    Full(String),
    #[error("the stream did not acknowledge anything for {} s", ACK_TIMEOUT.as_secs())]
    Silent,
    #[error("the connection to NATS was interrupted")]
    Interrupted,
    #[error("the connection to NATS is closed")]
    Closed,
}

/// How a message says which one it follows; the first one of a chain always by its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// By an id that no other chain gives: what does not follow is refused.
    Id,
    /// By its sequence. If the first of several messages under way is refused, because somebody else wrote one, the second
    /// finds the sequence that it expects: every message names its chain, so that whoever opens the next one notices,
    /// also in another process. Replicas of a stream that were restarted do not know the last id, and would not agree on
    /// what follows it (nats-server 2.15).
    Sequence,
}

/// Which chain a message belongs to, and the stream sequence of the chain's first one: `1a2b3c4d.12f`, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainId {
    /// Drawn.
    pub id: u32,
    pub first: u64,
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.id, self.first)
    }
}

impl FromStr for ChainId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<ChainId, ParseIntError> {
        let (id, first) = text.split_once('.').unwrap_or((text, ""));
        Ok(ChainId { id: u32::from_str_radix(id, 16)?, first: u64::from_str_radix(first, 16)? })
    }
}

/// One run of consecutive publishes to the CDC stream.
#[derive(Debug)]
pub struct Chain {
    client: Client,
    inbox: String,
    link: Link,
    id: ChainId,
    /// Id of the last message that was sent.
    last_id: Option<String>,
    shared: Arc<Shared>,
    broken: watch::Receiver<Option<Broken>>,
    acks: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// One permit a KiB, so that the window is a number of bytes.
    window_kib: Semaphore,
    window_messages: Semaphore,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.acks.abort();
    }
}

impl Chain {
    /// Continues the stream after `last_sequence`, which was read since the connection was the one that it is now. `durable` is
    /// told what may be confirmed to Postgres, as acknowledgements arrive.
    pub async fn open(
        client: &Client,
        last_sequence: u64,
        connected: Connected,
        link: Link,
        durable: watch::Sender<Durable>,
    ) -> Result<Chain, Broken> {
        let inbox = client.new_inbox();
        let subscriber =
            client.subscribe(format!("{inbox}.*")).await.map_err(|_| Broken::Closed)?;
        // By sequence the first goes alone: a second would take the place of a stranger's for the first.
        let window = if link == Link::Sequence { 1 } else { IN_FLIGHT_MESSAGES_MAX };
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::new(last_sequence)),
            window_kib: Semaphore::new(IN_FLIGHT_BYTES_MAX >> 10),
            window_messages: Semaphore::new(window),
        });
        let (broken_sender, broken) = watch::channel(None);
        let mut reader = AckReader {
            shared: Arc::clone(&shared),
            durable,
            connection: client.statistics(),
            connected,
            unopened: IN_FLIGHT_MESSAGES_MAX - window,
        };
        let acks = tokio::spawn(async move {
            let reason = reader.run(subscriber).await;
            reader.shared.window_kib.close();
            reader.shared.window_messages.close();
            let _ = broken_sender.send(Some(reason));
        });
        let (client, id) =
            (client.clone(), ChainId { id: rand::random(), first: last_sequence + 1 });
        Ok(Chain { client, inbox, link, id, last_id: None, shared, broken, acks })
    }

    /// Why the chain broke; waits until it does.
    pub async fn broken(&mut self) -> Broken {
        match self.broken.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Broken::Closed),
            Err(_) => Broken::Closed,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.shared.ledger().in_flight()
    }

    /// Tells, also when the chain is gone, the last sequence up to which everything is stored.
    pub fn acknowledged_sequence(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.ledger().acknowledged_sequence()
    }

    /// Sends the next message; waits while too much is in flight. Success says nothing about storage.
    pub async fn publish(&mut self, message: Outgoing) -> Result<(), Broken> {
        let max_bytes = self.client.max_payload().saturating_sub(HEADER_ROOM_BYTES).max(1024);
        if message.body.len() <= max_bytes {
            let Outgoing { subject, headers, body, confirms } = message;
            return self.send(subject, headers, body, confirms).await;
        }
        for (part, piece) in walgate_wire::split_into_parts(&message.body, max_bytes) {
            let is_last = part.is_none_or(Part::is_last);
            let headers = part_headers(&message.headers, part);
            let piece = message.body.slice_ref(piece);
            let confirms = message.confirms.filter(|_| is_last);
            self.send(message.subject.clone(), headers, piece, confirms).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        subject: String,
        mut headers: Headers,
        body: Bytes,
        confirms: Option<Lsn>,
    ) -> Result<(), Broken> {
        let kib = window_kib(body.len());
        if self.take_room(kib).await.is_err() {
            return Err(self.broken().await);
        }
        let sequence = self.shared.ledger().sent((kib as usize) << 10, confirms);
        self.follow(sequence, &mut headers);
        let reply = format!("{}.{sequence}", self.inbox);
        let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, body).await;
        sent.map_err(|_| Broken::Closed)
    }

    /// States what the message with this sequence follows.
    fn follow(&mut self, sequence: u64, headers: &mut Headers) {
        let before = match self.link {
            Link::Sequence => {
                headers.insert(CHAIN, self.id.to_string());
                None
            }
            Link::Id => {
                let id = format!("{:x}.{sequence:x}", self.id.id);
                headers.insert(MSG_ID, id.as_str());
                self.last_id.replace(id)
            }
        };
        match before {
            Some(id) => headers.insert(EXPECTED_LAST_MSG_ID, id),
            None => headers.insert(EXPECTED_LAST_SEQUENCE, (sequence - 1).to_string()),
        }
    }

    async fn take_room(&self, kib: u32) -> Result<(), tokio::sync::AcquireError> {
        self.shared.window_messages.acquire().await?.forget();
        self.shared.window_kib.acquire_many(kib).await?.forget();
        Ok(())
    }
}

/// What a body takes of the window; the largest takes all of it.
fn window_kib(body_bytes: usize) -> u32 {
    let bytes = (body_bytes + MESSAGE_OVERHEAD_BYTES).min(IN_FLIGHT_BYTES_MAX);
    bytes.div_ceil(1024) as u32
}

struct AckReader {
    shared: Arc<Shared>,
    durable: watch::Sender<Durable>,
    connection: Arc<async_nats::Statistics>,
    connected: Connected,
    /// By how many messages the window grows with the first acknowledgement.
    unopened: usize,
}

/// Which of a client's connections to NATS it is, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected(u64);

impl Connected {
    pub fn now(client: &Client) -> Connected {
        Connected::of(&client.statistics())
    }

    fn of(connection: &async_nats::Statistics) -> Connected {
        Connected(connection.connects.load(Relaxed))
    }
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    err_code: u64,
    description: String,
}

impl AckReader {
    async fn run(&mut self, mut acks: async_nats::Subscriber) -> Broken {
        let mut last_heard = Instant::now();
        loop {
            let heard = tokio::time::timeout(LOOK_EVERY, acks.next()).await;
            // The server may be another one now, or have lost its tail: the stream is read again.
            if Connected::of(&self.connection) != self.connected {
                return Broken::Interrupted;
            }
            match heard {
                Ok(None) => return Broken::Closed,
                Ok(Some(message)) => {
                    last_heard = Instant::now();
                    if let Err(broken) = self.acknowledged(&message) {
                        return broken;
                    }
                }
                Err(_) if self.shared.ledger().in_flight() == 0 => last_heard = Instant::now(),
                Err(_) if last_heard.elapsed() > ACK_TIMEOUT => return Broken::Silent,
                Err(_) => {}
            }
        }
    }

    fn acknowledged(&mut self, message: &async_nats::Message) -> Result<(), Broken> {
        let refused = |what: String| Broken::Refused(what);
        if let Some(status) = message.status {
            return Err(refused(format!("the server answered {status}: no stream takes cdc.>")));
        }
        let ack: Ack = serde_json::from_slice(&message.payload)
            .map_err(|e| refused(format!("an acknowledgement is not understood: {e}")))?;
        if let Some(error) = ack.error {
            return Err(match error.err_code {
                // "maximum bytes exceeded", "insufficient storage"
                10047 | 10077 | 10023 => Broken::Full(error.description),
                _ => refused(error.description),
            });
        }
        let expected = message.subject.rsplit('.').next().and_then(|s| s.parse().ok());
        if expected != Some(ack.seq) {
            return Err(refused(format!(
                "a message was stored as {} instead of {expected:?}",
                ack.seq
            )));
        }
        let released =
            self.shared.ledger().acknowledged(ack.seq).map_err(|e| refused(e.to_string()))?;
        if released.messages > 0 {
            let more = std::mem::take(&mut self.unopened);
            self.shared.window_messages.add_permits(released.messages + more);
            self.shared.window_kib.add_permits(released.bytes >> 10);
        }
        if let Some(durable) = released.durable {
            let _ = self.durable.send(durable);
        }
        Ok(())
    }
}
