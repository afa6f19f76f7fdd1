//! The environment: variables that override keys, files that hold secrets, and the few variables
//! that are not keys.
//!
//! A key `[section] name` is also `WALGATE_SECTION_NAME`, and `WALGATE_SECTION_NAME_FILE` names a
//! file that holds it. Which keys exist is not known here.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::{ConfigError, paths};

/// Keys before the first section.
const KEYS_WITHOUT_SECTION: [&str; 2] = ["data_dir", "start_wait_seconds"];

const PREFIX: &str = "WALGATE_";
const FILE_SUFFIX: &str = "_file";
/// Always text, even if the value looks like a number. Never shown.
pub(super) const SECRETS: [&str; 5] =
    ["postgres.url", "postgres.password", "nats.url", "nats.password", "nats.token"];
/// Variables with the prefix that are not keys.
const NOT_CONFIG: [&str; 7] = [
    "WALGATE_CONFIG",
    "WALGATE_LOG",
    "WALGATE_CACHE",
    "WALGATE_GUEST_FILES",
    "WALGATE_POSTGRES_BIN",
    "WALGATE_NATS_SERVER",
    "WALGATE_WASM_TOOLCHAIN",
];

/// Whether a variable with the prefix is a key. Kubernetes sets variables for each Service of a
/// pod's namespace. For a Service called `walgate` they are `WALGATE_SERVICE_HOST`,
/// `WALGATE_PORT`, `WALGATE_PORT_8088_TCP_ADDR` and so on. No key has such a name.
fn is_config(name: &str, key: &str) -> bool {
    let by_kubernetes =
        key == "PORT" || ["SERVICE_", "PORT_"].iter().any(|start| key.starts_with(start));
    !by_kubernetes && !NOT_CONFIG.contains(&name)
}

/// The nats-server program, if the operator or the set-up names one.
pub fn nats_server_program() -> Option<PathBuf> {
    std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from)
}

/// The keys that the environment sets, nested like the file. `WALGATE_SNAPSHOT_CHUNK_BYTES` is
/// `snapshot.chunk_bytes`; `WALGATE_DATA_DIR` has no section ([`KEYS_WITHOUT_SECTION`]). A name
/// that ends in `_FILE` holds the path of a file with the value, unless the key itself names a
/// file.
pub(super) fn read_overrides(
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Dict, ConfigError> {
    let mut sections = Dict::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| is_config(&name, key)) else {
            continue;
        };
        let key = key.to_ascii_lowercase();
        let (key, value) = match key.strip_suffix(FILE_SUFFIX) {
            Some(key) if !paths::is_file_key(&format!("{key}{FILE_SUFFIX}")) => {
                (key.to_owned(), Value::from(read_secret(&name, &value)?))
            }
            _ if SECRETS.contains(&&*key.replacen('_', ".", 1)) => (key, Value::from(value)),
            _ if paths::is_path_key(&key) => {
                let path = paths::absolute(Path::new(""), Path::new(&value))?;
                (key, Value::from(path.display().to_string()))
            }
            _ => (key, value.parse::<Value>().unwrap_or(Value::from(value))),
        };
        match key.split_once('_').filter(|_| !KEYS_WITHOUT_SECTION.contains(&&*key)) {
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

fn read_secret(name: &str, path: &str) -> Result<String, ConfigError> {
    read_secret_file(Path::new(path))
        .map_err(|error| ConfigError::Unreadable(format!("{name}: {error}; or unset {name}")))
}

/// The contents of a file that holds one secret.
pub fn read_secret_file(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        ConfigError::Unreadable(format!(
            "cannot read {}: {e}; mount the secret there",
            path.display()
        ))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
