//! What every part of the running gateway shares: configuration, connections, live assets, counters.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use walgate_wire::{TableName, Token};

use crate::{
    assets::Assets,
    broker::Streams,
    config::{Config, Table},
    kv::Schemas,
    status::Status,
};

/// Made once by `run`; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Shared>);

#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub streams: Streams,
    pub schemas: Schemas,
    pub assets: Assets,
    pub status: Status,
    /// Of Postgres, as `server_version_num`.
    pub server_version: i32,
    quarantined: Mutex<HashSet<Token>>,
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
        let schemas = Schemas::new(&streams);
        let quarantined = Mutex::default();
        Gateway(Arc::new(Shared {
            config,
            streams,
            schemas,
            assets,
            status,
            server_version,
            quarantined,
        }))
    }

    /// The configured table of this name.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.config.tables.iter().find(|table| table.name == *name)
    }

    pub fn table_by_token(&self, token: &Token) -> Option<&Table> {
        self.config.tables.iter().find(|table| table.token == *token)
    }

    /// From now on the table does not flow, until it is released or the process is restarted.
    pub fn quarantine(&self, token: &Token) {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
    }

    /// What kept the table from flowing may be gone.
    pub fn release(&self, token: &Token) {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    pub fn is_quarantined(&self, token: &Token) -> bool {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).contains(token)
    }
}
