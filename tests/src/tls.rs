//! Certificates, and a Postgres that refuses unencrypted connections over TCP. This file does not
//! know the clients.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

use crate::Server;

/// A CA of one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// `name`: the common name, which Postgres maps to a role. `hosts`: the server's host names.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = named(name, hosts).signed_by(&key, &self.0).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A server whose certificate is valid for `localhost`, not for the address. `hba`: its rules
    /// for TCP.
    pub fn server(&self, like: &Server, hba: &str) -> Arc<Server> {
        let Issued { certificate, key } = self.issue("the server", &["localhost"]);
        let settings = [
            ("ssl", "on"),
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
            ("log_connections", "on"),
        ];
        let files = [("server.pem", &*certificate), ("server.key", &key), ("ca.pem", &self.pem())];
        Arc::new(Server::start_with_hba(like.bin(), &settings, hba, &files))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes the certificate into `folder`.
    pub fn file(&self, folder: &Path, name: &str) -> PathBuf {
        write(folder, name, &self.pem())
    }
}

impl Issued {
    /// Writes certificate and key into `folder`.
    pub fn files(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = write(folder, &format!("{name}.pem"), &self.certificate);
        (certificate, write(folder, &format!("{name}.key"), &self.key))
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path
}
