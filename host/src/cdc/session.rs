//! The changes session: from the slot to the CDC stream, from connecting to the first doubt.
//!
//! One session is one replication connection and one chain of publishes. It ends with an error or
//! when it is cancelled. The supervisor then opens the next one, which reads again where the stream
//! ends. What a row looks like inside is not known here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walgate_wire::{
    Epoch, GUEST, Lsn, POS, PROGRESS_SUBJECT, Position, Progress, SCHEMA, StreamPosition, subjects,
    to_msgpack,
};

use crate::{
    clock::now_micros,
    context::Gateway,
    egress::{compress::Effort, outlet::Outlet, pipeline::Pipeline},
    error::SessionError,
    jetstream::{
        chain::Chain,
        publisher::{Headers, Outgoing},
    },
    pipeline_io::GatewayIo,
    postgres::{
        catalog::Catalog,
        replication::stream::{ChangeStream, Event, RelationChange},
        server_render::Renderer,
        toast_lookup::ToastLookup,
    },
    rows::batch::RowBatch,
    tables::TableEvent,
    wal_budget::PressureLevel,
};

/// An idle slot is moved forward this often, if there was WAL.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a stopping session waits for the acknowledgement of what it has sent.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Longest time between two progress messages while batches follow each other. One also precedes
/// every large batch.
const STATE_WITHIN: Duration = Duration::from_millis(5);
const LARGE_BATCH_BYTES: usize = 32 << 10;

/// A commit that no progress message has stated yet.
#[derive(Clone, Copy, Debug)]
struct Commit {
    position: Position,
    end_lsn: Lsn,
    at: i64,
}

/// With fewer messages on their way there is time to make bodies smaller.
const CALM_MESSAGES: usize = 8;

/// The state of one session.
pub struct Session {
    pub(super) gateway: Gateway,
    epoch: Epoch,
    pub(super) stream: ChangeStream,
    chain: Chain,
    pub(super) catalog: Catalog,
    pipeline: Pipeline<GatewayIo>,
    /// By the relation that carries the rows; opened and closed by `effects` alone.
    pub(super) outlets: HashMap<u32, Outlet>,
    /// Whether the folder of guests has offered something since it was looked at last.
    pub(super) offers: watch::Receiver<()>,
    /// From the WAL that the slot holds back.
    pub(super) pressure: watch::Receiver<PressureLevel>,
    unstated: Option<Commit>,
    /// `end_lsn` of the last progress message, and when it was sent.
    pub(super) stated: (Lsn, Instant),
    /// When the catalog was looked at last.
    pub(super) looked_at: Instant,
}

impl Session {
    /// `stated`: the position of the last progress message, or the slot's confirmed position.
    pub fn new(
        gateway: Gateway,
        epoch: Epoch,
        stream: ChangeStream,
        chain: Chain,
        catalog: Catalog,
        (renderer, lookup): (Renderer, ToastLookup),
        stated: Lsn,
    ) -> Session {
        let mut offers = gateway.guest_offers();
        offers.mark_changed();
        let mut pressure = gateway.wal_pressure.subscribe();
        pressure.mark_changed();
        let io = GatewayIo::of_changes(gateway.clone(), epoch, renderer, lookup);
        Session {
            pipeline: Pipeline::new(io, &gateway.config.compression),
            gateway,
            epoch,
            stream,
            chain,
            catalog,
            outlets: HashMap::new(),
            offers,
            pressure,
            unstated: None,
            stated: (stated, Instant::now()),
            looked_at: Instant::now(),
        }
    }

    /// Runs until an error, or until `stop` is cancelled. Then it waits for the acknowledgements of
    /// what it sent.
    pub async fn run(&mut self, stop: CancellationToken) -> Result<(), SessionError> {
        self.gateway.status.lag().begin(now_micros());
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return self.drain().await,
                broken = self.chain.broken() => return Err(broken.into()),
                _ = self.offers.changed(), if self.stream.is_between_transactions() => {
                    self.state_progress().await?;
                    self.handle(TableEvent::TransactionEnded).await?;
                    continue;
                }
                _ = self.pressure.changed(), if self.stream.is_between_transactions() => {
                    self.state_progress().await?;
                    self.follow_pressure().await?;
                    continue;
                }
                event = self.stream.next() => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.suspend_or_return(error.into()).await?;
                    continue;
                }
            };
            match event {
                Event::Rows(batch) => self.rows(batch).await?,
                Event::Commit { position, end_lsn, at_micros } => {
                    self.gateway.status.set_received_lsn(end_lsn.0);
                    self.gateway.status.lag().read(at_micros, now_micros());
                    self.unstated = Some(Commit { position, end_lsn, at: at_micros });
                    if self.offers.has_changed().unwrap_or(false) {
                        self.offers.mark_unchanged();
                        self.handle(TableEvent::TransactionEnded).await?;
                    }
                    if self.pressure.has_changed().unwrap_or(false) {
                        self.follow_pressure().await?;
                    }
                    self.look_at_catalog().await?;
                }
                Event::Relation(change) => self.announce(change).await?,
                Event::KeepAlive { wal_end, reply_requested } => {
                    self.state_progress().await?;
                    self.keepalive(wal_end, reply_requested).await?;
                    self.look_at_catalog().await?;
                    let all_stored = self.chain.in_flight() == 0;
                    self.gateway.status.lag().heard(now_micros(), all_stored);
                }
                Event::Idle => self.state_progress().await?,
            }
        }
    }

    /// Returns a function that reports the last acknowledged stream sequence, even when the session
    /// is gone.
    pub fn acknowledged_sequence(&self) -> impl Fn() -> u64 + Send + use<> {
        self.chain.acknowledged_sequence()
    }

    async fn drain(&mut self) -> Result<(), SessionError> {
        self.state_progress().await?;
        let deadline = Instant::now() + DRAIN;
        while self.chain.in_flight() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// A relation's shape is announced. Relations that are not configured are skipped.
    async fn announce(&mut self, change: RelationChange) -> Result<(), SessionError> {
        let Some(table) = self.gateway.table(&change.relation.table_name()) else {
            self.stream.set_table(change.relation.relid, None);
            return Ok(());
        };
        let token = table.token.clone();
        self.handle(TableEvent::RelationAnnounced { token, change }).await
    }

    async fn follow_pressure(&mut self) -> Result<(), SessionError> {
        let pressure = *self.pressure.borrow_and_update();
        self.handle(TableEvent::PressureChanged(pressure)).await
    }

    /// Publishes the rows of a batch as one message. If that fails, the table is suspended.
    async fn rows(&mut self, mut batch: RowBatch) -> Result<(), SessionError> {
        // Positions in the stream only grow. A commit whose progress is not published before these
        // rows is covered by the next commit. With small batches that saves a message for each.
        if batch.raw_bytes() >= LARGE_BATCH_BYTES || self.stated.1.elapsed() >= STATE_WITHIN {
            self.state_progress().await?;
        } else {
            self.unstated = None;
        }
        if let Some(first) = batch.changes.first() {
            self.gateway.status.lag().read(batch.txn(first).at_micros, now_micros());
        }
        let committed_at = batch.changes.last().map_or(0, |last| batch.txn(last).at_micros);
        let relid = batch.table.relid;
        // A snapshot may have suspended the table.
        let is_open = self.gateway.is_open(&batch.table.token, relid);
        let outlet = self.outlets.remove(&relid).filter(|_| is_open);
        let Some(mut outlet) = outlet else {
            self.stream.recycle(batch);
            return Ok(());
        };
        let mut fetched = self.pipeline.fetch_missing_values(&outlet, &mut batch).await;
        if fetched.as_ref().is_err_and(SessionError::is_altered_type) {
            outlet = self.reread_types_of_batch(&mut batch, outlet).await?;
            fetched = self.pipeline.fetch_missing_values(&outlet, &mut batch).await;
        }
        let message = match fetched {
            Ok(()) => self.encode_and_describe(&outlet, batch).await,
            Err(error) => Err(error),
        };
        let status = self.gateway.status.table(&outlet.output().token);
        self.outlets.insert(relid, outlet);
        match message {
            Ok(Some(message)) => {
                self.chain.publish(message).await?;
                status.set_lag(now_micros().saturating_sub(committed_at).max(0) as u64);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => self.suspend_or_return(error).await,
        }
    }

    /// The message with the published rows of the batch; none if its guest keeps no row.
    async fn encode_and_describe(
        &mut self,
        outlet: &Outlet,
        batch: RowBatch,
    ) -> Result<Option<Outgoing>, SessionError> {
        // The batch's last position, even if its last rows are filtered out.
        let position = batch.last_position().unwrap_or_default();
        let table = outlet.output();
        let token = &table.token;
        let status = self.gateway.status.table(token);
        let batch = self.pipeline.apply_guest(outlet, batch).await?;
        if batch.is_empty() {
            self.stream.recycle(batch);
            return Ok(None);
        }
        let dictionary = self.gateway.live_dictionaries.dictionary(token);
        let effort = match self.chain.in_flight() {
            0..CALM_MESSAGES => Effort::Thorough,
            _ => Effort::Quick,
        };
        let packed = self.pipeline.pack_changes(outlet, &batch, dictionary, effort)?;
        if let Some((revision, ratio)) = packed.ratio
            && let Some(first) = status.set_dictionary_ratio(revision, ratio)
        {
            let (now, first) = (ratio * 100.0, first * 100.0);
            tracing::warn!(
                table = %token,
                "its dictionary has worn out: with it, single changes take {now:.0} % of what they take without, {first:.0} % at first; train it again with `walgate train`"
            );
        }
        let changes = batch.changes.len() as u64;
        self.stream.recycle(batch);
        let mut headers = self.headers(position);
        packed.set_headers(|name, value| headers.insert(name, value));
        headers.insert(SCHEMA, table.schema.revision.to_string());
        if let Some(guest) = &table.schema.guest {
            headers.insert(GUEST, guest.short_hash());
        }
        let (raw_bytes, sent_bytes) = (packed.raw_bytes as u64, packed.body.len() as u64);
        status.add_changes(changes, raw_bytes, sent_bytes);
        let subject = subjects::cdc(token);
        Ok(Some(Outgoing { subject, headers, body: packed.body, confirms: None }))
    }

    fn headers(&self, position: Position) -> Headers {
        let position = StreamPosition { epoch: self.epoch, position }.to_string();
        let mut headers = Headers::new();
        headers.insert(POS, position);
        headers
    }

    /// States the last commit, if it is not stated yet.
    pub(super) async fn state_progress(&mut self) -> Result<(), SessionError> {
        let Some(commit) = self.unstated.take() else { return Ok(()) };
        self.progress(commit).await
    }

    async fn keepalive(&mut self, wal_end: Lsn, reply_requested: bool) -> Result<(), SessionError> {
        let (stated, at) = self.stated;
        let due = reply_requested || at.elapsed() >= HEARTBEAT;
        if self.unstated.is_some() || wal_end <= stated || !due {
            return Ok(());
        }
        self.gateway.status.set_received_lsn(wal_end.0);
        let position = Position::new(wal_end, 0);
        self.progress(Commit { position, end_lsn: wal_end, at: now_micros() }).await
    }

    async fn progress(&mut self, commit: Commit) -> Result<(), SessionError> {
        let Commit { position, end_lsn, at } = commit;
        self.stated = (end_lsn, Instant::now());
        self.gateway.status.lag().stated(end_lsn.0, at);
        let message = progress_message(self.headers(position), position, end_lsn, at)?;
        Ok(self.chain.publish(message).await?)
    }
}

/// The message that states a position.
pub fn progress_message(
    headers: Headers,
    position: Position,
    end_lsn: Lsn,
    at: i64,
) -> Result<Outgoing, SessionError> {
    let progress = Progress { lsn: position.commit_lsn, n: position.ordinal, end_lsn, at };
    let body = to_msgpack(&progress).map_err(|e| SessionError::Task(e.to_string()))?;
    let subject = PROGRESS_SUBJECT.to_owned();
    Ok(Outgoing { subject, headers, body: Bytes::from(body), confirms: Some(end_lsn) })
}
