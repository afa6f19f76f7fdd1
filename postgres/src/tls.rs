//! From libpq's words to a TLS configuration, and from a socket to an encrypted stream: the one place for both the SQL
//! client and the replication client.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;

use crate::{
    error::TlsError,
    stream::TlsStream,
    trust::{Anchors, Depth, Trust},
    words::{Mode, Roots, Words},
};

/// Length, then the code that stands in a version's place.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// By which Postgres 17 and newer know a client that does not ask before.
const ALPN: &[u8] = b"postgresql";

/// How connections are encrypted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    mode: Mode,
    negotiation: SslNegotiation,
    /// What errors call those that are trusted.
    pub(crate) trusted: Arc<str>,
    config: Arc<ClientConfig>,
}

/// A stream that was asked for encryption.
#[derive(Debug)]
pub enum Negotiated<S> {
    Plain(S),
    Encrypted(Box<TlsStream<S>>),
}

impl Tls {
    /// Reads certificates and key. The error completes "the connection string …".
    pub(crate) fn read(words: &Words, negotiation: SslNegotiation) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let depth = match &words.roots {
            Some(roots) if words.mode.verifies() => {
                Depth::Chain { anchors: anchors(roots)?, name: words.mode == Mode::VerifyFull }
            }
            _ => Depth::Nothing,
        };
        let trust = Trust { depth, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot be used for TLS: {e}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        let mut config = match identity(words)? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                check_key(words, &chain, &key, &provider)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| format!("has an sslcert that cannot be used: {e}"))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let trusted = match &words.roots {
            Some(Roots::File(file)) => format!("sslrootcert ({})", file.display()),
            Some(Roots::System) => "the system's list (sslrootcert=system)".into(),
            None => String::new(),
        };
        let (trusted, config) = (trusted.into(), Arc::new(config));
        Ok(Tls { mode: words.mode, negotiation, trusted, config })
    }

    /// Asks the server for encryption as `sslmode` says and shakes hands. A unix socket is not for this.
    pub async fn negotiate<S>(&self, mut stream: S, host: &str) -> Result<Negotiated<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.mode == Mode::Disable {
            return Ok(Negotiated::Plain(stream));
        }
        if self.negotiation == SslNegotiation::Postgres {
            stream.write_all(&SSL_REQUEST).await?;
            stream.flush().await?;
            // One byte and no more: what somebody slipped in behind it, unencrypted, meets the handshake.
            match stream.read_u8().await? {
                b'S' => {}
                b'N' if self.mode == Mode::Prefer => return Ok(Negotiated::Plain(stream)),
                b'N' => return Err(TlsError::NotOffered),
                other => return Err(TlsError::NotPostgres(other)),
            }
        }
        let stream = self.handshake(stream, host).await?;
        Ok(Negotiated::Encrypted(Box::new(stream)))
    }

    pub(crate) async fn handshake<S>(&self, stream: S, host: &str) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError::Name { host: host.to_owned() })?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| TlsError::of_handshake(e, host, &self.trusted))?;
        Ok(TlsStream::new(stream))
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Certificate and key that we show, if the server wants to see any.
fn identity(words: &Words) -> Result<Option<Identity>, String> {
    let (certificate, key) = match (&words.certificate, &words.key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            return Err("has sslcert without sslkey: add sslkey=FILE with its key".into());
        }
        (None, Some(_)) => {
            return Err(
                "has sslkey without sslcert: add sslcert=FILE with the key's certificate".into()
            );
        }
    };
    let chain = certificates("sslcert", certificate)?;
    let key = match PrivateKeyDer::from_pem_file(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => {
            return Err(format!(
                "names sslkey={}, which holds no private key that can be read: it has to be PEM, and one with a \
                 passphrase has to be decrypted before (openssl pkey -in … -out …)",
                key.display()
            ));
        }
        Err(error) => return Err(unreadable("sslkey", key, &error)),
    };
    Ok(Some((chain, key)))
}

fn check_key(
    words: &Words,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), String> {
    let show = |path: &Option<std::path::PathBuf>| {
        path.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let (certificate, file) = (show(&words.certificate), show(&words.key));
    let loaded = rustls::sign::CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider);
    match loaded {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("names sslkey={file}, which is not the key of sslcert={certificate}"))
        }
        Err(error) => Err(format!("names sslkey={file}, which cannot be used: {error}")),
    }
}

fn anchors(roots: &Roots) -> Result<Anchors, String> {
    let listed = match roots {
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::File(file) => certificates("sslrootcert", file)?,
    };
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(listed.iter().cloned());
    match roots {
        Roots::System if usable == 0 => Err(
            "has sslrootcert=system, but no certificates were found on this system: install ca-certificates, or name a \
             file"
            .into(),
        ),
        Roots::File(file) if usable < listed.len() => Err(format!(
            "names sslrootcert={}, which holds a certificate that cannot be read",
            file.display()
        )),
        // Not one of the system's is a server.
        Roots::System => Ok(Anchors { roots: store, listed: vec![] }),
        Roots::File(_) => Ok(Anchors { roots: store, listed }),
    }
}

fn certificates(word: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<CertificateDer<'static>> = read.map_err(|e| unreadable(word, file, &e))?;
    if found.is_empty() {
        return Err(format!(
            "names {word}={}, which holds no certificate in PEM (-----BEGIN CERTIFICATE-----)",
            file.display()
        ));
    }
    Ok(found)
}

fn unreadable(word: &str, file: &Path, error: &pem::Error) -> String {
    let file = file.display();
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("names {word}={file}, which does not exist")
        }
        pem::Error::Io(error) => format!("names {word}={file}, which cannot be read: {error}"),
        error => format!("names {word}={file}, which is not PEM: {error}"),
    }
}
