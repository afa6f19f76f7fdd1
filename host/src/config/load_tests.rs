//! Whole files and environments, read and refused.

use secrecy::ExposeSecret;

use super::*;
use crate::config::{PostgresPassword, UseDictionary};

const MINIMAL: &str = r#"
    [postgres]
    url = "postgres://localhost/shop"
    [[tables]]
    name = "public.users"
"#;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
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

/// As in a pod whose namespace has a Service called `walgate`.
#[test]
fn variables_of_kubernetes_are_not_keys() {
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
fn a_password_may_be_outside_the_url() {
    let password = |environment: &[(&str, &str)]| {
        read(MINIMAL, environment).map(|config| config.postgres.password)
    };
    let given = password(&[("WALGATE_POSTGRES_PASSWORD", "12345")]).unwrap();
    assert!(matches!(&given, Some(PostgresPassword::Given(p)) if p.expose_secret() == "12345"));
    assert!(!format!("{given:?}").contains("12345"));
    let file = ("WALGATE_POSTGRES_PASSWORD_FILE", "/run/secrets/p");
    let from_file = password(&[file]).unwrap();
    assert!(matches!(from_file, Some(PostgresPassword::File(path)) if path.ends_with("p")));
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
