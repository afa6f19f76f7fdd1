//! Receives one table's snapshot: finds or requests it, and reads it to its last row. It does not
//! decide when a table has to be loaded, and does not know what a sink does with rows.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use walgate_nats_connect::add_jitter;
use walgate_wire::{
    Caps, ChunkDigest, Epoch, InitError, InitMeta, InitStart, Lsn, Schema, Token, from_msgpack,
};

use crate::{
    Error,
    assets::AssetCache,
    decode::{self, Envelope, PartJoiner},
    error::UnreadableMessage,
    feed::{Delivery, Feed},
    remote::RemoteStreams,
    state::StreamExtent,
};

mod chunks;
mod find;

pub(crate) use chunks::{all_subjects, parse_chunk_subject, read_row_count};
pub(crate) use find::{find_or_request, find_unfinished};

/// After this time without a message the snapshot is requested again. Before it starts, the gateway
/// may have to wait for old transactions.
const STALL_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// The same, after the end of a snapshot that must be avoided.
const STALL_TIMEOUT_AFTER_AVOIDED: Duration = Duration::from_secs(2);
/// The version of the protocol that this consumer reads.
const PROTOCOL_VERSION: u32 = 1;

/// The conditions that a snapshot must meet.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotWanted {
    pub token: Token,
    /// The current epoch; snapshots of earlier epochs are unusable.
    pub epoch: Option<Epoch>,
    /// The lowest acceptable watermark.
    pub watermark: Lsn,
    /// Ids of snapshots that could not be used.
    pub avoid: Vec<String>,
}

/// Receives a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotLoader {
    pub wanted: SnapshotWanted,
    /// The extent of the stream of changes when the load began.
    pub cdc: StreamExtent,
    remote: RemoteStreams,
    feed: Feed,
    joiner: PartJoiner,
    caps: Caps,
    current: Option<SnapshotInProgress>,
    /// When to request the snapshot again.
    request_again_at: Instant,
    /// The timeout has passed, and no message has arrived since.
    silent: bool,
}

#[derive(Debug)]
struct SnapshotInProgress {
    start: InitStart,
    schema: Arc<Schema>,
    digest: ChunkDigest,
    rows: u64,
}

/// What the engine has to do after a message of the snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotEvent {
    Nothing,
    /// Begin a new, empty generation.
    Begin {
        schema: Arc<Schema>,
        estimated_rows: u64,
    },
    /// Add rows.
    Rows {
        schema: Arc<Schema>,
        body: Vec<u8>,
        bytes: usize,
        dictionary: Option<String>,
    },
    /// All rows arrived and match the counts and the hash of the gateway.
    Complete(Box<CompleteSnapshot>),
    /// End this attempt. The next one must avoid this snapshot.
    Failed {
        reason: String,
        retry_after: Option<Duration>,
        snapshot_id: Option<String>,
    },
}

#[derive(Debug)]
pub(crate) struct CompleteSnapshot {
    pub start: InitStart,
    pub schema: Arc<Schema>,
    pub finished_at: i64,
    pub rows: u64,
}

impl SnapshotLoader {
    /// Finds a usable snapshot, complete or in progress, or requests one.
    pub async fn begin(
        remote: &RemoteStreams,
        wanted: SnapshotWanted,
        caps: Caps,
    ) -> Result<SnapshotLoader, Error> {
        let cdc = remote.stream_extent(&remote.names.cdc).await?;
        let next = find_or_request(remote, &wanted, cdc).await?;
        let feed = Feed::open(remote.init_source(all_subjects(&wanted.token)), next);
        Ok(SnapshotLoader {
            cdc,
            remote: remote.clone(),
            feed,
            joiner: PartJoiner::new(&caps),
            caps,
            current: None,
            request_again_at: Instant::now() + add_jitter(STALL_TIMEOUT),
            silent: false,
            wanted,
        })
    }

    /// The next message. Requests the snapshot again if none arrives. Cancel safe.
    pub async fn next(&mut self) -> Delivery {
        loop {
            tokio::select! {
                biased;
                delivery = self.feed.next() => {
                    self.request_again_at = Instant::now() + add_jitter(STALL_TIMEOUT);
                    self.silent = false;
                    return delivery;
                }
                () = tokio::time::sleep_until(self.request_again_at) => {
                    self.request_again_at = Instant::now() + add_jitter(STALL_TIMEOUT);
                    self.silent = true;
                    self.request_again("no message has arrived").await;
                }
            }
        }
    }

    /// No message has arrived for long, and no snapshot has begun: the gateway may be stopped, or
    /// the table may not be available.
    pub fn has_stalled(&self) -> bool {
        self.silent && self.current.is_none()
    }

    async fn request_again(&self, reason: &str) {
        let table = self.wanted.token.as_str();
        tracing::warn!(table, reason, "requesting the snapshot again");
        if let Err(error) = self.remote.publish_snapshot_request(&self.wanted.token).await {
            tracing::warn!(table, %error, "snapshot request failed");
        }
    }

    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// Handles a message. A message that cannot be read ends the attempt.
    pub async fn handle_message(
        &mut self,
        delivery: &Delivery,
        assets: &mut AssetCache,
    ) -> Result<SnapshotEvent, Error> {
        let kind = delivery.subject.split('.').nth(1).unwrap_or_default();
        let event = match kind {
            "start" => self.on_start(delivery, assets).await?,
            "snap" => self.on_chunk(delivery, assets).await,
            "meta" => self.on_meta(delivery),
            "error" => self.on_error(delivery),
            _ => Ok(SnapshotEvent::Nothing),
        };
        Ok(event.unwrap_or_else(|reason| {
            self.fail_attempt(format!("message {}: {reason}", delivery.seq))
        }))
    }

    fn fail_attempt(&self, reason: String) -> SnapshotEvent {
        let snapshot_id = self.current.as_ref().map(|current| current.start.snapshot_id.clone());
        SnapshotEvent::Failed { reason, retry_after: None, snapshot_id }
    }

    async fn on_start(
        &mut self,
        delivery: &Delivery,
        assets: &mut AssetCache,
    ) -> Result<Result<SnapshotEvent, UnreadableMessage>, Error> {
        let start: InitStart = match from_msgpack(&delivery.payload) {
            Ok(start) => start,
            Err(error) => return Ok(Err(error.into())),
        };
        if start.v != PROTOCOL_VERSION {
            let reason = format!("protocol version {} is not supported", start.v);
            return Ok(Ok(refuse_snapshot(start, reason)));
        }
        if self.wanted.avoid.contains(&start.snapshot_id) {
            return Ok(Ok(SnapshotEvent::Nothing));
        }
        let outdated = self.wanted.epoch.is_some_and(|epoch| start.epoch < epoch);
        if outdated || start.lsn < self.wanted.watermark {
            self.current = None;
            self.request_again("the snapshot that began is too old").await;
            return Ok(Ok(SnapshotEvent::Nothing));
        }
        let token = &self.wanted.token;
        let revision = start.schema_revision;
        let Some(schema) = assets.schema_revision(token, revision).await? else {
            let reason = format!("schema revision {revision} is not in KV");
            return Ok(Ok(refuse_snapshot(start, reason)));
        };
        if schema.columns != start.columns {
            let reason = format!("its columns are not those of schema revision {revision}");
            return Ok(Ok(refuse_snapshot(start, reason)));
        }
        let estimated_rows = start.estimated_rows;
        tracing::info!(
            table = start.table,
            snapshot = start.snapshot_id,
            watermark = %start.lsn,
            estimated_rows,
            "receiving snapshot"
        );
        self.joiner.clear();
        let digest = ChunkDigest::default();
        self.current = Some(SnapshotInProgress { start, schema: schema.clone(), digest, rows: 0 });
        Ok(Ok(SnapshotEvent::Begin { schema, estimated_rows }))
    }

    async fn on_chunk(
        &mut self,
        delivery: &Delivery,
        assets: &mut AssetCache,
    ) -> Result<SnapshotEvent, UnreadableMessage> {
        let Some(current) = &mut self.current else { return Ok(SnapshotEvent::Nothing) };
        let Some((snapshot_id, number)) = parse_chunk_subject(&delivery.subject) else {
            return Err(UnreadableMessage::Other("its subject names no chunk".to_owned()));
        };
        if snapshot_id != current.start.snapshot_id || current.digest.contains(number) {
            return Ok(SnapshotEvent::Nothing);
        }
        let envelope = Envelope::read(&delivery.headers)?;
        let dictionary =
            envelope.dictionary.as_ref().map(|name| format!("{}@{}", name.key, name.revision));
        let sha256 = envelope.dictionary.as_ref().and(current.start.dictionary_sha256.as_deref());
        let body =
            decode::complete_body(delivery, envelope, &mut self.joiner, assets, sha256).await?;
        let Some(body) = body else { return Ok(SnapshotEvent::Nothing) };
        current.digest.add(number, ChunkDigest::of(&body));
        current.rows += read_row_count(&body, &self.caps)?;
        let schema = current.schema.clone();
        Ok(SnapshotEvent::Rows { schema, body, bytes: delivery.payload.len(), dictionary })
    }

    fn on_meta(&mut self, delivery: &Delivery) -> Result<SnapshotEvent, UnreadableMessage> {
        let meta: InitMeta = from_msgpack(&delivery.payload)?;
        if self.wanted.avoid.contains(&meta.start.snapshot_id) {
            // A request made while this snapshot was taken was answered with it, so a new request
            // is due.
            self.request_again_at = Instant::now() + add_jitter(STALL_TIMEOUT_AFTER_AVOIDED);
        }
        let Some(current) = &self.current else { return Ok(SnapshotEvent::Nothing) };
        if meta.start.snapshot_id != current.start.snapshot_id {
            return Ok(SnapshotEvent::Nothing);
        }
        let chunks = current.digest.count();
        let rows = current.rows;
        if (chunks, rows) != (meta.batch_count, meta.row_count) {
            let reason = format!(
                "{chunks} of {} chunks and {rows} of {} rows arrived",
                meta.batch_count, meta.row_count
            );
            return Ok(self.fail_attempt(reason));
        }
        if current.digest.finish() != meta.sha256 {
            return Ok(self.fail_attempt("its chunks do not match the gateway's hash".to_owned()));
        }
        let Some(current) = self.current.take() else { return Ok(SnapshotEvent::Nothing) };
        Ok(SnapshotEvent::Complete(Box::new(CompleteSnapshot {
            start: current.start,
            schema: current.schema,
            finished_at: meta.finished_at,
            rows,
        })))
    }

    fn on_error(&mut self, delivery: &Delivery) -> Result<SnapshotEvent, UnreadableMessage> {
        let error: InitError = from_msgpack(&delivery.payload)?;
        // A snapshot can fail before its start message; its id is unknown here then.
        let ours = self.current.as_ref().map(|current| &current.start.snapshot_id);
        if ours.is_some() && error.snapshot_id.is_some() && error.snapshot_id.as_ref() != ours {
            return Ok(SnapshotEvent::Nothing);
        }
        Ok(SnapshotEvent::Failed {
            reason: format!("the gateway reported: {} ({})", error.message, error.code),
            retry_after: error.retry_after.map(Duration::from_secs),
            snapshot_id: error.snapshot_id,
        })
    }
}

fn refuse_snapshot(start: InitStart, reason: String) -> SnapshotEvent {
    SnapshotEvent::Failed { reason, retry_after: None, snapshot_id: Some(start.snapshot_id) }
}
