//! From an endpoint to two byte streams: TCP or a unix socket, each server in turn, encrypted as
//! the URL demands. What is sent over them is not known here.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::config::Host;
use walgate_pg_connect::{CONNECT_TIMEOUT, NegotiatedStream, PgConnectError, TlsNegotiator};

use crate::postgres::{
    PostgresError,
    endpoint::{Endpoint, ServerAddress},
};

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection without any message yet.
pub(super) struct Socket {
    pub reader: Reader,
    pub writer: Writer,
    /// The channel that SCRAM can bind to, if the connection is encrypted.
    pub end_point: Option<Vec<u8>>,
}

pub(super) async fn connect_any(endpoint: &Endpoint) -> Result<Socket, PostgresError> {
    let limit = endpoint.config().get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let mut last = None;
    for server in endpoint.addresses() {
        let attempt = timeout(limit, Box::pin(connect_to(&server, endpoint.tls()))).await;
        let timed_out = |_| Err(PgConnectError::Unreachable(io::ErrorKind::TimedOut.into()));
        match attempt.unwrap_or_else(timed_out) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                last = Some(endpoint.explain_refusal(&endpoint.target_at(&server), error))
            }
        }
    }
    Err(last.unwrap_or_else(|| PostgresError::Config("postgres.url names no host".into())))
}

async fn connect_to(server: &ServerAddress, tls: &TlsNegotiator) -> Result<Socket, PgConnectError> {
    match &server.host {
        Host::Tcp(name) => {
            let address = server.address.as_deref().unwrap_or(name);
            let socket = TcpStream::connect((address, server.port)).await;
            let socket = socket.map_err(PgConnectError::Unreachable)?;
            socket.set_nodelay(true).map_err(PgConnectError::Unreachable)?;
            match tls.negotiate(socket, name).await? {
                NegotiatedStream::Plain(socket) => {
                    let (reader, writer) = socket.into_split();
                    Ok(Socket {
                        reader: Box::new(reader),
                        writer: Box::new(writer),
                        end_point: None,
                    })
                }
                NegotiatedStream::Encrypted(stream) => {
                    let end_point = stream.tls_server_end_point();
                    let (reader, writer) = tokio::io::split(*stream);
                    Ok(Socket { reader: Box::new(reader), writer: Box::new(writer), end_point })
                }
            }
        }
        Host::Unix(folder) => {
            let file = folder.join(format!(".s.PGSQL.{}", server.port));
            let socket = UnixStream::connect(file).await.map_err(PgConnectError::Unreachable)?;
            let (reader, writer) = socket.into_split();
            Ok(Socket { reader: Box::new(reader), writer: Box::new(writer), end_point: None })
        }
    }
}
