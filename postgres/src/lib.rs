//! Where a Postgres server is and how one gets there safely: a connection string in libpq's words, TLS, the password.
//!
//! Shared by all who connect: the gateway's SQL and replication connections, the consumers' sink. What is said on a
//! connection is not known here.

mod binding;
mod error;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod words;

pub use error::{ConnectError, TlsError, passes, refusal, remedy, server_words, without_data};
pub use stream::TlsStream;
pub use tls::{Negotiated, Tls};
pub use words::resolve_files;

use std::{io, time::Duration};

use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, SslMode, SslNegotiation},
};
use words::{Mode, Words};

/// Unless the connection string says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that vanished without a word is missed after [`KEEPALIVES_IDLE`] + [`KEEPALIVES`] × [`KEEPALIVES_EVERY`].
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 4;
/// What tokio-postgres sets when nothing is said.
const NOTHING_SAID: Duration = Duration::from_secs(2 * 60 * 60);

/// A server, as a connection string describes it. Its password is not shown by `Debug`.
#[derive(Clone, Debug)]
pub struct Server {
    config: Config,
    tls: Tls,
}

impl Server {
    /// Reads certificates and key as well. The error completes "the connection string …" and does not show it.
    pub fn parse(text: &str) -> Result<Server, String> {
        let (rest, words) = words::split(text)?;
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
        if config.get_ssl_negotiation() == SslNegotiation::Direct && words.mode < Mode::Require {
            let mode = words.mode.word();
            return Err(format!(
                "has sslnegotiation=direct with sslmode={mode}: write sslmode=verify-full"
            ));
        }
        config.ssl_mode(mode(&words, config.get_hosts()));
        watch_over(&mut config);
        let tls = Tls::read(&words, config.get_ssl_negotiation())?;
        Ok(Server { config, tls })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// For what the caller wants to be said at the beginning of each connection.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// A session for SQL; the caller runs the connection.
    pub async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, TlsStream<Socket>>), ConnectError> {
        // tokio-postgres stops its clock once the socket is open: a server that then says nothing would hold us for ever.
        let each = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        // Each socket has that time, and a name may stand for two addresses.
        let limit = each.saturating_mul(2 * self.config.get_hosts().len().max(1) as u32);
        // Large: a handshake is in it.
        let connected = Box::pin(self.config.connect(self.tls.clone()));
        match tokio::time::timeout(limit, connected).await {
            Ok(connected) => connected.map_err(Into::into),
            Err(_) => Err(ConnectError::Unreachable(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// So that nobody waits for hours for a server that was cut off in the midst of an answer.
fn watch_over(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_keepalives_idle() == NOTHING_SAID {
        config.keepalives_idle(KEEPALIVES_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVES_EVERY);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVES);
    }
}

/// As in libpq, what goes through a unix socket needs no encryption.
fn mode(words: &Words, hosts: &[Host]) -> SslMode {
    let local = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)));
    match words.mode {
        _ if local => SslMode::Disable,
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
    }
}
