//! What an operator may set, read once and validated once: nothing later reads the environment or parses text.
//!
//! A key `[section] name` is also `WALGATE_SECTION_NAME` in the environment, and `WALGATE_SECTION_NAME_FILE`
//! names a file that holds it. The environment wins over the file. Whether servers exist and tables are
//! there is not known here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use walgate_wire::{TableName, Token};

mod raw;

pub use raw::{Raw, RawTable};

/// A configuration that can be acted on.
#[derive(Clone, Debug)]
pub struct Config {
    pub postgres: Postgres,
    pub nats: Nats,
    pub compression: Compression,
    pub snapshot: Snapshot,
    pub http: Http,
    pub data_dir: PathBuf,
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    pub url: SecretString,
    pub slot: String,
    pub publication: String,
}

#[derive(Clone, Debug)]
pub struct Nats {
    /// Absent: a private server is started in `data_dir`.
    pub url: Option<SecretString>,
    pub replicas: usize,
    pub cdc: Stream,
    pub init: Stream,
    pub requests: String,
}

/// Name and limits of one stream.
#[derive(Clone, Debug)]
pub struct Stream {
    pub name: String,
    /// `None`: no limit.
    pub max_bytes: Option<u64>,
    /// `None`: no limit.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Compression {
    pub enabled: bool,
    pub level: i32,
    pub use_dictionary: UseDictionary,
    pub dictionaries: PathBuf,
}

/// When a table's dictionary is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseDictionary {
    /// Snapshots and changes alike.
    #[default]
    Always,
    /// Only for bodies small enough for it to pay.
    Auto,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Connections that copy one table.
    pub workers: usize,
    /// Size at which a chunk is cut, before compression.
    pub chunk_bytes: usize,
    /// Tables that are copied at the same time.
    pub max_concurrent: usize,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
}

/// A table that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: TableName,
    pub token: Token,
}

/// Why a configuration was refused. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{key}: {problem}")]
    Invalid { key: &'static str, problem: String },
}

impl Config {
    /// Reads `file` (`walgate.toml` if absent and there is one), then the environment.
    pub fn load(file: Option<PathBuf>) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Raw::default()));
        match file {
            Some(path) if !path.is_file() => {
                let message = format!("{}: no such file; name the configuration with -c", path.display());
                return Err(ConfigError::Unreadable(message));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => figment = figment.merge(Toml::file_exact("walgate.toml")),
        }
        figment = figment.merge(environment()).merge(Serialized::globals(secret_files()?));
        let raw: Raw = figment.extract().map_err(|errors| {
            let lines: Vec<String> = errors.into_iter().map(|e| e.to_string()).collect();
            ConfigError::Unreadable(lines.join("\n"))
        })?;
        raw.validate()
    }
}

const PREFIX: &str = "WALGATE_";
/// Variables of this prefix that are not configuration: where set-up found the servers, and the log filter.
const NOT_CONFIG: [&str; 5] = ["config", "log", "cache", "postgres_bin", "nats_server"];

/// Where set-up found nats-server, if it said so.
pub fn nats_server_program() -> Option<PathBuf> {
    std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from)
}

/// `WALGATE_SNAPSHOT_CHUNK_BYTES` is `snapshot.chunk_bytes`; `WALGATE_DATA_DIR` and `WALGATE_TABLES` have no section.
fn environment() -> Env {
    Env::prefixed(PREFIX)
        .filter(|key| !key.as_str().ends_with("_file") && !is_reserved(key.as_str()))
        .map(|key| dotted(key.as_str()).into())
}

fn is_reserved(key: &str) -> bool {
    NOT_CONFIG.iter().any(|reserved| key.eq_ignore_ascii_case(reserved))
}

fn dotted(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    if key == "data_dir" { key } else { key.replacen('_', ".", 1) }
}

/// Contents of the files that `…_FILE` variables name, as a nested map.
fn secret_files() -> Result<serde_json::Value, ConfigError> {
    let mut found = serde_json::Map::new();
    for (name, path) in std::env::vars() {
        let Some(key) = name.strip_prefix(PREFIX).and_then(|key| key.strip_suffix("_FILE")) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|e| {
            ConfigError::Unreadable(format!("{name}: cannot read {path}: {e}; mount the secret there or unset {name}"))
        })?;
        let text = serde_json::Value::from(text.trim_end_matches(['\r', '\n']));
        match dotted(key).split_once('.') {
            Some((section, key)) => {
                let section = found.entry(section).or_insert_with(|| serde_json::json!({}));
                section[key] = text;
            }
            None => {
                found.insert(dotted(key), text);
            }
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::Jail;
    use secrecy::ExposeSecret;

    const MINIMAL: &str = r#"
        [postgres]
        url = "postgres://localhost/shop"
        [[tables]]
        name = "public.users"
    "#;

    fn error(toml: &str) -> String {
        let mut message = String::new();
        Jail::expect_with(|jail| {
            jail.create_file("walgate.toml", toml)?;
            message = Config::load(None).unwrap_err().to_string();
            Ok(())
        });
        message
    }

    #[test]
    fn a_minimal_file_has_sensible_defaults() {
        Jail::expect_with(|jail| {
            jail.create_file("walgate.toml", MINIMAL)?;
            let config = Config::load(None).unwrap();
            assert_eq!(config.postgres.slot, "walgate");
            assert!(config.nats.url.is_none());
            assert!(config.http.listen.ip().is_loopback());
            assert_eq!(config.tables[0].token.as_str(), "users");
            Ok(())
        });
    }

    #[test]
    fn the_environment_wins_and_secrets_come_from_files() {
        Jail::expect_with(|jail| {
            jail.create_file("walgate.toml", MINIMAL)?;
            jail.create_file("secret", "postgres://u:hunter2@db/shop\n")?;
            jail.set_env("WALGATE_POSTGRES_URL_FILE", "secret");
            jail.set_env("WALGATE_SNAPSHOT_CHUNK_BYTES", "1000000");
            jail.set_env("WALGATE_COMPRESSION_USE", "auto");
            let config = Config::load(None).unwrap();
            assert_eq!(config.postgres.url.expose_secret(), "postgres://u:hunter2@db/shop");
            assert_eq!(config.snapshot.chunk_bytes, 1_000_000);
            assert_eq!(config.compression.use_dictionary, UseDictionary::Auto);
            assert!(!format!("{config:?}").contains("hunter2"));
            Ok(())
        });
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error("[postgres]\nurrl = \"x\"").contains("urrl"));
        assert!(error("[[tables]]\nname = \"users\"").contains("postgres.url"));
        assert!(error("[postgres]\nurl = \"postgres://x/y\"").contains("tables"));
        let twice = format!("{MINIMAL}[[tables]]\nname = \"users\"");
        assert!(error(&twice).contains("twice"), "{}", error(&twice));
        let level = format!("{MINIMAL}[compression]\nlevel = 99");
        assert!(error(&level).contains("compression.level"));
        let listen = format!("{MINIMAL}[http]\nlisten = \"nonsense\"");
        assert!(error(&listen).contains("http.listen"));
    }
}
