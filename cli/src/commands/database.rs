//! The database that a command reads: the gateway's, or another one.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use crate::commands::Usage;
use walgate_host::config::{Config, ConfigError, PostgresConfig};

const CONFIG_FILE: &str = "walgate.toml";

/// The location of the tables.
#[derive(Debug, clap::Args)]
pub struct Database {
    /// The database, postgres://user@host/database [default: that of the configuration]
    #[arg(long, value_name = "URL", env = "WALGATE_POSTGRES_URL", hide_env_values = true)]
    source: Option<String>,
    /// Publication of the gateway; its column lists and row filters count [default: that of the
    /// configuration, or walgate]
    #[arg(long, value_name = "NAME", env = "WALGATE_POSTGRES_PUBLICATION", hide_env = true)]
    publication: Option<String>,
}

impl Database {
    pub fn postgres(&self, config: Option<&Config>) -> Result<PostgresConfig, Usage> {
        let configured = config.map(|config| config.postgres.clone());
        let publication = self.publication.clone();
        let publication = publication.or_else(|| Some(configured.as_ref()?.publication.clone()));
        let publication = publication.unwrap_or_else(|| "walgate".to_owned());
        let is_configured = |url: &String| {
            let url = walgate_host::config::resolve_url(url);
            configured.as_ref().is_some_and(|config| config.url.expose_secret() == url)
        };
        // The configured URL has its password in another key.
        let named = self.source.clone().filter(|url| !is_configured(url));
        let named = named.map(|url| PostgresConfig::at(url.into(), String::new()));
        let postgres = named.or(configured).ok_or_else(|| {
            Usage("which database? Name the gateway's configuration with --config, or the database with --source".to_owned())
        })?;
        Ok(PostgresConfig { publication, ..postgres })
    }
}

/// The gateway's configuration, if it is named or exists in this folder.
pub fn configured(file: Option<PathBuf>) -> Result<Option<Config>, ConfigError> {
    let there_is_one = file.is_some() || Path::new(CONFIG_FILE).exists();
    there_is_one.then(|| Config::load(file)).transpose()
}
