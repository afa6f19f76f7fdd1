//! The commands of `walgate` besides the gateway: one file for each, with its arguments and its
//! `run`.
//!
//! Most are tools for consumers, and reach NATS through `walgate_consumer`. Some also connect to
//! Postgres.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use secrecy::SecretString;
use walgate_consumer::NatsOptions;

pub mod database;
pub mod dlq;
pub mod guest;
pub mod init_sql;
pub mod nats;
pub mod replicate;
pub mod snapshot;
pub mod tail;
pub mod train;
pub mod verify;

/// The address of NATS and the credentials, for every command that needs it. Secrets come from
/// files or the environment: other users can read a command line.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsArgs {
    /// NATS server, nats://host:4222 or tls://host:4222, several separated by commas; NATS_URL is
    /// read, too [default: nats://127.0.0.1:4222]
    #[arg(long = "nats", value_name = "URL", env = "WALGATE_NATS_URL", hide_env_values = true)]
    url: Option<SecretString>,
    /// The variable that other NATS tools read.
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true, hide = true)]
    nats_url: Option<SecretString>,
    /// User; its password is in WALGATE_NATS_PASSWORD or a file
    #[arg(
        long = "nats-user",
        value_name = "NAME",
        env = "WALGATE_NATS_USER",
        hide_env_values = true
    )]
    user: Option<String>,
    #[arg(
        long = "nats-password",
        env = "WALGATE_NATS_PASSWORD",
        hide_env_values = true,
        hide = true
    )]
    password: Option<SecretString>,
    /// File that holds the password
    #[arg(
        long = "nats-password-file",
        value_name = "FILE",
        env = "WALGATE_NATS_PASSWORD_FILE",
        hide_env = true
    )]
    password_file: Option<PathBuf>,
    #[arg(long = "nats-token", env = "WALGATE_NATS_TOKEN", hide_env_values = true, hide = true)]
    token: Option<SecretString>,
    /// File that holds a token
    #[arg(
        long = "nats-token-file",
        value_name = "FILE",
        env = "WALGATE_NATS_TOKEN_FILE",
        hide_env = true
    )]
    token_file: Option<PathBuf>,
    /// File that holds the seed of an nkey
    #[arg(
        long = "nats-nkey-file",
        value_name = "FILE",
        env = "WALGATE_NATS_NKEY_FILE",
        hide_env = true
    )]
    nkey_file: Option<PathBuf>,
    /// Credentials file: a JWT and its seed
    #[arg(
        long = "nats-creds-file",
        value_name = "FILE",
        env = "WALGATE_NATS_CREDS_FILE",
        hide_env = true
    )]
    creds_file: Option<PathBuf>,
    /// Never without TLS; implied by tls:// and by the files below
    #[arg(long = "nats-tls", env = "WALGATE_NATS_TLS", hide_env = true)]
    tls: bool,
    /// Authorities for the server's certificate, in PEM [default: the system's]
    #[arg(
        long = "nats-ca-file",
        value_name = "FILE",
        env = "WALGATE_NATS_CA_FILE",
        hide_env = true
    )]
    ca_file: Option<PathBuf>,
    /// Client certificate, in PEM
    #[arg(
        long = "nats-cert-file",
        value_name = "FILE",
        env = "WALGATE_NATS_CERT_FILE",
        hide_env = true
    )]
    cert_file: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(
        long = "nats-key-file",
        value_name = "FILE",
        env = "WALGATE_NATS_KEY_FILE",
        hide_env = true
    )]
    key_file: Option<PathBuf>,
    /// Subject below which answers arrive; others who may listen there see them [default: _INBOX]
    #[arg(
        long = "nats-inbox-prefix",
        value_name = "SUBJECT",
        env = "WALGATE_NATS_INBOX_PREFIX",
        hide_env = true
    )]
    inbox_prefix: Option<String>,
}

impl NatsArgs {
    pub fn access(&self) -> anyhow::Result<NatsOptions> {
        let url = self.url.as_ref().or(self.nats_url.as_ref()).cloned();
        Ok(NatsOptions {
            url: url.unwrap_or_else(|| "nats://127.0.0.1:4222".into()),
            user: self.user.clone(),
            password: secret(self.password.as_ref(), self.password_file.as_deref())?,
            token: secret(self.token.as_ref(), self.token_file.as_deref())?,
            nkey_file: self.nkey_file.clone(),
            creds_file: self.creds_file.clone(),
            tls: self.tls,
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
        })
    }
}

fn secret(
    given: Option<&SecretString>,
    file: Option<&Path>,
) -> anyhow::Result<Option<SecretString>> {
    match (given, file) {
        (Some(given), _) => Ok(Some(given.clone())),
        (None, Some(file)) => Ok(Some(walgate_host::config::read_secret_file(file)?.into())),
        (None, None) => Ok(None),
    }
}

/// Whether standard output still has a reader, after this was written to it.
fn still_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing to standard output").map(|()| true),
    }
}

/// The names of the gateway's streams, where an operator changed them.
#[derive(Debug, clap::Args)]
pub struct StreamArgs {
    /// Stream that holds changes
    #[arg(
        long,
        value_name = "NAME",
        env = "WALGATE_NATS_CDC_STREAM",
        default_value = "CDC",
        hide_default_value = true,
        hide_env = true
    )]
    cdc_stream: String,
    /// Stream that holds snapshots
    #[arg(
        long,
        value_name = "NAME",
        env = "WALGATE_NATS_INIT_STREAM",
        default_value = "INIT",
        hide_default_value = true,
        hide_env = true
    )]
    init_stream: String,
    /// Subject under which JetStream is asked, where another account imports it
    #[arg(
        long = "nats-api-prefix",
        value_name = "SUBJECT",
        env = "WALGATE_NATS_API_PREFIX",
        default_value = "$JS.API",
        hide_default_value = true,
        hide_env = true
    )]
    api_prefix: String,
}

impl StreamArgs {
    pub fn names(&self) -> walgate_consumer::StreamNames {
        walgate_consumer::StreamNames {
            cdc: self.cdc_stream.clone(),
            init: self.init_stream.clone(),
            api: self.api_prefix.clone(),
        }
    }
}

/// An invalid command line. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
