//! Connects feeds, table states and sink: receives messages, asks `state` for decisions, and
//! carries them out. How rows are stored is the sink's business.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior},
};
use walgate_wire::{Caps, Epoch, PROGRESS_SUBJECT, Position, Token, subjects};

use crate::{
    ConsumerStatus, Error, Sink, SinkError,
    assets::AssetCache,
    decode::PartJoiner,
    feed::{Delivery, Feed},
    remote::{RemoteStreams, ask_until_answered},
    snapshot::SnapshotLoader,
    state::{TableRecord, Tables},
    status::{StatusPublisher, TablePhase},
};

mod changes;
mod loading;
mod schemas;

use changes::OpenTransaction;
use loading::LoadRetry;
use schemas::SchemaFeed;

/// How often the stream is checked and the position of an idle consumer is stored.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between checks of a silent stream.
const IDLE_TICKS: u32 = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineLimits {
    pub caps: Caps,
    pub commit_delay_max: Duration,
    pub commit_bytes_max: usize,
}

pub(crate) struct Engine<'s, S> {
    remote: RemoteStreams,
    assets: AssetCache,
    sink: &'s mut S,
    tables: Tables,
    status: StatusPublisher,
    limits: EngineLimits,
    epoch: Option<Epoch>,
    schemas: SchemaFeed,
    /// The feed of changes. None while no table is live, or if it must be opened at another
    /// position.
    changes: Option<Feed>,
    joiner: PartJoiner,
    transaction: OpenTransaction,
    /// The checkpoint in memory is newer than the sink's: only other tables changed up to it.
    unsaved: bool,
    loader: Option<SnapshotLoader>,
    /// Whether a chunk precedes a change if both are available: they take turns.
    chunk_first: bool,
    retries: HashMap<Token, LoadRetry>,
    requested: HashSet<Token>,
    tick: Interval,
    ticks: u32,
}

enum EngineInput {
    CommitDue,
    Schema(Delivery),
    Tick,
    Change(Delivery),
    Snapshot(Delivery),
}

impl<'s, S: Sink> Engine<'s, S> {
    pub async fn open(
        remote: RemoteStreams,
        sink: &'s mut S,
        tokens: &[Token],
        limits: EngineLimits,
        status: watch::Sender<ConsumerStatus>,
    ) -> Result<Engine<'s, S>, Error> {
        let stored = sink.open().await?;
        let (tables, forgotten) = Tables::new(tokens, stored);
        for token in forgotten {
            let table = token.as_str();
            tracing::info!(
                table,
                "table no longer configured: its rows stay, its position is removed"
            );
            sink.forget_table(token).await?;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Engine {
            assets: AssetCache::new(remote.clone(), limits.caps),
            status: StatusPublisher::new(status, tokens),
            schemas: SchemaFeed::open(&remote, tokens),
            joiner: PartJoiner::new(&limits.caps),
            sink,
            tables,
            limits,
            epoch: None,
            changes: None,
            transaction: OpenTransaction::default(),
            unsaved: false,
            loader: None,
            chunk_first: false,
            retries: HashMap::new(),
            requested: HashSet::new(),
            tick,
            ticks: 0,
            remote,
        })
    }

    pub async fn run(&mut self) -> Result<(), Error> {
        loop {
            if self.schemas.caught_up() {
                self.start_changes().await?;
                self.start_loading().await?;
            }
            match self.next_input().await {
                EngineInput::CommitDue => self.commit_transaction().await?,
                EngineInput::Schema(delivery) => self.on_schema(&delivery).await?,
                EngineInput::Tick => self.on_tick().await?,
                EngineInput::Change(delivery) => self.on_change(delivery).await?,
                EngineInput::Snapshot(delivery) => self.on_snapshot(delivery).await?,
            }
        }
    }

    /// Discards uncommitted work and closes the sink.
    pub async fn close(&mut self) -> Result<(), Error> {
        self.changes = None;
        self.loader = None;
        let discarded = self.discard_uncommitted().await;
        let closed = self.sink.close().await;
        Ok(discarded.and(closed)?)
    }

    async fn discard_uncommitted(&mut self) -> Result<(), SinkError> {
        self.sink.rollback().await?;
        match self.tables.checkpoint().filter(|_| self.unsaved && !self.transaction.has_changes()) {
            Some(checkpoint) => self.sink.commit(checkpoint).await,
            None => Ok(()),
        }
    }

    /// Local commits so far.
    pub fn commit_count(&self) -> u64 {
        self.status.commit_count()
    }

    async fn next_input(&mut self) -> EngineInput {
        // A chunk is a local transaction of its own, so it waits for the end of the open one.
        let between_transactions = !self.transaction.has_changes();
        let commit_due = self.transaction.commit_due(self.limits.commit_delay_max);
        let changes = self.changes.as_mut();
        let change = async {
            match changes {
                Some(feed) => EngineInput::Change(feed.next().await),
                None => std::future::pending().await,
            }
        };
        let loader = self.loader.as_mut();
        let chunk = async {
            match loader {
                Some(loader) if between_transactions => EngineInput::Snapshot(loader.next().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = sleep_until_due(commit_due) => EngineInput::CommitDue,
            _ = self.tick.tick() => EngineInput::Tick,
            delivery = self.schemas.next() => EngineInput::Schema(delivery),
            input = select_biased(change, chunk, self.chunk_first) => input,
        }
    }

    /// Opens the feed of changes at the lowest position of the live tables.
    async fn start_changes(&mut self) -> Result<(), Error> {
        if self.changes.is_some() {
            return Ok(());
        }
        while let Some(next) = self.tables.next_sequence() {
            let remote = &self.remote;
            let read_extent = || async { remote.stream_extent(&remote.names.cdc).await.map(Some) };
            let extent = ask_until_answered("the stream of changes", read_extent).await;
            let gaps = self.tables.find_gaps(extent);
            if gaps.is_empty() {
                let live: Vec<&Token> = self.tables.live_tables().collect();
                tracing::info!(tables = live.len(), from = next, "reading changes");
                let mut subjects: Vec<String> = live.into_iter().map(subjects::cdc).collect();
                subjects.push(PROGRESS_SUBJECT.to_owned());
                for token in self.tables.live_tables() {
                    self.status.table_mut(token).phase = TablePhase::Live;
                }
                self.status.publish();
                self.changes = Some(Feed::open(self.remote.cdc_source(subjects), next));
                return Ok(());
            }
            self.reload_tables(gaps).await?;
        }
        Ok(())
    }

    /// These copies cannot be continued, for the given reasons. Everything since the last commit is
    /// discarded, and read again for the other tables.
    async fn reload_tables(&mut self, tables: Vec<(Token, String)>) -> Result<(), Error> {
        self.changes = None;
        self.joiner.clear();
        self.assets.clear();
        self.sink.rollback().await?;
        for record in std::mem::take(&mut self.transaction).into_undo_records() {
            self.tables.restore_record(record);
        }
        let mut records: Vec<TableRecord> = Vec::new();
        for (token, reason) in tables {
            let table = token.as_str();
            tracing::warn!(
                table,
                reason,
                "table copy is invalid, loading again; its rows stay until then"
            );
            let status = self.status.table_mut(&token);
            status.phase = TablePhase::Loading;
            status.reason = Some(reason.clone());
            self.requested.remove(&token);
            records.extend(self.tables.require_reload(&token, &reason));
        }
        self.status.publish();
        Ok(self.sink.save_records(records).await?)
    }

    /// The change at `position` cannot be applied to these copies. A snapshot with a lower
    /// watermark would lead back to it, so the next one must have a higher watermark.
    async fn reload_tables_beyond(
        &mut self,
        position: Position,
        tables: Vec<(Token, String)>,
    ) -> Result<(), Error> {
        tables.iter().for_each(|(token, _)| self.tables.require_snapshot_beyond(token, position));
        self.reload_tables(tables).await
    }

    async fn on_tick(&mut self) -> Result<(), Error> {
        self.schemas.warn_about_missing_schemas(&self.tables);
        if self.unsaved && !self.transaction.has_changes() {
            if let Some(checkpoint) = self.tables.checkpoint() {
                self.sink.commit(checkpoint).await?;
                self.status.set_committed(checkpoint);
            }
            self.unsaved = false;
        }
        self.ticks += 1;
        let Some(checkpoint) = self.tables.checkpoint().filter(|_| self.changes.is_some()) else {
            return Ok(());
        };
        // A silent stream is checked, too: after it was created again, no message arrives.
        if checkpoint.seq == checkpoint.verified_seq && !self.ticks.is_multiple_of(IDLE_TICKS) {
            return Ok(());
        }
        // The extent is read after the messages: if the stream still begins before them, no message
        // between was dropped.
        match self.remote.stream_extent(&self.remote.names.cdc).await {
            Err(error) => tracing::debug!(%error, "stream check failed, retrying later"),
            Ok(extent) => {
                let gaps = self.tables.find_gaps(extent);
                if !gaps.is_empty() {
                    return self.reload_tables(gaps).await;
                }
                self.unsaved |= checkpoint.seq > checkpoint.verified_seq;
                self.tables.mark_verified(checkpoint.seq);
            }
        }
        Ok(())
    }
}

async fn sleep_until_due(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The future that is ready; if both are, `b` if `b_first`, otherwise `a`.
async fn select_biased<T>(
    a: impl Future<Output = T>,
    b: impl Future<Output = T>,
    b_first: bool,
) -> T {
    let mut a = std::pin::pin!(a);
    let mut b = std::pin::pin!(b);
    if b_first {
        tokio::select! { biased; out = &mut b => out, out = &mut a => out }
    } else {
        tokio::select! { biased; out = &mut a => out, out = &mut b => out }
    }
}
