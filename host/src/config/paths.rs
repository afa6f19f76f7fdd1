//! Relative paths of a configuration, made absolute once. In the file they count from the file's
//! folder, in the environment from the working directory. What is at a path is not known here.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::ConfigError;

/// Keys that name a file to read later, as the environment spells them.
const FILES: [&str; 6] = [
    "postgres_password_file",
    "nats_nkey_file",
    "nats_creds_file",
    "nats_ca_file",
    "nats_cert_file",
    "nats_key_file",
];
/// Keys that name a folder.
const FOLDERS: [&str; 3] = ["data_dir", "compression_dictionaries", "guests_dir"];

pub(super) fn is_file_key(key: &str) -> bool {
    FILES.contains(&key)
}

pub(super) fn is_path_key(key: &str) -> bool {
    is_file_key(key) || FOLDERS.contains(&key)
}

/// The path, counted from `folder`. An empty `folder` is the working directory.
pub(super) fn absolute(folder: &Path, path: &Path) -> Result<PathBuf, ConfigError> {
    // An empty path is the folder itself.
    let seen = Path::new(".").join(folder).join(path);
    std::path::absolute(&seen)
        .map_err(|e| ConfigError::Unreadable(format!("{}: {e}", seen.display())))
}

/// Whether the environment sets the connection string.
pub(super) fn has_url(overrides: &Dict) -> bool {
    let postgres = overrides.get("postgres").and_then(Value::as_dict);
    postgres.is_some_and(|section| section.contains_key("url"))
}

/// A connection string from outside the file, with absolute paths as in [`Config`](super::Config).
pub fn resolve_url(url: &str) -> String {
    match absolute(Path::new(""), Path::new("")) {
        Ok(folder) => walgate_pg_connect::resolve_files(url, &folder),
        Err(_) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::{Config, PostgresPassword};

    const FILE: &str = r#"
        [postgres]
        url = "postgres://db/shop?sslmode=verify-full&sslrootcert=ca.pem"
        password_file = "secrets/pw"
        [nats]
        url = "tls://a:1"
        ca_file = "nats/ca.pem"
        [[tables]]
        name = "users"
    "#;

    fn read(folder: &Path, environment: &[(&str, &str)]) -> Config {
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::read_in(folder, "walgate.toml", FILE, environment).unwrap()
    }

    /// Defaults are as if they were written in the file.
    #[test]
    fn paths_in_the_file_count_from_its_folder() {
        let config = read(Path::new("/srv/walgate"), &[]);
        assert_eq!(config.data_dir, Path::new("/srv/walgate/walgate-data"));
        assert_eq!(config.guests.dir, Path::new("/srv/walgate/guests"));
        assert_eq!(config.compression.dictionaries, Path::new("/srv/walgate/dictionaries"));
        let password = Path::new("/srv/walgate/secrets/pw");
        assert!(
            matches!(config.postgres.password, Some(PostgresPassword::File(file)) if file == password)
        );
        let ca = config.nats.access.unwrap().ca_file;
        assert_eq!(ca, Some("/srv/walgate/nats/ca.pem".into()));
        assert_eq!(
            config.postgres.url.expose_secret(),
            "postgres://db/shop?sslmode=verify-full&sslrootcert=%2Fsrv%2Fwalgate%2Fca.pem"
        );
    }

    #[test]
    fn paths_in_the_environment_count_from_the_working_directory() {
        let here = std::path::absolute(".").unwrap();
        let url = "host=db sslmode=verify-full sslrootcert=ca.pem";
        let environment = [
            ("WALGATE_DATA_DIR", "data"),
            ("WALGATE_GUESTS_DIR", "/abs/guests"),
            ("WALGATE_NATS_CA_FILE", "0"),
            ("WALGATE_POSTGRES_URL", url),
        ];
        let config = read(Path::new("/srv/walgate"), &environment);
        assert_eq!(config.data_dir, here.join("data"));
        assert_eq!(config.guests.dir, Path::new("/abs/guests"));
        assert_eq!(config.compression.dictionaries, Path::new("/srv/walgate/dictionaries"));
        assert_eq!(config.nats.access.unwrap().ca_file, Some(here.join("0")));
        let certificates = format!("sslrootcert='{}/ca.pem'", here.display());
        assert!(config.postgres.url.expose_secret().contains(&certificates));
    }

    #[test]
    fn a_file_in_a_relative_folder_has_absolute_paths() {
        let here = std::path::absolute(".").unwrap();
        assert_eq!(read(Path::new(""), &[]).data_dir, here.join("walgate-data"));
        assert_eq!(read(Path::new("conf"), &[]).data_dir, here.join("conf/walgate-data"));
    }
}
