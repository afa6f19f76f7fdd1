//! `[nats]`: how to connect, the private server, and the streams with their limits.
//!
//! What the streams hold is not known here.

use std::{path::PathBuf, time::Duration};

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use walgate_nats_connect::NatsOptions;

use super::{ConfigError, invalid};

const DAY_SECONDS: u64 = 24 * 3600;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNats {
    /// `nats://host:4222` or `tls://host:4222`, several separated by commas. `user:password@` or
    /// `token@` may precede the first host. Without it the gateway starts a private server.
    pub url: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// Token.
    pub token: Option<String>,
    /// File with a user's nkey seed, `SU…`.
    pub nkey_file: Option<PathBuf>,
    /// Credentials file: JWT and seed.
    pub creds_file: Option<PathBuf>,
    /// Require TLS. Implied by a `tls://` URL or any of the certificate files.
    pub tls: bool,
    /// Certificate authorities for the server's certificate, PEM. Without it: the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// Prefix of the subjects that replies arrive at. Without it: `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// Create and update streams. `false`: an administrator has run `walgate nats setup` with other
    /// rights.
    pub create: bool,
    /// Port of the private server on 127.0.0.1; unused with `url`.
    pub port: u16,
    /// Replicas of streams and buckets when they are created, 1 to 5; 3 in a cluster.
    pub replicas: usize,
    /// Stream of changes.
    pub cdc_stream: String,
    /// Size limit of the stream; 0 = unlimited. A full stream stops the gateway and never discards
    /// unread messages.
    pub cdc_max_bytes: u64,
    /// Retention; 7 days. Consumers that lag longer must reload. 0 = unlimited.
    pub cdc_max_age_seconds: u64,
    /// Stream of snapshots.
    pub init_stream: String,
    /// Size limit; 0 = unlimited.
    pub init_max_bytes: u64,
    /// Retention; 1 day. 0 = unlimited.
    pub init_max_age_seconds: u64,
    /// Stream of snapshot requests.
    pub requests_stream: String,
    /// Stream of dead letters: rows that a guest failed on, for tables with
    /// `on_guest_error = "dead-letter"`.
    pub dlq_stream: String,
    /// Size limit; the oldest messages are discarded. 0 = unlimited.
    pub dlq_max_bytes: u64,
    /// Retention; 30 days. 0 = unlimited.
    pub dlq_max_age_seconds: u64,
}

impl Default for RawNats {
    fn default() -> Self {
        RawNats {
            url: None,
            user: None,
            password: None,
            token: None,
            nkey_file: None,
            creds_file: None,
            tls: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            inbox_prefix: None,
            create: true,
            port: 4222,
            replicas: 1,
            cdc_stream: "CDC".into(),
            cdc_max_bytes: 0,
            cdc_max_age_seconds: 7 * DAY_SECONDS,
            init_stream: "INIT".into(),
            init_max_bytes: 0,
            init_max_age_seconds: DAY_SECONDS,
            requests_stream: "REQUESTS".into(),
            dlq_stream: "DLQ".into(),
            dlq_max_bytes: 1 << 30,
            dlq_max_age_seconds: 30 * DAY_SECONDS,
        }
    }
}

#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Absent: the gateway starts a private server in `data_dir`.
    pub access: Option<NatsOptions>,
    /// Of the private server, on loopback.
    pub port: u16,
    pub replicas: usize,
    /// Whether the gateway creates and updates streams and buckets. Otherwise they must exist.
    pub create: bool,
    pub cdc: StreamSettings,
    pub init: StreamSettings,
    pub requests: String,
    pub dlq: StreamSettings,
}

/// Name and limits of one stream.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    pub name: String,
    /// `None`: no limit.
    pub max_bytes: Option<u64>,
    /// `None`: no limit.
    pub max_age: Option<Duration>,
}

impl StreamSettings {
    /// Zero means no limit.
    fn new(name: String, max_bytes: u64, max_age_seconds: u64) -> StreamSettings {
        StreamSettings {
            name,
            max_bytes: Some(max_bytes).filter(|&bytes| bytes > 0),
            max_age: Some(max_age_seconds).filter(|&age| age > 0).map(Duration::from_secs),
        }
    }
}

impl RawNats {
    /// The keys that name files.
    pub(super) fn files(&mut self) -> [&mut Option<PathBuf>; 5] {
        [
            &mut self.nkey_file,
            &mut self.creds_file,
            &mut self.ca_file,
            &mut self.cert_file,
            &mut self.key_file,
        ]
    }

    pub(super) fn validate(mut self) -> Result<NatsConfig, ConfigError> {
        let access = self.take_access()?;
        if !(1..=5).contains(&self.replicas) {
            return invalid("nats.replicas", "must be 1 to 5");
        }
        for (key, name) in [
            ("nats.cdc_stream", &self.cdc_stream),
            ("nats.init_stream", &self.init_stream),
            ("nats.requests_stream", &self.requests_stream),
            ("nats.dlq_stream", &self.dlq_stream),
        ] {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_allowed) {
                let problem = format!("'{name}' is no stream name: use letters, digits, _ and -");
                return invalid(key, problem);
            }
        }
        Ok(NatsConfig {
            access,
            port: self.port,
            replicas: self.replicas,
            create: self.create,
            cdc: StreamSettings::new(self.cdc_stream, self.cdc_max_bytes, self.cdc_max_age_seconds),
            init: StreamSettings::new(
                self.init_stream,
                self.init_max_bytes,
                self.init_max_age_seconds,
            ),
            requests: self.requests_stream,
            dlq: StreamSettings::new(self.dlq_stream, self.dlq_max_bytes, self.dlq_max_age_seconds),
        })
    }

    /// Without a URL the gateway starts a private server on loopback. Then no other option of the
    /// connection may be set.
    fn take_access(&mut self) -> Result<Option<NatsOptions>, ConfigError> {
        let secret = |text: &mut Option<String>| text.take().map(Into::into);
        let access = NatsOptions {
            url: self.url.take().unwrap_or_default().into(),
            user: self.user.take(),
            password: secret(&mut self.password),
            token: secret(&mut self.token),
            nkey_file: self.nkey_file.take(),
            creds_file: self.creds_file.take(),
            tls: self.tls,
            ca_file: self.ca_file.take(),
            cert_file: self.cert_file.take(),
            key_file: self.key_file.take(),
            inbox_prefix: self.inbox_prefix.take(),
        };
        if access.url.expose_secret().is_empty() {
            if access.has_only_url() {
                return Ok(None);
            }
            return invalid("nats.url", "is missing: the other settings say how to connect to it");
        }
        Ok(Some(access))
    }
}
