//! The settings of a connection to NATS, and their validation. No server is contacted here.

use std::{
    fs,
    io::BufReader,
    path::{Path, PathBuf},
};

use async_nats::{
    ServerAddr,
    rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    connect::NatsConnector,
    error::{NatsConnectError, reject_setting, reject_unreadable},
    identity::NatsIdentity,
};

/// How to reach NATS. At most one of user, token, nkey and creds may be set; a client certificate
/// can be combined with each of them.
///
/// ```no_run
/// # use walgate_nats_connect::NatsOptions;
/// let options = NatsOptions {
///     creds_file: Some("edge.creds".into()),
///     ca_file: Some("ca.pem".into()),
///     ..NatsOptions::from("tls://nats.example.org:4222")
/// };
/// ```
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// `nats://host:4222` or `tls://host:4222`; several servers are separated by commas.
    /// `user:password@` or `token@` may precede the first host.
    pub url: SecretString,
    /// User name; needs `password`.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<SecretString>,
    /// A token instead of user and password.
    pub token: Option<SecretString>,
    /// File with a user's seed, `SU…`. This and the other credential files are read again at every
    /// connection, so credentials can be renewed in place.
    pub nkey_file: Option<PathBuf>,
    /// File with a user's JWT and seed, as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// Require TLS. Implied by a `tls://` URL or any of the certificate files.
    pub tls: bool,
    /// CA certificates in PEM that may sign the server's certificate. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate in PEM; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// Subject prefix for replies. Default: `_INBOX`. Every user who may subscribe below the prefix
    /// sees the replies.
    pub inbox_prefix: Option<String>,
}

impl<T: Into<String>> From<T> for NatsOptions {
    fn from(url: T) -> Self {
        NatsOptions { url: url.into().into(), ..NatsOptions::default() }
    }
}

impl NatsOptions {
    /// Whether nothing but the URL is set.
    pub fn has_only_url(&self) -> bool {
        let NatsOptions {
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

    /// Validates all settings and reads all files; contacts no server.
    ///
    /// # Errors
    /// [`NatsConnectError::Setting`] names the first setting that cannot work.
    pub fn build_connector(&self) -> Result<NatsConnector, NatsConnectError> {
        let (servers, in_url) = parse_servers(self.url.expose_secret())?;
        let identity = NatsIdentity::from_options(self, in_url)?;
        let mut options = identity.connect_options();
        if let Some(file) = &self.ca_file {
            check_certificates("ca_file", file)?;
            options = options.add_root_certificates(file.clone());
        }
        match (&self.cert_file, &self.key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                check_certificates("cert_file", cert)?;
                check_private_key(key)?;
                options = options.add_client_certificate(cert.clone(), key.clone());
            }
            (Some(_), None) => {
                return reject_setting("key_file", "is missing: nats.cert_file needs its key");
            }
            (None, Some(_)) => {
                return reject_setting(
                    "cert_file",
                    "is missing: nats.key_file is the key of a certificate",
                );
            }
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(check_inbox_prefix(prefix)?);
        }
        // Without this, an attacker on the path could offer a connection in clear text.
        let tls = self.tls || self.ca_file.is_some() || self.cert_file.is_some();
        options = options.require_tls(tls);
        let ca_file = self.ca_file.clone();
        let cert_file = self.cert_file.clone();
        Ok(NatsConnector::new(servers, options, identity, ca_file, cert_file))
    }
}

/// User and password, or a token, out of a URL.
pub(crate) type UrlCredentials = Option<(String, Option<String>)>;

/// The servers' addresses without credentials, because the client logs addresses, and the
/// credentials of the first URL: all servers of a cluster share one account.
fn parse_servers(urls: &str) -> Result<(Vec<ServerAddr>, UrlCredentials), NatsConnectError> {
    let mut servers = vec![];
    let mut credentials = None;
    for (index, text) in urls.split(',').enumerate() {
        // The text itself is not shown: it may hold a password.
        let invalid = || NatsConnectError::Setting {
            setting: "url",
            problem: format!(
                "server {} is not an address: write nats://host:4222, and %40 for an @ in a password",
                index + 1
            ),
        };
        let mut url = text.trim().parse::<ServerAddr>().map_err(|_| invalid())?.into_inner();
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
        };
        if index == 0 && !url.username().is_empty() {
            credentials = Some((decode(url.username()), url.password().map(decode)));
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| invalid())?;
        servers.push(ServerAddr::from_url(url).map_err(|_| invalid())?);
    }
    Ok((servers, credentials))
}

fn check_inbox_prefix(prefix: &str) -> Result<&str, NatsConnectError> {
    let is_valid_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if prefix.split('.').all(is_valid_token) {
        Ok(prefix)
    } else {
        reject_setting(
            "inbox_prefix",
            format!(
                "'{prefix}' is not a subject: use letters, digits, _ and -, for example _INBOX_edge"
            ),
        )
    }
}

fn check_certificates(setting: &'static str, file: &Path) -> Result<(), NatsConnectError> {
    let read = read_pem(setting, file, |reader| {
        CertificateDer::pem_reader_iter(reader).collect::<Result<Vec<_>, _>>()
    })?;
    match read {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => reject_setting(
            setting,
            format!("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", file.display()),
        ),
    }
}

fn check_private_key(file: &Path) -> Result<(), NatsConnectError> {
    match read_pem("key_file", file, PrivateKeyDer::from_pem_reader)? {
        Ok(_) => Ok(()),
        Err(_) => reject_setting(
            "key_file",
            format!("{} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", file.display()),
        ),
    }
}

fn read_pem<T>(
    setting: &'static str,
    file: &Path,
    read: impl FnOnce(BufReader<fs::File>) -> T,
) -> Result<T, NatsConnectError> {
    match fs::File::open(file) {
        Ok(file) => Ok(read(BufReader::new(file))),
        Err(error) => reject_unreadable(setting, file, &error),
    }
}
