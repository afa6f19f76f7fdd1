//! SQL connections: the same session settings on each, no timeouts that a role may have.

use std::io;

use tokio_postgres::{Client, Config, NoTls, config::Host};

use crate::source::{
    SourceError,
    client::{SESSION_SETTINGS, check_url},
};

/// Timeouts of role or database would end a snapshot; which of them exist depends on the version.
const NO_TIMEOUTS: &str = "
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
               'idle_session_timeout')";

/// Opens a connection with the session settings that make text output exact.
pub async fn connect(config: &Config) -> Result<Client, SourceError> {
    check_url(config)?;
    let mut config = config.clone();
    let mut options = config.get_options().unwrap_or_default().to_owned();
    for (name, value) in SESSION_SETTINGS {
        options.push_str(&format!(" -c {name}={value}"));
    }
    config.options(options.trim());
    if config.get_application_name().is_none() {
        config.application_name("walgate");
    }
    let (client, connection) =
        config.connect(NoTls).await.map_err(|source| failed(&config, source))?;
    // Ends when the client is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a Postgres connection ended");
        }
    });
    client.query(NO_TIMEOUTS, &[]).await.map_err(SourceError::query("set session settings"))?;
    Ok(client)
}

/// A server that answers has its own words; one that does not is named.
fn failed(config: &Config, source: tokio_postgres::Error) -> SourceError {
    if source.code().is_some() {
        return SourceError::Sql { what: "connect to Postgres", source };
    }
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    SourceError::Connect { target: format!("{host}:{port}"), source: io::Error::other(source) }
}
