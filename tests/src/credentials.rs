//! Credentials as an administrator issues them: certificates of a private authority, NATS accounts
//! and users as signed JWTs. This file does not know which server or program uses them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An authority with one certificate for a server at 127.0.0.1 and one for a client, as files.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Writes the files into `folder`; `name` is their prefix.
    pub fn make(folder: &Path, name: &str) -> Certificates {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("a folder");
        let made = Certificates { folder };
        let key = || rcgen::KeyPair::generate().expect("a key");
        let params = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            CertificateParams::new(names).expect("names")
        };
        let mut authority = params(&[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
        made.write("ca.pem", &authority.pem());
        let purposes = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for (file, purpose) in ["server", "client"].into_iter().zip(purposes) {
            let mut params = params(&["127.0.0.1", "localhost"]);
            let key = key();
            params.extended_key_usages.push(purpose);
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            made.write(&format!("{file}.pem"), &certificate.pem());
            made.write(&format!("{file}.key"), &key.serialize_pem());
        }
        made
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("a file");
    }

    /// `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// An operator with a system account and an account that may use JetStream.
pub struct Operator {
    key: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

impl Default for Operator {
    fn default() -> Self {
        let key = KeyPair::new_operator();
        let system = KeyPair::new_account();
        Operator { key, system, account: KeyPair::new_account() }
    }
}

impl Operator {
    /// The operator's part of nats-server's configuration, at its top level.
    pub fn server_config(&self) -> String {
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
        let bare = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1});
        let operator =
            issue_jwt(&self.key, &self.key, "operator", json!({"type": "operator", "version": 2}));
        let account = |key: &KeyPair, limits: &Value| {
            issue_jwt(
                &self.key,
                key,
                "account",
                json!({"type": "account", "version": 2, "limits": limits}),
            )
        };
        format!(
            "operator: {operator:?}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{ {}: {:?}, {}: {:?} }}",
            self.system.public_key(),
            self.system.public_key(),
            account(&self.system, &bare),
            self.account.public_key(),
            account(&self.account, &limits),
        )
    }

    /// The text of a credentials file for a new user of the account.
    pub fn issue_user(&self, name: &str) -> String {
        self.issue_expiring_user(name, None)
    }

    /// The same for a user that expires at `expires`, in seconds since 1970.
    pub fn issue_expiring_user(&self, name: &str, expires: Option<u64>) -> String {
        let key = KeyPair::new_user();
        let rights = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let mut claims = build_claims(&self.account, &key, name, rights);
        if let Some(expires) = expires {
            claims["exp"] = expires.into();
        }
        let jwt = sign_claims(&self.account, &claims);
        let seed = key.seed().expect("a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// The digest as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    walgate_wire::hex::encode(&Sha256::digest(bytes))
}

fn issue_jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    sign_claims(issuer, &build_claims(issuer, subject, name, nats))
}

fn build_claims(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> Value {
    let iss = issuer.public_key();
    let sub = subject.public_key();
    json!({"jti": sub, "iat": 1_700_000_000, "iss": iss, "sub": sub, "name": name, "nats": nats})
}

fn sign_claims(issuer: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(claims));
    let signature = issuer.sign(body.as_bytes()).expect("a signature");
    format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
