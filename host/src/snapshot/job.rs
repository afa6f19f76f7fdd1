//! One snapshot of one table: `init.start`, its chunks, `init.meta`.
//!
//! The order of the first steps is what makes the hand-over lossless: the CDC stream's last sequence is noted,
//! then the watermark is taken, then everything older has to end, then the snapshot is opened. Which tables may
//! be asked for, and by whom, is not known here.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use walgate_wire::{
    ChunkDigest, Epoch, GUEST, InitMeta, InitStart, Lsn, MSG_ID, SCHEMA, Schema, Token, subjects,
    to_msgpack,
};

use crate::{
    clock::now_micros,
    config::ConfiguredTable,
    context::Gateway,
    egress::{
        compress::StoredDictionary,
        outlet::{Gate, Outlet},
    },
    error::SessionError,
    jetstream::publisher::{Headers, Outgoing, publish_acknowledged},
    postgres::{
        catalog::{Catalog, TableInfo},
        snapshot::{ExportedSnapshot, Piece, SnapshotReader, SnapshotWait},
    },
    rows::TableVersion,
    schema_registry::{self, Due},
};

use super::worker::{CHUNKS_IN_FLIGHT_MAX, Worker};

const PROTOCOL_VERSION: u32 = 1;
/// How long a finished snapshot waits for the gateway to hold the slot again.
const ACTIVE_AGAIN: Duration = Duration::from_secs(60);

/// Time-ordered and unique: milliseconds since 1970 and a random part, in hex.
pub fn new_id() -> String {
    format!("{:011x}{:04x}", now_micros() / 1000, rand::random::<u16>())
}

/// What all workers of a snapshot share.
pub(crate) struct Plan {
    pub(crate) gateway: Gateway,
    pub(crate) token: Token,
    snapshot_id: String,
    /// As rows are copied.
    pub(crate) table: Arc<TableVersion>,
    /// Through which they leave: the guest stays the same from beginning to end.
    pub(crate) outlet: Outlet,
    /// Where the outlet leads through.
    gate: Gate,
    pub(crate) row_filter: Option<String>,
    /// Name of the exported snapshot.
    exported: String,
    pub(crate) dictionary: Option<Arc<StoredDictionary>>,
    pieces: Mutex<VecDeque<Piece>>,
    totals: Mutex<Totals>,
    /// A permit for each chunk that is on its way.
    pub(crate) publishing: Arc<Semaphore>,
}

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) chunks: u64,
    pub(crate) rows: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: ChunkDigest,
}

impl Plan {
    /// As consumers see the rows.
    pub(crate) fn schema(&self) -> &Schema {
        &self.outlet.output().schema
    }

    pub(crate) fn next_piece(&self) -> Option<Piece> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes and publishes a snapshot; `active` says under which epoch the gateway holds the slot.
pub async fn take(
    gateway: &Gateway,
    table: &ConfiguredTable,
    snapshot_id: &str,
    active: watch::Receiver<Option<Epoch>>,
) -> Result<(), SessionError> {
    let token = &table.token;
    let interrupted = || SessionError::Task("the gateway does not hold the slot".to_owned());
    let epoch = (*active.borrow()).ok_or_else(interrupted)?;
    tracing::info!(table = %token, snapshot_id, "snapshot begins");
    let cdc_sequence = last_sequence(gateway).await?;
    let postgres = &gateway.config.postgres;
    let mut catalog = Catalog::connect(postgres).await?;
    let waiting = |waiting: &SnapshotWait| {
        tracing::warn!(table = %token, snapshot_id, "{waiting}");
    };
    let (found, exported) = loop {
        let found = catalog.load_current(&table.name, token.clone(), Lsn(0)).await?;
        let exported = ExportedSnapshot::take(postgres, &found.0, waiting).await?;
        // What was altered before the lock was there is in the snapshot, and changes up to then count as seen:
        // rows that were read by an older shape would lose a column for good.
        let now = exported.load_table(&table.name).await?;
        if now.is_some_and(|now| now.same_shape(&found.1)) {
            break (found, exported);
        }
    };
    let estimated_rows = found.1.estimated_rows;
    let plan = Arc::new(plan(gateway, found, &exported, snapshot_id).await?);
    let start = start_message(&plan, &exported, epoch, cdc_sequence, estimated_rows);
    let started = publish(gateway, subjects::init_start(token), &start, snapshot_id).await?;

    let ended = run_workers(&plan, start, active, started, exported).await;
    ended.map_err(|error| unless_replaced(error, &plan.gate, &gateway.gate(token)))
}

/// A guest that fails stops its table. One that was replaced since the snapshot began only ends the snapshot.
fn unless_replaced(error: SessionError, through: &Gate, live: &Gate) -> SessionError {
    match error {
        SessionError::Guest(_) | SessionError::Outlet(_) if !through.is_same(live) => {
            SessionError::Replaced(error.into())
        }
        error => error,
    }
}

async fn last_sequence(gateway: &Gateway) -> Result<u64, SessionError> {
    let info = gateway.streams.cdc.get_info().await.map_err(|e| {
        SessionError::Broker(crate::jetstream::streams::BrokerError::Read {
            what: "the CDC stream".to_owned(),
            reason: e.to_string(),
        })
    })?;
    Ok(info.state.last_sequence)
}

async fn plan(
    gateway: &Gateway,
    (table, info): (TableVersion, TableInfo),
    exported: &ExportedSnapshot,
    snapshot_id: &str,
) -> Result<Plan, SessionError> {
    let token = table.token.clone();
    let lock = gateway.lock_tables().await;
    let suspension = gateway.suspension(&token);
    let config = gateway.table_by_token(&token).filter(|_| suspension.is_none());
    let Some(config) = config else {
        let latest = gateway.schemas.latest(&token).await?;
        let reason = latest.and_then(|schema| schema.reason).unwrap_or_default();
        let passes = suspension.is_some_and(|suspension| suspension.cause.is_transient());
        return Err(SessionError::Suspended { table: token, reason, passes });
    };
    let gate = gateway.gate(&token);
    let opened = tokio::task::block_in_place(|| Outlet::open(&gate, config, table.clone()));
    let outlet =
        opened.map_err(|error| unless_replaced(error.into(), &gate, &gateway.gate(&token)))?;
    let has_default = |attnum| info.may_backfill(attnum);
    let lsn = exported.watermark;
    let due = Due { lsn, on_guest_change: config.guest.on_change, has_default };
    let schema = outlet.output().schema.clone();
    let schema = schema_registry::register(&gateway.schemas, &lock, schema, due).await?;
    drop(lock);
    let outlet = outlet.with_schema(schema);
    let row_filter = exported.load_row_filter(table.relid).await?;
    let pieces = exported.load_pieces(&table, gateway.config.snapshot.workers).await?;
    Ok(Plan {
        gateway: gateway.clone(),
        snapshot_id: snapshot_id.to_owned(),
        dictionary: gateway
            .assets
            .dictionary(&token)
            .filter(|_| gateway.config.compression.enabled),
        token,
        table: Arc::new(table),
        outlet,
        gate,
        row_filter,
        exported: exported.name.clone(),
        pieces: Mutex::new(pieces.into()),
        totals: Mutex::default(),
        publishing: Arc::new(Semaphore::new(publishing_max(gateway))),
    })
}

fn start_message(
    plan: &Plan,
    exported: &ExportedSnapshot,
    epoch: Epoch,
    cdc_sequence: u64,
    estimated_rows: u64,
) -> InitStart {
    let schema = plan.schema();
    let dictionary = plan.dictionary.as_deref();
    InitStart {
        v: PROTOCOL_VERSION,
        table: schema.table.clone(),
        snapshot_id: plan.snapshot_id.clone(),
        lsn: exported.watermark,
        epoch,
        compression_enabled: plan.gateway.config.compression.enabled,
        dictionary_id: dictionary.map(|d| d.key.clone()),
        dictionary_revision: dictionary.map(|d| d.revision),
        dictionary_sha256: dictionary.map(|d| d.dictionary.sha256().to_owned()),
        schema_revision: schema.revision,
        columns: schema.columns.clone(),
        key: schema.key.clone(),
        identity: schema.identity,
        guest: schema.guest.clone(),
        xid_window: exported.window.clone(),
        cdc_sequence,
        estimated_rows,
        started_at: now_micros(),
    }
}

/// Returns the stream sequence of the message.
async fn publish<T: serde::Serialize>(
    gateway: &Gateway,
    subject: String,
    message: &T,
    id: &str,
) -> Result<u64, SessionError> {
    let body = to_msgpack(message).map_err(|e| SessionError::Task(e.to_string()))?;
    let mut headers = Headers::new();
    headers.insert(MSG_ID, format!("{subject}/{id}"));
    let message = Outgoing { subject, headers, body: body.into(), confirms: None };
    Ok(publish_acknowledged(&gateway.streams.context, message).await?)
}

async fn run_workers(
    plan: &Arc<Plan>,
    start: InitStart,
    mut active: watch::Receiver<Option<Epoch>>,
    started: u64,
    exported: ExportedSnapshot,
) -> Result<(), SessionError> {
    let pieces = plan.pieces.lock().unwrap_or_else(PoisonError::into_inner).len();
    let workers = plan.gateway.config.snapshot.workers.min(pieces).max(1);
    let mut running = JoinSet::new();
    let first = Worker::new(Arc::clone(plan));
    running.spawn(async move { first.run(exported.into_reader()).await.map(Some) });
    for _ in 1..workers {
        let plan = Arc::clone(plan);
        running.spawn(async move {
            match plan.reader().await? {
                Some(reader) => Worker::new(plan).run(reader).await.map(Some),
                None => Ok(None),
            }
        });
    }
    let copied = all_copied(plan, &mut running).await;
    if copied.is_err() {
        running.shutdown().await;
        // Nothing of it arrives after it is purged.
        let _ = plan.publishing.acquire_many(publishing_max(&plan.gateway) as u32).await;
    }
    copied?;
    let gateway = &plan.gateway;
    let again = tokio::time::timeout(ACTIVE_AGAIN, active.wait_for(Option::is_some)).await;
    let epoch = again.ok().and_then(|active| *active.ok()?);
    if epoch != Some(start.epoch) {
        let reason = "the gateway began a new epoch meanwhile, the snapshot does not fit the stream any more";
        return Err(SessionError::Task(reason.to_owned()));
    }
    let meta = meta_message(plan, start);
    publish(gateway, subjects::init_meta(&plan.token), &meta, &plan.snapshot_id).await?;
    tracing::info!(table = %plan.token, snapshot_id = plan.snapshot_id, rows = meta.row_count,
        chunks = meta.batch_count, raw_bytes = meta.raw_bytes, bytes = meta.bytes, "snapshot complete");
    purge_before(gateway, &plan.token, started).await;
    Ok(())
}

fn publishing_max(gateway: &Gateway) -> usize {
    gateway.config.snapshot.workers * CHUNKS_IN_FLIGHT_MAX
}

async fn all_copied(
    plan: &Plan,
    running: &mut JoinSet<Result<Option<SnapshotReader>, SessionError>>,
) -> Result<(), SessionError> {
    // The exporting connection has to live until the others have imported its snapshot.
    let mut readers = vec![];
    while let Some(ended) = running.join_next().await {
        match ended.map_err(|e| SessionError::Task(format!("a snapshot worker ended: {e}")))?? {
            Some(reader) => readers.push(reader),
            None => {
                tracing::info!(table = %plan.token, "somebody waits to alter the table: copying with fewer connections")
            }
        }
    }
    Ok(())
}

fn meta_message(plan: &Plan, start: InitStart) -> InitMeta {
    let totals = plan.totals();
    InitMeta {
        start,
        batch_count: totals.chunks,
        row_count: totals.rows,
        raw_bytes: totals.raw_bytes,
        bytes: totals.bytes,
        sha256: totals.digest.finish(),
        finished_at: now_micros(),
    }
}

/// Chunks of a snapshot that failed only take room.
pub async fn purge(gateway: &Gateway, token: &Token, snapshot_id: &str) {
    let chunks = subjects::init_snap_of(token, snapshot_id);
    if let Err(error) = gateway.streams.init.purge().filter(&chunks).await {
        tracing::warn!(chunks, %error, "a snapshot that failed was not purged");
    }
}

/// Superseded snapshots only take room.
async fn purge_before(gateway: &Gateway, token: &Token, started: u64) {
    let superseded = [
        subjects::init_snap_all(token),
        subjects::init_start(token),
        subjects::init_meta(token),
        subjects::init_error(token),
    ];
    for subject in superseded {
        if let Err(error) = gateway.streams.init.purge().filter(&subject).sequence(started).await {
            tracing::warn!(subject, %error, "superseded snapshots were not purged");
        }
    }
}

impl Plan {
    /// Headers and subject of chunk `number`.
    pub(crate) fn chunk_message(&self, number: u64) -> (String, Headers) {
        let mut headers = Headers::new();
        headers.insert(MSG_ID, format!("{}/{number}", self.snapshot_id));
        headers.insert(SCHEMA, self.schema().revision.to_string());
        if let Some(guest) = &self.schema().guest {
            headers.insert(GUEST, guest.short_hash());
        }
        (subjects::init_snap(&self.token, &self.snapshot_id, number), headers)
    }

    /// Another connection that sees the snapshot, unless the table is wanted by somebody else.
    async fn reader(&self) -> Result<Option<SnapshotReader>, SessionError> {
        let postgres = &self.gateway.config.postgres;
        Ok(SnapshotReader::open(postgres, &self.exported, &self.table).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guest::GuestFailure, policy::Action};

    /// What is done about a guest's failure, by the gates that the snapshot went through and that is live.
    fn action(through: &Gate, live: &Gate) -> Action {
        let failure = GuestFailure::OtherTable { table: "public.t".to_owned() };
        crate::policy::action(&unless_replaced(failure.into(), through, live))
    }

    #[test]
    fn a_guest_that_was_replaced_stops_no_table() {
        let (gone, none) = (Gate::Shut("gone".into()), Gate::Open);
        assert_eq!(action(&none, &none), Action::Quarantine);
        assert_eq!(action(&gone, &Gate::Shut("gone".into())), Action::Quarantine);
        assert_eq!(action(&none, &gone), Action::Retry);
        let lost = SessionError::Task("of another cause".to_owned());
        assert!(matches!(unless_replaced(lost, &none, &gone), SessionError::Task(_)));
    }
}
