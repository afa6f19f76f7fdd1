//! Handshakes with a peer that does not behave like Postgres, and files with wrong contents. Real
//! servers are tested end to end.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A CA, a server certificate signed by it, and their files.
struct TlsSite {
    folder: TempDir,
    chain: rcgen::Certificate,
    key: KeyPair,
}

fn make_site() -> TlsSite {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(vec!["db".into()]).unwrap().signed_by(&key, &ca).unwrap();
    let site = TlsSite { folder, chain, key };
    site.write("ca.pem", &ca.pem());
    site.write("cert.pem", &site.chain.pem());
    site.write("key.pem", &site.key.serialize_pem());
    site.write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    site
}

impl TlsSite {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `@` in `params` becomes the folder's path.
    fn parse(&self, params: &str) -> Result<PgConnector, String> {
        let folder = self.folder.path().display();
        PgConnector::parse(&format!(
            "host=db user=u {}",
            params.replace('@', &format!("{folder}/"))
        ))
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Negotiates with a server that answers `answer` to SSLRequest, then performs the handshake.
    /// An empty answer: without SSLRequest.
    async fn negotiate(
        &self,
        params: &str,
        host: &str,
        answer: &'static [u8],
    ) -> Result<bool, String> {
        let tls = self.parse(params).unwrap().tls().clone();
        let (client, mut server) = duplex(1 << 14);
        let acceptor = self.acceptor();
        let serving = tokio::spawn(async move {
            if !answer.is_empty() {
                let mut asked = [0; 8];
                server.read_exact(&mut asked).await.unwrap();
                assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47]);
                server.write_all(answer).await.unwrap();
            }
            if answer.first().is_none_or(|&first| first == b'S') {
                drop(acceptor.accept(server).await);
            }
        });
        let negotiated = tls.negotiate(client, host).await;
        serving.await.unwrap();
        match negotiated {
            Ok(NegotiatedStream::<DuplexStream>::Plain(_)) => Ok(false),
            Ok(NegotiatedStream::Encrypted(stream)) => {
                assert_eq!(stream.tls_server_end_point().map(|hash| hash.len()), Some(32));
                Ok(true)
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn each_sslmode_checks_what_its_name_says() {
    let site = make_site();
    let full = "sslmode=verify-full sslrootcert=@ca.pem";
    assert_eq!(site.negotiate(full, "db", b"S").await, Ok(true));
    let error = site.negotiate(full, "elsewhere", b"S").await.unwrap_err();
    assert!(error.contains("\"elsewhere\"") && error.contains("\"db\""), "{error}");
    let chain = "sslmode=verify-ca sslrootcert=@ca.pem";
    assert_eq!(site.negotiate(chain, "elsewhere", b"S").await, Ok(true));
    assert_eq!(site.negotiate("sslmode=require", "elsewhere", b"S").await, Ok(true));
    assert_eq!(site.negotiate("", "elsewhere", b"S").await, Ok(true));
    assert_eq!(site.negotiate("", "db", b"N").await, Ok(false));
    let error = site.negotiate("sslmode=require", "db", b"N").await.unwrap_err();
    assert!(error.contains("speaks no TLS"), "{error}");
}

#[tokio::test]
async fn a_server_may_present_a_listed_certificate_itself() {
    let site = make_site();
    let listed = "sslmode=verify-full sslrootcert=@cert.pem";
    assert_eq!(site.negotiate(listed, "db", b"S").await, Ok(true));
    assert!(site.negotiate(listed, "elsewhere", b"S").await.is_err());
    let mut params = CertificateParams::new(vec!["db".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = TlsSite { chain: params.self_signed(&site.key).unwrap(), ..site };
    expired.write("cert.pem", &expired.chain.pem());
    let error = expired.negotiate(listed, "db", b"S").await.unwrap_err();
    assert!(error.contains("expired"), "{error}");
}

/// An attacker on the path appends an answer to the server's `S`, to have it taken as encrypted.
#[tokio::test]
async fn clear_text_behind_the_answer_is_not_accepted() {
    let site = make_site();
    let authenticated = b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let full = "sslmode=verify-full sslrootcert=@ca.pem";
    let error = site.negotiate(full, "db", authenticated).await.unwrap_err();
    assert!(error.contains("TLS handshake failed"), "{error}");
    let error = site.negotiate("", "db", b"E").await.unwrap_err();
    assert!(error.contains("is this a Postgres server"), "{error}");
}

/// Postgres 17 and newer accept a handshake without SSLRequest, if it names the protocol.
#[tokio::test]
async fn direct_negotiation_sends_no_ssl_request() {
    let site = make_site();
    let direct = "sslmode=verify-full sslrootcert=@ca.pem sslnegotiation=direct";
    assert_eq!(site.negotiate(direct, "db", b"").await, Ok(true));
    assert!(site.negotiate(direct, "elsewhere", b"").await.is_err());
    assert!(site.parse("sslnegotiation=direct").unwrap_err().contains("sslmode=prefer"));
}

#[test]
fn files_are_refused_with_their_reason() {
    let site = make_site();
    let refused = |params: &str| site.parse(params).unwrap_err();
    assert!(refused("sslmode=verify-ca sslrootcert=@none.pem").contains("does not exist"));
    assert!(refused("sslmode=verify-ca sslrootcert=@key.pem").contains("no certificate"));
    assert!(refused("sslcert=@cert.pem").contains("without sslkey"));
    assert!(refused("sslkey=@key.pem").contains("without sslcert"));
    assert!(refused("sslcert=@cert.pem sslkey=@other.pem").contains("is not the key of"));
    assert!(refused("sslcert=@cert.pem sslkey=@cert.pem").contains("no private key"));
    assert!(site.parse("sslcert=@cert.pem sslkey=@key.pem").is_ok());
}

#[test]
fn a_unix_socket_is_not_encrypted() {
    let mode = |text: &str| PgConnector::parse(text).unwrap().config().get_ssl_mode();
    assert_eq!(mode("host=/run/postgresql user=u sslmode=require"), SslMode::Disable);
    assert_eq!(mode("host=db user=u sslmode=require"), SslMode::Require);
    let address = PgConnector::parse("hostaddr=10.0.0.1 user=u").unwrap();
    assert_eq!(address.config().get_hosts(), [Host::Tcp("10.0.0.1".into())]);
}

#[test]
fn a_server_does_not_show_its_password() {
    let server = PgConnector::parse("postgres://u:hunter2@db/shop?sslmode=require").unwrap();
    assert_eq!(server.config().get_password(), Some(&b"hunter2"[..]));
    assert!(!format!("{server:?}").contains("hunter2"));
    let error = PgConnector::parse("postgres://u:hunter2@db/shop?port=x").unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_lost_server_is_detected_within_a_minute_by_default() {
    let of = |text: &str| PgConnector::parse(text).unwrap().config().clone();
    let usual = of("postgres://u@h/d");
    assert_eq!(usual.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
    assert!(usual.get_keepalives() && usual.get_keepalives_idle() <= Duration::from_secs(60));
    assert!(usual.get_keepalives_interval().is_some() && usual.get_keepalives_retries().is_some());
    let said = of(
        "host=h connect_timeout=3 keepalives_idle=600 keepalives_interval=7 keepalives_retries=9",
    );
    assert_eq!(said.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(said.get_keepalives_idle(), Duration::from_secs(600));
    assert_eq!(said.get_keepalives_interval(), Some(Duration::from_secs(7)));
    assert_eq!(said.get_keepalives_retries(), Some(9));
}

/// The socket opens, and the server stays silent.
#[tokio::test]
async fn a_silent_server_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server =
        PgConnector::parse(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=1")).unwrap();
    let refused = server.connect().await.err().expect("nobody answered");
    assert!(
        matches!(refused, PgConnectError::Unreachable(e) if e.kind() == io::ErrorKind::TimedOut)
    );
}
