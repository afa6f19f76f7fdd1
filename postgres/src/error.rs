//! Why there is no connection, in words that name the setting and the remedy.

use std::{error::Error, io};

use rustls::AlertDescription;
use tokio_postgres::error::SqlState;

use crate::trust;

/// A connection that did not come about. Which server it was the caller says.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers, or not to the end: it may pass.
    #[error("{0}")]
    Unreachable(io::Error),
    #[error("{0}")]
    Tls(String),
    #[error(
        "it asks for a password, and there is none: add it to the URL (postgres://USER:PASSWORD@HOST/DATABASE)"
    )]
    NoPassword,
    #[error(
        "{0}; let pg_hba.conf ask for scram-sha-256, md5, cert, peer or trust, and check channel_binding"
    )]
    Authentication(String),
    /// The server's own words.
    #[error("{message} (SQLSTATE {code}){}", after(remedy(code, message)))]
    Server { message: String, code: String },
}

/// Why a stream is not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "it speaks no TLS, and sslmode wants it: let the server have ssl = on and a certificate, or write sslmode=prefer \
         where the way to it is safe"
    )]
    NotOffered,
    #[error("it answered '{}' to the question for TLS: is this a Postgres server?", .0.escape_ascii())]
    NotPostgres(u8),
    #[error(
        "\"{host}\" cannot be a certificate's name: connect by a host name or an address, or write sslmode=disable"
    )]
    Name { host: String },
    #[error("{0}")]
    Refused(String),
}

fn after(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

/// What a server said, without values of rows, and the code by which it can be looked up.
pub fn server_words(error: &tokio_postgres::error::DbError) -> String {
    let code = error.code().code();
    format!("{} (SQLSTATE {code})", without_data(error.message(), code))
}

/// The server quotes the value that it stumbled over, in a row filter say: data exceptions (22) and violated constraints
/// (23). It is not for a log, nor for consumers.
pub fn without_data<'a>(message: &'a str, code: &str) -> &'a str {
    if code.starts_with("22") || code.starts_with("23") {
        "a value cannot be processed; it stands in the server's log"
    } else {
        message
    }
}

/// Whether what a server said with this SQLSTATE passes: connection exceptions (08), too many connections, no memory or no
/// room (53), shutdown and start-up (57P), I/O (58030), lock and serialization trouble (40, 55006, 55P03), a failover under
/// way (25006), a transaction that stood still for too long (25P03).
pub fn passes(code: &str) -> bool {
    const PASSING: [SqlState; 5] = [
        SqlState::OBJECT_IN_USE,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::IO_ERROR,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
        || PASSING.iter().any(|state| state.code() == code)
}

impl ConnectError {
    /// Whether another attempt may do better, with nothing changed on our side.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::Unreachable(_) => true,
            ConnectError::Server { code, .. } => passes(code),
            ConnectError::Tls(_) | ConnectError::NoPassword | ConnectError::Authentication(_) => {
                false
            }
        }
    }
}

/// What to do about a refusal; empty if its words say all there is to say.
pub fn remedy(code: &str, message: &str) -> &'static str {
    match code {
        "28P01" => "check the password",
        "28000" if message.contains("no encryption") => {
            "the server may want TLS of this role: write sslmode=verify-full and sslrootcert=FILE, and see to ssl = on"
        }
        "28000" if message.contains("requires a valid client certificate") => {
            "add sslcert=FILE and sslkey=FILE: a certificate of a CA in the server's ssl_ca_file"
        }
        "28000" if message.contains("certificate authentication failed") => {
            "the certificate's common name has to be the role's name, or mapped to it in pg_ident.conf"
        }
        _ => "",
    }
}

impl TlsError {
    pub(crate) fn of_handshake(error: io::Error, host: &str, trusted: &str) -> TlsError {
        let Some(cause) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
            return TlsError::Io(error);
        };
        TlsError::Refused(match cause {
            rustls::Error::InvalidCertificate(error) => trust::explain(error, host, trusted),
            rustls::Error::AlertReceived(alert) => refused_by_server(*alert),
            other => format!("the TLS handshake failed: {other}"),
        })
    }
}

/// The server's verdict on our certificate may come only after the handshake.
pub fn refusal(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(refused_by_server(*alert)),
        _ => None,
    }
}

fn refused_by_server(alert: AlertDescription) -> String {
    use AlertDescription::*;
    let remedy = match alert {
        UnknownCA | BadCertificate | UnsupportedCertificate | CertificateUnknown | DecryptError => {
            "sslcert has to be of a CA in the server's ssl_ca_file"
        }
        CertificateExpired => "renew sslcert",
        CertificateRevoked => "sslcert was revoked: have another one issued",
        CertificateRequired => "add sslcert=FILE and sslkey=FILE",
        ProtocolVersion => "the server has to speak TLS 1.2 or newer (ssl_max_protocol_version)",
        _ => "see the server's log",
    };
    format!("it refused the TLS handshake ({alert:?}): {remedy}")
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => ConnectError::Unreachable(error),
            refused => ConnectError::Tls(refused.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    /// tokio-postgres keeps what happened to itself: only its causes and its words tell.
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let (message, code) = (db.message().to_owned(), db.code().code().to_owned());
            return ConnectError::Server { message, code };
        }
        let said = error.to_string();
        let Some(cause) = error.into_source() else {
            return ConnectError::Unreachable(io::Error::other(said));
        };
        match cause.downcast::<TlsError>() {
            Ok(error) => (*error).into(),
            Err(cause) => told_by_words(&said, cause),
        }
    }
}

fn told_by_words(said: &str, cause: Box<dyn Error + Send + Sync>) -> ConnectError {
    match &*cause.to_string() {
        "server does not support TLS" => TlsError::NotOffered.into(),
        "password missing" => ConnectError::NoPassword,
        words if said.starts_with("authentication error") => {
            ConnectError::Authentication(words.to_owned())
        }
        words if said.starts_with("error performing TLS handshake") => {
            ConnectError::Tls(words.to_owned())
        }
        _ => match cause.downcast::<io::Error>() {
            Ok(error) => {
                refusal(&error).map_or(ConnectError::Unreachable(*error), ConnectError::Tls)
            }
            Err(cause) => ConnectError::Unreachable(io::Error::other(cause)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_pass_are_waited_for_and_others_told() {
        let passing = [
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
        let telling = [
            ("invalid_authorization_specification", "28000"),
            ("invalid_password", "28P01"),
            ("invalid_catalog_name", "3D000"),
            ("insufficient_privilege", "42501"),
            ("undefined_object", "42704"),
            ("undefined_table", "42P01"),
            ("undefined_file", "58P01"),
            ("data_corrupted", "XX001"),
        ];
        for (name, code) in passing {
            assert!(passes(code), "{name}");
        }
        for (name, code) in telling {
            assert!(!passes(code), "{name}");
        }
    }
}
