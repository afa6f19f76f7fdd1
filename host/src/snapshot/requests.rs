//! Snapshot requests: which are served, one snapshot at a time for each table.
//!
//! The stream `REQUESTS` holds at most one request a table, until its snapshot ends (at most one
//! day). The stream rejects duplicates, so a stampede becomes one snapshot. It also rejects
//! requests for unknown tables. Each table has a cooldown, which bounds the cost of endless
//! requests. How a snapshot is taken is not known here.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
};
use walgate_wire::{Epoch, InitError, Token, subjects, to_msgpack};

use crate::{
    config::ConfiguredTable,
    context::Gateway,
    egress::outlet::Gate,
    error::SessionError,
    jetstream::{
        publisher::{Headers, Outgoing},
        requests::RequestListener,
        streams::JetStreamError,
    },
    policy::{Action, action},
    schema_registry,
    snapshot::job,
    tables::{SuspendReason, TableEvent},
};

/// The delay that consumers are asked for after a snapshot that failed for a transient reason.
const RETRY_AFTER_SECONDS: u64 = 5;

/// When each table's last snapshot ended; locked while one is taken.
type SnapshotLocks = HashMap<Token, Arc<Mutex<Option<Instant>>>>;

/// Serves requests while this gateway holds the slot; never ends, drop it to stop.
pub async fn serve(gateway: Gateway, active: watch::Receiver<Option<Epoch>>) {
    let concurrent = Arc::new(Semaphore::new(gateway.config.snapshot.max_concurrent));
    let mut running = JoinSet::new();
    let tokens = gateway.config.tables.iter().map(|table| table.token.clone());
    let locks: SnapshotLocks = tokens.map(|token| (token, Arc::default())).collect();
    loop {
        let mut now_active = active.clone();
        if now_active.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let ended = serve_requests(&gateway, &active, &concurrent, &locks, &mut running).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "listening for snapshot requests failed, retrying");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn serve_requests(
    gateway: &Gateway,
    active: &watch::Receiver<Option<Epoch>>,
    concurrent: &Arc<Semaphore>,
    locks: &SnapshotLocks,
    running: &mut JoinSet<()>,
) -> Result<(), JetStreamError> {
    while running.try_join_next().is_some() {}
    let redeliver = running.is_empty();
    let tables = &gateway.config.tables;
    let mut requests = RequestListener::open(&gateway.streams, tables, redeliver).await?;
    let mut lost = active.clone();
    loop {
        let request = tokio::select! {
            biased;
            _ = lost.wait_for(Option::is_none) => return Ok(()),
            Some(_) = running.join_next() => continue,
            request = requests.next() => request,
        };
        let Some(request) = request else { return Ok(()) };
        let request = request?;
        let token = request.token();
        let Some(table) = token.and_then(|token| gateway.table_by_token(&token)) else {
            request.reject().await;
            continue;
        };
        let task =
            SnapshotTask { gateway: gateway.clone(), table: table.clone(), active: active.clone() };
        let concurrent = Arc::clone(concurrent);
        let lock = locks.get(&table.token).map(Arc::clone).unwrap_or_default();
        running.spawn(async move {
            request.extend_during(Box::pin(task.run_exclusive(&lock, &concurrent))).await;
            if let Err(error) = request.acknowledge().await {
                tracing::warn!(%error, "snapshot request not removed from its stream");
            }
        });
    }
}

/// Publishes to consumers that a snapshot failed.
async fn publish_failure(gateway: &Gateway, token: &Token, error: InitError) {
    let body = match to_msgpack(&error) {
        Ok(body) => body.into(),
        Err(error) => return tracing::error!(%error, "init.error cannot be encoded"),
    };
    let message = Outgoing {
        subject: subjects::init_error(token),
        headers: Headers::new(),
        body,
        confirms: None,
    };
    if let Err(error) = gateway.streams.publisher().publish_acknowledged(message).await {
        tracing::warn!(%error, "snapshot failure not published");
    }
}

/// One snapshot that was requested.
struct SnapshotTask {
    gateway: Gateway,
    table: ConfiguredTable,
    active: watch::Receiver<Option<Epoch>>,
}

impl SnapshotTask {
    /// One at a time for the table, after its cooldown, within the limit of concurrent snapshots.
    async fn run_exclusive(&self, lock: &Mutex<Option<Instant>>, concurrent: &Semaphore) {
        let mut ended = lock.lock().await;
        if let Some(ended) = *ended {
            tokio::time::sleep_until((ended + self.gateway.config.snapshot.cooldown).into()).await;
        }
        let _permit = concurrent.acquire().await;
        self.run().await;
        *ended = Some(Instant::now());
    }

    async fn run(&self) {
        let token = &self.table.token;
        let snapshot_id = job::new_snapshot_id();
        let before = self.gateway.gate(token);
        let result =
            job::take_snapshot(&self.gateway, &self.table, &snapshot_id, self.active.clone()).await;
        let Err(error) = result else { return };
        tracing::error!(table = %token, snapshot_id, %error, "snapshot failed");
        // Other errors in rows fail only the snapshot: consumers that have a copy continue.
        if matches!(error, SessionError::Guest(_) | SessionError::Outlet(_)) {
            self.suspend_table(&before, &error).await;
        }
        self.gateway.streams.purge_snapshot(token, &snapshot_id).await;
        let retry_after = (action(&error) == Action::Retry).then_some(RETRY_AFTER_SECONDS);
        let failure = InitError {
            table: self.table.name.to_string(),
            snapshot_id: Some(snapshot_id),
            code: error_code(&error).to_owned(),
            message: error.told(),
            retry_after,
        };
        publish_failure(&self.gateway, token, failure).await;
    }

    /// Suspends the table, unless the guest that failed was replaced meanwhile.
    async fn suspend_table(&self, before: &Gate, error: &SessionError) {
        let (gateway, token) = (&self.gateway, &self.table.token);
        let lock = gateway.lock_tables().await;
        let (gate, reason) = (before.clone(), SuspendReason::from(error));
        let event = TableEvent::SnapshotFailed { token: token.clone(), gate, reason };
        let suspended = schema_registry::suspend_table(gateway, &lock, &self.table, event).await;
        if let Err(error) = suspended {
            tracing::warn!(table = %token, %error, "table not suspended; its next snapshot tries again");
        }
    }
}

fn error_code(error: &SessionError) -> &'static str {
    match error {
        SessionError::Source(_) => "source_failed",
        SessionError::Body(_) => "row_not_carried",
        SessionError::Suspended { .. } | SessionError::Outlet(_) => "table_suspended",
        SessionError::Guest(_) => "guest_failed",
        SessionError::JetStream(_)
        | SessionError::Kv(_)
        | SessionError::Chain(_)
        | SessionError::PublishFailed(_) => "stream_failed",
        SessionError::Replaced(_) | SessionError::Task(_) => "interrupted",
    }
}
