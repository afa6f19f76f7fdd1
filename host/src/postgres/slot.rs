//! Slot and publication. The gateway checks everything before it changes anything, and it changes
//! them by SQL that an operator could run.
//!
//! A lost slot is reported and never replaced silently. What follows for streams and copies is not
//! decided here.

mod checks;
mod create;
mod publication;

pub use checks::{Preflight, PreflightRequest, run_preflight};
pub use create::{ensure_publication, ensure_slot};
pub use publication::{GENERATED_SQL, PUBLISH_GENERATED_SINCE, create_publication_sql};

use tokio_postgres::Client;
use walgate_wire::Lsn;

use crate::postgres::{PostgresError, catalog::Catalog};

/// A slot as `pg_replication_slots` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Whether the call that returned this created the slot.
    pub created: bool,
    pub confirmed_flush: Lsn,
    /// `reserved`, `extended`, `unreserved` (about to be lost) or `lost`.
    pub wal_status: String,
    /// Process that is streaming from it.
    pub active_pid: Option<i32>,
    /// End of the server's WAL at the time of the query. If it is below `confirmed_flush`, the
    /// server was restored to an earlier point.
    pub server_lsn: Lsn,
    /// WAL that the slot retains, bytes.
    pub retained_bytes: u64,
    /// WAL that may be added before the server invalidates the slot, bytes. `None`: no limit.
    pub room_bytes: Option<u64>,
}

/// The slot if it exists. An error if the gateway cannot use it, or if it has lost its place.
pub async fn read_slot(catalog: &Catalog, slot: &str) -> Result<Option<SlotState>, PostgresError> {
    query_slot(catalog.client(), slot).await
}

async fn query_slot(client: &Client, slot: &str) -> Result<Option<SlotState>, PostgresError> {
    let row = client
        .query_opt(SLOT_SQL, &[&slot])
        .await
        .map_err(PostgresError::query("read the replication slot"))?;
    let Some(row) = row else { return Ok(None) };
    let plugin: Option<String> = row.get(0);
    let database: Option<String> = row.get(1);
    if plugin.as_deref() != Some("pgoutput") || !row.get::<_, bool>(2) {
        return Err(PostgresError::Config(format!(
            "replication slot \"{slot}\" exists, but is not a pgoutput slot of this database (plugin {}, database {}): \
             choose another [postgres] slot",
            plugin.as_deref().unwrap_or("none"),
            database.as_deref().unwrap_or("none"),
        )));
    }
    let lsn = |index: usize| {
        row.get::<_, Option<String>>(index).and_then(|text| text.parse::<Lsn>().ok())
    };
    let state = SlotState {
        created: false,
        confirmed_flush: lsn(3).unwrap_or_default(),
        wal_status: row.get::<_, Option<String>>(4).unwrap_or_default(),
        active_pid: row.get(5),
        server_lsn: lsn(7).unwrap_or_default(),
        retained_bytes: row.get::<_, Option<i64>>(8).unwrap_or(0).max(0) as u64,
        room_bytes: row.get::<_, Option<i64>>(9).map(|room| room.max(0) as u64),
    };
    let invalidated: Option<String> = row.get(6);
    if invalidated.is_none() && state.wal_status != "lost" && lsn(3).is_none() {
        let by = state.active_pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
        return Err(PostgresError::SlotNotReady {
            slot: slot.to_owned(),
            reason: format!("it is being created{by}, which waits for older transactions to end"),
        });
    }
    if invalidated.is_some() || state.wal_status == "lost" {
        return Err(PostgresError::SlotLost {
            slot: slot.to_owned(),
            reason: invalidated
                .unwrap_or_else(|| "its WAL was removed: max_slot_wal_keep_size".into()),
            confirmed: state.confirmed_flush,
        });
    }
    Ok(Some(state))
}

/// Columns that only newer versions have are reached through `to_jsonb`.
const SLOT_SQL: &str = "
SELECT s.plugin::text, s.database::text,
       s.slot_type = 'logical' AND s.database = pg_catalog.current_database() AND NOT s.temporary,
       s.confirmed_flush_lsn::text, s.wal_status, s.active_pid,
       coalesce(nullif(pg_catalog.to_jsonb(s)->>'invalidation_reason', ''),
                CASE WHEN pg_catalog.to_jsonb(s)->>'conflicting' = 'true' THEN 'it conflicted with recovery' END),
       w.lsn::text, (w.lsn - s.restart_lsn)::int8, s.safe_wal_size
FROM pg_catalog.pg_replication_slots s,
     (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_insert_lsn() END) w(lsn)
WHERE s.slot_name = $1";
