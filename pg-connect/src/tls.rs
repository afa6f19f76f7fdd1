//! From libpq's TLS parameters to a rustls configuration, and from a socket to an encrypted stream.
//! The SQL client and the replication client both use it.

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
    dsn::{TlsMode, TlsParams, TrustedRoots},
    error::TlsError,
    stream::TlsStream,
    verify::{ServerVerifier, TrustAnchors, VerifyDepth},
};

/// SSLRequest: the length, then a code in place of a protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The ALPN protocol by which Postgres 17 and newer accept a handshake without SSLRequest.
const ALPN: &[u8] = b"postgresql";

/// Negotiates TLS as `sslmode` demands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsNegotiator {
    mode: TlsMode,
    negotiation: SslNegotiation,
    /// The trusted CA certificates, as errors call them.
    trusted: Arc<str>,
    config: Arc<ClientConfig>,
}

/// A stream after the negotiation.
#[derive(Debug)]
pub enum NegotiatedStream<S> {
    /// The stream stays in clear text.
    Plain(S),
    /// The stream is encrypted.
    Encrypted(Box<TlsStream<S>>),
}

impl TlsNegotiator {
    /// Reads certificates and key. The error completes the sentence "the connection string …".
    pub(crate) fn new(
        params: &TlsParams,
        negotiation: SslNegotiation,
    ) -> Result<TlsNegotiator, String> {
        let provider = Arc::new(ring::default_provider());
        let depth = match &params.roots {
            Some(roots) if params.mode.verifies_certificate() => VerifyDepth::Chain {
                anchors: load_anchors(roots)?,
                name: params.mode == TlsMode::VerifyFull,
            },
            _ => VerifyDepth::KeyOnly,
        };
        let verifier = ServerVerifier { depth, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot be used for TLS: {e}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match load_client_certificate(params)? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                check_client_key(params, &chain, &key, &provider)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| format!("has an sslcert that cannot be used: {e}"))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let trusted = match &params.roots {
            Some(TrustedRoots::File(file)) => format!("sslrootcert ({})", file.display()),
            Some(TrustedRoots::System) => "the system's list (sslrootcert=system)".into(),
            None => String::new(),
        };
        let mode = params.mode;
        Ok(TlsNegotiator { mode, negotiation, trusted: trusted.into(), config: Arc::new(config) })
    }

    /// Sends SSLRequest as `sslmode` demands, then performs the handshake. Not for unix sockets.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn negotiate<S>(
        &self,
        mut stream: S,
        host: &str,
    ) -> Result<NegotiatedStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.mode == TlsMode::Disable {
            return Ok(NegotiatedStream::Plain(stream));
        }
        if self.negotiation == SslNegotiation::Postgres {
            stream.write_all(&SSL_REQUEST).await?;
            stream.flush().await?;
            // Exactly one byte is read. Clear text that an attacker appends to it reaches the
            // handshake, which fails.
            match stream.read_u8().await? {
                b'S' => {}
                b'N' if self.mode == TlsMode::Prefer => return Ok(NegotiatedStream::Plain(stream)),
                b'N' => return Err(TlsError::NotOffered),
                other => return Err(TlsError::NotPostgres(other)),
            }
        }
        let stream = self.handshake(stream, host).await?;
        Ok(NegotiatedStream::Encrypted(Box::new(stream)))
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
            .map_err(|e| TlsError::from_handshake(e, host, &self.trusted))?;
        Ok(TlsStream::new(stream))
    }
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate chain and key that are presented if the server requests a client certificate.
fn load_client_certificate(params: &TlsParams) -> Result<Option<ClientCertificate>, String> {
    let (certificate, key) = match (&params.certificate, &params.key) {
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
    let chain = read_certificates("sslcert", certificate)?;
    let key = match PrivateKeyDer::from_pem_file(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => {
            return Err(format!(
                "names sslkey={}, which holds no private key that can be read: it has to be PEM, \
                 and a key with a passphrase has to be decrypted first (openssl pkey -in … -out …)",
                key.display()
            ));
        }
        Err(error) => return Err(describe_unreadable("sslkey", key, &error)),
    };
    Ok(Some((chain, key)))
}

fn check_client_key(
    params: &TlsParams,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), String> {
    let show = |path: &Option<std::path::PathBuf>| {
        path.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let certificate = show(&params.certificate);
    let file = show(&params.key);
    let loaded = rustls::sign::CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider);
    match loaded {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("names sslkey={file}, which is not the key of sslcert={certificate}"))
        }
        Err(error) => Err(format!("names sslkey={file}, which cannot be used: {error}")),
    }
}

fn load_anchors(roots: &TrustedRoots) -> Result<TrustAnchors, String> {
    let listed = match roots {
        TrustedRoots::System => rustls_native_certs::load_native_certs().certs,
        TrustedRoots::File(file) => read_certificates("sslrootcert", file)?,
    };
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(listed.iter().cloned());
    match roots {
        TrustedRoots::System if usable == 0 => {
            Err("has sslrootcert=system, but no certificates were found on this system: install \
             ca-certificates, or name a file"
                .into())
        }
        TrustedRoots::File(file) if usable < listed.len() => Err(format!(
            "names sslrootcert={}, which holds a certificate that cannot be read",
            file.display()
        )),
        // None of the system's certificates is a server's own certificate.
        TrustedRoots::System => Ok(TrustAnchors { roots: store, listed: vec![] }),
        TrustedRoots::File(_) => Ok(TrustAnchors { roots: store, listed }),
    }
}

fn read_certificates(param: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<CertificateDer<'static>> =
        read.map_err(|e| describe_unreadable(param, file, &e))?;
    if found.is_empty() {
        return Err(format!(
            "names {param}={}, which holds no certificate in PEM (-----BEGIN CERTIFICATE-----)",
            file.display()
        ));
    }
    Ok(found)
}

fn describe_unreadable(param: &str, file: &Path, error: &pem::Error) -> String {
    let file = file.display();
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("names {param}={file}, which does not exist")
        }
        pem::Error::Io(error) => format!("names {param}={file}, which cannot be read: {error}"),
        error => format!("names {param}={file}, which is not PEM: {error}"),
    }
}
