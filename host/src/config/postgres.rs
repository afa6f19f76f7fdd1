//! `[postgres]`: the database, its slot and publication, and how much WAL the slot may retain.
//!
//! Whether the server accepts the settings is not known here.

use std::path::PathBuf;

use bytesize::ByteSize;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{ConfigError, invalid};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPostgres {
    /// `postgres://user:password@host:5432/database`, or
    /// `host=/run/postgresql user=walgate dbname=shop`: a unix socket is faster.
    /// [TLS parameters](OPERATIONS.md#tls-to-postgres).
    pub url: String,
    /// Instead of a password in the URL.
    pub password: Option<String>,
    /// File with the password. The gateway reads it at every connection, so it can be rotated. Not
    /// together with `password`.
    pub password_file: Option<PathBuf>,
    /// Replication slot: 1 to 63 characters of a-z, 0-9 and `_`. Created if it is missing.
    pub slot: String,
    /// Publication, 1 to 63 bytes. Created if it is missing and the role may create it.
    pub publication: String,
    /// WAL that the slot may retain before the gateway throttles snapshots, and suspends tables
    /// with `shed`. 0: no limit.
    pub wal_budget: ByteSize,
    /// Size of the disk that holds the WAL, to estimate when it is full. Not below `wal_budget`.
    pub wal_disk: Option<ByteSize>,
}

impl Default for RawPostgres {
    fn default() -> Self {
        RawPostgres {
            url: String::new(),
            password: None,
            password_file: None,
            slot: "walgate".into(),
            publication: "walgate".into(),
            wal_budget: ByteSize::gib(10),
            wal_disk: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct PostgresConfig {
    pub url: SecretString,
    /// Takes precedence over a password in the URL.
    pub password: Option<PostgresPassword>,
    pub slot: String,
    pub publication: String,
    pub wal_budget: WalBudget,
}

/// How much WAL the slot may retain before the gateway throttles work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalBudget {
    /// Zero: no limit.
    pub bytes: u64,
    /// Size of the disk that holds the WAL, if configured.
    pub disk: Option<u64>,
}

/// A password outside the URL.
#[derive(Clone, Debug)]
pub enum PostgresPassword {
    Given(SecretString),
    /// Read at every connection, because it may be rotated.
    File(PathBuf),
}

impl PostgresConfig {
    /// Read-only access, without a replication slot.
    pub fn at(url: SecretString, publication: String) -> PostgresConfig {
        PostgresConfig {
            url,
            password: None,
            slot: String::new(),
            publication,
            wal_budget: WalBudget::default(),
        }
    }
}

impl RawPostgres {
    pub(super) fn validate(self) -> Result<PostgresConfig, ConfigError> {
        if self.url.is_empty() {
            return invalid(
                "postgres.url",
                "is missing: set it in the file, or WALGATE_POSTGRES_URL, or WALGATE_POSTGRES_URL_FILE",
            );
        }
        if !self.slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            || !(1..=63).contains(&self.slot.len())
        {
            return invalid("postgres.slot", "a slot's name has 1 to 63 of a-z, 0-9 and _");
        }
        if !(1..=63).contains(&self.publication.len()) {
            return invalid("postgres.publication", "a publication's name has 1 to 63 bytes");
        }
        let password = match (self.password, self.password_file) {
            (None, None) => None,
            (Some(password), None) => Some(PostgresPassword::Given(password.into())),
            (None, Some(file)) => Some(PostgresPassword::File(file)),
            (Some(_), Some(_)) => {
                return invalid(
                    "postgres.password",
                    "stands beside postgres.password_file: keep one of them",
                );
            }
        };
        let bytes = self.wal_budget.as_u64();
        let disk = self.wal_disk.map(|disk| disk.as_u64());
        if disk.is_some_and(|disk| disk < bytes) {
            return invalid("postgres.wal_disk", "is smaller than postgres.wal_budget");
        }
        Ok(PostgresConfig {
            url: self.url.into(),
            password,
            slot: self.slot,
            publication: self.publication,
            wal_budget: WalBudget { bytes, disk },
        })
    }
}
