//! Connecting to NATS: attempts and their delays, TLS and authorization failures explained, and
//! log events for what happens to a connection later.
//!
//! The settings are validated in `options.rs`. The messages on a connection are not known here.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    Client, ClientError, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    rustls::{self, CertificateError},
};

use crate::{
    backoff::pick_up_to,
    error::{NatsConnectError, describe_with_causes, find_tls_error},
    identity::NatsIdentity,
};

/// A connection is given up after four unanswered pings, even if the network reports no failure.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Upper bound of the delay before the first attempt to reconnect; it doubles with each attempt.
const RECONNECT_DELAY_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(4);

/// Validated [`NatsOptions`](crate::NatsOptions), ready to connect.
#[derive(Debug)]
pub struct NatsConnector {
    pub(crate) servers: Vec<ServerAddr>,
    options: ConnectOptions,
    pub(crate) identity: NatsIdentity,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
}

impl NatsConnector {
    pub(crate) fn new(
        servers: Vec<ServerAddr>,
        options: ConnectOptions,
        identity: NatsIdentity,
        ca_file: Option<PathBuf>,
        cert_file: Option<PathBuf>,
    ) -> NatsConnector {
        let identity_text = identity.to_string();
        let refusal_logged = Arc::new(AtomicBool::new(false));
        let attempted = AtomicBool::new(false);
        let options = options
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(move |attempts| match attempted.swap(true, Relaxed) {
                true => reconnect_delay(attempts),
                false => Duration::ZERO,
            })
            .event_callback(move |event| {
                log_event(&event, &identity_text, &refusal_logged);
                std::future::ready(())
            });
        NatsConnector { servers, options, identity, ca_file, cert_file }
    }

    /// Adjusts further options of the client, such as its name or its buffers.
    pub fn with_options(
        mut self,
        adjust: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> NatsConnector {
        self.options = adjust(self.options);
        self
    }

    /// Waits until one of the servers answers, or all have failed.
    ///
    /// # Errors
    /// [`NatsConnectError::Refused`] or [`NatsConnectError::Unreachable`].
    pub async fn connect(&self) -> Result<Client, NatsConnectError> {
        let connected = self.options.clone().connect(&self.servers[..]).await;
        connected.map_err(|error| self.explain_error(&error))
    }

    /// Returns at once. The client connects in the background; requests wait for the connection.
    ///
    /// # Errors
    /// [`NatsConnectError::Refused`] if the client cannot be built from the options.
    pub async fn connect_in_background(&self) -> Result<Client, NatsConnectError> {
        let options = self.options.clone().retry_on_initial_connect();
        let connected = options.connect(&self.servers[..]).await;
        connected.map_err(|error| self.explain_error(&error))
    }

    fn explain_error(&self, error: &ConnectError) -> NatsConnectError {
        let server = first_address(&self.servers);
        let reason = describe_with_causes(error);
        let refused =
            |problem: String| NatsConnectError::Refused { server: server.clone(), problem };
        match (error.kind(), find_tls_error(error)) {
            (ConnectErrorKind::AuthorizationViolation, _) => refused(format!(
                "refuses {} (Authorization Violation): {}",
                self.identity,
                self.identity.refusal_remedy()
            )),
            (ConnectErrorKind::Authentication, _) => {
                refused(format!("cannot be given our credentials: {reason}"))
            }
            (_, Some(error)) => refused(self.explain_tls_error(error)),
            (ConnectErrorKind::Tls, None) => {
                refused(format!("does not complete the TLS handshake: {reason}; set nats.ca_file"))
            }
            _ => NatsConnectError::Unreachable { server, reason },
        }
    }

    fn explain_tls_error(&self, error: &rustls::Error) -> String {
        let authority =
            self.ca_file.as_ref().map_or("one of the system's authorities".to_owned(), |file| {
                format!("an authority in {}", file.display())
            });
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
                "has a certificate that is not signed by {authority}: \
                 set nats.ca_file to the authority that signed it"
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "has a certificate for another name: write that name into nats.url".to_owned(),
            rustls::Error::InvalidCertificate(problem) => {
                format!("has an invalid certificate: {problem}")
            }
            rustls::Error::AlertReceived(alert) => {
                let ours = self.cert_file.as_ref().map_or("none is set".to_owned(), |file| {
                    format!("nats.cert_file is {}", file.display())
                });
                format!(
                    "refuses our certificate ({alert:?}; {ours}): the server wants one that is \
                     signed by its own authority, in nats.cert_file and nats.key_file"
                )
            }
            rustls::Error::InvalidMessage(_) => {
                "does not speak TLS, which nats.url or another setting requires".to_owned()
            }
            other => format!("does not complete the TLS handshake: {other}"),
        }
    }
}

/// Attempts are counted from one. The client's own delay has no jitter, so all clients that lost a
/// server together would return together.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    pick_up_to((RECONNECT_DELAY_FIRST * 2u32.pow(doublings)).min(RECONNECT_DELAY_MAX))
}

/// Logs an event of an established connection. An authorization failure is logged once until the
/// client is connected again.
fn log_event(event: &Event, identity: &str, refusal_logged: &AtomicBool) {
    match event {
        Event::Connected => refusal_logged.store(false, Relaxed),
        Event::ServerError(error) => {
            tracing::warn!(
                %error,
                "NATS server reported an error; docs/NATS.md lists the permissions of {identity}"
            );
        }
        Event::ClientError(ClientError::Other(error)) if error.contains("authorization") => {
            if !refusal_logged.swap(true, Relaxed) {
                tracing::warn!(
                    "NATS server refuses {identity} (Authorization Violation), retrying"
                );
            }
        }
        _ => tracing::debug!(%event, "NATS connection event"),
    }
}

/// Host and port of the first server.
pub(crate) fn first_address(servers: &[ServerAddr]) -> String {
    let address = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
    servers.first().map(address).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_lost_a_server_together_reconnect_one_by_one() {
        for attempts in [0, 1, 2, 7, usize::MAX] {
            let delays: std::collections::HashSet<_> =
                (0..100).map(|_| reconnect_delay(attempts)).collect();
            assert!(delays.len() > 90, "attempt {attempts}");
            assert!(delays.iter().all(|delay| *delay <= RECONNECT_DELAY_MAX));
        }
        assert!((0..100).all(|_| reconnect_delay(1) <= RECONNECT_DELAY_FIRST));
    }
}
