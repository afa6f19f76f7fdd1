//! Where NATS is, and as whom one comes: the one place that makes connection options, for consumers, tools and the
//! gateway alike.
//!
//! What is said over the connection is not known here. Secrets show up neither in errors nor in `Debug`.

use std::{
    fs,
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    Client, ClientError, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    rustls::{
        self, CertificateError,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use secrecy::{ExposeSecret, SecretString};

mod identity;

use crate::backoff::anywhere_in;
use identity::Identity;

/// A connection on which nothing arrives is given up after four of these: no network has to say that it is gone.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The first attempt to connect again comes within so long, each further one within twice as long.
const CONNECT_WITHIN: Duration = Duration::from_millis(100);
const CONNECT_WITHIN_MAX: Duration = Duration::from_secs(4);

/// How to reach NATS. At most one of user, token, nkey and creds; a client certificate can go with each of them.
///
/// ```no_run
/// # use walgate_consumer::NatsAccess;
/// let access = NatsAccess {
///     creds_file: Some("edge.creds".into()),
///     ca_file: Some("ca.pem".into()),
///     ..NatsAccess::from("tls://nats.example.org:4222")
/// };
/// ```
#[derive(Clone, Debug, Default)]
pub struct NatsAccess {
    /// `nats://host:4222`, `tls://host:4222`; several separated by commas; `user:password@` or `token@` before the first host.
    pub url: SecretString,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub token: Option<SecretString>,
    /// Holds a user's seed, `SU…`. Read again at every connection, as are all of these files.
    pub nkey_file: Option<PathBuf>,
    /// Holds a user's JWT and its seed, as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// Never without TLS. So, too, with a `tls://` URL and with any of the files below.
    pub tls: bool,
    /// Authorities, in PEM, one of which has signed the server's certificate. Absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key, in PEM.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Answers come to subjects below this one. Absent: `_INBOX`. Whoever may listen there sees them.
    pub inbox_prefix: Option<String>,
}

impl<T: Into<String>> From<T> for NatsAccess {
    fn from(url: T) -> Self {
        NatsAccess { url: url.into().into(), ..NatsAccess::default() }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Something was set that cannot work.
    #[error("nats.{setting}: {problem}")]
    Setting { setting: &'static str, problem: String },
    /// The server, or its certificate, is there and trying again does not help.
    #[error("NATS at {server} {problem}")]
    Refused { server: String, problem: String },
    /// It may come back.
    #[error("NATS at {server} cannot be reached: {reason}")]
    Away { server: String, reason: String },
}

fn setting<T>(setting: &'static str, problem: impl Into<String>) -> Result<T, AccessError> {
    Err(AccessError::Setting { setting, problem: problem.into() })
}

/// Access that was checked: files are there and hold what they should.
#[derive(Debug)]
pub struct Way {
    servers: Vec<ServerAddr>,
    options: ConnectOptions,
    who: Identity,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
}

impl NatsAccess {
    /// Whether nothing but the URL is set.
    pub fn is_plain(&self) -> bool {
        let NatsAccess {
            user,
            password,
            token,
            nkey_file,
            creds_file,
            tls,
            ca_file,
            cert_file,
            key_file,
            inbox_prefix,
            ..
        } = self;
        let files = [nkey_file, creds_file, ca_file, cert_file, key_file];
        let secrets = [password, token];
        !tls && user.is_none()
            && inbox_prefix.is_none()
            && files.iter().all(|file| file.is_none())
            && secrets.iter().all(|s| s.is_none())
    }

    /// Checks all settings; connects to nobody.
    pub fn prepare(&self) -> Result<Way, AccessError> {
        let (servers, in_url) = servers(self.url.expose_secret())?;
        let who = Identity::of(self, in_url)?;
        let mut options = who.options();
        if let Some(file) = &self.ca_file {
            certificates("ca_file", file)?;
            options = options.add_root_certificates(file.clone());
        }
        match (&self.cert_file, &self.key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                certificates("cert_file", cert)?;
                private_key(key)?;
                options = options.add_client_certificate(cert.clone(), key.clone());
            }
            (Some(_), None) => {
                return setting("key_file", "is missing: nats.cert_file needs its key");
            }
            (None, Some(_)) => {
                return setting(
                    "cert_file",
                    "is missing: nats.key_file is the key of a certificate",
                );
            }
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(inbox(prefix)?);
        }
        // Otherwise whoever sits in between could offer a connection without.
        let tls = self.tls || self.ca_file.is_some() || self.cert_file.is_some();
        let said = Arc::new(AtomicBool::new(false));
        let tried = AtomicBool::new(false);
        let shown = who.to_string();
        let options = options
            .ping_interval(PING_EVERY)
            .require_tls(tls)
            .reconnect_delay_callback(move |attempts| match tried.swap(true, Relaxed) {
                true => connect_after(attempts),
                false => Duration::ZERO,
            })
            .event_callback(move |event| {
                told(&event, &shown, &said);
                std::future::ready(())
            });
        let (ca_file, cert_file) = (self.ca_file.clone(), self.cert_file.clone());
        Ok(Way { servers, options, who, ca_file, cert_file })
    }
}

impl Way {
    /// What else the connection is to be like.
    pub fn with(mut self, more: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Way {
        self.options = more(self.options);
        self
    }

    /// Waits until one of the servers answers, or all have failed.
    pub async fn connect(&self) -> Result<Client, AccessError> {
        let connected = self.options.clone().connect(&self.servers[..]).await;
        connected.map_err(|error| self.explain(&error))
    }

    /// Does not wait: whatever is asked is answered when a server is there.
    pub async fn connect_later(&self) -> Result<Client, AccessError> {
        let options = self.options.clone().retry_on_initial_connect();
        let connected = options.connect(&self.servers[..]).await;
        connected.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &ConnectError) -> AccessError {
        let server = shown(&self.servers);
        let reason = chain(error);
        let refused = |problem: String| AccessError::Refused { server: server.clone(), problem };
        match (error.kind(), tls_error(error)) {
            (ConnectErrorKind::AuthorizationViolation, _) => refused(format!(
                "refuses {} (Authorization Violation): {}",
                self.who,
                self.who.remedy()
            )),
            (ConnectErrorKind::Authentication, _) => {
                refused(format!("cannot be told who we are: {reason}"))
            }
            (_, Some(error)) => refused(self.explain_tls(error)),
            (ConnectErrorKind::Tls, None) => {
                refused(format!("cannot be met with TLS: {reason}; set nats.ca_file"))
            }
            _ => AccessError::Away { server, reason },
        }
    }

    fn explain_tls(&self, error: &rustls::Error) -> String {
        let authority =
            self.ca_file.as_ref().map_or("the system's authorities".to_owned(), |file| {
                format!("an authority in {}", file.display())
            });
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
                "has a certificate that is not signed by {authority}: set nats.ca_file to the one that signed it"
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "has a certificate for another name: write the name that it holds into nats.url"
                .to_owned(),
            rustls::Error::InvalidCertificate(problem) => {
                format!("has a bad certificate: {problem}")
            }
            rustls::Error::AlertReceived(alert) => {
                let ours = self.cert_file.as_ref().map_or("none is set".to_owned(), |file| {
                    format!("nats.cert_file is {}", file.display())
                });
                format!(
                    "refuses our certificate ({alert:?}; {ours}): it wants one that is signed by its own authority, in nats.cert_file and nats.key_file"
                )
            }
            rustls::Error::InvalidMessage(_) => {
                "does not speak TLS, which nats.url or another setting asks for".to_owned()
            }
            other => format!("cannot be met with TLS: {other}"),
        }
    }
}

/// Attempts are counted from one. The client's own delay is the same for all who lost a server together.
fn connect_after(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    anywhere_in((CONNECT_WITHIN * 2u32.pow(doublings)).min(CONNECT_WITHIN_MAX))
}

/// What happens to a connection later on, in the log.
fn told(event: &Event, who: &str, said: &AtomicBool) {
    match event {
        Event::Connected => said.store(false, Relaxed),
        Event::ServerError(error) => {
            tracing::warn!(%error, "NATS refuses something; docs/NATS.md lists what {who} has to be allowed");
        }
        Event::ClientError(ClientError::Other(error)) if error.contains("authorization") => {
            if !said.swap(true, Relaxed) {
                tracing::warn!("NATS refuses {who} (Authorization Violation), trying again");
            }
        }
        _ => tracing::debug!(%event, "NATS"),
    }
}

/// Host and port of the first, without secrets.
fn shown(servers: &[ServerAddr]) -> String {
    let shown = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
    servers.first().map(shown).unwrap_or_default()
}

/// User and password, or a token.
type InUrl = Option<(String, Option<String>)>;

/// Addresses without secrets, for the client logs them, and the secrets of the first: one account for all servers of a
/// cluster.
fn servers(urls: &str) -> Result<(Vec<ServerAddr>, InUrl), AccessError> {
    let mut servers = vec![];
    let mut found = None;
    for (index, text) in urls.split(',').enumerate() {
        // What is wrong with it is not shown: it may hold a password.
        let bad = || AccessError::Setting {
            setting: "url",
            problem: format!(
                "server {} is no address: write nats://host:4222, with %40 for an @ in a password",
                index + 1
            ),
        };
        let mut url = text.trim().parse::<ServerAddr>().map_err(|_| bad())?.into_inner();
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
        };
        if index == 0 && !url.username().is_empty() {
            found = Some((decoded(url.username()), url.password().map(decoded)));
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| bad())?;
        servers.push(ServerAddr::from_url(url).map_err(|_| bad())?);
    }
    Ok((servers, found))
}

fn inbox(prefix: &str) -> Result<&str, AccessError> {
    let token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if prefix.split('.').all(token) {
        Ok(prefix)
    } else {
        setting(
            "inbox_prefix",
            format!("'{prefix}' is no subject: use letters, digits, _ and -, _INBOX_edge say"),
        )
    }
}

fn certificates(name: &'static str, file: &Path) -> Result<(), AccessError> {
    let read = read_pem(name, file, |reader| {
        CertificateDer::pem_reader_iter(reader).collect::<Result<Vec<_>, _>>()
    })?;
    match read {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => setting(
            name,
            format!(
                "{} holds no certificate: it has to be PEM, -----BEGIN CERTIFICATE-----",
                file.display()
            ),
        ),
    }
}

fn private_key(file: &Path) -> Result<(), AccessError> {
    match read_pem("key_file", file, PrivateKeyDer::from_pem_reader)? {
        Ok(_) => Ok(()),
        Err(_) => setting(
            "key_file",
            format!(
                "{} holds no private key: it has to be PEM, -----BEGIN PRIVATE KEY-----",
                file.display()
            ),
        ),
    }
}

fn read_pem<T>(
    name: &'static str,
    file: &Path,
    read: impl FnOnce(BufReader<fs::File>) -> T,
) -> Result<T, AccessError> {
    match fs::File::open(file) {
        Ok(file) => Ok(read(BufReader::new(file))),
        Err(error) => unreadable(name, file, &error),
    }
}

fn unreadable<T>(name: &'static str, file: &Path, error: &io::Error) -> Result<T, AccessError> {
    setting(name, format!("{} cannot be read: {error}", file.display()))
}

/// All that is said, from the outermost to the innermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        source = inner.source();
    }
    words
}

fn tls_error(error: &ConnectError) -> Option<&rustls::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        let wrapped = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref()) {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(access: &NatsAccess) -> String {
        access.prepare().unwrap_err().to_string()
    }

    #[test]
    fn secrets_are_taken_out_of_addresses() {
        let access = NatsAccess::from("nats://u:hunter%402@a:1, tls://b:2");
        let way = access.prepare().unwrap();
        assert_eq!(way.who.to_string(), "user 'u'");
        let debug = format!("{access:?} {way:?}");
        assert!(!debug.contains("hunter"), "{debug}");
        assert_eq!(shown(&way.servers), "a:1");
        assert!(way.servers.iter().all(|server| !format!("{server:?}").contains("hunter")));
        let token = NatsAccess::from("nats://hunter2@a:1").prepare().unwrap();
        assert_eq!(token.who.to_string(), "the token");
        assert!(!format!("{token:?}").contains("hunter2"));
        assert!(!error(&NatsAccess::from("nats://u:hunter2@a:port")).contains("hunter2"));
    }

    #[test]
    fn who_lost_a_server_together_comes_back_one_by_one() {
        for attempts in [0, 1, 2, 7, usize::MAX] {
            let delays: std::collections::HashSet<_> =
                (0..100).map(|_| connect_after(attempts)).collect();
            assert!(delays.len() > 90, "attempt {attempts}");
            assert!(delays.iter().all(|delay| *delay <= CONNECT_WITHIN_MAX));
        }
        assert!((0..100).all(|_| connect_after(1) <= CONNECT_WITHIN));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let base = || NatsAccess::from("nats://a:1");
        let none = Some(PathBuf::from("/no/such/file"));
        let said = error(&NatsAccess { nkey_file: none.clone(), ..base() });
        assert!(said.contains("nats.nkey_file") && said.contains("/no/such/file"), "{said}");
        let seed = nkeys::KeyPair::new_account().seed().unwrap();
        let said = error(&NatsAccess { nkey_file: file("a.nk", &seed), ..base() });
        assert!(said.contains("a.nk") && said.contains("SU") && !said.contains(&seed), "{said}");
        let said = error(&NatsAccess { nkey_file: file("b.nk", "hunter2"), ..base() });
        assert!(said.contains("no seed") && !said.contains("hunter2"), "{said}");
        let said = error(&NatsAccess { creds_file: file("c.creds", &seed), ..base() });
        assert!(said.contains("nats.creds_file") && said.contains("NATS USER JWT"), "{said}");
        let both = NatsAccess { nkey_file: none.clone(), creds_file: none.clone(), ..base() };
        assert!(
            error(&both).contains("nats.nkey_file") && error(&both).contains("nats.creds_file")
        );
        let twice = NatsAccess { user: Some("u".into()), ..NatsAccess::from("nats://token@a:1") };
        assert!(error(&twice).contains("nats.url"), "{}", error(&twice));
        assert!(error(&NatsAccess { user: Some("u".into()), ..base() }).contains("nats.password"));
        assert!(error(&NatsAccess { ca_file: none.clone(), ..base() }).contains("nats.ca_file"));
        assert!(
            error(&NatsAccess { ca_file: file("ca.pem", "x"), ..base() })
                .contains("no certificate")
        );
        assert!(error(&NatsAccess { cert_file: none.clone(), ..base() }).contains("nats.key_file"));
        assert!(error(&NatsAccess { key_file: none, ..base() }).contains("nats.cert_file"));
        assert!(error(&NatsAccess { inbox_prefix: Some("a.*".into()), ..base() }).contains("a.*"));
    }
}
