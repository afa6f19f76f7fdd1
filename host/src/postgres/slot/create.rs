//! Creating what the preflight found missing.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, error::SqlState};

use crate::postgres::slot::{Preflight, SlotState, slot_state};
use crate::postgres::{PostgresError, catalog, endpoint::Endpoint};

/// How often it is said who keeps a slot from being created.
const BLOCKERS_EVERY: Duration = Duration::from_secs(5);
const FAILOVER_SINCE: i32 = 170_000;

/// Runs what the preflight planned. A second gateway may have been faster: then there is nothing left to do.
pub async fn ensure_publication(
    client: &Client,
    preflight: &Preflight,
) -> Result<(), PostgresError> {
    for sql in &preflight.publication_sql {
        match client.batch_execute(sql).await {
            Ok(()) => tracing::info!(%sql, "publication changed"),
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            Err(source) => {
                return Err(PostgresError::Sql { what: "create or alter the publication", source });
            }
        }
    }
    Ok(())
}

/// The slot, created if it does not exist; never on a standby, where it would have no place in the primary's
/// history. Creation waits for every running transaction of the database;
/// `blocked` is told every few seconds by whom.
pub async fn ensure_slot(
    endpoint: &Endpoint,
    client: &Client,
    slot: &str,
    server_version: i32,
    blocked: impl Fn(&str),
) -> Result<SlotState, PostgresError> {
    if in_recovery(client).await? {
        return Err(PostgresError::Standby);
    }
    if let Some(state) = slot_state(client, slot).await? {
        return Ok(state);
    }
    let created = create_slot(endpoint, client, slot, server_version, blocked).await?;
    match slot_state(client, slot).await? {
        Some(state) => Ok(SlotState { created, ..state }),
        None => Err(PostgresError::Config(format!(
            "replication slot \"{slot}\" was dropped while it was being created"
        ))),
    }
}

async fn in_recovery(client: &Client) -> Result<bool, PostgresError> {
    let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    Ok(row.map_err(PostgresError::query("see whether the server is a standby"))?.get(0))
}

/// False if somebody else created it in the meantime.
async fn create_slot(
    endpoint: &Endpoint,
    client: &Client,
    slot: &str,
    server_version: i32,
    blocked: impl Fn(&str),
) -> Result<bool, PostgresError> {
    let failover = if server_version >= FAILOVER_SINCE { ", failover => true" } else { "" };
    let sql = format!(
        "SELECT FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput'{failover})"
    );
    let pid: i32 = client
        .query_one("SELECT pg_catalog.pg_backend_pid()", &[])
        .await
        .map_err(PostgresError::query("create the replication slot"))?
        .get(0);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&slot];
    let creating = client.query(&sql, &params);
    tokio::pin!(creating);
    let mut ticks = interval(BLOCKERS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let created = loop {
        tokio::select! {
            biased; // the result before the report of who is in its way
            result = &mut creating => break result,
            _ = ticks.tick() => match blockers(endpoint, pid).await {
                Ok(who) => blocked(&who),
                Err(error) => tracing::debug!(%error, "cannot tell who blocks the creation of the slot"),
            },
        }
    };
    match created {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(false),
        Err(source) => Err(PostgresError::Sql { what: "create the replication slot", source }),
    }
}

/// Who keeps the backend `pid` waiting, in words.
async fn blockers(endpoint: &Endpoint, pid: i32) -> Result<String, PostgresError> {
    let client = catalog::connect(endpoint).await?;
    let rows = client
        .query(BLOCKERS_SQL, &[&pid])
        .await
        .map_err(PostgresError::query("see who blocks the creation of the slot"))?;
    let who: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(if who.is_empty() { "a transaction that is still running".into() } else { who.join("; ") })
}

const BLOCKERS_SQL: &str = "
SELECT pg_catalog.format('process %s of user %s (%s, %s), transaction open for %s s', a.pid, a.usename, a.application_name, a.state,
         extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::int8)
FROM unnest(pg_catalog.pg_blocking_pids($1)) b(pid) JOIN pg_catalog.pg_stat_activity a USING (pid)
UNION ALL
SELECT pg_catalog.format('prepared transaction %L of %s: COMMIT PREPARED or ROLLBACK PREPARED it', p.gid, p.owner)
FROM pg_catalog.pg_prepared_xacts p WHERE 0 = ANY(pg_catalog.pg_blocking_pids($1))";
