//! An encrypted stream with its channel binding, and the adapter through which tokio-postgres
//! opens one.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};

use crate::{channel_binding, error::TlsError, tls::TlsNegotiator};

/// A stream after the TLS handshake.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: tokio_rustls::client::TlsStream<S>,
}

impl<S> TlsStream<S> {
    pub(crate) fn new(inner: tokio_rustls::client::TlsStream<S>) -> Self {
        TlsStream { inner }
    }

    /// The channel binding `tls-server-end-point`, if the server's certificate has one.
    pub fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        let (_, connection) = self.inner.get_ref();
        connection.peer_certificates()?.first().and_then(channel_binding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for TlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.tls_server_end_point()
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// A handshake that has not started yet, for tokio-postgres.
pub struct PendingHandshake {
    tls: TlsNegotiator,
    host: String,
}

impl<S> MakeTlsConnect<S> for TlsNegotiator
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type TlsConnect = PendingHandshake;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<PendingHandshake, TlsError> {
        Ok(PendingHandshake { tls: self.clone(), host: host.to_owned() })
    }
}

impl<S> TlsConnect<S> for PendingHandshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream<S>, TlsError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.handshake(stream, &self.host).await })
    }
}
