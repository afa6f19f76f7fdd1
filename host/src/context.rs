//! The shared state of the running gateway: configuration, connections, live assets, counters.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use walgate_wire::{TableName, Token};

use crate::{
    config::{Config, ConfiguredTable},
    egress::{live_dictionaries::LiveDictionaries, outlet::Gate},
    jetstream::{
        kv::{Dictionaries, Schemas},
        streams::Streams,
    },
    observe::status::Status,
    postgres::replication::stream::RelationChange,
    tables::{Suspension, TableEffect, TableEvent, TableGate, Tables},
    wal_budget::WalPressure,
};

/// Created once by the supervisor; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<GatewayInner>);

#[derive(Debug)]
pub struct GatewayInner {
    pub config: Config,
    pub streams: Streams,
    pub schemas: Schemas,
    pub dictionaries: Dictionaries,
    pub live_dictionaries: LiveDictionaries,
    pub status: Status,
    /// Of the WAL that the slot retains.
    pub wal_pressure: WalPressure,
    /// Of Postgres, as `server_version_num`.
    pub server_version: i32,
    tables: Mutex<Tables<Gate>>,
    tables_lock: tokio::sync::Mutex<()>,
    /// Changes with every guest that is offered.
    guest_offers: watch::Sender<()>,
}

/// The right to change the state of tables. From an event to the last effect that follows from it,
/// no other task does the same.
#[derive(Debug)]
pub struct TablesLock<'a>(#[expect(dead_code, reason = "held")] tokio::sync::MutexGuard<'a, ()>);

impl TableGate for Gate {
    fn is_same(&self, other: &Gate) -> bool {
        Gate::is_same(self, other)
    }

    fn has_guest(&self) -> bool {
        matches!(self, Gate::Guest(_))
    }

    fn shut_reason(&self) -> Option<&str> {
        match self {
            Gate::Shut(reason) => Some(reason),
            Gate::Open | Gate::Guest(_) => None,
        }
    }
}

impl std::ops::Deref for Gateway {
    type Target = GatewayInner;

    fn deref(&self) -> &GatewayInner {
        &self.0
    }
}

impl Gateway {
    pub fn new(
        config: Config,
        streams: Streams,
        live_dictionaries: LiveDictionaries,
        status: Status,
        server_version: i32,
    ) -> Self {
        let schemas = Schemas::new(&streams);
        let dictionaries = Dictionaries::new(&streams);
        let tables = config.tables.iter().map(|table| (table.token.clone(), table.shed));
        let tables = Mutex::new(Tables::new(tables));
        Gateway(Arc::new(GatewayInner {
            config,
            streams,
            schemas,
            dictionaries,
            live_dictionaries,
            status,
            wal_pressure: WalPressure::default(),
            server_version,
            tables,
            tables_lock: Default::default(),
            guest_offers: Default::default(),
        }))
    }

    /// The configured table of this name.
    pub fn table(&self, name: &TableName) -> Option<&ConfiguredTable> {
        self.config.tables.iter().find(|table| table.name == *name)
    }

    pub fn table_by_token(&self, token: &Token) -> Option<&ConfiguredTable> {
        self.config.tables.iter().find(|table| table.token == *token)
    }

    /// Waits until no other task changes the state of tables.
    pub async fn lock_tables(&self) -> TablesLock<'_> {
        TablesLock(self.tables_lock.lock().await)
    }

    /// Lets the state machine know; the effects have to be carried out under
    /// [`Gateway::lock_tables`].
    pub fn on_table_event(&self, event: TableEvent<Gate>) -> Vec<TableEffect<Gate>> {
        self.tables().on(event)
    }

    /// The folder of guests offers this gate; it becomes live when a transaction has ended.
    pub fn offer_gate(&self, token: &Token, gate: Gate) {
        // An offer has no effects of its own.
        self.on_table_event(TableEvent::GuestOffered { token: token.clone(), gate });
        self.guest_offers.send_replace(());
    }

    /// Changes when [`Gateway::offered_gate`] may have changed.
    pub fn guest_offers(&self) -> watch::Receiver<()> {
        self.guest_offers.subscribe()
    }

    /// What the folder of guests offered last for the table.
    pub fn offered_gate(&self, token: &Token) -> Gate {
        self.tables().offered_gate(token)
    }

    /// How the table's rows are published now, in changes and in snapshots that begin now.
    pub fn gate(&self, token: &Token) -> Gate {
        self.tables().gate(token)
    }

    /// Why the table is suspended; `None` while it streams.
    pub fn suspension(&self, token: &Token) -> Option<Suspension> {
        self.tables().suspension(token).cloned()
    }

    /// Whether rows of this relation may be published as rows of the table.
    pub fn is_open(&self, token: &Token, relid: u32) -> bool {
        self.tables().is_open(token, relid)
    }

    /// The last announcement of a relation that carries the table's rows.
    pub fn announced(&self, token: &Token, relid: u32) -> Option<RelationChange> {
        self.tables().announced(token, relid).cloned()
    }

    fn tables(&self) -> MutexGuard<'_, Tables<Gate>> {
        self.tables.lock()
    }
}
