//! The schema revisions of the configured tables: when a new one is due, and what state it is in.
//!
//! A revision is stored in KV before the first row that names it is published. Where shapes come
//! from (the stream, the catalog) is not known here.

use walgate_wire::{Identity, Lsn, Schema, TableState, Token};

use crate::{
    config::{ConfiguredTable, OnGuestChange},
    context::{Gateway, TablesLock},
    egress::outlet::{Gate, Outlet},
    error::SessionError,
    jetstream::kv::{KvError, Schemas},
    policy::{Action, action},
    postgres::catalog::{Catalog, SchemaChange, schema_change},
    tables::{SuspendCause, SuspendReason, Suspension, TableEffect, TableEvent},
};

/// What decides the state of a new revision.
pub struct Due<F> {
    /// From where on the shape holds.
    pub lsn: Lsn,
    pub on_guest_change: OnGuestChange,
    /// Whether existing rows may have a value in the column with this attnum that the stream never
    /// mentions.
    pub has_default: F,
}

/// Makes sure that the latest revision of the table has the shape of `seen`, and returns it. The
/// revision of a suspended table becomes live: a table that stays suspended is not registered.
pub async fn register(
    store: &Schemas,
    _: &TablesLock<'_>,
    seen: Schema,
    due: Due<impl Fn(i16) -> bool>,
) -> Result<Schema, KvError> {
    let lsn = due.lsn;
    let Some(latest) = store.latest(&seen.token).await? else {
        tracing::info!(table = %seen.table, token = %seen.token, "schema published");
        return store.put(&Schema { state: TableState::Live, lsn, reason: None, ..seen }).await;
    };
    let reseed = |reason: &str| (TableState::Reseed, Some(reason.to_owned()));
    let guest_changed = latest.guest != seen.guest;
    let (state, reason) = match schema_change(&latest, &seen, due.has_default) {
        // What happened to its rows meanwhile was not published.
        _ if latest.state == TableState::Dropped => reseed("the table was not offered for a while"),
        _ if latest.state == TableState::Suspended => {
            reseed("the table was suspended and flows again")
        }
        SchemaChange::Same => return Ok(latest),
        _ if guest_changed && due.on_guest_change == OnGuestChange::Reseed => {
            reseed("its guest changed")
        }
        SchemaChange::Compatible => (TableState::Live, None),
        SchemaChange::NeedsReseed(reason) => reseed(&reason),
    };
    // A copy that was void before this revision stays void, even if the stream lags behind.
    let (state, lsn, reason) = match latest.state {
        TableState::Reseed if state == TableState::Live => {
            (latest.state, latest.lsn, latest.reason)
        }
        TableState::Reseed => (state, lsn.max(latest.lsn), reason),
        _ => (state, lsn, reason),
    };
    tracing::info!(table = %seen.table, ?state, reason, "schema changed");
    let revision = latest.revision;
    store.put(&Schema { state, lsn, reason, revision, ..seen }).await
}

/// Registers the table as the catalog shows it now, behind the gate.
pub async fn register_current(
    gateway: &Gateway,
    lock: &TablesLock<'_>,
    catalog: &mut Catalog,
    table: &ConfiguredTable,
    gate: &Gate,
) -> Result<Schema, SessionError> {
    let lsn = catalog.later_lsn().await?;
    let (input, info) = catalog.load_current(&table.name, table.token.clone(), lsn).await?;
    let outlet = tokio::task::block_in_place(|| Outlet::open(gate, table, input))?;
    let has_default = |attnum| info.may_backfill(attnum);
    let due = Due { lsn, on_guest_change: table.guest.on_change, has_default };
    let schema = outlet.output().schema.clone();
    let schema = register(&gateway.schemas, lock, schema, due).await?;
    gateway.status.table(&table.token).flows(schema.guest.as_ref());
    Ok(schema)
}

/// Registers the table behind the live gate. A table that cannot be published is suspended instead.
pub async fn register_or_suspend(
    gateway: &Gateway,
    catalog: &mut Catalog,
    table: &ConfiguredTable,
) -> Result<(), SessionError> {
    let lock = gateway.lock_tables().await;
    let token = table.token.clone();
    let gate = gateway.gate(&token);
    match register_current(gateway, &lock, catalog, table, &gate).await {
        Ok(_) => {
            let event = TableEvent::SchemaRegistered { token, gate, types_reread: false };
            // No outlet is open yet, so there is nothing to do about it.
            gateway.on_table_event(event);
            Ok(())
        }
        Err(error) if action(&error) == Action::Quarantine => {
            let reason = SuspendReason::from(&error);
            let suspension = Suspension { cause: SuspendCause::Failed, reason };
            let event = TableEvent::TableFailed { token, suspension, gate: None };
            suspend_table(gateway, &lock, table, event).await
        }
        Err(error) => Err(error),
    }
}

/// Suspends a table from outside a session. The session's outlets stay until it drops them; no row
/// passes them, for the table is not open.
pub async fn suspend_table(
    gateway: &Gateway,
    lock: &TablesLock<'_>,
    table: &ConfiguredTable,
    event: TableEvent<Gate>,
) -> Result<(), SessionError> {
    for effect in gateway.on_table_event(event) {
        if let TableEffect::Suspend { token, suspension, gate } = effect {
            store_suspension(gateway, lock, table, &suspension).await?;
            gateway.on_table_event(TableEvent::SuspensionStored { token, suspension, gate });
        }
    }
    Ok(())
}

impl From<&SessionError> for SuspendReason {
    fn from(error: &SessionError) -> SuspendReason {
        SuspendReason { internal: error.to_string(), public: error.told() }
    }
}

/// Stores for consumers that the table is suspended. If it cannot be stored, the table keeps
/// streaming: silently dropped rows would be undetectable.
pub async fn store_suspension(
    gateway: &Gateway,
    _: &TablesLock<'_>,
    table: &ConfiguredTable,
    Suspension { cause, reason }: &Suspension,
) -> Result<(), KvError> {
    let (public, way_back) = (&reason.public, cause.way_back());
    let public = format!("{public}. {way_back} the table flows again and copies are loaded again");
    suspend(&gateway.schemas, table, public).await?;
    tracing::error!(
        table = %table.token,
        reason = reason.internal,
        "table suspended; the other tables go on"
    );
    gateway.status.table(&table.token).stops(&reason.internal);
    Ok(())
}

/// Stores for consumers that copies whose watermark is below `lsn` have to be loaded again.
pub async fn reseed(store: &Schemas, token: &Token, lsn: Lsn, reason: &str) -> Result<(), KvError> {
    let Some(latest) = store.latest(token).await? else { return Ok(()) };
    // The copies of such a table are loaded again when it returns.
    if matches!(latest.state, TableState::Suspended | TableState::Dropped) {
        return Ok(());
    }
    tracing::warn!(table = %token, %lsn, reason, "copies have to be loaded again");
    let state = TableState::Reseed;
    store.put(&Schema { state, lsn, reason: Some(reason.to_owned()), ..latest }).await.map(|_| ())
}

/// Stores the state `suspended`. A table without a schema gets an empty one.
async fn suspend(store: &Schemas, table: &ConfiguredTable, reason: String) -> Result<(), KvError> {
    let latest = store.latest(&table.token).await?.unwrap_or_else(|| Schema {
        table: table.name.to_string(),
        token: table.token.clone(),
        relid: None,
        revision: 0,
        state: TableState::Suspended,
        columns: vec![],
        key: vec![],
        identity: Identity::Nothing,
        old: vec![],
        guest: None,
        lsn: Lsn(0),
        reason: None,
    });
    let reason = Some(reason);
    if latest.state == TableState::Suspended && latest.reason == reason {
        return Ok(());
    }
    store.put(&Schema { state: TableState::Suspended, reason, ..latest }).await.map(|_| ())
}

/// Stores for consumers that the table is no longer offered.
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
