//! SQL sessions, all with the same settings and without the timeouts that a role may have. Queries
//! are not known here.

use std::ops::Deref;

use tokio_postgres::{Client, Config};
use walgate_pg_connect::TlsNegotiator;

use crate::{
    config::PostgresConfig,
    postgres::{PostgresError, SESSION_SETTINGS, endpoint::Endpoint},
};

/// Timeouts of the role or the database would end a snapshot; the version decides which exist. Only
/// the idle timeout stays: a frozen gateway, or one that waits for NATS, would otherwise hold a
/// lock and delay vacuum.
const TIMEOUTS: &str = "
SELECT pg_catalog.set_config(name, CASE name WHEN 'idle_in_transaction_session_timeout' THEN '30s' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
               'idle_session_timeout')";
/// If row security would hide rows, Postgres raises an error instead. A hidden row would count as a
/// deleted one.
const ALL_ROWS: (&str, &str) = ("row_security", "off");

/// An SQL session. A running query can be cancelled over a second connection.
pub(in crate::postgres) struct SqlClient {
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
    /// Cancels the running query over a connection of its own.
    pub(in crate::postgres) fn cancel_query(
        &self,
    ) -> impl Future<Output = Result<(), tokio_postgres::Error>> + Send + use<> {
        let token = self.client.cancel_token();
        let tls = self.tls.clone();
        async move { token.cancel_query(tls).await }
    }
}

/// Opens a session on the configured server.
pub(in crate::postgres) async fn open_session(
    postgres: &PostgresConfig,
) -> Result<SqlClient, PostgresError> {
    connect_endpoint(&Endpoint::of(postgres)?).await
}

/// Opens a session with the settings that make text output exact.
pub(in crate::postgres) async fn connect_endpoint(
    endpoint: &Endpoint,
) -> Result<SqlClient, PostgresError> {
    let mut server = endpoint.server().clone();
    let options = session_options(server.config());
    server.config_mut().options(options);
    let (client, connection) =
        server.connect().await.map_err(|e| endpoint.explain_refusal(&endpoint.target(), e))?;
    // Ends when the client is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Postgres connection ended");
        }
    });
    client.query(TIMEOUTS, &[]).await.map_err(PostgresError::query("set session settings"))?;
    Ok(SqlClient { client, tls: server.tls().clone() })
}

/// The gateway's settings come last, so that they override those of the URL.
fn session_options(config: &Config) -> String {
    let mut options = config.get_options().unwrap_or_default().to_owned();
    for (name, value) in SESSION_SETTINGS.iter().chain([&ALL_ROWS]) {
        options.push_str(&format!(" -c {name}={value}"));
    }
    options.trim().to_owned()
}
