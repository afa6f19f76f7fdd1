//! The identity that a client presents to NATS: credentials for each connection, and a description
//! without secrets for errors and logs.

use std::{fmt, fs, path::PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::{KeyPair, KeyPairType};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    error::{NatsConnectError, reject_setting, reject_unreadable},
    options::{NatsOptions, UrlCredentials},
};

#[derive(Clone, Debug)]
pub(crate) enum NatsIdentity {
    Anonymous,
    Password { user: String, password: SecretString },
    Token(SecretString),
    Nkey { file: PathBuf, public: String },
    Creds { file: PathBuf, public: String },
}

impl NatsIdentity {
    /// The identity that is set. Its file is read once, to validate it.
    pub(crate) fn from_options(
        options: &NatsOptions,
        in_url: UrlCredentials,
    ) -> Result<NatsIdentity, NatsConnectError> {
        let NatsOptions { user, password, token, nkey_file, creds_file, .. } = options;
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
            return reject_setting(
                "url",
                format!("more than one identity is set, nats.{names}: keep one of them"),
            );
        }
        if password.is_some() && user.is_none() {
            return reject_setting("user", "is missing: nats.password belongs to a user");
        }
        match (in_url, user, token, nkey_file, creds_file) {
            (Some((user, Some(password))), ..) => {
                Ok(NatsIdentity::Password { user, password: password.into() })
            }
            (Some((token, None)), ..) => Ok(NatsIdentity::Token(token.into())),
            (_, Some(user), ..) => match password.clone() {
                Some(password) => Ok(NatsIdentity::Password { user: user.clone(), password }),
                None => reject_setting(
                    "password",
                    "is missing: nats.user needs it, for example from WALGATE_NATS_PASSWORD_FILE",
                ),
            },
            (_, _, Some(token), ..) => Ok(NatsIdentity::Token(token.clone())),
            (_, _, _, Some(file), _) => {
                let public = read_nkey(file)?.public_key();
                Ok(NatsIdentity::Nkey { file: file.clone(), public })
            }
            (.., Some(file)) => {
                let public = read_creds(file)?.1.public_key();
                Ok(NatsIdentity::Creds { file: file.clone(), public })
            }
            _ => Ok(NatsIdentity::Anonymous),
        }
    }

    /// Options of a connection with this identity.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        if matches!(self, NatsIdentity::Anonymous) {
            return ConnectOptions::new();
        }
        let identity = self.clone();
        ConnectOptions::with_auth_callback(move |nonce| {
            std::future::ready(identity.authenticate(&nonce).map_err(AuthError::new))
        })
    }

    /// The credentials that the server gets. Files are read at each connection, because credentials
    /// that expire are renewed in the file.
    fn authenticate(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            NatsIdentity::Anonymous => {}
            NatsIdentity::Password { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.expose_secret().to_owned());
            }
            NatsIdentity::Token(token) => auth.token = Some(token.expose_secret().to_owned()),
            NatsIdentity::Nkey { file, .. } => {
                let key = read_nkey(file).map_err(|e| e.to_string())?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
            }
            NatsIdentity::Creds { file, .. } => {
                let (jwt, key) = read_creds(file).map_err(|e| e.to_string())?;
                auth.jwt = Some(jwt);
                auth.signature = Some(key.sign(nonce).map_err(|e| e.to_string())?);
            }
        }
        Ok(auth)
    }

    /// What an operator can do if the server refuses this identity.
    pub(crate) fn refusal_remedy(&self) -> &'static str {
        match self {
            NatsIdentity::Anonymous => {
                "the server requires credentials: set nats.user, nats.token, nats.nkey_file or \
                 nats.creds_file"
            }
            NatsIdentity::Password { .. } => {
                "check user and password, and that the server's configuration has them"
            }
            NatsIdentity::Token(_) => "check that the server's configuration has the same token",
            NatsIdentity::Nkey { .. } => {
                "check that the server's configuration has this public key among its users"
            }
            NatsIdentity::Creds { .. } => {
                "check that the credentials have not expired or been revoked, and that the server \
                 knows their account"
            }
        }
    }
}

impl fmt::Display for NatsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NatsIdentity::Anonymous => write!(f, "a connection without credentials"),
            NatsIdentity::Password { user, .. } => write!(f, "user '{user}'"),
            NatsIdentity::Token(_) => write!(f, "the token"),
            NatsIdentity::Nkey { file, public } => write!(f, "nkey {public} of {}", file.display()),
            NatsIdentity::Creds { file, public } => {
                write!(f, "user {public} with the credentials of {}", file.display())
            }
        }
    }
}

fn read_nkey(file: &PathBuf) -> Result<KeyPair, NatsConnectError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return reject_unreadable("nkey_file", file, &error),
    };
    match parse_user_seed(text.trim()) {
        Some(key) => Ok(key),
        None => reject_setting(
            "nkey_file",
            format!(
                "{} holds no seed of a user: it has to begin with SU; `nk -gen user` makes one",
                file.display()
            ),
        ),
    }
}

fn parse_user_seed(seed: &str) -> Option<KeyPair> {
    let key = KeyPair::from_seed(seed).ok()?;
    matches!(key.key_pair_type(), KeyPairType::User).then_some(key)
}

/// The JWT, and the key to sign with.
fn read_creds(file: &PathBuf) -> Result<(String, KeyPair), NatsConnectError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return reject_unreadable("creds_file", file, &error),
    };
    let key = find_section(&text, "USER NKEY SEED").and_then(parse_user_seed);
    match (find_section(&text, "NATS USER JWT"), key) {
        (Some(jwt), Some(key)) => Ok((jwt.to_owned(), key)),
        _ => reject_setting(
            "creds_file",
            format!(
                "{} is not a credentials file: it needs NATS USER JWT and USER NKEY SEED, as \
                 `nsc generate creds` writes them",
                file.display()
            ),
        ),
    }
}

/// The line below `-----BEGIN {name}-----`.
fn find_section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("BEGIN {name}-----");
    let mut lines = text.lines().skip_while(|line| !line.trim_end().ends_with(&begin)).skip(1);
    lines.next().map(str::trim).filter(|line| !line.is_empty())
}
