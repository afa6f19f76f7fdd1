//! Which server certificates are accepted: any, those of a CA, or those of a CA that bear the host's name.

use std::{fmt::Write, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_cert::{Certificate, der::Decode};

/// How far a server's certificate is checked. That the server has its key is checked always.
#[derive(Debug)]
pub struct Trust {
    pub depth: Depth,
    pub provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub enum Depth {
    /// `require`, `prefer`: it hides what is said from those who listen, not from those who stand between.
    Nothing,
    /// `verify-ca`, `verify-full`.
    Chain { anchors: Anchors, name: bool },
}

/// Certificates that are trusted.
#[derive(Debug)]
pub struct Anchors {
    pub roots: RootCertStore,
    /// As they stand in `sslrootcert`: a server may show one of them itself, as after `openssl req -x509`.
    pub listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Depth::Chain { anchors, name } = &self.depth else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if anchors.listed.iter().any(|listed| listed == end_entity) {
            in_its_time(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &anchors.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if *name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a chain's verification would have looked at besides.
fn in_its_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let (from, to) = (validity.not_before, validity.not_after);
    if now.as_secs() < from.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > to.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// What is wrong with the server's certificate, and what to do.
pub fn explain(error: &CertificateError, host: &str, trusted: &str) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate was not issued by a CA in {trusted}: let sslrootcert name the CA of this server, \
             unless somebody stands between"
        ),
        CertificateError::NotValidForName => other_name(host, &[]),
        CertificateError::NotValidForNameContext { presented, .. } => other_name(host, presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it (ssl_cert_file), or check this machine's clock".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock".into()
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}

fn other_name(host: &str, presented: &[String]) -> String {
    let mut text = format!("the server's certificate is not for \"{host}\"");
    if presented.is_empty() {
        text.push_str(" (it has no subjectAltName, and a common name alone does not count)");
    } else {
        let _ = write!(text, ", but for {}", presented.join(", "));
    }
    text.push_str(
        ": connect by a name that it bears, with hostaddr=ADDRESS beside it if need be, or have one issued with this \
         name; sslmode=verify-ca checks the CA only",
    );
    text
}
