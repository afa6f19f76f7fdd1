//! One snapshot of one table: `init.start`, its chunks, `init.meta`.
//!
//! The order of the first steps makes the hand-over lossless. First, the job notes the CDC stream's
//! last sequence. Then it takes the watermark. Then it waits for older transactions to end. Then it
//! exports the snapshot. Which requests are served is not known here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use walgate_wire::{
    ChunkDigest, Epoch, GUEST, InitMeta, InitStart, Lsn, MSG_ID, SCHEMA, Schema, Token, subjects,
    to_msgpack,
};

use super::worker::{CHUNKS_IN_FLIGHT_MAX, CopyWorker};
use crate::{
    clock::now_micros,
    config::ConfiguredTable,
    context::Gateway,
    egress::{
        compress::StoredDictionary,
        outlet::{Gate, Outlet},
    },
    error::SessionError,
    jetstream::publisher::{Headers, Outgoing},
    postgres::{
        catalog::{Catalog, TableInfo},
        snapshot::{ExportedSnapshot, Piece, SnapshotReader, SnapshotWait},
    },
    rows::TableVersion,
    schema_registry::{self, Due},
};

const PROTOCOL_VERSION: u32 = 1;
/// How long a finished snapshot waits until the gateway holds the slot again.
const SLOT_HELD_AGAIN: Duration = Duration::from_secs(60);

/// Time-ordered and unique: milliseconds since 1970 and a random part, in hex.
pub(super) fn new_snapshot_id() -> String {
    format!("{:011x}{:04x}", now_micros() / 1000, rand::random::<u16>())
}

/// A snapshot that is being taken, shared by its workers.
pub(crate) struct SnapshotJob {
    pub(crate) gateway: Gateway,
    pub(crate) token: Token,
    snapshot_id: String,
    /// The shape of the copied rows.
    pub(crate) table: Arc<TableVersion>,
    /// Publishes the rows. The guest stays the same from beginning to end.
    pub(crate) outlet: Outlet,
    /// The gate that the outlet was opened for.
    gate: Gate,
    pub(crate) row_filter: Option<String>,
    /// The name of the exported snapshot.
    exported: String,
    pub(crate) dictionary: Option<Arc<StoredDictionary>>,
    pieces: Mutex<VecDeque<Piece>>,
    totals: Mutex<SnapshotTotals>,
    /// A permit for each chunk in flight.
    pub(crate) publishing: Arc<Semaphore>,
}

#[derive(Default)]
pub(crate) struct SnapshotTotals {
    pub(crate) chunks: u64,
    pub(crate) rows: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: ChunkDigest,
}

impl SnapshotJob {
    /// The schema of the published rows.
    pub(crate) fn schema(&self) -> &Schema {
        &self.outlet.output().schema
    }

    pub(crate) fn next_piece(&self) -> Option<Piece> {
        self.pieces.lock().pop_front()
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, SnapshotTotals> {
        self.totals.lock()
    }
}

/// Takes and publishes a snapshot; `active` is the epoch under which the gateway holds the slot.
pub(super) async fn take_snapshot(
    gateway: &Gateway,
    table: &ConfiguredTable,
    snapshot_id: &str,
    active: watch::Receiver<Option<Epoch>>,
) -> Result<(), SessionError> {
    let token = &table.token;
    let interrupted = || SessionError::Task("the gateway does not hold the slot".to_owned());
    let epoch = (*active.borrow()).ok_or_else(interrupted)?;
    tracing::info!(table = %token, snapshot_id, "snapshot begins");
    let cdc_sequence = gateway.streams.last_change_sequence().await?;
    let postgres = &gateway.config.postgres;
    let mut catalog = Catalog::connect(postgres).await?;
    let waiting = |waiting: &SnapshotWait| {
        tracing::warn!(table = %token, snapshot_id, "{waiting}");
    };
    let (found, exported) = loop {
        let found = catalog.load_current(&table.name, token.clone(), Lsn(0)).await?;
        let exported = ExportedSnapshot::take(postgres, &found.0, waiting).await?;
        // The table may have been altered before the lock was held. The snapshot shows that shape,
        // and consumers skip the earlier changes. Rows read by the older shape would lose a column.
        let now = exported.load_table(&table.name).await?;
        if now.is_some_and(|now| now.same_shape(&found.1)) {
            break (found, exported);
        }
    };
    let estimated_rows = found.1.estimated_rows;
    let job = Arc::new(open_job(gateway, found, &exported, snapshot_id).await?);
    let start = build_start(&job, &exported, epoch, cdc_sequence, estimated_rows);
    let started =
        publish_message(gateway, subjects::init_start(token), &start, snapshot_id).await?;

    let ended = run_workers(&job, start, active, started, exported).await;
    ended.map_err(|error| mark_if_replaced(error, &job.gate, &gateway.gate(token)))
}

/// A guest that fails suspends its table. If it was replaced since the snapshot began, its failure
/// only ends the snapshot.
fn mark_if_replaced(error: SessionError, through: &Gate, live: &Gate) -> SessionError {
    match error {
        SessionError::Guest(_) | SessionError::Outlet(_) if !through.is_same(live) => {
            SessionError::Replaced(error.into())
        }
        error => error,
    }
}

async fn open_job(
    gateway: &Gateway,
    (table, info): (TableVersion, TableInfo),
    exported: &ExportedSnapshot,
    snapshot_id: &str,
) -> Result<SnapshotJob, SessionError> {
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
        opened.map_err(|error| mark_if_replaced(error.into(), &gate, &gateway.gate(&token)))?;
    let has_default = |attnum| info.may_backfill(attnum);
    let lsn = exported.watermark;
    let due = Due { lsn, on_guest_change: config.guest.on_change, has_default };
    let schema = outlet.output().schema.clone();
    let schema = schema_registry::register(&gateway.schemas, &lock, schema, due).await?;
    drop(lock);
    let outlet = outlet.with_schema(schema);
    let row_filter = exported.load_row_filter(table.relid).await?;
    let pieces = exported.load_pieces(&table, gateway.config.snapshot.workers).await?;
    Ok(SnapshotJob {
        gateway: gateway.clone(),
        snapshot_id: snapshot_id.to_owned(),
        dictionary: gateway
            .live_dictionaries
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
        publishing: Arc::new(Semaphore::new(max_chunks_in_flight(gateway))),
    })
}

fn build_start(
    job: &SnapshotJob,
    exported: &ExportedSnapshot,
    epoch: Epoch,
    cdc_sequence: u64,
    estimated_rows: u64,
) -> InitStart {
    let schema = job.schema();
    let dictionary = job.dictionary.as_deref();
    InitStart {
        v: PROTOCOL_VERSION,
        table: schema.table.clone(),
        snapshot_id: job.snapshot_id.clone(),
        lsn: exported.watermark,
        epoch,
        compression_enabled: job.gateway.config.compression.enabled,
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
async fn publish_message<T: serde::Serialize>(
    gateway: &Gateway,
    subject: String,
    message: &T,
    id: &str,
) -> Result<u64, SessionError> {
    let body = to_msgpack(message).map_err(|e| SessionError::Task(e.to_string()))?;
    let mut headers = Headers::new();
    headers.insert(MSG_ID, format!("{subject}/{id}"));
    let message = Outgoing { subject, headers, body: body.into(), confirms: None };
    Ok(gateway.streams.publisher().publish_acknowledged(message).await?)
}

async fn run_workers(
    job: &Arc<SnapshotJob>,
    start: InitStart,
    mut active: watch::Receiver<Option<Epoch>>,
    started: u64,
    exported: ExportedSnapshot,
) -> Result<(), SessionError> {
    let pieces = job.pieces.lock().len();
    let workers = job.gateway.config.snapshot.workers.min(pieces).max(1);
    let mut running = JoinSet::new();
    let first = CopyWorker::new(Arc::clone(job));
    running.spawn(async move { first.run(exported.into_reader()).await.map(Some) });
    for _ in 1..workers {
        let job = Arc::clone(job);
        running.spawn(async move {
            match job.open_reader().await? {
                Some(reader) => CopyWorker::new(job).run(reader).await.map(Some),
                None => Ok(None),
            }
        });
    }
    let copied = join_workers(job, &mut running).await;
    if copied.is_err() {
        running.shutdown().await;
        // No chunk may arrive after the purge.
        let _ = job.publishing.acquire_many(max_chunks_in_flight(&job.gateway) as u32).await;
    }
    copied?;
    let gateway = &job.gateway;
    let again = tokio::time::timeout(SLOT_HELD_AGAIN, active.wait_for(Option::is_some)).await;
    let epoch = again.ok().and_then(|active| *active.ok()?);
    if epoch != Some(start.epoch) {
        let reason =
            "the gateway began a new epoch meanwhile, the snapshot no longer fits the stream";
        return Err(SessionError::Task(reason.to_owned()));
    }
    let meta = build_meta(job, start);
    publish_message(gateway, subjects::init_meta(&job.token), &meta, &job.snapshot_id).await?;
    tracing::info!(table = %job.token, snapshot_id = job.snapshot_id, rows = meta.row_count,
        chunks = meta.batch_count, raw_bytes = meta.raw_bytes, bytes = meta.bytes, "snapshot complete");
    gateway.streams.purge_superseded(&job.token, started).await;
    Ok(())
}

fn max_chunks_in_flight(gateway: &Gateway) -> usize {
    gateway.config.snapshot.workers * CHUNKS_IN_FLIGHT_MAX
}

async fn join_workers(
    job: &SnapshotJob,
    running: &mut JoinSet<Result<Option<SnapshotReader>, SessionError>>,
) -> Result<(), SessionError> {
    // The exporting connection must live until the others have imported its snapshot.
    let mut readers = vec![];
    while let Some(ended) = running.join_next().await {
        match ended.map_err(|e| SessionError::Task(format!("a snapshot worker ended: {e}")))?? {
            Some(reader) => readers.push(reader),
            None => {
                tracing::info!(table = %job.token, "snapshot uses fewer connections: another session waits to lock the table")
            }
        }
    }
    Ok(())
}

fn build_meta(job: &SnapshotJob, start: InitStart) -> InitMeta {
    let totals = job.totals();
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

impl SnapshotJob {
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

    /// Another connection that sees the snapshot; `None` if another session waits for a lock on the
    /// table.
    async fn open_reader(&self) -> Result<Option<SnapshotReader>, SessionError> {
        let postgres = &self.gateway.config.postgres;
        Ok(SnapshotReader::open(postgres, &self.exported, &self.table).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guest::GuestFailure, policy::Action};

    /// The policy for a failed guest, by the snapshot's gate and the live gate.
    fn action_for(through: &Gate, live: &Gate) -> Action {
        let failure = GuestFailure::OtherTable { table: "public.t".to_owned() };
        crate::policy::action(&mark_if_replaced(failure.into(), through, live))
    }

    #[test]
    fn a_replaced_guest_suspends_no_table() {
        let (gone, none) = (Gate::Shut("gone".into()), Gate::Open);
        assert_eq!(action_for(&none, &none), Action::Quarantine);
        assert_eq!(action_for(&gone, &Gate::Shut("gone".into())), Action::Quarantine);
        assert_eq!(action_for(&none, &gone), Action::Retry);
        let lost = SessionError::Task("of another cause".to_owned());
        assert!(matches!(mark_if_replaced(lost, &none, &gone), SessionError::Task(_)));
    }
}
