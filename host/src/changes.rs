//! The changes session: from the slot to the CDC stream, from connecting to the first doubt.
//!
//! One session is one replication connection and one chain of publishes. It ends with an error or when asked
//! to stop; `run` then begins the next one, which finds out afresh where the stream ends. What a row looks like
//! inside is not known here.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::watch;
use walgate_wire::{
    Epoch, Lsn, MSG_ID, POS, PROGRESS_SUBJECT, Position, Progress, SCHEMA, StreamPosition,
    TableState, subjects, to_msgpack,
};

use crate::{
    batch::RowBatch,
    config::Table,
    gateway::Gateway,
    pack::{Rendered, TablePacker},
    policy::{Action, SessionError, action},
    publish::{Chain, Headers, Outgoing},
    schemas,
    source::{
        catalog::{Catalog, TableVersion},
        render::Renderer,
        stream::{ChangeStream, Event, RelationChange},
    },
    transform::Transform,
};

/// An idle slot is moved forward this often, if there was WAL.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a stopping session waits for the acknowledgement of what it has sent.
const DRAIN: Duration = Duration::from_secs(5);

/// While batches follow each other, progress is stated at least this often, and before every large batch.
const STATE_WITHIN: Duration = Duration::from_millis(5);
const LARGE_BATCH_BYTES: usize = 32 << 10;

/// A commit that no progress message has stated yet.
#[derive(Clone, Copy, Debug)]
struct Commit {
    position: Position,
    end_lsn: Lsn,
    at: i64,
}

/// The state of one session.
pub struct Session {
    gateway: Gateway,
    epoch: Epoch,
    stream: ChangeStream,
    chain: Chain,
    catalog: Catalog,
    renderer: Renderer,
    packers: HashMap<u32, TablePacker>,
    /// Configured tables by the relation that carries their rows.
    announced: HashMap<u32, (RelationChange, Table)>,
    transform: Transform,
    rendered: Rendered,
    unstated: Option<Commit>,
    /// `end_lsn` of the last progress message, and when it was sent.
    stated: (Lsn, Instant),
}

impl Session {
    /// `stated`: the last progress message said this, or the slot is confirmed to it.
    pub fn new(
        gateway: Gateway,
        epoch: Epoch,
        stream: ChangeStream,
        chain: Chain,
        catalog: Catalog,
        renderer: Renderer,
        stated: Lsn,
    ) -> Session {
        Session {
            transform: Transform::new(&gateway.config.compression),
            gateway,
            epoch,
            stream,
            chain,
            catalog,
            renderer,
            packers: HashMap::new(),
            announced: HashMap::new(),
            rendered: Rendered::default(),
            unstated: None,
            stated: (stated, Instant::now()),
        }
    }

    /// Runs until an error, or until `stop` is true; then what was sent is acknowledged first.
    pub async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), SessionError> {
        loop {
            let event = tokio::select! {
                biased;
                () = asked(&mut stop) => return self.drain().await,
                broken = self.chain.broken() => return Err(broken.into()),
                event = self.stream.next() => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.quarantine_or(error.into()).await?;
                    continue;
                }
            };
            match event {
                Event::Rows(batch) => {
                    self.rows(&batch).await?;
                    self.stream.recycle(batch);
                }
                Event::Commit { position, end_lsn, at_micros } => {
                    self.gateway.status.set_received_lsn(end_lsn.0);
                    self.unstated = Some(Commit { position, end_lsn, at: at_micros });
                }
                Event::Relation(change) => {
                    if let Err(error) = self.relation(change).await {
                        self.quarantine_or(error).await?;
                    }
                }
                Event::KeepAlive { wal_end, reply_requested } => {
                    self.state_progress().await?;
                    self.keepalive(wal_end, reply_requested).await?;
                }
                Event::Idle => self.state_progress().await?,
            }
        }
    }

    /// Tells, also when the session is gone, up to which stream sequence everything was acknowledged in it.
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

    /// Publishes a batch as one message; a table whose rows cannot be carried is suspended.
    async fn rows(&mut self, batch: &RowBatch) -> Result<(), SessionError> {
        // Positions in the stream only grow: a commit that is not stated before these rows is not stated at
        // all, the next one speaks for it. Where batches are small that saves a message for each of them.
        if batch.raw_bytes() >= LARGE_BATCH_BYTES || self.stated.1.elapsed() >= STATE_WITHIN {
            self.state_progress().await?;
        } else {
            self.unstated = None;
        }
        let token = &batch.table.token;
        if self.gateway.is_quarantined(token) {
            return Ok(());
        }
        let mut packed = self.pack(batch).await;
        if packed.as_ref().is_err_and(SessionError::is_altered_type) {
            self.read_types_again(batch.table.relid).await?;
            packed = self.pack(batch).await;
        }
        match packed {
            Ok(message) => Ok(self.chain.publish(message).await?),
            Err(error) => self.quarantine_or(error).await,
        }
    }

    /// An altered composite type is not announced as a relation is: its rows no longer fit what is known of it.
    async fn read_types_again(&mut self, relid: u32) -> Result<(), SessionError> {
        let Some((change, table)) = self.announced.get(&relid) else { return Ok(()) };
        self.catalog.forget_types();
        let RelationChange { relation, lsn } = change;
        let (version, _) =
            self.catalog.announced(relation, table.token.clone(), None, *lsn).await?;
        self.packers.insert(relid, TablePacker::new(&version));
        Ok(())
    }

    async fn pack(&mut self, batch: &RowBatch) -> Result<Outgoing, SessionError> {
        let table = &batch.table;
        let packer = self.packers.entry(table.relid).or_insert_with(|| TablePacker::new(table));
        if packer.renders() {
            self.rendered.clear();
            packer
                .collect(batch, &mut self.rendered)
                .map_err(crate::transform::TransformError::from)?;
            self.renderer.render(&table.name.to_string(), &mut self.rendered).await?;
        }
        let dictionary = self.gateway.assets.dictionary(&table.token);
        let packed = self.transform.changes(packer, batch, &mut self.rendered, dictionary)?;
        let mut headers = self.headers(batch.last_position().unwrap_or_default());
        packed.describe(&mut headers);
        headers.insert(SCHEMA, table.schema.revision.to_string());
        let status = self.gateway.status.table(&table.token);
        status.add_changes(
            batch.changes.len() as u64,
            packed.raw_bytes as u64,
            packed.body.len() as u64,
        );
        Ok(Outgoing {
            subject: subjects::cdc(&table.token),
            headers,
            body: packed.body,
            confirms: None,
        })
    }

    fn headers(&self, position: Position) -> Headers {
        let position = StreamPosition { epoch: self.epoch, position }.to_string();
        let mut headers = Headers::new();
        headers.insert(MSG_ID, position.as_str());
        headers.insert(POS, position);
        headers
    }

    /// Suspends the table that the error is about; an error that is not about one table stays an error.
    async fn quarantine_or(&mut self, error: SessionError) -> Result<(), SessionError> {
        let name = error.table().filter(|_| action(&error) == Action::Quarantine);
        let announced = name.and_then(|name| {
            self.announced.iter().find(|(_, (_, table))| table.name.to_string() == name)
        });
        let Some((&relid, (_, table))) = announced else { return Err(error) };
        let token = &table.token;
        tracing::error!(table = %token, %error, "table suspended: a row cannot be carried; the other tables go on");
        schemas::suspend(&self.gateway.schemas, token, &error.to_string()).await?;
        self.gateway.quarantine(token);
        self.stream.set_table(relid, None);
        Ok(())
    }

    /// States the last commit, if it is not stated yet.
    async fn state_progress(&mut self) -> Result<(), SessionError> {
        let Some(commit) = self.unstated.take() else { return Ok(()) };
        self.gateway.status.set_lag_micros(now_micros() - commit.at);
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
        let message = progress_message(self.headers(position), position, end_lsn, at)?;
        Ok(self.chain.publish(message).await?)
    }

    /// A table's shape is announced: from here on its rows are read by it.
    async fn relation(&mut self, change: RelationChange) -> Result<(), SessionError> {
        let RelationChange { relation, lsn } = &change;
        let name = relation.table_name();
        let gateway = self.gateway.clone();
        let table = gateway.table(&name).filter(|table| !gateway.is_quarantined(&table.token));
        self.packers.remove(&relation.relid);
        let Some(table) = table else {
            self.stream.set_table(relation.relid, None);
            return Ok(());
        };
        self.announced.insert(relation.relid, (change.clone(), table.clone()));
        let token = table.token.clone();
        let previous = self.gateway.schemas.latest(&token).await?;
        let (version, info) =
            self.catalog.announced(relation, token, previous.as_ref(), *lsn).await?;
        let has_default = |attnum| info.as_ref().is_none_or(|info| info.fills(attnum));
        let schema =
            schemas::register(&self.gateway.schemas, version.schema, *lsn, has_default).await?;
        if schema.state == TableState::Suspended {
            self.stream.set_table(relation.relid, None);
            return Ok(());
        }
        let version = TableVersion { schema, ..version };
        self.stream.set_table(relation.relid, Some(version.into()));
        Ok(())
    }
}

/// Completes when `stop` is true, or nobody is left to say so.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
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

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
