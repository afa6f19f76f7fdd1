//! Looking without keeping: changes as they pass, and a snapshot's progress. For tools.

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
    Changes, Error, Filter, StreamNames,
    assets::Assets,
    decode::{self, Envelope, Joiner, unreadable},
    error::Unreadable,
    feed::{Delivery, Feed, Source},
    remote::Remote,
    snapshot::{all_subjects, chunk_place, row_count, without_end},
};

/// How often a snapshot of which nothing is heard is asked after.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From where to show changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFrom {
    /// What comes from now on.
    Now,
    /// All that the stream holds.
    First,
    /// From this stream sequence on.
    Sequence(u64),
}

/// Changes of these tables, decoded message by message: [`Changes::decode`] gives them with positions and
/// values, [`change_json`](crate::change_json) turns each into JSON. Of a stream that is deleted and made again it shows the
/// new one from its beginning, and says so in the log. Ends with the first error.
pub async fn tail(
    client: async_nats::Client,
    names: StreamNames,
    tokens: Vec<Token>,
    from: TailFrom,
    caps: Caps,
) -> Result<impl Stream<Item = Result<Changes, Error>>, Error> {
    let remote = Remote::new(client, names);
    let next = match from {
        TailFrom::Sequence(next) => next,
        TailFrom::First => 1,
        TailFrom::Now => remote.extent(&remote.names.cdc).await?.last_seq + 1,
    };
    let source = remote.cdc(tokens.iter().map(walgate_wire::subjects::cdc).collect());
    let feed = Feed::open(Source { rewinds: true, ..source }, next);
    let (assets, joiner) = (Assets::new(remote.clone(), caps), Joiner::new(&caps));
    let tail = Tail { feed, remote, assets, joiner, caps, tokens };
    Ok(futures::stream::try_unfold(tail, |mut tail| async move {
        let changes = tail.next().await?;
        Ok(Some((changes, tail)))
    }))
}

struct Tail {
    feed: Feed,
    remote: Remote,
    assets: Assets,
    joiner: Joiner,
    caps: Caps,
    tokens: Vec<Token>,
}

impl Tail {
    async fn next(&mut self) -> Result<Changes, Error> {
        loop {
            let delivery = self.feed.next().await;
            if delivery.rewound {
                // Whoever wiped the stream may have wiped the buckets: their revisions count anew.
                self.assets = Assets::new(self.remote.clone(), self.caps);
                self.joiner = Joiner::new(&self.caps);
            }
            let token =
                self.tokens.iter().find(|t| delivery.subject == walgate_wire::subjects::cdc(t));
            let Some(token) = token.cloned() else { continue };
            if let Some(changes) = self.read(&delivery, &token).await? {
                return Ok(changes);
            }
        }
    }

    async fn read(&mut self, delivery: &Delivery, token: &Token) -> Result<Option<Changes>, Error> {
        let envelope = Envelope::read(&delivery.headers).map_err(unreadable(delivery))?;
        // A tail may begin in the middle of a body.
        if envelope
            .part
            .is_some_and(|part| part.number > 1 && !self.joiner.is_open(&delivery.subject))
        {
            return Ok(None);
        }
        let revision = envelope.schema.unwrap_or_default();
        let body = decode::body(delivery, envelope, &mut self.joiner, &mut self.assets, None).await;
        let Some(body) = body.map_err(unreadable(delivery))? else { return Ok(None) };
        let Some(schema) = self.assets.schema(token, revision).await? else {
            let reason = format!("schema revision {revision} is not in KV");
            return Err(unreadable(delivery)(Unreadable::Other(reason)));
        };
        Ok(Some(Changes {
            local: schema.clone(),
            schema,
            body,
            filter: Filter::default(),
            caps: self.caps,
            count: Arc::new(AtomicU64::new(0)),
        }))
    }
}

/// What became of a snapshot that was asked for.
#[derive(Clone, Debug)]
pub enum SnapshotProgress {
    /// The gateway has not begun yet.
    Requested,
    /// Nor has it for so long; but it is alive, or was a moment ago.
    Waiting(Duration),
    Started {
        snapshot_id: String,
        estimated_rows: u64,
        watermark: walgate_wire::Lsn,
    },
    /// Sums so far; bytes as sent.
    Chunk {
        rows: u64,
        bytes: u64,
    },
    Finished(Box<InitMeta>),
    Failed(InitError),
}

/// Asks for a snapshot and tells how it goes, until it is finished or failed. It may have to wait in Postgres for as long as
/// others have transactions open: it is given up only if the gateway shows no sign of life for `patience`, which has to
/// be longer than its heartbeat of ten seconds where nothing else happens. That somebody else has asked already is fine: if theirs has begun, it is shown from its beginning.
pub async fn request_snapshot(
    client: async_nats::Client,
    names: StreamNames,
    token: Token,
    patience: Duration,
) -> Result<impl Stream<Item = Result<SnapshotProgress, Error>>, Error> {
    let remote = Remote::new(client, names);
    if remote.last_of(SCHEMAS_STREAM, &format!("{SCHEMAS_PREFIX}{token}")).await?.is_none() {
        return Err(Error::Configuration(format!(
            "no gateway has published a table {token}: is it in the gateway's configuration?"
        )));
    }
    // Noted before asking: whatever begins from now on is behind it, and what is under way is seen to its end.
    let next = remote.extent(&remote.names.init).await?.last_seq + 1;
    let written = remote.extent(&remote.names.cdc).await?.last_seq;
    let begun = without_end(&remote, &token).await?;
    remote.ask_for_snapshot(&token).await?;
    let feed = Feed::open(remote.init(all_subjects(&token)), begun.unwrap_or(next));
    let caps = Caps::default();
    let watch = Watch {
        feed,
        assets: Assets::new(remote.clone(), caps),
        remote,
        joiner: Joiner::new(&caps),
        caps,
        patience,
        asked: Instant::now(),
        alive: Instant::now(),
        written,
        token,
        asked_at: next,
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

struct Watch {
    feed: Feed,
    remote: Remote,
    assets: Assets,
    joiner: Joiner,
    caps: Caps,
    patience: Duration,
    asked: Instant,
    /// The last sign of the gateway's life.
    alive: Instant,
    /// Last sequence of the stream of changes, which it alone writes to, heartbeats at least.
    written: u64,
    token: Token,
    /// Messages from this sequence on came after the snapshot was asked for.
    asked_at: u64,
    snapshot_id: Option<String>,
    rows: u64,
    bytes: u64,
    queue: VecDeque<SnapshotProgress>,
    ended: bool,
}

impl Watch {
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
            let silence = LOOK_EVERY.min(self.patience / 2);
            let Ok(delivery) = timeout(silence, self.feed.next()).await else {
                self.look_for_life().await?;
                if self.snapshot_id.is_none() {
                    self.queue.push_back(SnapshotProgress::Waiting(self.asked.elapsed()));
                }
                continue;
            };
            self.alive = Instant::now();
            let progress = self.read(&delivery).await.map_err(unreadable(&delivery))?;
            self.queue.extend(progress);
        }
    }

    async fn look_for_life(&mut self) -> Result<(), Error> {
        // A server that is away is no sign either way.
        if let Ok(extent) = self.remote.extent(&self.remote.names.cdc).await
            && extent.last_seq != self.written
        {
            (self.written, self.alive) = (extent.last_seq, Instant::now());
        }
        if self.alive.elapsed() < self.patience {
            return Ok(());
        }
        let reason = format!(
            "the gateway has written nothing for {} s: is it running, and what does its /readyz say? The request stays \
             and is served as soon as it can be",
            self.patience.as_secs()
        );
        Err(Error::nats(format!("snapshot of {}", self.token), reason))
    }

    async fn read(&mut self, delivery: &Delivery) -> Result<Option<SnapshotProgress>, Unreadable> {
        match delivery.subject.split('.').nth(1).unwrap_or_default() {
            "start" => {
                let start: InitStart = from_msgpack(&delivery.payload)?;
                (self.rows, self.bytes) = (0, 0);
                self.snapshot_id = Some(start.snapshot_id.clone());
                let InitStart { snapshot_id, estimated_rows, lsn: watermark, .. } = start;
                Ok(Some(SnapshotProgress::Started { snapshot_id, estimated_rows, watermark }))
            }
            "snap" => self.chunk(delivery).await,
            "meta" => {
                let meta: InitMeta = from_msgpack(&delivery.payload)?;
                let ours = self.snapshot_id.as_ref() == Some(&meta.start.snapshot_id);
                Ok(ours.then(|| SnapshotProgress::Finished(Box::new(meta))))
            }
            "error" => {
                let error: InitError = from_msgpack(&delivery.payload)?;
                let known = error.snapshot_id.is_some() && self.snapshot_id.is_some();
                let other = known && error.snapshot_id != self.snapshot_id;
                let earlier = error.snapshot_id.is_none() && delivery.seq < self.asked_at;
                Ok((!other && !earlier).then_some(SnapshotProgress::Failed(error)))
            }
            _ => Ok(None),
        }
    }

    async fn chunk(&mut self, delivery: &Delivery) -> Result<Option<SnapshotProgress>, Unreadable> {
        let id = chunk_place(&delivery.subject).map(|(id, _)| id);
        if id.is_none() || id != self.snapshot_id.as_deref() {
            return Ok(None);
        }
        self.bytes += delivery.payload.len() as u64;
        let envelope = Envelope::read(&delivery.headers)?;
        let body =
            decode::body(delivery, envelope, &mut self.joiner, &mut self.assets, None).await?;
        if let Some(body) = body {
            self.rows += row_count(&body, &self.caps)?;
        }
        Ok(Some(SnapshotProgress::Chunk { rows: self.rows, bytes: self.bytes }))
    }
}
