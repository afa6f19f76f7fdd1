//! Connections to Postgres: connection strings as libpq reads them, TLS, channel binding.
//!
//! The gateway's SQL and replication connections and the consumers' sink all connect through this
//! crate. It contains no SQL.
#![warn(missing_docs)]

mod channel_binding;
mod dsn;
mod error;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod verify;

pub use dsn::resolve_files;
pub use error::{
    PgConnectError, TlsError, describe_db_error, explain_certificate_refusal,
    is_transient_sqlstate, redact_row_values, sqlstate_remedy,
};
pub use stream::TlsStream;
pub use tls::{NegotiatedStream, TlsNegotiator};

use std::{io, time::Duration};

use dsn::{TlsMode, TlsParams};
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, SslMode, SslNegotiation},
};

/// The connect timeout of one socket, unless the connection string sets `connect_timeout`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that vanished is detected after
/// [`KEEPALIVES_IDLE`] + [`KEEPALIVES`] × [`KEEPALIVES_INTERVAL`].
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 4;
/// The value of tokio-postgres if the connection string has no `keepalives_idle`.
const KEEPALIVES_IDLE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

/// A parsed connection string, ready to connect. `Debug` does not show its password.
#[derive(Clone, Debug)]
pub struct PgConnector {
    config: Config,
    tls: TlsNegotiator,
}

impl PgConnector {
    /// Parses a connection string and reads the certificate and key files that it names.
    ///
    /// # Errors
    /// The error completes the sentence "the connection string …" and does not contain the string.
    pub fn parse(text: &str) -> Result<PgConnector, String> {
        let (rest, params) = dsn::split_tls_params(text)?;
        let mut config: Config = rest.parse().map_err(|e: tokio_postgres::Error| {
            let reason =
                std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            format!("cannot be read: {reason}")
        })?;
        if config.get_hosts().is_empty() {
            let addresses = config.get_hostaddrs().to_vec();
            for address in addresses {
                config.host(address.to_string());
            }
        }
        if config.get_ssl_negotiation() == SslNegotiation::Direct && params.mode < TlsMode::Require
        {
            let mode = params.mode.as_str();
            return Err(format!(
                "has sslnegotiation=direct with sslmode={mode}: write sslmode=verify-full"
            ));
        }
        config.ssl_mode(ssl_mode(&params, config.get_hosts()));
        set_default_timeouts(&mut config);
        let tls = TlsNegotiator::new(&params, config.get_ssl_negotiation())?;
        Ok(PgConnector { config, tls })
    }

    /// What tokio-postgres reads: hosts, user, password, timeouts.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// For start-up parameters and timeouts that the caller sets.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// The TLS part of the connection string.
    pub fn tls(&self) -> &TlsNegotiator {
        &self.tls
    }

    /// Opens an SQL session. The caller has to poll the returned connection.
    ///
    /// # Errors
    /// See [`PgConnectError`]; a server that accepts the socket and stays silent times out.
    pub async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, TlsStream<Socket>>), PgConnectError> {
        // tokio-postgres applies its timeout to opening the socket only. A server that then stays
        // silent would block this call forever.
        let per_socket = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        // Each socket may take that long, and a name may resolve to two addresses.
        let limit = per_socket.saturating_mul(2 * self.config.get_hosts().len().max(1) as u32);
        // Boxed, because the future contains a TLS handshake and is large.
        let connected = Box::pin(self.config.connect(self.tls.clone()));
        match tokio::time::timeout(limit, connected).await {
            Ok(connected) => connected.map_err(Into::into),
            Err(_) => Err(PgConnectError::Unreachable(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// Timeouts and keepalives that detect a lost server within a minute instead of hours.
fn set_default_timeouts(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_keepalives_idle() == KEEPALIVES_IDLE_UNSET {
        config.keepalives_idle(KEEPALIVES_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVES);
    }
}

/// As in libpq, a unix socket is not encrypted.
fn ssl_mode(params: &TlsParams, hosts: &[Host]) -> SslMode {
    let local = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)));
    match params.mode {
        _ if local => SslMode::Disable,
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    }
}
