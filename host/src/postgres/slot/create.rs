//! Creates what the preflight found missing. What else is wrong is not known here.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, error::SqlState};

use super::{Preflight, SlotState, query_slot};
use crate::postgres::{
    PostgresError,
    catalog::{Catalog, connect_endpoint},
    endpoint::Endpoint,
};

/// How often the gateway reports which sessions delay the creation of a slot.
const BLOCKERS_EVERY: Duration = Duration::from_secs(5);
const FAILOVER_SINCE: i32 = 170_000;

/// Runs the statements of the preflight. If another gateway was faster, nothing is left to do.
pub async fn ensure_publication(
    catalog: &Catalog,
    preflight: &Preflight,
) -> Result<(), PostgresError> {
    let client = catalog.client();
    for sql in &preflight.publication_sql {
        match client.batch_execute(sql).await {
            Ok(()) => tracing::info!(%sql, "publication created or altered"),
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            Err(source) => {
                return Err(PostgresError::Sql { what: "create or alter the publication", source });
            }
        }
    }
    Ok(())
}

/// The slot, created if it does not exist. On a standby it is not created, because it would have no
/// place in the primary's history. Creation waits for every running transaction of the database;
/// every few seconds `blocked` receives a description of them.
pub async fn ensure_slot(
    endpoint: &Endpoint,
    catalog: &Catalog,
    slot: &str,
    server_version: i32,
    blocked: impl Fn(&str),
) -> Result<SlotState, PostgresError> {
    let client = catalog.client();
    if is_in_recovery(client).await? {
        return Err(PostgresError::Standby);
    }
    if let Some(state) = query_slot(client, slot).await? {
        return Ok(state);
    }
    let created = create_slot(endpoint, client, slot, server_version, blocked).await?;
    match query_slot(client, slot).await? {
        Some(state) => Ok(SlotState { created, ..state }),
        None => Err(PostgresError::Config(format!(
            "replication slot \"{slot}\" was dropped while it was being created"
        ))),
    }
}

async fn is_in_recovery(client: &Client) -> Result<bool, PostgresError> {
    let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    Ok(row.map_err(PostgresError::query("see whether the server is a standby"))?.get(0))
}

/// False if another gateway created it in the meantime.
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
            biased; // the result before the report of what delays it
            result = &mut creating => break result,
            _ = ticks.tick() => match describe_blockers(endpoint, pid).await {
                Ok(who) => blocked(&who),
                Err(error) => tracing::debug!(%error, "sessions that block the creation of the slot are unknown"),
            },
        }
    };
    match created {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(false),
        Err(source) => Err(PostgresError::Sql { what: "create the replication slot", source }),
    }
}

/// The sessions that the backend `pid` waits for, as text.
async fn describe_blockers(endpoint: &Endpoint, pid: i32) -> Result<String, PostgresError> {
    let client = connect_endpoint(endpoint).await?;
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
