//! Why there is no connection to Postgres. Every message names the setting and the remedy.

use std::{error::Error, io};

use rustls::AlertDescription;
use tokio_postgres::error::SqlState;

use crate::verify;

/// Why there is no connection. The caller names the server.
#[derive(Debug, thiserror::Error)]
pub enum PgConnectError {
    /// The server does not answer, or the connection broke. A later attempt may succeed.
    #[error("{0}")]
    Unreachable(io::Error),
    /// TLS is not available as `sslmode` requires it, or a certificate is not accepted.
    #[error("{0}")]
    Tls(String),
    /// The server requests a password, and none is set.
    #[error(
        "it asks for a password, and there is none: add it to the URL \
         (postgres://USER:PASSWORD@HOST/DATABASE)"
    )]
    NoPassword,
    /// The authentication exchange failed before the server judged the credentials.
    #[error(
        "{0}; let pg_hba.conf ask for scram-sha-256, md5, cert, peer or trust, and check \
         channel_binding"
    )]
    Authentication(String),
    /// The server refused the connection with an ErrorResponse.
    #[error("{message} (SQLSTATE {code}){}", format_remedy(sqlstate_remedy(code, message)))]
    Server {
        /// The server's message.
        message: String,
        /// Its SQLSTATE.
        code: String,
    },
}

/// Why a stream is not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server answered `N` to SSLRequest.
    #[error(
        "it speaks no TLS, and sslmode requires it: configure ssl = on and a certificate on the \
         server, or write sslmode=prefer if the network is safe"
    )]
    NotOffered,
    /// The server answered neither `S` nor `N` to SSLRequest.
    #[error("unexpected reply '{}' to SSLRequest: is this a Postgres server?", .0.escape_ascii())]
    NotPostgres(u8),
    /// The host is neither a DNS name nor an address.
    #[error(
        "\"{host}\" cannot be a certificate's name: connect by a host name or an address, or write \
         sslmode=disable"
    )]
    Name {
        /// The host as configured.
        host: String,
    },
    /// One side refused the handshake; the text has the reason and the remedy.
    #[error("{0}")]
    Refused(String),
}

fn format_remedy(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

/// The server's message without row values, and its SQLSTATE.
pub fn describe_db_error(error: &tokio_postgres::error::DbError) -> String {
    let code = error.code().code();
    format!("{} (SQLSTATE {code})", redact_row_values(error.message(), code))
}

/// The message, or a replacement where the server's message quotes row values: data exceptions
/// (class 22) and violated constraints (class 23). Row values belong neither into logs nor to
/// consumers.
pub fn redact_row_values<'a>(message: &'a str, code: &str) -> &'a str {
    if code.starts_with("22") || code.starts_with("23") {
        "a value cannot be processed; it is in the server's log"
    } else {
        message
    }
}

/// Whether an error with this SQLSTATE is transient:
///
/// - connection exceptions (08);
/// - too many connections, no memory or no disk space (53);
/// - shutdown, start-up and cancellation (57), I/O errors (58030);
/// - lock and serialization failures (40, 55006, 55P03);
/// - a failover in progress (25006), an idle transaction that timed out (25P03).
pub fn is_transient_sqlstate(code: &str) -> bool {
    const TRANSIENT: [SqlState; 5] = [
        SqlState::OBJECT_IN_USE,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::IO_ERROR,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
        || TRANSIENT.iter().any(|state| state.code() == code)
}

impl PgConnectError {
    /// Whether another attempt with the same settings may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            PgConnectError::Unreachable(_) => true,
            PgConnectError::Server { code, .. } => is_transient_sqlstate(code),
            PgConnectError::Tls(_)
            | PgConnectError::NoPassword
            | PgConnectError::Authentication(_) => false,
        }
    }
}

/// What to do about a refusal; empty if the server's message is sufficient.
pub fn sqlstate_remedy(code: &str, message: &str) -> &'static str {
    match code {
        "28P01" => "check the password",
        "28000" if message.contains("no encryption") => {
            "the server may require TLS for this role: write sslmode=verify-full and \
             sslrootcert=FILE, and check that the server has ssl = on"
        }
        "28000" if message.contains("requires a valid client certificate") => {
            "add sslcert=FILE and sslkey=FILE: a certificate of a CA in the server's ssl_ca_file"
        }
        "28000" if message.contains("certificate authentication failed") => {
            "the certificate's common name has to be the role's name, or mapped to it in \
             pg_ident.conf"
        }
        _ => "",
    }
}

impl TlsError {
    pub(crate) fn from_handshake(error: io::Error, host: &str, trusted: &str) -> TlsError {
        let Some(cause) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
            return TlsError::Io(error);
        };
        TlsError::Refused(match cause {
            rustls::Error::InvalidCertificate(error) => {
                verify::explain_certificate_error(error, host, trusted)
            }
            rustls::Error::AlertReceived(alert) => explain_alert(*alert),
            other => format!("the TLS handshake failed: {other}"),
        })
    }
}

/// The alert by which a server refuses our certificate, in words. With TLS 1.3 the server may send
/// it only after the handshake.
pub fn explain_certificate_refusal(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(explain_alert(*alert)),
        _ => None,
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    use AlertDescription::*;
    let remedy = match alert {
        UnknownCA | BadCertificate | UnsupportedCertificate | CertificateUnknown | DecryptError => {
            "sslcert has to be of a CA in the server's ssl_ca_file"
        }
        CertificateExpired => "renew sslcert",
        CertificateRevoked => "sslcert was revoked: obtain another one",
        CertificateRequired => "add sslcert=FILE and sslkey=FILE",
        ProtocolVersion => "the server has to speak TLS 1.2 or newer (ssl_max_protocol_version)",
        _ => "see the server's log",
    };
    format!("it refused the TLS handshake ({alert:?}): {remedy}")
}

impl From<TlsError> for PgConnectError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => PgConnectError::Unreachable(error),
            refused => PgConnectError::Tls(refused.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for PgConnectError {
    /// tokio-postgres does not expose its error kinds: the cause's type and text have to do.
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let message = db.message().to_owned();
            let code = db.code().code().to_owned();
            return PgConnectError::Server { message, code };
        }
        let text = error.to_string();
        let Some(cause) = error.into_source() else {
            return PgConnectError::Unreachable(io::Error::other(text));
        };
        match cause.downcast::<TlsError>() {
            Ok(error) => (*error).into(),
            Err(cause) => classify_by_text(&text, cause),
        }
    }
}

fn classify_by_text(text: &str, cause: Box<dyn Error + Send + Sync>) -> PgConnectError {
    match &*cause.to_string() {
        "server does not support TLS" => TlsError::NotOffered.into(),
        "password missing" => PgConnectError::NoPassword,
        cause_text if text.starts_with("authentication error") => {
            PgConnectError::Authentication(cause_text.to_owned())
        }
        cause_text if text.starts_with("error performing TLS handshake") => {
            PgConnectError::Tls(cause_text.to_owned())
        }
        _ => match cause.downcast::<io::Error>() {
            Ok(error) => explain_certificate_refusal(&error)
                .map_or(PgConnectError::Unreachable(*error), PgConnectError::Tls),
            Err(cause) => PgConnectError::Unreachable(io::Error::other(cause)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_sqlstates_are_told_apart_from_permanent_ones() {
        let transient = [
            ("connection_failure", "08006"),
            ("read_only_sql_transaction", "25006"),
            ("idle_in_transaction_session_timeout", "25P03"),
            ("deadlock_detected", "40P01"),
            ("too_many_connections", "53300"),
            ("disk_full", "53100"),
            ("object_in_use", "55006"),
            ("lock_not_available", "55P03"),
            ("admin_shutdown", "57P01"),
            ("crash_shutdown", "57P02"),
            ("cannot_connect_now", "57P03"),
            ("io_error", "58030"),
        ];
        let permanent = [
            ("invalid_authorization_specification", "28000"),
            ("invalid_password", "28P01"),
            ("invalid_catalog_name", "3D000"),
            ("insufficient_privilege", "42501"),
            ("undefined_object", "42704"),
            ("undefined_table", "42P01"),
            ("undefined_file", "58P01"),
            ("data_corrupted", "XX001"),
        ];
        for (name, code) in transient {
            assert!(is_transient_sqlstate(code), "{name}");
        }
        for (name, code) in permanent {
            assert!(!is_transient_sqlstate(code), "{name}");
        }
    }
}
