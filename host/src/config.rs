//! The settings of an operator: read once and validated once. Nothing later reads the environment
//! or parses text.
//!
//! One file per section holds its keys as written, their defaults, the checks and the validated
//! form. `docs/CONFIGURATION.md` is generated from the keys' comments. Whether the servers and
//! tables exist is not known here.

mod compression;
mod env;
mod guests;
mod http;
mod load;
mod nats;
mod paths;
mod postgres;
mod snapshot;
mod tables;

use std::{path::PathBuf, time::Duration};

pub use compression::{CompressionConfig, UseDictionary};
pub use env::{nats_server_program, read_secret_file};
pub use guests::GuestsConfig;
pub use http::HttpConfig;
pub use load::default_values;
pub use nats::{NatsConfig, StreamSettings};
pub use paths::resolve_url;
pub use postgres::{PostgresConfig, PostgresPassword, WalBudget};
pub use snapshot::SnapshotConfig;
pub use tables::{ConfiguredTable, OnGuestChange, OnGuestError, TableGuest};

/// A validated configuration. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    pub postgres: PostgresConfig,
    pub nats: NatsConfig,
    pub compression: CompressionConfig,
    pub guests: GuestsConfig,
    pub snapshot: SnapshotConfig,
    pub http: HttpConfig,
    pub data_dir: PathBuf,
    /// How long startup retries while a server is unreachable.
    pub start_wait: Duration,
    pub tables: Vec<ConfiguredTable>,
}

/// Why a configuration was refused. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{key}: {problem}")]
    Invalid { key: &'static str, problem: String },
}

fn invalid<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key, problem: problem.into() })
}
