//! The channel binding `tls-server-end-point` (RFC 5929, section 4.1): a hash of the server's
//! certificate. It makes a SCRAM proof useless to a peer without that certificate's key.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::{Certificate, der::Decode};

/// None if the certificate's signature algorithm names no hash (Ed25519, RSASSA-PSS). Postgres
/// supports no channel binding for those either.
pub fn tls_server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let hash: fn(&[u8]) -> Vec<u8> = match &*parsed.signature_algorithm.oid.to_string() {
        // MD5, SHA-1 and SHA-256 with RSA, SHA-1 and SHA-256 with ECDSA. RFC 5929 replaces the weak
        // hashes by SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => sha256,
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => sha256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => |der| Sha384::digest(der).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => |der| Sha512::digest(der).to_vec(),
        _ => return None,
    };
    Some(hash(certificate))
}

fn sha256(der: &[u8]) -> Vec<u8> {
    Sha256::digest(der).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    fn hash_length(algorithm: &'static SignatureAlgorithm) -> Option<usize> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        tls_server_end_point(certificate.der()).map(|hash| hash.len())
    }

    #[test]
    fn the_hash_follows_the_signature_algorithm() {
        assert_eq!(hash_length(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(hash_length(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(hash_length(&rcgen::PKCS_ED25519), None);
        assert_eq!(tls_server_end_point(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
