//! SQL connections: the same session settings on each, and none of the timeouts that a role may have.

use std::ops::Deref;

use tokio_postgres::{Client, Config};
use walgate_pg_connect::TlsNegotiator;

use crate::{
    config::PostgresConfig,
    postgres::{PostgresError, SESSION_SETTINGS, endpoint::Endpoint},
};

/// Timeouts of role or database would end a snapshot; which of them exist depends on the version. A transaction that
/// stands still between two questions is ended: it holds a lock and keeps vacuum back for a gateway that is frozen, or
/// that waits for NATS.
const TIMEOUTS: &str = "
SELECT pg_catalog.set_config(name, CASE name WHEN 'idle_in_transaction_session_timeout' THEN '30s' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
               'idle_session_timeout')";
/// Where row security would leave out rows, Postgres raises an error instead: a row that is not seen would count
/// as one that is not there.
const ALL_ROWS: (&str, &str) = ("row_security", "off");

/// A session for SQL. What it is asked can be cancelled the way it was reached.
pub struct SqlClient {
    client: Client,
    tls: TlsNegotiator,
}

impl Deref for SqlClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl SqlClient {
    /// What ends the query that runs, over a connection of its own.
    pub fn cancel(&self) -> impl Future<Output = Result<(), tokio_postgres::Error>> + Send + use<> {
        let (token, tls) = (self.client.cancel_token(), self.tls.clone());
        async move { token.cancel_query(tls).await }
    }
}

/// Opens a connection to the configured server.
pub async fn open(postgres: &PostgresConfig) -> Result<SqlClient, PostgresError> {
    connect(&Endpoint::of(postgres)?).await
}

/// Opens a connection with the session settings that make text output exact.
pub async fn connect(endpoint: &Endpoint) -> Result<SqlClient, PostgresError> {
    let mut server = endpoint.server().clone();
    let options = options(server.config());
    server.config_mut().options(options);
    let (client, connection) =
        server.connect().await.map_err(|e| endpoint.refused(&endpoint.target(), e))?;
    // Ends when the client is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a Postgres connection ended");
        }
    });
    client.query(TIMEOUTS, &[]).await.map_err(PostgresError::query("set session settings"))?;
    Ok(SqlClient { client, tls: server.tls().clone() })
}

/// Ours come last, so that they win.
fn options(config: &Config) -> String {
    let mut options = config.get_options().unwrap_or_default().to_owned();
    for (name, value) in SESSION_SETTINGS.iter().chain([&ALL_ROWS]) {
        options.push_str(&format!(" -c {name}={value}"));
    }
    options.trim().to_owned()
}
