//! The schema revisions of the configured tables: when a new one is due, and what state it is in.
//!
//! A revision is stored in KV before the first row that names it leaves. Where shapes come from (the stream, the
//! catalog) is not known here.

use walgate_wire::{Identity, Lsn, Schema, TableState, Token};

use crate::{
    config::{OnGuestChange, Table},
    context::{Changing, Gateway, Stopped},
    egress::outlet::Outlet,
    error::SessionError,
    jetstream::kv::{KvError, Schemas},
    policy::{Action, action},
    postgres::catalog::{Catalog, SchemaChange, schema_change},
};

/// What decides the state of a new revision.
pub struct Due<F> {
    /// From where on the shape holds.
    pub lsn: Lsn,
    pub on_guest_change: OnGuestChange,
    /// Whether rows that exist already may have a value in the column with this attnum that the stream will
    /// never mention.
    pub has_default: F,
}

/// Makes sure that the latest revision of the table has the shape of `seen`, and returns it. A table that was
/// suspended flows again: whoever keeps it from flowing does not come here.
pub async fn register(
    store: &Schemas,
    _: &Changing<'_>,
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
    // A copy that had to be loaded again before this revision still has to be, also where the stream lags behind.
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

/// Registers the table as the catalog shows it now, through its guest.
pub async fn publish(
    gateway: &Gateway,
    changing: &Changing<'_>,
    catalog: &mut Catalog,
    table: &Table,
) -> Result<Schema, SessionError> {
    let lsn = catalog.later_lsn().await?;
    let (input, info) = catalog.current(&table.name, table.token.clone(), lsn).await?;
    let gate = gateway.assets.gate(&table.token);
    let outlet = tokio::task::block_in_place(|| Outlet::open(&gate, table, input))?;
    let has_default = |attnum| info.fills(attnum);
    let due = Due { lsn, on_guest_change: table.guest.on_change, has_default };
    let schema = outlet.output().schema.clone();
    let schema = register(&gateway.schemas, changing, schema, due).await?;
    gateway.status.table(&table.token).flows(schema.guest.as_ref());
    Ok(schema)
}

/// The same; a table that cannot leave as it is now is suspended instead.
pub async fn publish_or_suspend(
    gateway: &Gateway,
    catalog: &mut Catalog,
    table: &Table,
) -> Result<(), SessionError> {
    let changing = gateway.changing().await;
    match publish(gateway, &changing, catalog, table).await {
        Err(error) if action(&error) == Action::Quarantine => {
            Ok(stop(gateway, &changing, table, Stopped::Failed, &Reason::from(&error)).await?)
        }
        published => published.map(|_| ()),
    }
}

/// Why a table does not flow.
pub struct Reason {
    /// For those who run the gateway.
    pub known: String,
    /// For consumers.
    pub told: String,
}

impl From<&str> for Reason {
    fn from(reason: &str) -> Reason {
        Reason { known: reason.to_owned(), told: reason.to_owned() }
    }
}

impl From<&SessionError> for Reason {
    fn from(error: &SessionError) -> Reason {
        Reason { known: error.to_string(), told: error.told() }
    }
}

/// The table does not flow from here on; the others go on. Where that cannot be stored it goes on itself, for rows
/// that are left out without a word would be missed by nobody.
pub async fn stop(
    gateway: &Gateway,
    _: &Changing<'_>,
    table: &Table,
    why: Stopped,
    reason: &Reason,
) -> Result<(), KvError> {
    let again = match why {
        Stopped::Failed => {
            "Once this is mended (by altering the table, by a new guest in its folder, or otherwise and a restart of the gateway)"
        }
        Stopped::Absent => "Once it is there again and published",
        Stopped::Busy => "Once nobody locks it any more",
        Stopped::Shed => "Once the slot holds back less",
    };
    let Reason { known, told } = reason;
    let told = format!("{told}. {again} the table flows again and copies are loaded again");
    suspend(&gateway.schemas, table, told).await?;
    tracing::error!(table = %table.token, reason = known, "table suspended; the other tables go on");
    gateway.stop(&table.token, why);
    gateway.status.table(&table.token).stops(known);
    Ok(())
}

/// Tells consumers that copies whose watermark is below `lsn` have to be loaded again.
pub async fn reseed(store: &Schemas, token: &Token, lsn: Lsn, reason: &str) -> Result<(), KvError> {
    let Some(latest) = store.latest(token).await? else { return Ok(()) };
    // Once such a table flows again its copies are loaded again in any case.
    if matches!(latest.state, TableState::Suspended | TableState::Dropped) {
        return Ok(());
    }
    tracing::warn!(table = %token, %lsn, reason, "copies have to be loaded again");
    let state = TableState::Reseed;
    store.put(&Schema { state, lsn, reason: Some(reason.to_owned()), ..latest }).await.map(|_| ())
}

/// Tells consumers that the table does not flow for now. Of one that never did nothing else is told.
async fn suspend(store: &Schemas, table: &Table, reason: String) -> Result<(), KvError> {
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
