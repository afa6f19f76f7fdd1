//! What every part of the running gateway shares: configuration, connections, live assets, counters.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use walgate_wire::{TableName, Token};

use crate::{
    assets::registry::Assets,
    cdc::ddl_watch::Looks,
    config::{Config, Table},
    jetstream::{
        kv::{Dictionaries, Schemas},
        streams::Streams,
    },
    observe::status::Status,
    wal_budget::Relief,
};

/// Made once by `run`; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Shared>);

#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub streams: Streams,
    pub schemas: Schemas,
    pub dictionaries: Dictionaries,
    pub assets: Assets,
    pub status: Status,
    /// From the WAL that the slot holds back.
    pub relief: Relief,
    /// Of Postgres, as `server_version_num`.
    pub server_version: i32,
    stopped: Mutex<HashMap<Token, Stopped>>,
    changing: tokio::sync::Mutex<()>,
    /// For the session that there is.
    pub looks: tokio::sync::Mutex<Looks>,
}

/// The right to change what consumers are told of tables. Between looking at a table's guest, and at whether it flows,
/// and storing what follows from that, nobody else does the same.
#[derive(Debug)]
pub struct Changing<'a>(#[expect(dead_code, reason = "held")] tokio::sync::MutexGuard<'a, ()>);

/// Why a table does not flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Something about it, or its guest, has to be mended.
    Failed,
    /// The source has it no more, or does not publish it.
    Absent,
    /// Somebody has locked it, and its guest needs values that only the table has. It comes back by itself.
    Busy,
    /// To hold back less WAL. It comes back by itself.
    Shed,
}

impl std::ops::Deref for Gateway {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Gateway {
    pub fn new(
        config: Config,
        streams: Streams,
        assets: Assets,
        status: Status,
        server_version: i32,
    ) -> Self {
        let (schemas, dictionaries) = (Schemas::new(&streams), Dictionaries::new(&streams));
        let (relief, stopped, changing) = (Relief::default(), Mutex::default(), Default::default());
        Gateway(Arc::new(Shared {
            config,
            streams,
            schemas,
            dictionaries,
            assets,
            status,
            relief,
            server_version,
            stopped,
            changing,
            looks: Default::default(),
        }))
    }

    /// The configured table of this name.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.config.tables.iter().find(|table| table.name == *name)
    }

    pub fn table_by_token(&self, token: &Token) -> Option<&Table> {
        self.config.tables.iter().find(|table| table.token == *token)
    }

    /// Waits until nobody else changes what is said of a table.
    pub async fn changing(&self) -> Changing<'_> {
        Changing(self.changing.lock().await)
    }

    /// From now on the table does not flow, until it is released or the process is restarted.
    pub fn stop(&self, token: &Token, why: Stopped) {
        self.all_stopped().insert(token.clone(), why);
    }

    /// What kept the table from flowing may be gone.
    pub fn release(&self, token: &Token) {
        self.all_stopped().remove(token);
    }

    /// Why the table does not flow; `None`: it flows.
    pub fn stopped(&self, token: &Token) -> Option<Stopped> {
        self.all_stopped().get(token).copied()
    }

    fn all_stopped(&self) -> MutexGuard<'_, HashMap<Token, Stopped>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
