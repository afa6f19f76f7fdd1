//! Observing without storing: changes as they are published, and a snapshot's progress. For tools.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
};

use futures::Stream;
use tokio::time::{Duration, Instant, timeout};
use walgate_wire::{
    Caps, InitError, InitMeta, InitStart, Token,
    buckets::{SCHEMAS_PREFIX, SCHEMAS_STREAM},
    from_msgpack,
};

use crate::{
    ChangeBatch, ChangeFilter, Error, StreamNames,
    assets::AssetCache,
    decode::{self, Envelope, PartJoiner, protocol_error},
    error::UnreadableMessage,
    feed::{Delivery, Feed, FeedSource},
    remote::RemoteStreams,
    snapshot::{all_subjects, find_unfinished, parse_chunk_subject, read_row_count},
};

/// How often the gateway's stream is checked while no message of a snapshot arrives.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Where [`tail_changes`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFrom {
    /// With the next message that is published.
    Now,
    /// With the first message that the stream holds.
    First,
    /// With the message of this stream sequence.
    Sequence(u64),
}

/// The changes of these tables, one item per message. [`ChangeBatch::decode`] returns the changes
/// with positions and values; [`change_json`](crate::change_json) converts a change to JSON.
///
/// If the stream is deleted and created again, the new one is read from its beginning, with a
/// warning in the log. The stream of changes ends with the first error.
///
/// # Errors
/// [`Error::Nats`] if the stream cannot be read; [`Error::Protocol`] for a message that cannot be
/// decoded.
pub async fn tail_changes(
    client: async_nats::Client,
    names: StreamNames,
    tokens: Vec<Token>,
    from: TailFrom,
    caps: Caps,
) -> Result<impl Stream<Item = Result<ChangeBatch, Error>>, Error> {
    let remote = RemoteStreams::new(client, names);
    let next = match from {
        TailFrom::Sequence(next) => next,
        TailFrom::First => 1,
        TailFrom::Now => remote.stream_extent(&remote.names.cdc).await?.last_seq + 1,
    };
    let source = remote.cdc_source(tokens.iter().map(walgate_wire::subjects::cdc).collect());
    let feed = Feed::open(FeedSource { rewinds: true, ..source }, next);
    let assets = AssetCache::new(remote.clone(), caps);
    let joiner = PartJoiner::new(&caps);
    let tail = TailReader { feed, remote, assets, joiner, caps, tokens };
    Ok(futures::stream::try_unfold(tail, |mut tail| async move {
        let changes = tail.next().await?;
        Ok(Some((changes, tail)))
    }))
}

struct TailReader {
    feed: Feed,
    remote: RemoteStreams,
    assets: AssetCache,
    joiner: PartJoiner,
    caps: Caps,
    tokens: Vec<Token>,
}

impl TailReader {
    async fn next(&mut self) -> Result<ChangeBatch, Error> {
        loop {
            let delivery = self.feed.next().await;
            if delivery.rewound {
                // The buckets may have been deleted as well; then their revisions start over.
                self.assets = AssetCache::new(self.remote.clone(), self.caps);
                self.joiner = PartJoiner::new(&self.caps);
            }
            let token =
                self.tokens.iter().find(|t| delivery.subject == walgate_wire::subjects::cdc(t));
            let Some(token) = token.cloned() else { continue };
            if let Some(changes) = self.read(&delivery, &token).await? {
                return Ok(changes);
            }
        }
    }

    async fn read(
        &mut self,
        delivery: &Delivery,
        token: &Token,
    ) -> Result<Option<ChangeBatch>, Error> {
        let envelope = Envelope::read(&delivery.headers).map_err(protocol_error(delivery))?;
        // A tail may begin in the middle of a body.
        if envelope
            .part
            .is_some_and(|part| part.number > 1 && !self.joiner.has_partial_body(&delivery.subject))
        {
            return Ok(None);
        }
        let revision = envelope.schema.unwrap_or_default();
        let body =
            decode::complete_body(delivery, envelope, &mut self.joiner, &mut self.assets, None)
                .await;
        let Some(body) = body.map_err(protocol_error(delivery))? else { return Ok(None) };
        let Some(schema) = self.assets.schema_revision(token, revision).await? else {
            let reason = format!("schema revision {revision} is not in KV");
            return Err(protocol_error(delivery)(UnreadableMessage::Other(reason)));
        };
        Ok(Some(ChangeBatch {
            local: schema.clone(),
            schema,
            body,
            filter: ChangeFilter::default(),
            caps: self.caps,
            count: Arc::new(AtomicU64::new(0)),
        }))
    }
}

/// The progress of a requested snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotProgress {
    /// The request is stored.
    Requested,
    /// The snapshot has not begun after this time, but the gateway is alive.
    Waiting(Duration),
    /// The snapshot has begun.
    Started {
        /// Its id.
        snapshot_id: String,
        /// The gateway's estimate of its rows.
        estimated_rows: u64,
        /// Its watermark.
        watermark: walgate_wire::Lsn,
    },
    /// A chunk arrived.
    Chunk {
        /// Rows so far.
        rows: u64,
        /// Bytes so far, as sent.
        bytes: u64,
    },
    /// The snapshot is complete.
    Finished(Box<InitMeta>),
    /// The gateway reported a failure.
    Failed(InitError),
}

/// Requests a snapshot and reports its progress until it is finished or failed. If a snapshot of
/// the table is already running, its progress is reported from the start.
///
/// A snapshot may wait in Postgres for as long as other transactions are open. So the stream of
/// progress ends with an error only if the gateway writes nothing for `patience`. It must be longer
/// than the gateway's heartbeat of ten seconds.
///
/// # Errors
/// [`Error::Configuration`] if no gateway has published the table; [`Error::Nats`] if a request
/// fails or the gateway is silent; [`Error::Protocol`] for a message that cannot be read.
pub async fn request_snapshot(
    client: async_nats::Client,
    names: StreamNames,
    token: Token,
    patience: Duration,
) -> Result<impl Stream<Item = Result<SnapshotProgress, Error>>, Error> {
    let remote = RemoteStreams::new(client, names);
    if remote.last_message(SCHEMAS_STREAM, &format!("{SCHEMAS_PREFIX}{token}")).await?.is_none() {
        return Err(Error::Configuration(format!(
            "no gateway has published a table {token}: is it in the gateway's configuration?"
        )));
    }
    // Read before the request, so that a new snapshot begins at or after it. A snapshot in progress
    // is followed to its end.
    let next = remote.stream_extent(&remote.names.init).await?.last_seq + 1;
    let written = remote.stream_extent(&remote.names.cdc).await?.last_seq;
    let unfinished = find_unfinished(&remote, &token).await?;
    remote.publish_snapshot_request(&token).await?;
    let feed = Feed::open(remote.init_source(all_subjects(&token)), unfinished.unwrap_or(next));
    let caps = Caps::default();
    let watch = SnapshotWatch {
        feed,
        assets: AssetCache::new(remote.clone(), caps),
        remote,
        joiner: PartJoiner::new(&caps),
        caps,
        patience,
        asked: Instant::now(),
        alive: Instant::now(),
        written,
        token,
        requested_at: next,
        snapshot_id: None,
        rows: 0,
        bytes: 0,
        queue: VecDeque::from([SnapshotProgress::Requested]),
        ended: false,
    };
    Ok(futures::stream::try_unfold(watch, |mut watch| async move {
        Ok(watch.next().await?.map(|progress| (progress, watch)))
    }))
}

struct SnapshotWatch {
    feed: Feed,
    remote: RemoteStreams,
    assets: AssetCache,
    joiner: PartJoiner,
    caps: Caps,
    patience: Duration,
    asked: Instant,
    /// When the gateway last wrote a message.
    alive: Instant,
    /// Last sequence of the stream of changes. Only the gateway writes to it, at least heartbeats.
    written: u64,
    token: Token,
    /// Messages from this sequence on were published after the request.
    requested_at: u64,
    snapshot_id: Option<String>,
    rows: u64,
    bytes: u64,
    queue: VecDeque<SnapshotProgress>,
    ended: bool,
}

impl SnapshotWatch {
    async fn next(&mut self) -> Result<Option<SnapshotProgress>, Error> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Some(progress) = self.queue.pop_front() {
                use SnapshotProgress::{Failed, Finished};
                self.ended = matches!(progress, Finished(_) | Failed(_));
                return Ok(Some(progress));
            }
            let silence = CHECK_INTERVAL.min(self.patience / 2);
            let Ok(delivery) = timeout(silence, self.feed.next()).await else {
                self.check_gateway_alive().await?;
                if self.snapshot_id.is_none() {
                    self.queue.push_back(SnapshotProgress::Waiting(self.asked.elapsed()));
                }
                continue;
            };
            self.alive = Instant::now();
            let progress = self.read(&delivery).await.map_err(protocol_error(&delivery))?;
            self.queue.extend(progress);
        }
    }

    async fn check_gateway_alive(&mut self) -> Result<(), Error> {
        // An unreachable server is no sign of life or death.
        if let Ok(extent) = self.remote.stream_extent(&self.remote.names.cdc).await
            && extent.last_seq != self.written
        {
            self.written = extent.last_seq;
            self.alive = Instant::now();
        }
        if self.alive.elapsed() < self.patience {
            return Ok(());
        }
        let reason = format!(
            "the gateway has written nothing for {} s: is it running, and what does its /readyz \
             report? The request stays stored and is served as soon as possible",
            self.patience.as_secs()
        );
        Err(Error::nats(format!("snapshot of {}", self.token), reason))
    }

    async fn read(
        &mut self,
        delivery: &Delivery,
    ) -> Result<Option<SnapshotProgress>, UnreadableMessage> {
        match delivery.subject.split('.').nth(1).unwrap_or_default() {
            "start" => {
                let start: InitStart = from_msgpack(&delivery.payload)?;
                self.rows = 0;
                self.bytes = 0;
                self.snapshot_id = Some(start.snapshot_id.clone());
                let InitStart { snapshot_id, estimated_rows, lsn: watermark, .. } = start;
                Ok(Some(SnapshotProgress::Started { snapshot_id, estimated_rows, watermark }))
            }
            "snap" => self.on_chunk(delivery).await,
            "meta" => {
                let meta: InitMeta = from_msgpack(&delivery.payload)?;
                let ours = self.snapshot_id.as_ref() == Some(&meta.start.snapshot_id);
                Ok(ours.then(|| SnapshotProgress::Finished(Box::new(meta))))
            }
            "error" => {
                let error: InitError = from_msgpack(&delivery.payload)?;
                let known = error.snapshot_id.is_some() && self.snapshot_id.is_some();
                let other = known && error.snapshot_id != self.snapshot_id;
                let earlier = error.snapshot_id.is_none() && delivery.seq < self.requested_at;
                Ok((!other && !earlier).then_some(SnapshotProgress::Failed(error)))
            }
            _ => Ok(None),
        }
    }

    async fn on_chunk(
        &mut self,
        delivery: &Delivery,
    ) -> Result<Option<SnapshotProgress>, UnreadableMessage> {
        let id = parse_chunk_subject(&delivery.subject).map(|(id, _)| id);
        if id.is_none() || id != self.snapshot_id.as_deref() {
            return Ok(None);
        }
        self.bytes += delivery.payload.len() as u64;
        let envelope = Envelope::read(&delivery.headers)?;
        let body =
            decode::complete_body(delivery, envelope, &mut self.joiner, &mut self.assets, None)
                .await?;
        if let Some(body) = body {
            self.rows += read_row_count(&body, &self.caps)?;
        }
        Ok(Some(SnapshotProgress::Chunk { rows: self.rows, bytes: self.bytes }))
    }
}
