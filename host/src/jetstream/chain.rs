//! The chain of changes: publishing to the CDC stream in order, without waiting for each
//! acknowledgement.
//!
//! Every message states the message that it follows. So the stream refuses a duplicate, a reordered
//! retry, and a second gateway. At the first doubt the chain breaks and stays broken: its owner
//! reads the stream's tail and opens a new one. The contents of a body are not known here.

use std::{
    fmt,
    num::ParseIntError,
    str::FromStr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use walgate_wire::{CHAIN, EXPECTED_LAST_MSG_ID, EXPECTED_LAST_SEQUENCE, Lsn, MSG_ID, Part};

use super::{
    ack_ledger::{Durable, Ledger},
    publisher::{Headers, Outgoing, max_body_bytes},
    streams::Streams,
};

/// Bodies and headers that may be in flight to the stream.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Messages that may be in flight to the stream.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 2048;
/// The share of a message in flight that is not its body: headers, subject, bookkeeping.
const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// After this long without any acknowledgement the chain is in doubt.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the connection is checked while no acknowledgement arrives.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Why a chain ended. The stream's tail shows which of its messages are stored.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    #[error("another gateway wrote to the stream, or an acknowledgement was lost: {0}")]
    Refused(String),
    #[error("the stream is full: {0}; consumers must read faster, or nats.cdc_max_bytes must grow")]
    Full(String),
    #[error("the stream did not acknowledge anything for {} s", ACK_TIMEOUT.as_secs())]
    Silent,
    #[error("the connection to NATS was interrupted")]
    Interrupted,
    #[error("the connection to NATS is closed")]
    Closed,
}

/// How a message states which one it follows. The first one of a chain always uses the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainMode {
    /// By message id. No other chain uses these ids, so the stream refuses everything that does not
    /// follow.
    MsgId,
    /// By stream sequence. Weakness: if a foreign write makes the server refuse message *n*,
    /// message *n + 1* may still match its expected sequence and be stored behind a gap. Therefore
    /// every message also carries the chain id, and the next session checks the tail for gaps.
    ///
    /// For replicated streams. After a restart their replicas do not know the last message id, and
    /// would not agree on what follows it (nats-server 2.15).
    Sequence,
}

/// Identifies a chain, with the stream sequence of its first message: `1a2b3c4d.12f`, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainId {
    /// Random.
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
    mode: ChainMode,
    id: ChainId,
    /// Id of the last message that was sent.
    last_id: Option<String>,
    shared: Arc<ChainShared>,
    broken: watch::Receiver<Option<ChainError>>,
    acks: JoinHandle<()>,
}

#[derive(Debug)]
struct ChainShared {
    ledger: Mutex<Ledger>,
    /// One permit a KiB: the window is a number of bytes.
    window_kib: Semaphore,
    window_messages: Semaphore,
}

impl ChainShared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.acks.abort();
    }
}

impl Chain {
    /// Continues the stream after `last_sequence`, which was read on connection `generation`. As
    /// acknowledgements arrive, `durable` receives the LSN that may be confirmed to Postgres.
    pub async fn open(
        streams: &Streams,
        last_sequence: u64,
        generation: ConnectionGeneration,
        mode: ChainMode,
        durable: watch::Sender<Durable>,
    ) -> Result<Chain, ChainError> {
        let client = &streams.client;
        let inbox = client.new_inbox();
        let subscriber =
            client.subscribe(format!("{inbox}.*")).await.map_err(|_| ChainError::Closed)?;
        // By sequence, the first message goes alone. If a foreign write came first, a second one
        // would match the sequence that it expects.
        let window = if mode == ChainMode::Sequence { 1 } else { IN_FLIGHT_MESSAGES_MAX };
        let shared = Arc::new(ChainShared {
            ledger: Mutex::new(Ledger::new(last_sequence)),
            window_kib: Semaphore::new(IN_FLIGHT_BYTES_MAX >> 10),
            window_messages: Semaphore::new(window),
        });
        let (broken_sender, broken) = watch::channel(None);
        let mut reader = AckReader {
            shared: Arc::clone(&shared),
            durable,
            connection: client.statistics(),
            generation,
            unopened: IN_FLIGHT_MESSAGES_MAX - window,
        };
        let acks = tokio::spawn(async move {
            let reason = reader.run(subscriber).await;
            reader.shared.window_kib.close();
            reader.shared.window_messages.close();
            let _ = broken_sender.send(Some(reason));
        });
        let client = client.clone();
        let id = ChainId { id: rand::random(), first: last_sequence + 1 };
        Ok(Chain { client, inbox, mode, id, last_id: None, shared, broken, acks })
    }

    /// Why the chain broke; waits until it does.
    pub async fn broken(&mut self) -> ChainError {
        match self.broken.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ChainError::Closed),
            Err(_) => ChainError::Closed,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.shared.ledger().in_flight()
    }

    /// A reader of the last sequence up to which everything is stored. It outlives the chain.
    pub fn acknowledged_sequence(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.ledger().acknowledged_sequence()
    }

    /// Sends the next message; waits while too much is in flight. Success does not mean stored.
    pub async fn publish(&mut self, message: Outgoing) -> Result<(), ChainError> {
        let max_bytes = max_body_bytes(self.client.max_payload());
        if message.body.len() <= max_bytes {
            let Outgoing { subject, headers, body, confirms } = message;
            return self.publish_part(subject, headers, body, confirms).await;
        }
        for (part, piece) in walgate_wire::split_into_parts(&message.body, max_bytes) {
            let is_last = part.is_none_or(Part::is_last);
            let headers = message.headers.for_part(part);
            let piece = message.body.slice_ref(piece);
            let confirms = message.confirms.filter(|_| is_last);
            self.publish_part(message.subject.clone(), headers, piece, confirms).await?;
        }
        Ok(())
    }

    async fn publish_part(
        &mut self,
        subject: String,
        mut headers: Headers,
        body: Bytes,
        confirms: Option<Lsn>,
    ) -> Result<(), ChainError> {
        let kib = window_kib(body.len());
        if self.acquire_window(kib).await.is_err() {
            return Err(self.broken().await);
        }
        let sequence = self.shared.ledger().record_sent((kib as usize) << 10, confirms);
        self.insert_expectation(sequence, &mut headers);
        let reply = format!("{}.{sequence}", self.inbox);
        let client = &self.client;
        let sent = client.publish_with_reply_and_headers(subject, reply, headers.0, body).await;
        sent.map_err(|_| ChainError::Closed)
    }

    /// States the message that the one with this sequence follows.
    fn insert_expectation(&mut self, sequence: u64, headers: &mut Headers) {
        let before = match self.mode {
            ChainMode::Sequence => {
                headers.insert(CHAIN, self.id.to_string());
                None
            }
            ChainMode::MsgId => {
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

    async fn acquire_window(&self, kib: u32) -> Result<(), tokio::sync::AcquireError> {
        self.shared.window_messages.acquire().await?.forget();
        self.shared.window_kib.acquire_many(kib).await?.forget();
        Ok(())
    }
}

/// The part of the window that a body occupies; the largest body occupies all of it.
fn window_kib(body_bytes: usize) -> u32 {
    let bytes = (body_bytes + MESSAGE_OVERHEAD_BYTES).min(IN_FLIGHT_BYTES_MAX);
    bytes.div_ceil(1024) as u32
}

struct AckReader {
    shared: Arc<ChainShared>,
    durable: watch::Sender<Durable>,
    connection: Arc<async_nats::Statistics>,
    generation: ConnectionGeneration,
    /// By how many messages the window grows with the first acknowledgement.
    unopened: usize,
}

/// Counts a client's connections to NATS: another value means that it reconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionGeneration(u64);

impl ConnectionGeneration {
    pub(super) fn of(connection: &async_nats::Statistics) -> ConnectionGeneration {
        ConnectionGeneration(connection.connects.load(Relaxed))
    }
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
struct PublishAck {
    #[serde(default)]
    seq: u64,
    error: Option<PublishAckError>,
}

#[derive(Deserialize)]
struct PublishAckError {
    err_code: u64,
    description: String,
}

impl AckReader {
    async fn run(&mut self, mut acks: async_nats::Subscriber) -> ChainError {
        let mut last_received = Instant::now();
        loop {
            let received = tokio::time::timeout(CHECK_EVERY, acks.next()).await;
            // After a reconnect the server may be another one, or have lost its tail. The next
            // session reads the stream again.
            if ConnectionGeneration::of(&self.connection) != self.generation {
                return ChainError::Interrupted;
            }
            match received {
                Ok(None) => return ChainError::Closed,
                Ok(Some(message)) => {
                    last_received = Instant::now();
                    if let Err(broken) = self.process_ack(&message) {
                        return broken;
                    }
                }
                Err(_) if self.shared.ledger().in_flight() == 0 => last_received = Instant::now(),
                Err(_) if last_received.elapsed() > ACK_TIMEOUT => return ChainError::Silent,
                Err(_) => {}
            }
        }
    }

    fn process_ack(&mut self, message: &async_nats::Message) -> Result<(), ChainError> {
        let refused = |what: String| ChainError::Refused(what);
        if let Some(status) = message.status {
            return Err(refused(format!("the server answered {status}: no stream takes cdc.>")));
        }
        let ack: PublishAck = serde_json::from_slice(&message.payload)
            .map_err(|e| refused(format!("an acknowledgement cannot be parsed: {e}")))?;
        if let Some(error) = ack.error {
            return Err(match error.err_code {
                // "maximum bytes exceeded", "insufficient storage"
                10047 | 10077 | 10023 => ChainError::Full(error.description),
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
            self.shared.ledger().record_ack(ack.seq).map_err(|e| refused(e.to_string()))?;
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
