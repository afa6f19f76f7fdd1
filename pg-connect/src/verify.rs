//! Verification of server certificates: none, by CA, or by CA and host name.

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

/// Checks a server's certificate. That the server holds the certificate's key is always checked.
#[derive(Debug)]
pub struct ServerVerifier {
    pub depth: VerifyDepth,
    pub provider: Arc<CryptoProvider>,
}

/// How far a server's certificate is checked.
#[derive(Debug)]
pub enum VerifyDepth {
    /// `require`, `prefer`: protects from eavesdropping, but not from an attacker on the path.
    KeyOnly,
    /// `verify-ca`, `verify-full`.
    Chain { anchors: TrustAnchors, name: bool },
}

/// Trusted certificates.
#[derive(Debug)]
pub struct TrustAnchors {
    pub roots: RootCertStore,
    /// The certificates of `sslrootcert` themselves: a server may present one of them, as after
    /// `openssl req -x509`.
    pub listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let VerifyDepth::Chain { anchors, name } = &self.depth else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if anchors.listed.iter().any(|listed| listed == end_entity) {
            check_validity_period(end_entity, now)?;
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

/// The check that verification of a chain includes, for a certificate that is listed itself.
fn check_validity_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// What is wrong with the server's certificate, and what to do.
pub fn explain_certificate_error(error: &CertificateError, host: &str, trusted: &str) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate was not issued by a CA in {trusted}: let sslrootcert name the \
             CA of this server, unless an attacker is on the path"
        ),
        CertificateError::NotValidForName => describe_name_mismatch(host, &[]),
        CertificateError::NotValidForNameContext { presented, .. } => describe_name_mismatch(host, presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it (ssl_cert_file), or check this machine's \
             clock"
                .into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock".into()
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}

fn describe_name_mismatch(host: &str, presented: &[String]) -> String {
    let mut text = format!("the server's certificate is not for \"{host}\"");
    if presented.is_empty() {
        text.push_str(" (it has no subjectAltName, and a common name alone does not count)");
    } else {
        let _ = write!(text, ", but for {}", presented.join(", "));
    }
    text.push_str(
        ": connect by a name in the certificate, with hostaddr=ADDRESS if necessary, or obtain a \
         certificate for this name; sslmode=verify-ca checks the CA only",
    );
    text
}
