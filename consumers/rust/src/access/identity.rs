//! As whom one comes to a server: what it is told at each connection, and what people are told of it.

use std::{fmt, fs, path::PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::{KeyPair, KeyPairType};
use secrecy::{ExposeSecret, SecretString};

use super::{AccessError, InUrl, NatsAccess, setting, unreadable};

#[derive(Clone, Debug)]
pub(super) enum Identity {
    Nobody,
    Password { user: String, password: SecretString },
    Token(SecretString),
    Nkey { file: PathBuf, public: String },
    Creds { file: PathBuf, public: String },
}

impl Identity {
    /// The one that is set; files are read to see whether they will do.
    pub(super) fn of(access: &NatsAccess, in_url: InUrl) -> Result<Identity, AccessError> {
        let NatsAccess { user, password, token, nkey_file, creds_file, .. } = access;
        let given = [
            ("url (user or token)", in_url.is_some()),
            ("user", user.is_some()),
            ("token", token.is_some()),
            ("nkey_file", nkey_file.is_some()),
            ("creds_file", creds_file.is_some()),
        ];
        let given: Vec<_> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if given.len() > 1 {
            let names = given.join(" and nats.");
            return setting(
                "url",
                format!("more than one identity is set, nats.{names}: keep one of them"),
            );
        }
        if password.is_some() && user.is_none() {
            return setting("user", "is missing: nats.password belongs to a user");
        }
        match (in_url, user, token, nkey_file, creds_file) {
            (Some((user, Some(password))), ..) => {
                Ok(Identity::Password { user, password: password.into() })
            }
            (Some((token, None)), ..) => Ok(Identity::Token(token.into())),
            (_, Some(user), ..) => match password.clone() {
                Some(password) => Ok(Identity::Password { user: user.clone(), password }),
                None => setting(
                    "password",
                    "is missing: nats.user needs it, from WALGATE_NATS_PASSWORD_FILE say",
                ),
            },
            (_, _, Some(token), ..) => Ok(Identity::Token(token.clone())),
            (_, _, _, Some(file), _) => {
                let public = nkey(file)?.public_key();
                Ok(Identity::Nkey { file: file.clone(), public })
            }
            (.., Some(file)) => {
                let public = creds(file)?.1.public_key();
                Ok(Identity::Creds { file: file.clone(), public })
            }
            _ => Ok(Identity::Nobody),
        }
    }

    /// Options of a connection that comes as this one.
    pub(super) fn options(&self) -> ConnectOptions {
        if matches!(self, Identity::Nobody) {
            return ConnectOptions::new();
        }
        let who = self.clone();
        ConnectOptions::with_auth_callback(move |nonce| {
            std::future::ready(who.auth(&nonce).map_err(AuthError::new))
        })
    }

    /// What the server is told. Files are read again: credentials that expire are renewed there.
    fn auth(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            Identity::Nobody => {}
            Identity::Password { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.expose_secret().to_owned());
            }
            Identity::Token(token) => auth.token = Some(token.expose_secret().to_owned()),
            Identity::Nkey { file, .. } => {
                let key = nkey(file).map_err(|e| e.to_string())?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
            }
            Identity::Creds { file, .. } => {
                let (jwt, key) = creds(file).map_err(|e| e.to_string())?;
                auth.jwt = Some(jwt);
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
            }
        }
        Ok(auth)
    }

    /// What an operator may do where the server does not want it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Identity::Nobody => {
                "it wants to know who comes: set nats.user, nats.token, nats.nkey_file or nats.creds_file"
            }
            Identity::Password { .. } => {
                "check user and password, and that the server's configuration has them"
            }
            Identity::Token(_) => "check that it is the one in the server's configuration",
            Identity::Nkey { .. } => {
                "check that the server's configuration has this public key among its users"
            }
            Identity::Creds { .. } => {
                "check that the credentials have not expired or been revoked, and that the server knows their account"
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Nobody => write!(f, "a connection without credentials"),
            Identity::Password { user, .. } => write!(f, "user '{user}'"),
            Identity::Token(_) => write!(f, "the token"),
            Identity::Nkey { file, public } => write!(f, "nkey {public} of {}", file.display()),
            Identity::Creds { file, public } => {
                write!(f, "user {public} with the credentials of {}", file.display())
            }
        }
    }
}

fn nkey(file: &PathBuf) -> Result<KeyPair, AccessError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return unreadable("nkey_file", file, &error),
    };
    match user_key(text.trim()) {
        Some(key) => Ok(key),
        None => setting(
            "nkey_file",
            format!(
                "{} holds no seed of a user: it has to begin with SU, `nk -gen user` makes one",
                file.display()
            ),
        ),
    }
}

fn user_key(seed: &str) -> Option<KeyPair> {
    let key = KeyPair::from_seed(seed).ok()?;
    matches!(key.key_pair_type(), KeyPairType::User).then_some(key)
}

/// The JWT, and the key to sign with.
fn creds(file: &PathBuf) -> Result<(String, KeyPair), AccessError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return unreadable("creds_file", file, &error),
    };
    let key = section(&text, "USER NKEY SEED").and_then(user_key);
    match (section(&text, "NATS USER JWT"), key) {
        (Some(jwt), Some(key)) => Ok((jwt.to_owned(), key)),
        _ => setting(
            "creds_file",
            format!(
                "{} is no credentials file: it has to have NATS USER JWT and USER NKEY SEED, as `nsc generate creds` writes them",
                file.display()
            ),
        ),
    }
}

/// The line below `-----BEGIN {name}-----`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("BEGIN {name}-----");
    let mut lines = text.lines().skip_while(|line| !line.trim_end().ends_with(&begin)).skip(1);
    lines.next().map(str::trim).filter(|line| !line.is_empty())
}
