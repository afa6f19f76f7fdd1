//! What an operator may set, read once and validated once: nothing later reads the environment or parses text.
//!
//! A key `[section] name` is also `WALGATE_SECTION_NAME` in the environment, and `WALGATE_SECTION_NAME_FILE`
//! names a file that holds it. The environment wins over the file. Whether servers exist and tables are
//! there is not known here.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use walgate_nats_connect::NatsOptions;
use walgate_wire::{TableName, Token};

mod paths;
mod raw;

pub use paths::resolve_url;
pub use raw::{Raw, RawTable};

/// A configuration that can be acted on.
#[derive(Clone, Debug)]
pub struct Config {
    pub postgres: Postgres,
    pub nats: Nats,
    pub compression: Compression,
    pub guests: Guests,
    pub snapshot: Snapshot,
    pub http: Http,
    pub data_dir: PathBuf,
    /// For which servers that are away are waited for at the start.
    pub start_wait: Duration,
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    pub url: SecretString,
    /// Counts before one in the URL.
    pub password: Option<Password>,
    pub slot: String,
    pub publication: String,
    pub wal_budget: WalBudget,
}

/// How much WAL the slot may hold back before something is done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalBudget {
    /// Zero: it is not limited.
    pub bytes: u64,
    /// Size of the place where the server keeps it, if the operator says so.
    pub disk: Option<u64>,
}

/// A password that does not stand in the URL.
#[derive(Clone, Debug)]
pub enum Password {
    Given(SecretString),
    /// Read at every connection: it may change meanwhile.
    File(PathBuf),
}

impl Postgres {
    /// For one who only asks; no slot.
    pub fn at(url: SecretString, publication: String) -> Postgres {
        let (slot, wal_budget) = (String::new(), WalBudget::default());
        Postgres { url, password: None, slot, publication, wal_budget }
    }
}

#[derive(Clone, Debug)]
pub struct Nats {
    /// Absent: a private server is started in `data_dir`.
    pub access: Option<NatsOptions>,
    /// Of the private server, on loopback.
    pub port: u16,
    pub replicas: usize,
    /// Streams and buckets are created and changed as need be; otherwise they have to be there.
    pub create: bool,
    pub cdc: Stream,
    pub init: Stream,
    pub requests: String,
    pub dlq: Stream,
}

/// Name and limits of one stream.
#[derive(Clone, Debug)]
pub struct Stream {
    pub name: String,
    /// `None`: no limit.
    pub max_bytes: Option<u64>,
    /// `None`: no limit.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Compression {
    pub enabled: bool,
    pub level: i32,
    pub use_dictionary: UseDictionary,
    pub dictionaries: PathBuf,
}

/// When a table's dictionary is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseDictionary {
    /// Snapshots and changes alike.
    #[default]
    Always,
    /// Only for bodies small enough for it to pay.
    Auto,
}

/// Where guests lie, and what each of them may use.
#[derive(Clone, Debug)]
pub struct Guests {
    pub dir: PathBuf,
    pub memory_bytes: usize,
    /// For one batch of rows.
    pub batch: Duration,
    pub module_bytes: usize,
    pub output_bytes: usize,
    pub log_lines_s: u32,
}

impl Default for Guests {
    fn default() -> Self {
        Guests {
            dir: "guests".into(),
            memory_bytes: 64 << 20,
            batch: Duration::from_millis(250),
            module_bytes: 16 << 20,
            output_bytes: 32 << 20,
            log_lines_s: 50,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Connections that copy one table.
    pub workers: usize,
    /// Size at which a chunk is cut, before compression.
    pub chunk_bytes: usize,
    /// Tables that are copied at the same time.
    pub max_concurrent: usize,
    /// For which a table that was copied is not copied again; requests wait.
    pub cooldown: Duration,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
}

/// A table that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: TableName,
    pub token: Token,
    pub guest: TableGuest,
    /// It may be left out for a while, and loaded again later, when the slot holds back too much WAL.
    pub shed: bool,
}

/// What is said of a table's guest, whether there is one or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableGuest {
    /// Relative to the folder of guests.
    pub file: PathBuf,
    /// The configuration names the file: the table does not flow without it.
    pub named: bool,
    /// Without its file the table flows unfiltered.
    pub optional: bool,
    pub parameters: BTreeMap<String, String>,
    /// The only contents that are accepted, in hex.
    pub sha256: Option<String>,
    pub on_error: OnGuestError,
    pub on_change: OnGuestChange,
}

/// What becomes of a row that its guest cannot process. It never leaves as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGuestError {
    /// The table stops until its guest is mended.
    #[default]
    Halt,
    /// The row goes to `dlq.{table}` and counts as dropped.
    DeadLetter,
    /// The row counts as dropped.
    Drop,
}

/// What consumers do with the rows that an earlier guest let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGuestChange {
    /// They keep them; the new guest decides about changes from now on.
    #[default]
    Continue,
    /// They load the table again.
    Reseed,
}

/// Why a configuration was refused. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Unreadable(String),
    #[error("{key}: {problem}")]
    Invalid { key: &'static str, problem: String },
}

impl Config {
    /// Reads `file` (`walgate.toml` if absent and there is one), then the environment. All paths are absolute.
    pub fn load(file: Option<PathBuf>) -> Result<Config, ConfigError> {
        let path = file.clone().unwrap_or_else(|| "walgate.toml".into());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let message = format!("{}: {e}; name the configuration with -c", path.display());
                return Err(ConfigError::Unreadable(message));
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Config::read_in(folder, &path.display().to_string(), &text, std::env::vars())
    }

    /// `source` is what errors call the text. Also the entry of the fuzz target.
    pub fn read(
        source: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        Config::read_in(Path::new(""), source, text, environment)
    }

    /// `folder` holds the file that the text is from.
    fn read_in(
        folder: &Path,
        source: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let overrides = overrides(environment)?;
        let url_folder = if paths::has_url(&overrides) { Path::new("") } else { folder };
        let figment = Figment::from(Serialized::defaults(Raw::default()))
            .merge(Toml::string(text))
            .merge(Serialized::globals(overrides));
        let mut raw: Raw = figment.extract().map_err(|errors| {
            let lines: Vec<String> = errors.into_iter().map(|e| explain(source, &e)).collect();
            ConfigError::Unreadable(lines.join("\n"))
        })?;
        raw.resolve_paths(folder, url_folder)?;
        raw.validate()
    }
}

/// Which key is wrong, how, and whether it stands in the file or in the environment.
fn explain(source: &str, error: &figment::Error) -> String {
    let from_file = error.metadata.as_ref().is_none_or(|metadata| metadata.name.contains("TOML"));
    let place = if from_file { source } else { "environment (WALGATE_…)" };
    match error.path.join(".") {
        // The parser quotes the line, which may hold a password.
        key if key.is_empty() => {
            let words = error.kind.to_string();
            let lines: Vec<_> = words.lines().filter(|line| !line.contains('|')).collect();
            format!("{place}: {}", lines.join(": "))
        }
        key if SECRET.contains(&&*key) => format!("{place}: {key}: must be text, in quotes"),
        key => format!("{place}: {key}: {}", error.kind),
    }
}

/// Keys that stand before the first section.
const NO_SECTION: [&str; 2] = ["data_dir", "start_wait_seconds"];

const PREFIX: &str = "WALGATE_";
const FILE_SUFFIX: &str = "_file";
/// Always text, also where it looks like a number; never shown.
const SECRET: [&str; 5] =
    ["postgres.url", "postgres.password", "nats.url", "nats.password", "nats.token"];
/// Variables of this prefix that are not configuration: the file itself, the log filter, where set-up found servers.
const NOT_CONFIG: [&str; 7] = [
    "WALGATE_CONFIG",
    "WALGATE_LOG",
    "WALGATE_CACHE",
    "WALGATE_GUEST_FILES",
    "WALGATE_POSTGRES_BIN",
    "WALGATE_NATS_SERVER",
    "WALGATE_WASM_TOOLCHAIN",
];

/// Whether a variable of our prefix is for us. Kubernetes tells each pod of its namespace about a Service that is called walgate:
/// `WALGATE_SERVICE_HOST`, `WALGATE_PORT`, `WALGATE_PORT_8088_TCP_ADDR` and so on. No key is called so.
fn is_config(name: &str, key: &str) -> bool {
    let by_kubernetes =
        key == "PORT" || ["SERVICE_", "PORT_"].iter().any(|start| key.starts_with(start));
    !by_kubernetes && !NOT_CONFIG.contains(&name)
}

/// Where set-up found nats-server, if it said so.
pub fn nats_server_program() -> Option<PathBuf> {
    std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from)
}

/// What the environment sets, nested like the file. `WALGATE_SNAPSHOT_CHUNK_BYTES` is `snapshot.chunk_bytes`;
/// `WALGATE_DATA_DIR` has no section ([`NO_SECTION`]); a name that ends in `_FILE` holds the path of a file with the value, unless the
/// key itself is the name of a file.
fn overrides(environment: impl Iterator<Item = (String, String)>) -> Result<Dict, ConfigError> {
    let mut sections = Dict::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| is_config(&name, key)) else {
            continue;
        };
        let key = key.to_ascii_lowercase();
        let (key, value) = match key.strip_suffix(FILE_SUFFIX) {
            Some(key) if !paths::is_file_key(&format!("{key}{FILE_SUFFIX}")) => {
                (key.to_owned(), Value::from(secret(&name, &value)?))
            }
            _ if SECRET.contains(&&*key.replacen('_', ".", 1)) => (key, Value::from(value)),
            _ if paths::is_path_key(&key) => {
                let path = paths::absolute(Path::new(""), Path::new(&value))?;
                (key, Value::from(path.display().to_string()))
            }
            _ => (key, value.parse::<Value>().unwrap_or(Value::from(value))),
        };
        match key.split_once('_').filter(|_| !NO_SECTION.contains(&&*key)) {
            Some((section, key)) => {
                let section =
                    sections.entry(section.to_owned()).or_insert_with(|| Dict::new().into());
                if let Value::Dict(_, section) = section {
                    section.insert(key.to_owned(), value);
                }
            }
            None => {
                sections.insert(key, value);
            }
        }
    }
    Ok(sections)
}

fn secret(name: &str, path: &str) -> Result<String, ConfigError> {
    secret_of(Path::new(path))
        .map_err(|error| ConfigError::Unreadable(format!("{name}: {error}; or unset {name}")))
}

/// A secret that stands alone in a file.
pub fn secret_of(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        ConfigError::Unreadable(format!(
            "cannot read {}: {e}; mount the secret there",
            path.display()
        ))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const MINIMAL: &str = r#"
        [postgres]
        url = "postgres://localhost/shop"
        [[tables]]
        name = "public.users"
    "#;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::read("walgate.toml", text, environment)
    }

    fn error(text: &str) -> String {
        read(text, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_minimal_file_has_sensible_defaults() {
        let config = read(MINIMAL, &[]).unwrap();
        assert_eq!(config.postgres.slot, "walgate");
        assert!(config.nats.access.is_none());
        assert!(config.http.listen.ip().is_loopback());
        assert_eq!(config.tables[0].token.as_str(), "users");
    }

    #[test]
    fn the_environment_wins_and_secrets_come_from_files() {
        let file = std::env::temp_dir().join(format!("walgate-secret-{}", std::process::id()));
        std::fs::write(&file, "postgres://u:hunter2@db/shop\n").unwrap();
        let environment = [
            ("WALGATE_POSTGRES_URL_FILE", file.to_str().unwrap()),
            ("WALGATE_SNAPSHOT_CHUNK_BYTES", "1000000"),
            ("WALGATE_COMPRESSION_USE", "auto"),
            ("WALGATE_DATA_DIR", "/data"),
            ("WALGATE_START_WAIT_SECONDS", "7"),
            ("WALGATE_LOG", "debug"),
        ];
        let config = read(MINIMAL, &environment).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.postgres.url.expose_secret(), "postgres://u:hunter2@db/shop");
        assert_eq!(config.snapshot.chunk_bytes, 1_000_000);
        assert_eq!(config.compression.use_dictionary, UseDictionary::Auto);
        assert_eq!(config.data_dir, PathBuf::from("/data"));
        assert_eq!(config.start_wait, Duration::from_secs(7));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(read(MINIMAL, &[("WALGATE_POSTGRES_URL_FILE", "/no/such/file")]).is_err());
        assert!(read(MINIMAL, &[("WALGATE_POSTGRES_SLOTT", "x")]).is_err());
    }

    /// As a pod finds them whose namespace has a Service of that name.
    #[test]
    fn what_kubernetes_sets_is_not_ours() {
        let service = [
            ("WALGATE_SERVICE_HOST", "10.0.0.7"),
            ("WALGATE_SERVICE_PORT", "8088"),
            ("WALGATE_SERVICE_PORT_HTTP", "8088"),
            ("WALGATE_PORT", "tcp://10.0.0.7:8088"),
            ("WALGATE_PORT_8088_TCP", "tcp://10.0.0.7:8088"),
            ("WALGATE_PORT_8088_TCP_PROTO", "tcp"),
            ("WALGATE_PORT_8088_TCP_PORT", "8088"),
            ("WALGATE_PORT_8088_TCP_ADDR", "10.0.0.7"),
            ("WALGATE_POSTGRES_SLOT", "ours"),
        ];
        assert_eq!(read(MINIMAL, &service).unwrap().postgres.slot, "ours");
        assert!(read(MINIMAL, &[("WALGATE_PORTS", "8088")]).is_err(), "a key that there is not");
    }

    #[test]
    fn an_alias_has_room_in_names() {
        let alias = |alias: &str| read(&format!("{MINIMAL}alias = \"{alias}\""), &[]);
        assert_eq!(alias(&"a".repeat(240)).unwrap().tables[0].token.as_str().len(), 240);
        for long in ["a".repeat(241), "é".repeat(41)] {
            let error = alias(&long).unwrap_err().to_string();
            assert!(error.contains("public.users") && error.contains("shorter"), "{error}");
        }
    }

    #[test]
    fn access_to_nats_is_secret() {
        let nats = "[nats]\nurl = \"tls://a:1\"\nuser = \"u\"\n";
        let password = [("WALGATE_NATS_PASSWORD", "12345"), ("WALGATE_NATS_CA_FILE", "/ca.pem")];
        let config = read(&format!("{nats}{MINIMAL}"), &password).unwrap();
        let access = config.nats.access.as_ref().unwrap();
        assert_eq!(access.password.as_ref().unwrap().expose_secret(), "12345");
        assert_eq!(access.ca_file, Some("/ca.pem".into()));
        assert!(!format!("{config:?}").contains("12345"));
        for bad in ["password = 12345", "url = \"nats://u:12345@a:1", "token = [\"12345\"]"] {
            let said = error(&format!("[nats]\n{bad}\n{MINIMAL}"));
            assert!(!said.contains("12345") && said.contains("walgate.toml"), "{said}");
        }
        let alone = error(&format!("[nats]\ncreds_file = \"/x\"\n{MINIMAL}"));
        assert!(alone.contains("nats.url"), "{alone}");
    }

    #[test]
    fn a_password_stands_beside_the_url() {
        let password = |environment: &[(&str, &str)]| {
            read(MINIMAL, environment).map(|config| config.postgres.password)
        };
        let given = password(&[("WALGATE_POSTGRES_PASSWORD", "12345")]).unwrap();
        assert!(matches!(&given, Some(Password::Given(p)) if p.expose_secret() == "12345"));
        assert!(!format!("{given:?}").contains("12345"));
        let file = ("WALGATE_POSTGRES_PASSWORD_FILE", "/run/secrets/p");
        let from_file = password(&[file]).unwrap();
        assert!(matches!(from_file, Some(Password::File(path)) if path.ends_with("p")));
        let both = password(&[file, ("WALGATE_POSTGRES_PASSWORD", "x")]).unwrap_err();
        assert!(both.to_string().contains("password_file"), "{both}");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error("[postgres]\nurrl = \"x\"").contains("urrl"));
        assert!(error("[[tables]]\nname = \"users\"").contains("postgres.url"));
        assert!(error("[postgres]\nurl = \"postgres://x/y\"").contains("tables"));
        let twice = format!("{MINIMAL}[[tables]]\nname = \"users\"");
        assert!(error(&twice).contains("twice"), "{}", error(&twice));
        let level = format!("{MINIMAL}[compression]\nlevel = 99");
        assert!(error(&level).contains("compression.level"));
        let listen = format!("{MINIMAL}[http]\nlisten = \"nonsense\"");
        assert!(error(&listen).contains("http.listen"));
    }
}
