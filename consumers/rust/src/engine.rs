//! Wires feeds, tables and sink together: what arrives, what it means, what is done about it. Decisions are
//! in `state`; how rows are kept is in the sink.

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
    Error, Sink, SinkError, Status,
    assets::Assets,
    decode::Joiner,
    feed::{Delivery, Feed},
    remote::{Remote, patiently},
    snapshot::Loader,
    state::{TableRecord, Tables},
    status::{Board, Phase},
};

mod changes;
mod loading;
mod schemas;

use changes::Open;
use loading::Retry;
use schemas::Schemas;

/// How often the stream is looked at and the position of an idle consumer is stored.
const TICK: Duration = Duration::from_secs(1);
/// How many of these pass between looks at a stream that is silent.
const IDLE_TICKS: u32 = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub caps: Caps,
    pub commit_delay_max: Duration,
    pub commit_bytes_max: usize,
}

pub(crate) struct Engine<'s, S> {
    remote: Remote,
    assets: Assets,
    sink: &'s mut S,
    tables: Tables,
    board: Board,
    limits: Limits,
    epoch: Option<Epoch>,
    schemas: Schemas,
    /// Changes; none while no table flows, or when it has to begin elsewhere.
    changes: Option<Feed>,
    joiner: Joiner,
    open: Open,
    /// A position that memory has and the sink surely has not: nothing of ours happened up to it.
    unsaved: bool,
    loader: Option<Loader>,
    /// Whether a chunk comes before a change if both are there: they take turns.
    chunk_first: bool,
    retries: HashMap<Token, Retry>,
    asked: HashSet<Token>,
    tick: Interval,
    ticks: u32,
}

enum Input {
    CommitDue,
    Schema(Delivery),
    Tick,
    Change(Delivery),
    Snapshot(Delivery),
}

impl<'s, S: Sink> Engine<'s, S> {
    pub async fn open(
        remote: Remote,
        sink: &'s mut S,
        tokens: &[Token],
        limits: Limits,
        status: watch::Sender<Status>,
    ) -> Result<Engine<'s, S>, Error> {
        let stored = sink.open().await?;
        let (tables, forgotten) = Tables::new(tokens, stored);
        for token in forgotten {
            let table = token.as_str();
            tracing::info!(
                table,
                "not replicated any more: its rows stay, its position is forgotten"
            );
            sink.forget(token).await?;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Engine {
            assets: Assets::new(remote.clone(), limits.caps),
            board: Board::new(status, tokens),
            schemas: Schemas::open(&remote, tokens),
            joiner: Joiner::new(&limits.caps),
            sink,
            tables,
            limits,
            epoch: None,
            changes: None,
            open: Open::default(),
            unsaved: false,
            loader: None,
            chunk_first: false,
            retries: HashMap::new(),
            asked: HashSet::new(),
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
                Input::CommitDue => self.commit().await?,
                Input::Schema(delivery) => self.on_schema(&delivery).await?,
                Input::Tick => self.on_tick().await?,
                Input::Change(delivery) => self.on_change(delivery).await?,
                Input::Snapshot(delivery) => self.on_snapshot(delivery).await?,
            }
        }
    }

    /// Gives up what is not committed and lets go of the sink.
    pub async fn close(&mut self) -> Result<(), Error> {
        self.changes = None;
        self.loader = None;
        let given_up = self.give_up().await;
        let closed = self.sink.close().await;
        Ok(given_up.and(closed)?)
    }

    async fn give_up(&mut self) -> Result<(), SinkError> {
        self.sink.rollback().await?;
        match self.tables.mark().filter(|_| self.unsaved && !self.open.has_changes()) {
            Some(mark) => self.sink.commit(mark).await,
            None => Ok(()),
        }
    }

    /// Local commits so far.
    pub fn commits(&self) -> u64 {
        self.board.commits()
    }

    async fn next_input(&mut self) -> Input {
        // A chunk is a local transaction of its own: not in the middle of another.
        let between_transactions = !self.open.has_changes();
        let commit_due = self.open.commit_due(self.limits.commit_delay_max);
        let changes = self.changes.as_mut();
        let change = async {
            match changes {
                Some(feed) => Input::Change(feed.next().await),
                None => std::future::pending().await,
            }
        };
        let loader = self.loader.as_mut();
        let chunk = async {
            match loader {
                Some(loader) if between_transactions => Input::Snapshot(loader.next().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = at(commit_due) => Input::CommitDue,
            _ = self.tick.tick() => Input::Tick,
            delivery = self.schemas.next() => Input::Schema(delivery),
            input = first_of(change, chunk, self.chunk_first) => input,
        }
    }

    /// Opens the feed of changes where the tables that flow are.
    async fn start_changes(&mut self) -> Result<(), Error> {
        if self.changes.is_some() {
            return Ok(());
        }
        while let Some(next) = self.tables.read_from() {
            let remote = &self.remote;
            let look = || async { remote.extent(&remote.names.cdc).await.map(Some) };
            let extent = patiently("the stream of changes", look).await;
            let gaps = self.tables.gaps(extent);
            if gaps.is_empty() {
                let live: Vec<&Token> = self.tables.live().collect();
                tracing::info!(tables = live.len(), from = next, "applying changes");
                let mut subjects: Vec<String> = live.into_iter().map(subjects::cdc).collect();
                subjects.push(PROGRESS_SUBJECT.to_owned());
                for token in self.tables.live() {
                    self.board.table(token).phase = Phase::Live;
                }
                self.board.publish();
                self.changes = Some(Feed::open(self.remote.cdc(subjects), next));
                return Ok(());
            }
            self.reload(gaps).await?;
        }
        Ok(())
    }

    /// These copies cannot be continued, for the reasons given. Everything since the last commit is given up
    /// and read again for the tables that go on.
    async fn reload(&mut self, tables: Vec<(Token, String)>) -> Result<(), Error> {
        self.changes = None;
        self.joiner.clear();
        self.assets.forget();
        self.sink.rollback().await?;
        for record in std::mem::take(&mut self.open).undo() {
            self.tables.restore(record);
        }
        let mut records: Vec<TableRecord> = Vec::new();
        for (token, reason) in tables {
            let table = token.as_str();
            tracing::warn!(table, reason, "loading again; the rows that are there stay until then");
            let status = self.board.table(&token);
            status.phase = Phase::Loading;
            status.reason = Some(reason.clone());
            self.asked.remove(&token);
            records.extend(self.tables.mark_reload(&token, &reason));
        }
        self.board.publish();
        Ok(self.sink.save(records).await?)
    }

    /// What is at `position` cannot be applied to these copies: a snapshot that ends before it would lead back there.
    async fn reload_beyond(
        &mut self,
        position: Position,
        tables: Vec<(Token, String)>,
    ) -> Result<(), Error> {
        tables.iter().for_each(|(token, _)| self.tables.stuck(token, position));
        self.reload(tables).await
    }

    async fn on_tick(&mut self) -> Result<(), Error> {
        self.schemas.say_what_is_missing(&self.tables);
        if self.unsaved && !self.open.has_changes() {
            if let Some(mark) = self.tables.mark() {
                self.sink.commit(mark).await?;
                self.board.committed(mark);
            }
            self.unsaved = false;
        }
        self.ticks += 1;
        let Some(mark) = self.tables.mark().filter(|_| self.changes.is_some()) else {
            return Ok(());
        };
        // Also now and then when nothing comes: nothing can come of a stream that was created anew.
        if mark.seq == mark.verified_seq && !self.ticks.is_multiple_of(IDLE_TICKS) {
            return Ok(());
        }
        // Asked after the messages were read: if it still begins before them, nothing was missing between.
        match self.remote.extent(&self.remote.names.cdc).await {
            Err(error) => tracing::debug!(%error, "cannot look at the stream, later then"),
            Ok(extent) => {
                let gaps = self.tables.gaps(extent);
                if !gaps.is_empty() {
                    return self.reload(gaps).await;
                }
                self.unsaved |= mark.seq > mark.verified_seq;
                self.tables.verified(mark.seq);
            }
        }
        Ok(())
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Whichever is there; if both are, the one that is preferred.
async fn first_of<T>(a: impl Future<Output = T>, b: impl Future<Output = T>, b_first: bool) -> T {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    if b_first {
        tokio::select! { biased; out = &mut b => out, out = &mut a => out }
    } else {
        tokio::select! { biased; out = &mut a => out, out = &mut b => out }
    }
}
