//! From the text of `walgate.toml` and the environment to a validated [`Config`].
//!
//! The environment overrides the file. What a section's keys mean is not known here.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

use super::{
    Config, ConfigError,
    compression::RawCompression,
    env::{SECRETS, read_overrides},
    guests::RawGuests,
    http::RawHttp,
    nats::RawNats,
    paths,
    postgres::RawPostgres,
    snapshot::RawSnapshot,
    tables::{RawTable, validate_tables},
};

/// `walgate.toml` as written. Unknown keys are refused.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    /// Folder of compiled guests, a cache. Without `nats.url` it also holds the private server's
    /// streams: then keep the folder.
    pub data_dir: PathBuf,
    /// How long startup retries while Postgres or NATS is unreachable. Later the gateway retries
    /// without limit.
    pub start_wait_seconds: u64,
    pub postgres: RawPostgres,
    pub nats: RawNats,
    pub compression: RawCompression,
    pub guests: RawGuests,
    pub snapshot: RawSnapshot,
    pub http: RawHttp,
    pub tables: Vec<RawTable>,
}

impl Default for RawConfig {
    fn default() -> Self {
        RawConfig {
            data_dir: "walgate-data".into(),
            start_wait_seconds: 30,
            postgres: RawPostgres::default(),
            nats: RawNats::default(),
            compression: RawCompression::default(),
            guests: RawGuests::default(),
            snapshot: RawSnapshot::default(),
            http: RawHttp::default(),
            tables: vec![],
        }
    }
}

impl RawConfig {
    /// Makes relative paths absolute. `url_folder` holds the certificates in the connection string.
    fn resolve_paths(&mut self, folder: &Path, url_folder: &Path) -> Result<(), ConfigError> {
        let folders =
            [&mut self.data_dir, &mut self.compression.dictionaries, &mut self.guests.dir];
        let files = [&mut self.postgres.password_file].into_iter().chain(self.nats.files());
        for path in folders.into_iter().chain(files.flatten()) {
            *path = paths::absolute(folder, path)?;
        }
        let url_folder = paths::absolute(url_folder, Path::new(""))?;
        self.postgres.url = walgate_pg_connect::resolve_files(&self.postgres.url, &url_folder);
        Ok(())
    }

    fn validate(self) -> Result<Config, ConfigError> {
        Ok(Config {
            postgres: self.postgres.validate()?,
            nats: self.nats.validate()?,
            compression: self.compression.validate()?,
            guests: self.guests.validate()?,
            snapshot: self.snapshot.validate()?,
            http: self.http.validate()?,
            data_dir: self.data_dir,
            start_wait: Duration::from_secs(self.start_wait_seconds),
            tables: validate_tables(self.tables)?,
        })
    }
}

/// Every key with its default, and one table entry with the defaults of its keys. An empty text
/// means that the key is required. For the generated documentation.
pub fn default_values() -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(RawConfig { tables: vec![RawTable::default()], ..RawConfig::default() })
}

impl Config {
    /// Reads `file`, by default `walgate.toml` if it exists, then the environment.
    pub fn load(file: Option<PathBuf>) -> Result<Config, ConfigError> {
        let path = file.clone().unwrap_or_else(|| "walgate.toml".into());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let message = format!("{}: {e}; name the configuration with -c", path.display());
                return Err(ConfigError::Unreadable(message));
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Config::read_in(folder, &path.display().to_string(), &text, std::env::vars())
    }

    /// Reads `text`. Errors call it `source`. Also the entry of the fuzz target.
    pub fn read(
        source: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        Config::read_in(Path::new(""), source, text, environment)
    }

    /// Reads the text of a file in `folder`.
    pub(super) fn read_in(
        folder: &Path,
        source: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let overrides = read_overrides(environment)?;
        let url_folder = if paths::has_url(&overrides) { Path::new("") } else { folder };
        let figment = Figment::from(Serialized::defaults(RawConfig::default()))
            .merge(Toml::string(text))
            .merge(Serialized::globals(overrides));
        let mut raw: RawConfig = figment.extract().map_err(|errors| {
            let lines: Vec<String> =
                errors.into_iter().map(|e| describe_error(source, &e)).collect();
            ConfigError::Unreadable(lines.join("\n"))
        })?;
        raw.resolve_paths(folder, url_folder)?;
        raw.validate()
    }
}

/// Names the wrong key, the problem, and whether the key is in the file or in the environment.
fn describe_error(source: &str, error: &figment::Error) -> String {
    let from_file = error.metadata.as_ref().is_none_or(|metadata| metadata.name.contains("TOML"));
    let origin = if from_file { source } else { "environment (WALGATE_…)" };
    match error.path.join(".") {
        // The parser quotes the line, which may hold a password.
        key if key.is_empty() => {
            let description = error.kind.to_string();
            let lines: Vec<_> = description.lines().filter(|line| !line.contains('|')).collect();
            format!("{origin}: {}", lines.join(": "))
        }
        key if SECRETS.contains(&&*key) => format!("{origin}: {key}: must be text, in quotes"),
        key => format!("{origin}: {key}: {}", error.kind),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
