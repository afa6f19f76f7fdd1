//! Opens a session: holds the slot, finds the end of the stream, decides whether to continue there.
//!
//! The slot is held before the stream's tail is read, so that no other gateway appends meanwhile.
//! The stream refuses a gateway that was paused and still writes. What a session publishes is
//! `session`'s business.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::{sync::watch, time::MissedTickBehavior};
use walgate_wire::{Epoch, EpochRecord, Lsn, POS, Position, Schema, StreamPosition, TableState};

use crate::{
    assets::dictionaries::store_live_dictionaries,
    cdc::{
        epoch::{Decision, Known, SlotFacts, decide},
        session::{Session, progress_message},
    },
    clock::now_micros,
    context::Gateway,
    egress::outlet::Gate,
    error::SessionError,
    jetstream::{
        ack_ledger::Durable,
        chain::Chain,
        kv::READS_AT_ONCE,
        publisher::Headers,
        revisions::ReferencedRevisions,
        tail::{self, Tail},
    },
    observe::status::Status,
    postgres::{
        PostgresError,
        catalog::Catalog,
        endpoint::Endpoint,
        replication::{
            client::{Feedback, FrameReader, ReplicationClient, Timing},
            stream::ChangeStream,
        },
        slot,
        toast_lookup::ToastLookup,
    },
    schema_registry,
};

/// Longest time between two status updates to Postgres. Its reply shows that it is alive.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Shortest time between two status updates.
const STATUS_PAUSE: Duration = Duration::from_millis(20);

/// A held slot. From here on Postgres needs status updates, however long opening the session takes.
pub struct Held {
    reader: FrameReader,
    catalog: Catalog,
    facts: SlotFacts,
    durable: watch::Sender<Durable>,
}

/// What this process remembers of its earlier sessions.
#[derive(Debug, Default)]
pub struct Past {
    /// The last known end of the stream.
    pub acknowledged: AtomicU64,
}

/// Takes the slot. The caller runs the feedback loop from now on.
pub async fn hold(gateway: &Gateway) -> Result<(Held, FeedbackLoop), SessionError> {
    let config = &gateway.config.postgres;
    let endpoint = Endpoint::of(config)?;
    let catalog = Catalog::connect(config).await?;
    let blocked = |by: &str| {
        tracing::warn!(slot = config.slot, "creating the slot waits: {by}");
        gateway.status.set_problem(Some(format!("creating the replication slot waits: {by}")));
    };
    let ensured =
        slot::ensure_slot(&endpoint, &catalog, &config.slot, gateway.server_version, blocked)
            .await?;
    let mut client = ReplicationClient::connect(&endpoint, Timing::default()).await?;
    let system = client.identify_system().await?;
    let left = client.left_timelines(system.timeline).await?;
    // Zero stands for the slot's own position.
    let (reader, feedback) =
        client.start_replication(&config.slot, &config.publication, Lsn(0)).await?;
    // Another gateway may have moved it before this one got hold of it.
    let held = slot::read_slot(&catalog, &config.slot).await?.ok_or(PostgresError::Closed)?;
    let confirmed = held.confirmed_flush;
    let facts = SlotFacts {
        system_id: system.system_id,
        timeline: system.timeline,
        database: system.database,
        slot: config.slot.clone(),
        created: ensured.created,
        confirmed,
        left,
        wal_end: held.server_lsn,
    };
    let (sender, durable) = watch::channel(Durable::default());
    let held = Held { reader, catalog, facts, durable: sender };
    Ok((held, FeedbackLoop { feedback, durable, confirmed }))
}

/// Finds the stream's end, publishes what consumers need to know first, and returns a session that
/// is ready to run.
pub async fn open(
    gateway: &Gateway,
    held: Held,
    past: &Past,
    now: u32,
) -> Result<(Epoch, Session), SessionError> {
    let Held { reader, catalog, facts, durable } = held;
    let Place { epoch, resume, stated, chain } = place(gateway, &facts, past, now, durable).await?;
    tracing::debug!(%resume, confirmed = %facts.confirmed, %stated, "resuming");
    let asking = ToastLookup::connect(&gateway.config.postgres).await?;
    let stream = ChangeStream::new(reader, resume);
    let mut session = Session::new(gateway.clone(), epoch, stream, chain, catalog, asking, stated);
    if !gateway.status.has_streamed() {
        settle(gateway).await?;
    }
    session.look_first().await?;
    Ok((epoch, session))
}

/// Where a session continues.
struct Place {
    epoch: Epoch,
    resume: Position,
    /// Up to here progress is published.
    stated: Lsn,
    chain: Chain,
}

/// Finds the end of the stream. Begins an epoch there if the old one cannot continue.
async fn place(
    gateway: &Gateway,
    facts: &SlotFacts,
    past: &Past,
    now: u32,
    durable: watch::Sender<Durable>,
) -> Result<Place, SessionError> {
    let generation = gateway.streams.connection_generation();
    // Streams that were deleted or lost with their server are created again. `decide` judges what
    // that means.
    let config = &gateway.config;
    let streams = gateway.streams.ensure(&config.nats, &config.tables).await?;
    let (schemas, dictionaries) = (&gateway.schemas, &gateway.dictionaries);
    let tokens = config.tables.iter().map(|table| &table.token);
    let referenced = ReferencedRevisions::read(&streams, tokens).await?;
    referenced.skip_lost(schemas, dictionaries).await?;
    store_live_dictionaries(
        &config.tables,
        dictionaries,
        &gateway.live_dictionaries,
        &gateway.status,
    )
    .await?;
    let record = gateway.schemas.epoch().await?;
    let lost = match &record {
        Some(record) => referenced.find_lost(schemas, dictionaries, record.epoch).await?,
        None => None,
    };
    let tail = tail::read_tail(&streams).await?;
    let known =
        Known { record: record.as_ref(), acknowledged: past.acknowledged.load(Relaxed), lost };
    let decision = decide(known, facts, &tail, now);
    let mode = streams.chain_mode();
    let mut chain = Chain::open(&streams, tail.last_sequence, generation, mode, durable).await?;
    let (epoch, resume, stated) = match decision {
        Decision::Continue { epoch, resume, record } => {
            if let Some(record) = &record {
                tracing::warn!(timeline = record.timeline, %epoch, "a standby has taken over; the stream goes on");
                gateway.schemas.put_epoch(record).await?;
            }
            (epoch, resume, stated(&tail, resume, facts.confirmed))
        }
        Decision::Begin { record, resume, reseed } => {
            begin_epoch(gateway, &mut chain, &record, resume, reseed).await?;
            (record.epoch, resume, facts.confirmed)
        }
    };
    // The loss, if there was one, has been judged.
    past.acknowledged.store(tail.last_sequence, Relaxed);
    Ok(Place { epoch, resume, stated, chain })
}

/// The position up to which progress counts as published. A heartbeat that was stored and not
/// confirmed is not repeated. No heartbeat follows a part of a transaction: Postgres sends its
/// commit again.
fn stated(tail: &Tail, resume: Position, confirmed: Lsn) -> Lsn {
    let progress = tail.progress.as_ref().map_or(Lsn(0), |(_, progress)| progress.end_lsn);
    progress.max(confirmed).max(resume.commit_lsn)
}

/// Runs when a process holds the slot for the first time. Tables that an earlier process suspended
/// are registered again, and their copies are void, because the changes in between were skipped.
/// Tables that are no longer configured are retired.
async fn settle(gateway: &Gateway) -> Result<(), SessionError> {
    let mut catalog = Catalog::connect(&gateway.config.postgres).await?;
    let tables = &gateway.config.tables;
    let latest = gateway.schemas.latest_of(tables.iter().map(|table| &table.token)).await?;
    for (table, latest) in tables.iter().zip(latest) {
        match latest {
            Some(schema) if is_current(&schema, &gateway.gate(&table.token)) => {
                gateway.status.table(&table.token).flows(schema.guest.as_ref());
            }
            _ => schema_registry::register_or_suspend(gateway, &mut catalog, table).await?,
        }
    }
    for token in gateway.schemas.tokens().await? {
        if gateway.table_by_token(&token).is_none() {
            let reason = "the gateway's configuration does not name it";
            schema_registry::retire(&gateway.schemas, &token, reason).await?;
        }
    }
    Ok(())
}

/// Whether the stored schema may stay until the first rows. Relation messages decide the shape.
fn is_current(schema: &Schema, gate: &Gate) -> bool {
    let same_guest = match gate {
        Gate::Open => schema.guest.is_none(),
        Gate::Guest(module) => schema.guest.as_ref() == Some(module.description()),
        Gate::Shut(_) => false,
    };
    same_guest && matches!(schema.state, TableState::Live | TableState::Reseed)
}

/// Voids copies first, then stores the record, then publishes the epoch's first message. A crash in
/// between voids copies that need not be void, never the other way round.
async fn begin_epoch(
    gateway: &Gateway,
    chain: &mut Chain,
    record: &EpochRecord,
    resume: Position,
    reseed: Option<String>,
) -> Result<(), SessionError> {
    if let Some(reason) = &reseed {
        tracing::error!(epoch = %record.epoch, reason, "a new epoch begins: every copy has to be loaded again");
        let (store, from) = (&gateway.schemas, record.slot_start);
        let all = stream::iter(&gateway.config.tables)
            .map(|table| schema_registry::reseed(store, &table.token, from, reason));
        all.buffer_unordered(READS_AT_ONCE).try_collect::<()>().await?;
    }
    gateway.schemas.put_epoch(record).await?;
    let position = StreamPosition { epoch: record.epoch, position: resume }.to_string();
    let mut headers = Headers::new();
    headers.insert(POS, position);
    let message = progress_message(headers, resume, resume.commit_lsn, now_micros())?;
    Ok(chain.publish(message).await?)
}

/// Reports to Postgres what is durable. It runs beside the session, from before it is open, so that
/// the connection survives a session that waits for NATS.
pub struct FeedbackLoop {
    feedback: Feedback,
    durable: watch::Receiver<Durable>,
    confirmed: Lsn,
}

impl FeedbackLoop {
    /// Ends with the error that ended the connection.
    pub async fn run(mut self, status: Status) -> PostgresError {
        let mut tick = tokio::time::interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut chain_lives = true;
        loop {
            let ask_reply = tokio::select! {
                biased;
                changed = self.durable.changed(), if chain_lives => {
                    chain_lives = changed.is_ok();
                    false
                }
                _ = tick.tick() => true,
            };
            let Durable(durable) = *self.durable.borrow_and_update();
            // The slot never moves back.
            self.confirmed = self.confirmed.max(durable);
            if let Err(error) = self.feedback.send(self.confirmed, ask_reply).await {
                return error;
            }
            status.set_confirmed_lsn(self.confirmed.0);
            status.lag().stored(self.confirmed.0, now_micros());
            tokio::time::sleep(STATUS_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walgate_wire::Progress;

    #[test]
    fn no_heartbeat_stands_behind_a_part_of_a_transaction() {
        let progress = Progress { lsn: Lsn(890), n: 1, end_lsn: Lsn(900), at: 0 };
        let tail = Tail { progress: Some((Epoch(1), progress)), ..Tail::default() };
        assert_eq!(stated(&tail, Position::new(Lsn(1000), 3), Lsn(900)), Lsn(1000));
        assert_eq!(stated(&tail, Position::new(Lsn(890), 1), Lsn(800)), Lsn(900));
        assert_eq!(stated(&tail, Position::new(Lsn(890), 1), Lsn(950)), Lsn(950));
    }
}
