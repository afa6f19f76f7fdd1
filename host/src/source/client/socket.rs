//! From a URL to two byte streams: TCP or unix socket, each host in turn.
//!
//! TLS is not here yet; it will wrap the socket before it is split.

use std::{io, time::Duration};

use tokio::{
    io::AsyncRead,
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use super::Writer;
use crate::source::SourceError;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 5432;

/// What every connection sets, so that text output is exact and the same wherever a value is printed.
pub const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];

/// Whether this version can connect so at all.
pub fn check_url(config: &Config) -> Result<(), SourceError> {
    if config.get_user().is_none() {
        return Err(SourceError::Config(
            "[postgres] url names no user: write postgres://USER:PASSWORD@HOST:PORT/DATABASE"
                .into(),
        ));
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(SourceError::Config(
            "[postgres] url names no host: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, or host=/path for a unix socket"
                .into(),
        ));
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(()),
        mode => Err(SourceError::Config(format!(
            "[postgres] url asks for sslmode={mode:?}, but this version of walgate speaks to Postgres without TLS: \
             use a unix socket, a private network or a tunnel, and sslmode=disable"
        ))),
    }
}

/// Host, port and database, without the password.
pub(super) fn target(host: &str, port: u16, config: &Config) -> String {
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{host}:{port}/{database}")
}

pub(super) async fn connect(config: &Config) -> Result<(Reader, Writer), SourceError> {
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let mut last = None;
    for (index, host) in hosts(config).into_iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        let attempt = match &host {
            Host::Tcp(name) => timeout(limit, tcp(name, port)).await,
            Host::Unix(path) => timeout(limit, unix(path.join(format!(".s.PGSQL.{port}")))).await,
        };
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(halves) => return Ok(halves),
            Err(source) => {
                let name = match &host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(path) => path.display().to_string(),
                };
                last = Some(SourceError::Connect { target: target(&name, port, config), source });
            }
        }
    }
    Err(last.unwrap_or_else(|| SourceError::Config("[postgres] url names no host".into())))
}

fn hosts(config: &Config) -> Vec<Host> {
    if config.get_hostaddrs().is_empty() {
        return config.get_hosts().to_vec();
    }
    config.get_hostaddrs().iter().map(|address| Host::Tcp(address.to_string())).collect()
}

async fn tcp(host: &str, port: u16) -> io::Result<(Reader, Writer)> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    let (reader, writer) = socket.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

async fn unix(path: std::path::PathBuf) -> io::Result<(Reader, Writer)> {
    let (reader, writer) = UnixStream::connect(path).await?.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), String> {
        check_url(&url.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn urls_are_checked() {
        assert!(check("postgres://u@localhost/d").is_ok());
        assert!(check("host=/run/postgresql user=u").is_ok());
        assert!(check("postgres://localhost/d").unwrap_err().contains("no user"));
        assert!(check("user=u").unwrap_err().contains("no host"));
        assert!(
            check("postgres://u@localhost/d?sslmode=require").unwrap_err().contains("without TLS")
        );
    }

    #[test]
    fn a_target_does_not_show_the_password() {
        let config: Config = "postgres://u:secret@db/shop".parse().unwrap();
        assert_eq!(target("db", 5432, &config), "db:5432/shop");
    }
}
