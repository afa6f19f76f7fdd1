//! One table's snapshot, from finding or asking for it to its last row. It does not decide when a table has
//! to be loaded, and does not know what a sink does with rows.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use walgate_nats_connect::add_jitter;
use walgate_wire::{
    Caps, ChunkDigest, Epoch, InitError, InitMeta, InitStart, Lsn, Schema, Token, from_msgpack,
};

use crate::{
    Error,
    assets::Assets,
    decode::{self, Envelope, Joiner},
    error::Unreadable,
    feed::{Delivery, Feed},
    remote::Remote,
    state::StreamExtent,
};

mod chunks;
mod find;

pub(crate) use chunks::{all_subjects, chunk_place, row_count};
pub(crate) use find::{ask_unless_there, without_end};

/// Nothing heard for so long: ask again. Before a start the gateway may wait for old transactions.
const STALL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// Nothing heard for so long after the end of a snapshot that is to be avoided: ask again.
const AFTER_BAD: Duration = Duration::from_secs(2);
/// The version of the protocol that is understood here.
const PROTOCOL_VERSION: u32 = 1;

/// What is wanted of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub token: Token,
    /// Snapshots of earlier epochs are of no use.
    pub epoch: Option<Epoch>,
    /// The lowest watermark that is good enough.
    pub watermark: Lsn,
    /// Snapshots that turned out bad.
    pub avoid: Vec<String>,
}

/// A snapshot being received.
#[derive(Debug)]
pub(crate) struct Loader {
    pub wish: Wish,
    /// Of the stream of changes when the load began.
    pub cdc: StreamExtent,
    remote: Remote,
    feed: Feed,
    joiner: Joiner,
    caps: Caps,
    current: Option<Current>,
    /// When to ask again.
    patience_ends: Instant,
    /// Patience has ended and nothing has come since.
    silent: bool,
}

#[derive(Debug)]
struct Current {
    start: InitStart,
    schema: Arc<Schema>,
    digest: ChunkDigest,
    rows: u64,
}

/// What a message of the snapshot asks its reader to do.
#[derive(Debug)]
pub(crate) enum Event {
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
    /// All rows are there and agree with what the gateway said.
    Complete(Box<Complete>),
    /// Give up this attempt. The next one should avoid this snapshot.
    Failed {
        reason: String,
        retry_after: Option<Duration>,
        snapshot_id: Option<String>,
    },
}

#[derive(Debug)]
pub(crate) struct Complete {
    pub start: InitStart,
    pub schema: Arc<Schema>,
    pub finished_at: i64,
    pub rows: u64,
}

impl Loader {
    /// Finds a snapshot that is good enough, complete or under way, or asks for one.
    pub async fn begin(remote: &Remote, wish: Wish, caps: Caps) -> Result<Loader, Error> {
        let cdc = remote.extent(&remote.names.cdc).await?;
        let next = ask_unless_there(remote, &wish, cdc).await?;
        let feed = Feed::open(remote.init(all_subjects(&wish.token)), next);
        Ok(Loader {
            cdc,
            remote: remote.clone(),
            feed,
            joiner: Joiner::new(&caps),
            caps,
            current: None,
            patience_ends: Instant::now() + add_jitter(STALL),
            silent: false,
            wish,
        })
    }

    /// The next message. Asks again for the snapshot if nothing comes. Loses nothing when it is dropped.
    pub async fn next(&mut self) -> Delivery {
        loop {
            tokio::select! {
                biased;
                delivery = self.feed.next() => {
                    self.patience_ends = Instant::now() + add_jitter(STALL);
                    self.silent = false;
                    return delivery;
                }
                () = tokio::time::sleep_until(self.patience_ends) => {
                    self.patience_ends = Instant::now() + add_jitter(STALL);
                    self.silent = true;
                    self.ask_again("nothing has come of it").await;
                }
            }
        }
    }

    /// Nothing has come for long, and no snapshot has begun: the gateway may be away, or the table not offered.
    pub fn has_stalled(&self) -> bool {
        self.silent && self.current.is_none()
    }

    async fn ask_again(&self, reason: &str) {
        let table = self.wish.token.as_str();
        tracing::warn!(table, reason, "asking again for a snapshot");
        if let Err(error) = self.remote.ask_for_snapshot(&self.wish.token).await {
            tracing::warn!(table, %error, "cannot ask for a snapshot");
        }
    }

    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// What a message means. A message that cannot be read ends the attempt.
    pub async fn take(&mut self, delivery: &Delivery, assets: &mut Assets) -> Result<Event, Error> {
        let kind = delivery.subject.split('.').nth(1).unwrap_or_default();
        let event = match kind {
            "start" => self.start(delivery, assets).await?,
            "snap" => self.chunk(delivery, assets).await,
            "meta" => self.meta(delivery),
            "error" => self.error(delivery),
            _ => Ok(Event::Nothing),
        };
        Ok(event
            .unwrap_or_else(|reason| self.failed(format!("message {}: {reason}", delivery.seq))))
    }

    fn failed(&self, reason: String) -> Event {
        let snapshot_id = self.current.as_ref().map(|current| current.start.snapshot_id.clone());
        Event::Failed { reason, retry_after: None, snapshot_id }
    }

    async fn start(
        &mut self,
        delivery: &Delivery,
        assets: &mut Assets,
    ) -> Result<Result<Event, Unreadable>, Error> {
        let start: InitStart = match from_msgpack(&delivery.payload) {
            Ok(start) => start,
            Err(error) => return Ok(Err(error.into())),
        };
        if start.v != PROTOCOL_VERSION {
            let reason = format!("protocol {} is not understood by this version", start.v);
            return Ok(Ok(refused(start, reason)));
        }
        if self.wish.avoid.contains(&start.snapshot_id) {
            return Ok(Ok(Event::Nothing));
        }
        let outdated = self.wish.epoch.is_some_and(|epoch| start.epoch < epoch);
        if outdated || start.lsn < self.wish.watermark {
            self.current = None;
            self.ask_again("the snapshot that begins is too old").await;
            return Ok(Ok(Event::Nothing));
        }
        let (token, revision) = (&self.wish.token, start.schema_revision);
        let Some(schema) = assets.schema(token, revision).await? else {
            let reason = format!("schema revision {revision} is not in KV");
            return Ok(Ok(refused(start, reason)));
        };
        if schema.columns != start.columns {
            let reason = format!("its columns are not those of schema revision {revision}");
            return Ok(Ok(refused(start, reason)));
        }
        let estimated_rows = start.estimated_rows;
        tracing::info!(
            table = start.table,
            snapshot = start.snapshot_id,
            watermark = %start.lsn,
            estimated_rows,
            "receiving a snapshot"
        );
        self.joiner.clear();
        let digest = ChunkDigest::default();
        self.current = Some(Current { start, schema: schema.clone(), digest, rows: 0 });
        Ok(Ok(Event::Begin { schema, estimated_rows }))
    }

    async fn chunk(
        &mut self,
        delivery: &Delivery,
        assets: &mut Assets,
    ) -> Result<Event, Unreadable> {
        let Some(current) = &mut self.current else { return Ok(Event::Nothing) };
        let Some((snapshot_id, number)) = chunk_place(&delivery.subject) else {
            return Err(Unreadable::Other("its subject names no chunk".to_owned()));
        };
        if snapshot_id != current.start.snapshot_id || current.digest.contains(number) {
            return Ok(Event::Nothing);
        }
        let envelope = Envelope::read(&delivery.headers)?;
        let dictionary =
            envelope.dictionary.as_ref().map(|name| format!("{}@{}", name.key, name.revision));
        let sha256 = envelope.dictionary.as_ref().and(current.start.dictionary_sha256.as_deref());
        let body = decode::body(delivery, envelope, &mut self.joiner, assets, sha256).await?;
        let Some(body) = body else { return Ok(Event::Nothing) };
        current.digest.add(number, ChunkDigest::of(&body));
        current.rows += row_count(&body, &self.caps)?;
        let schema = current.schema.clone();
        Ok(Event::Rows { schema, body, bytes: delivery.payload.len(), dictionary })
    }

    fn meta(&mut self, delivery: &Delivery) -> Result<Event, Unreadable> {
        let meta: InitMeta = from_msgpack(&delivery.payload)?;
        if self.wish.avoid.contains(&meta.start.snapshot_id) {
            // A request made while it was being taken was answered with it.
            self.patience_ends = Instant::now() + add_jitter(AFTER_BAD);
        }
        let Some(current) = &self.current else { return Ok(Event::Nothing) };
        if meta.start.snapshot_id != current.start.snapshot_id {
            return Ok(Event::Nothing);
        }
        let (chunks, rows) = (current.digest.count(), current.rows);
        if (chunks, rows) != (meta.batch_count, meta.row_count) {
            let (all_chunks, all_rows) = (meta.batch_count, meta.row_count);
            let reason =
                format!("{chunks} of {all_chunks} chunks and {rows} of {all_rows} rows arrived");
            return Ok(self.failed(reason));
        }
        if current.digest.finish() != meta.sha256 {
            return Ok(self.failed("its chunks do not hash to what the gateway says".to_owned()));
        }
        let Some(current) = self.current.take() else { return Ok(Event::Nothing) };
        Ok(Event::Complete(Box::new(Complete {
            start: current.start,
            schema: current.schema,
            finished_at: meta.finished_at,
            rows,
        })))
    }

    fn error(&mut self, delivery: &Delivery) -> Result<Event, Unreadable> {
        let error: InitError = from_msgpack(&delivery.payload)?;
        // A snapshot can fail before it says that it begins: then its id is not known here.
        let ours = self.current.as_ref().map(|current| &current.start.snapshot_id);
        if ours.is_some() && error.snapshot_id.is_some() && error.snapshot_id.as_ref() != ours {
            return Ok(Event::Nothing);
        }
        Ok(Event::Failed {
            reason: format!("the gateway says: {} ({})", error.message, error.code),
            retry_after: error.retry_after.map(Duration::from_secs),
            snapshot_id: error.snapshot_id,
        })
    }
}

fn refused(start: InitStart, reason: String) -> Event {
    Event::Failed { reason, retry_after: None, snapshot_id: Some(start.snapshot_id) }
}
