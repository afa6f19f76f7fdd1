//! The configuration as it is written, and the checks that turn it into a [`Config`].

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use walgate_nats_connect::NatsOptions;
use walgate_wire::{TableName, Token};

use crate::config::{
    Compression, Config, ConfigError, Guests, Http, Nats, OnGuestChange, OnGuestError, Password,
    Postgres, Snapshot, Stream, Table, TableGuest, UseDictionary, WalBudget,
};

const DAY_SECONDS: u64 = 24 * 3600;

/// `walgate.toml`. Keys that are not here are refused.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub data_dir: PathBuf,
    pub start_wait_seconds: u64,
    pub postgres: RawPostgres,
    pub nats: RawNats,
    pub compression: RawCompression,
    pub guests: RawGuests,
    pub snapshot: RawSnapshot,
    pub http: RawHttp,
    pub tables: Vec<RawTable>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPostgres {
    pub url: String,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    pub slot: String,
    pub publication: String,
    pub wal_budget: ByteSize,
    pub wal_disk: Option<ByteSize>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNats {
    pub url: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub nkey_file: Option<PathBuf>,
    pub creds_file: Option<PathBuf>,
    pub tls: bool,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub inbox_prefix: Option<String>,
    pub port: u16,
    pub replicas: usize,
    pub create: bool,
    pub cdc_stream: String,
    pub cdc_max_bytes: u64,
    pub cdc_max_age_seconds: u64,
    pub init_stream: String,
    pub init_max_bytes: u64,
    pub init_max_age_seconds: u64,
    pub requests_stream: String,
    pub dlq_stream: String,
    pub dlq_max_bytes: u64,
    pub dlq_max_age_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCompression {
    pub enabled: bool,
    pub level: i32,
    #[serde(rename = "use")]
    pub use_dictionary: UseDictionary,
    pub dictionaries: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawGuests {
    pub dir: PathBuf,
    pub memory_mib: usize,
    pub batch_ms: u64,
    pub module_bytes: usize,
    pub output_bytes: usize,
    pub log_lines_s: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSnapshot {
    pub workers: usize,
    pub chunk_bytes: usize,
    pub max_concurrent: usize,
    pub cooldown_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttp {
    pub listen: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTable {
    pub name: String,
    #[serde(default)]
    pub alias: Option<String>,
    #[serde(default)]
    pub guest: Option<String>,
    #[serde(default)]
    pub guest_optional: bool,
    #[serde(default)]
    pub guest_params: BTreeMap<String, String>,
    #[serde(default)]
    pub guest_sha256: Option<String>,
    #[serde(default)]
    pub on_guest_error: OnGuestError,
    #[serde(default)]
    pub on_guest_change: OnGuestChange,
    #[serde(default)]
    pub shed: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            data_dir: "walgate-data".into(),
            start_wait_seconds: 30,
            postgres: RawPostgres::default(),
            nats: RawNats::default(),
            compression: RawCompression::default(),
            guests: RawGuests::default(),
            snapshot: RawSnapshot::default(),
            http: RawHttp::default(),
            tables: vec![],
        }
    }
}

impl Default for RawPostgres {
    fn default() -> Self {
        RawPostgres {
            url: String::new(),
            password: None,
            password_file: None,
            slot: "walgate".into(),
            publication: "walgate".into(),
            wal_budget: ByteSize::gib(10),
            wal_disk: None,
        }
    }
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
            port: 4222,
            replicas: 1,
            create: true,
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

impl Default for RawCompression {
    fn default() -> Self {
        RawCompression {
            enabled: true,
            level: 1,
            use_dictionary: UseDictionary::Always,
            dictionaries: "dictionaries".into(),
        }
    }
}

impl Default for RawGuests {
    fn default() -> Self {
        let Guests { dir, memory_bytes, batch, module_bytes, output_bytes, log_lines_s } =
            Guests::default();
        let (memory_mib, batch_ms) = (memory_bytes >> 20, batch.as_millis() as u64);
        RawGuests { dir, memory_mib, batch_ms, module_bytes, output_bytes, log_lines_s }
    }
}

impl Default for RawSnapshot {
    fn default() -> Self {
        RawSnapshot { workers: 2, chunk_bytes: 3 << 20, max_concurrent: 1, cooldown_seconds: 5 }
    }
}

impl Default for RawHttp {
    fn default() -> Self {
        RawHttp { listen: "127.0.0.1:8088".into() }
    }
}

fn invalid<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key, problem: problem.into() })
}

impl Raw {
    pub(super) fn validate(self) -> Result<Config, ConfigError> {
        Ok(Config {
            postgres: self.postgres.validate()?,
            nats: self.nats.validate()?,
            compression: self.compression.validate()?,
            guests: self.guests.validate()?,
            snapshot: self.snapshot.validate()?,
            http: self.http.validate()?,
            data_dir: self.data_dir,
            start_wait: Duration::from_secs(self.start_wait_seconds),
            tables: tables(self.tables)?,
        })
    }
}

impl RawPostgres {
    fn validate(self) -> Result<Postgres, ConfigError> {
        if self.url.is_empty() {
            return invalid(
                "postgres.url",
                "is missing: set it in the file, or WALGATE_POSTGRES_URL, or WALGATE_POSTGRES_URL_FILE",
            );
        }
        if !self.slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            || !(1..=63).contains(&self.slot.len())
        {
            return invalid("postgres.slot", "a slot's name has 1 to 63 of a-z, 0-9 and _");
        }
        if !(1..=63).contains(&self.publication.len()) {
            return invalid("postgres.publication", "a publication's name has 1 to 63 bytes");
        }
        let password = match (self.password, self.password_file) {
            (None, None) => None,
            (Some(password), None) => Some(Password::Given(password.into())),
            (None, Some(file)) => Some(Password::File(file)),
            (Some(_), Some(_)) => {
                return invalid(
                    "postgres.password",
                    "stands beside postgres.password_file: keep one of them",
                );
            }
        };
        let (ByteSize(bytes), disk) = (self.wal_budget, self.wal_disk.map(|disk| disk.as_u64()));
        if disk.is_some_and(|disk| disk < bytes) {
            return invalid("postgres.wal_disk", "is smaller than postgres.wal_budget");
        }
        Ok(Postgres {
            url: self.url.into(),
            password,
            slot: self.slot,
            publication: self.publication,
            wal_budget: WalBudget { bytes, disk },
        })
    }
}

impl RawNats {
    fn validate(mut self) -> Result<Nats, ConfigError> {
        let access = self.access()?;
        if !(1..=5).contains(&self.replicas) {
            return invalid("nats.replicas", "must be 1 to 5");
        }
        for (key, name) in [
            ("nats.cdc_stream", &self.cdc_stream),
            ("nats.init_stream", &self.init_stream),
            ("nats.requests_stream", &self.requests_stream),
            ("nats.dlq_stream", &self.dlq_stream),
        ] {
            if name.is_empty()
                || name.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            {
                return invalid(
                    key,
                    format!("'{name}' is no stream name: use letters, digits, _ and -"),
                );
            }
        }
        let stream = |name, max_bytes, max_age_seconds| Stream {
            name,
            max_bytes: Some(max_bytes).filter(|&b| b > 0),
            max_age: Some(max_age_seconds).filter(|&s| s > 0).map(Duration::from_secs),
        };
        Ok(Nats {
            access,
            port: self.port,
            replicas: self.replicas,
            create: self.create,
            cdc: stream(self.cdc_stream, self.cdc_max_bytes, self.cdc_max_age_seconds),
            init: stream(self.init_stream, self.init_max_bytes, self.init_max_age_seconds),
            requests: self.requests_stream,
            dlq: stream(self.dlq_stream, self.dlq_max_bytes, self.dlq_max_age_seconds),
        })
    }
}

impl RawNats {
    /// Without a URL there is a private server, on loopback: nothing else of this may be set then.
    fn access(&mut self) -> Result<Option<NatsOptions>, ConfigError> {
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

impl RawCompression {
    fn validate(self) -> Result<Compression, ConfigError> {
        if !(1..=19).contains(&self.level) {
            return invalid(
                "compression.level",
                format!("is {}, must be 1 to 19; 1 to 3 are meant for live data", self.level),
            );
        }
        Ok(Compression {
            enabled: self.enabled,
            level: self.level,
            use_dictionary: self.use_dictionary,
            dictionaries: self.dictionaries,
        })
    }
}

impl RawGuests {
    fn validate(self) -> Result<Guests, ConfigError> {
        let RawGuests { dir, memory_mib, batch_ms, module_bytes, output_bytes, log_lines_s } = self;
        if !(1..=4096).contains(&memory_mib) {
            return invalid("guests.memory_mib", format!("is {memory_mib}, must be 1 to 4096"));
        }
        if !(10..=60_000).contains(&batch_ms) {
            return invalid("guests.batch_ms", format!("is {batch_ms}, must be 10 to 60000"));
        }
        for (key, bytes) in
            [("guests.module_bytes", module_bytes), ("guests.output_bytes", output_bytes)]
        {
            if !((64 << 10)..=(1 << 30)).contains(&bytes) {
                return invalid(key, format!("is {bytes}, must be 64 KiB to 1 GiB"));
            }
        }
        let memory_bytes = memory_mib << 20;
        let batch = Duration::from_millis(batch_ms);
        Ok(Guests { dir, memory_bytes, batch, module_bytes, output_bytes, log_lines_s })
    }
}

impl RawSnapshot {
    fn validate(self) -> Result<Snapshot, ConfigError> {
        let RawSnapshot { workers, chunk_bytes, max_concurrent, cooldown_seconds } = self;
        if !(1..=32).contains(&workers) {
            return invalid("snapshot.workers", format!("is {workers}, must be 1 to 32"));
        }
        if !((64 << 10)..=(16 << 20)).contains(&chunk_bytes) {
            return invalid(
                "snapshot.chunk_bytes",
                format!("is {chunk_bytes}, must be 64 KiB to 16 MiB"),
            );
        }
        if !(1..=16).contains(&max_concurrent) {
            return invalid(
                "snapshot.max_concurrent",
                format!("is {max_concurrent}, must be 1 to 16"),
            );
        }
        if cooldown_seconds > 3600 {
            return invalid(
                "snapshot.cooldown_seconds",
                format!("is {cooldown_seconds}, must be 0 to 3600"),
            );
        }
        let cooldown = Duration::from_secs(cooldown_seconds);
        Ok(Snapshot { workers, chunk_bytes, max_concurrent, cooldown })
    }
}

impl RawHttp {
    fn validate(self) -> Result<Http, ConfigError> {
        match self.listen.parse::<SocketAddr>() {
            Ok(listen) => Ok(Http { listen }),
            Err(_) => invalid(
                "http.listen",
                format!("'{}' is no address: write 127.0.0.1:8088", self.listen),
            ),
        }
    }
}

fn tables(raw: Vec<RawTable>) -> Result<Vec<Table>, ConfigError> {
    if raw.is_empty() {
        return invalid("tables", "there is none: add [[tables]] with name = \"public.users\"");
    }
    let mut tables: Vec<Table> = Vec::with_capacity(raw.len());
    for raw in raw {
        let table = raw.validate()?;
        if tables.iter().any(|t| t.name == table.name || t.token == table.token) {
            let Table { name, token, .. } = table;
            return invalid(
                "tables",
                format!(
                    "{name} stands there twice, or its token {token} is taken by another's alias"
                ),
            );
        }
        tables.push(table);
    }
    Ok(tables)
}

/// Names of files end in more than the alias, and no file system takes more than 255 bytes.
const ALIAS_BYTES_MAX: usize = 240;

fn short(table: &TableName, token: Token) -> Result<Token, ConfigError> {
    let bytes = token.as_str().len();
    let problem = format!(
        "of {table} takes {bytes} bytes in subjects and names of files (three for each byte but A-Z, a-z, 0-9, - and _): choose a shorter one, of at most {ALIAS_BYTES_MAX}"
    );
    if bytes <= ALIAS_BYTES_MAX { Ok(token) } else { invalid("tables.alias", problem) }
}

impl RawTable {
    fn validate(self) -> Result<Table, ConfigError> {
        let name: TableName = self
            .name
            .parse()
            .or_else(|e: walgate_wire::InvalidName| invalid("tables.name", e.to_string()))?;
        let token = match self.alias {
            Some(alias) if alias.is_empty() => {
                return invalid(
                    "tables.alias",
                    format!("of {name} is empty: leave it out or name it"),
                );
            }
            Some(alias) => short(&name, Token::of_alias(&alias))?,
            None => name.token(),
        };
        let is_digest =
            |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if self.guest_sha256.as_ref().is_some_and(|hash| !is_digest(hash)) {
            return invalid(
                "tables.guest_sha256",
                format!("of {name} is no SHA-256: write the 64 hex digits that sha256sum prints"),
            );
        }
        let guest = TableGuest {
            file: self.guest.clone().unwrap_or_else(|| format!("{token}.wasm")).into(),
            named: self.guest.is_some(),
            optional: self.guest_optional,
            parameters: self.guest_params,
            sha256: self.guest_sha256.map(|hash| hash.to_ascii_lowercase()),
            on_error: self.on_guest_error,
            on_change: self.on_guest_change,
        };
        Ok(Table { name, token, guest, shed: self.shed })
    }
}
