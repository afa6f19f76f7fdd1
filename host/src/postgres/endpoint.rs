//! The configured server: its URL with libpq's parameters, its password, and the meaning of its
//! refusals.
//!
//! It is read again for every connection, so that a rotated password or certificate takes effect.
//! What a connection is for is not known here.

use std::{path::Path, time::Duration};

use secrecy::ExposeSecret;
use tokio_postgres::{Config, config::Host};
use walgate_pg_connect::{PgConnectError, PgConnector, TlsNegotiator, sqlstate_remedy};

use crate::config::{PostgresConfig, PostgresPassword};
use crate::postgres::PostgresError;

/// SQLSTATE of a password that is not the role's.
const INVALID_PASSWORD: &str = "28P01";
const DEFAULT_PORT: u16 = 5432;
/// A server whose host acknowledges no sent data for this long is gone.
const UNANSWERED_MAX: Duration = Duration::from_secs(35);

/// The server of a [`PostgresConfig`], as it is configured at this moment.
#[derive(Clone, Debug)]
pub struct Endpoint {
    server: PgConnector,
    /// The password is read from a file, which may hold another one next time.
    rotates: bool,
}

impl Endpoint {
    /// Errors do not show the URL, because it may hold a password.
    pub fn of(postgres: &PostgresConfig) -> Result<Endpoint, PostgresError> {
        let mut server = PgConnector::parse(postgres.url.expose_secret())
            .map_err(|reason| PostgresError::Url(reason.to_string()))?;
        check_config(server.config())?;
        let rotates = match &postgres.password {
            None => false,
            Some(PostgresPassword::Given(password)) => {
                server.config_mut().password(password.expose_secret());
                false
            }
            Some(PostgresPassword::File(path)) => {
                server.config_mut().password(read_password(path)?);
                true
            }
        };
        if server.config().get_application_name().is_none() {
            server.config_mut().application_name("walgate");
        }
        if server.config().get_tcp_user_timeout().is_none() {
            // The gateway sends little, and the server reads it at once. Unlike the rows of a copy
            // it never waits for room in the server's buffers.
            server.config_mut().tcp_user_timeout(UNANSWERED_MAX);
        }
        Ok(Endpoint { server, rotates })
    }

    /// The role. A URL without one is refused.
    pub fn user(&self) -> &str {
        self.config().get_user().unwrap_or_default()
    }

    /// The database, by default the one with the role's name.
    pub fn database(&self) -> &str {
        self.config().get_dbname().unwrap_or(self.user())
    }

    pub(super) fn config(&self) -> &Config {
        self.server.config()
    }

    pub(super) fn tls(&self) -> &TlsNegotiator {
        self.server.tls()
    }

    /// Opens connections to the server, with the password of the configuration.
    pub fn server(&self) -> &PgConnector {
        &self.server
    }

    /// Host, port and database of the first server, without the password.
    pub fn target(&self) -> String {
        self.addresses().first().map(|server| self.target_at(server)).unwrap_or_default()
    }

    pub(super) fn target_at(&self, server: &ServerAddress) -> String {
        let host = match &server.host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        format!("{host}:{}/{}", server.port, self.database())
    }

    /// The meaning of a failed connection attempt.
    pub fn explain_refusal(&self, target: &str, error: PgConnectError) -> PostgresError {
        match error {
            PgConnectError::Unreachable(source) => {
                PostgresError::Connect { target: target.to_owned(), source }
            }
            PgConnectError::Server { message, code } if code == INVALID_PASSWORD => {
                let remedy = if self.rotates {
                    "postgres.password_file is read again at the next attempt"
                } else {
                    "check the password in postgres.url; one that is rotated belongs into postgres.password_file"
                };
                let problem =
                    format!("Postgres at {target}: {message} (SQLSTATE {code}); {remedy}");
                PostgresError::Password { problem, rotates: self.rotates }
            }
            PgConnectError::Server { message, code } => {
                let hint = sqlstate_remedy(&code, &message).to_owned();
                PostgresError::Server {
                    what: format!("open a connection to {target}"),
                    message,
                    code,
                    hint,
                }
            }
            PgConnectError::NoPassword => PostgresError::Config(format!(
                "Postgres at {target} asks for a password, and there is none: add it to postgres.url, or set \
                 postgres.password_file"
            )),
            error @ (PgConnectError::Tls(_) | PgConnectError::Authentication(_)) => {
                PostgresError::Config(format!("Postgres at {target}: {error}"))
            }
        }
    }

    /// The servers to try, in turn.
    pub(super) fn addresses(&self) -> Vec<ServerAddress> {
        let config = self.config();
        let addresses = config.get_hostaddrs();
        let ports = config.get_ports();
        let address = |(index, host): (usize, &Host)| ServerAddress {
            host: host.clone(),
            address: addresses.get(index).map(ToString::to_string),
            port: ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT),
        };
        config.get_hosts().iter().enumerate().map(address).collect()
    }
}

/// One server of a URL that may name several.
#[derive(Clone, Debug)]
pub(super) struct ServerAddress {
    /// Also the name that its certificate must contain.
    pub host: Host,
    /// Address to connect to instead of resolving the name.
    pub address: Option<String>,
    pub port: u16,
}

/// The file may be missing for a moment while it is replaced.
fn read_password(path: &Path) -> Result<String, PostgresError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let problem = format!("postgres.password_file {} cannot be read: {e}", path.display());
        PostgresError::Password { problem, rotates: true }
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether a connection is possible with these parameters.
fn check_config(config: &Config) -> Result<(), PostgresError> {
    let refused = |problem: &str| Err(PostgresError::Url(problem.to_owned()));
    if config.get_user().is_none() {
        return refused("names no user: write postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    }
    if config.get_hosts().is_empty() {
        return refused(
            "names no host: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, or host=/path for a unix socket",
        );
    }
    let addresses = config.get_hostaddrs().len();
    if addresses > 0 && addresses != config.get_hosts().len() {
        return refused("has another number of hostaddr than of host: give each host one, or none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ErrorKind;

    fn endpoint(url: &str) -> Result<Endpoint, String> {
        Endpoint::of(&PostgresConfig::at(url.into(), String::new())).map_err(|e| e.to_string())
    }

    #[test]
    fn urls_are_checked() {
        assert!(endpoint("postgres://u@localhost/d").is_ok());
        assert!(endpoint("host=/run/postgresql user=u").is_ok());
        assert!(endpoint("postgres://localhost/d").unwrap_err().contains("no user"));
        assert!(endpoint("user=u").unwrap_err().contains("no host"));
        let mode = endpoint("postgres://u@h/d?sslmode=verify").unwrap_err();
        assert!(mode.contains("postgres.url") && mode.contains("verify-full"), "{mode}");
    }

    #[test]
    fn a_target_does_not_show_the_password() {
        let endpoint = endpoint("postgres://u:hunter2@db/shop").unwrap();
        assert_eq!(endpoint.target(), "db:5432/shop");
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }

    #[test]
    fn a_host_has_its_own_address_and_port() {
        let endpoint = endpoint("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=u").unwrap();
        let addresses = endpoint.addresses();
        assert_eq!(addresses[1].host, Host::Tcp("b".into()));
        assert_eq!((addresses[1].address.as_deref(), addresses[1].port), (Some("10.0.0.2"), 2));
        assert_eq!(endpoint.target_at(&addresses[1]), "b:2/u");
    }

    #[test]
    fn a_password_file_is_read_for_every_endpoint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\n").unwrap();
        let mut postgres = PostgresConfig::at("postgres://u:other@db/shop".into(), String::new());
        postgres.password = Some(PostgresPassword::File(file.path().to_owned()));
        let endpoint = Endpoint::of(&postgres).unwrap();
        assert_eq!(endpoint.config().get_password(), Some(&b"first"[..]));
        let wrong = || PgConnectError::Server { message: "no".into(), code: "28P01".into() };
        assert_eq!(endpoint.explain_refusal("db", wrong()).kind(), ErrorKind::Retry);
        std::fs::write(file.path(), "second").unwrap();
        let again = Endpoint::of(&postgres).unwrap();
        assert_eq!(again.config().get_password(), Some(&b"second"[..]));
        drop(file);
        assert_eq!(Endpoint::of(&postgres).unwrap_err().kind(), ErrorKind::Retry);
        postgres.password = Some(PostgresPassword::Given("static".to_owned().into()));
        let endpoint = Endpoint::of(&postgres).unwrap();
        assert_eq!(endpoint.explain_refusal("db", wrong()).kind(), ErrorKind::Fatal);
    }
}
