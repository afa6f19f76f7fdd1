//! The schema revisions of the configured tables: when a new one is due, and what state it is in.
//!
//! A revision is stored in KV before the first row that names it leaves. Where shapes come from (the stream, the
//! catalog) is not known here.

use walgate_wire::{Lsn, Schema, TableState, Token};

use crate::{
    kv::{KvError, Schemas},
    source::catalog::{SchemaChange, schema_change},
};

/// Makes sure that the latest revision of the table has the shape of `seen`, which holds from `lsn` on, and
/// returns it. `has_default`: whether rows that exist already may have a value in the column with this
/// attnum that the stream will never mention.
pub async fn register(
    store: &Schemas,
    seen: Schema,
    lsn: Lsn,
    has_default: impl Fn(i16) -> bool,
) -> Result<Schema, KvError> {
    let Some(latest) = store.latest(&seen.token).await? else {
        tracing::info!(table = %seen.table, token = %seen.token, "schema published");
        return store.put(&Schema { state: TableState::Live, lsn, reason: None, ..seen }).await;
    };
    let change = schema_change(&latest, &seen, has_default);
    let (state, reason) = match change {
        // What happened to its rows meanwhile was not published.
        _ if latest.state == TableState::Dropped => {
            (TableState::Reseed, Some("the table was not offered for a while".to_owned()))
        }
        SchemaChange::Same => return Ok(latest),
        SchemaChange::Compatible => (TableState::Live, None),
        SchemaChange::NeedsReseed(reason) => (TableState::Reseed, Some(reason)),
    };
    // A copy that had to be loaded again before this revision still has to be.
    let (state, lsn, reason) = match latest.state {
        TableState::Reseed if state == TableState::Live => {
            (latest.state, latest.lsn, latest.reason)
        }
        TableState::Suspended => (latest.state, latest.lsn, latest.reason),
        _ => (state, lsn, reason),
    };
    tracing::info!(table = %seen.table, ?state, reason, "schema changed");
    let revision = latest.revision;
    store.put(&Schema { state, lsn, reason, revision, ..seen }).await
}

/// Tells consumers that copies whose watermark is below `lsn` have to be loaded again.
pub async fn reseed(store: &Schemas, token: &Token, lsn: Lsn, reason: &str) -> Result<(), KvError> {
    let Some(latest) = store.latest(token).await? else { return Ok(()) };
    tracing::warn!(table = %token, %lsn, reason, "copies have to be loaded again");
    let state = TableState::Reseed;
    store.put(&Schema { state, lsn, reason: Some(reason.to_owned()), ..latest }).await.map(|_| ())
}

/// Tells consumers that the table does not flow for now.
pub async fn suspend(store: &Schemas, token: &Token, reason: &str) -> Result<(), KvError> {
    let Some(latest) = store.latest(token).await? else { return Ok(()) };
    let reason =
        Some(format!("{reason}. Mend this and restart the gateway; copies are then loaded again"));
    store.put(&Schema { state: TableState::Suspended, reason, ..latest }).await.map(|_| ())
}

/// Tells consumers that the table is not offered any more.
pub async fn retire(store: &Schemas, token: &Token, reason: &str) -> Result<(), KvError> {
    match store.latest(token).await? {
        Some(latest) if latest.state != TableState::Dropped => {
            tracing::info!(table = %token, reason, "table is not offered any more");
            let reason = Some(reason.to_owned());
            store.put(&Schema { state: TableState::Dropped, reason, ..latest }).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

/// At the start of the process: what an earlier one suspended flows again, from `lsn` on.
pub async fn resume_suspended(store: &Schemas, token: &Token, lsn: Lsn) -> Result<(), KvError> {
    match store.latest(token).await? {
        Some(schema) if schema.state == TableState::Suspended => {
            reseed(store, token, lsn, "the table was suspended and flows again").await
        }
        _ => Ok(()),
    }
}
