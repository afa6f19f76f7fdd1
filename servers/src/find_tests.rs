//! Tests of the search, on directories with fake servers.

use super::*;

/// A child process writes the file. If this process had it open for writing, a fork on another
/// test's thread could inherit the handle. Running the file would then fail with "text file busy".
fn write_fake(dir: &Path, name: &str, output: &str) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let file = dir.join(name);
    let script = r#"printf '#!/bin/sh\necho "%s"\n' "$2" > "$1" && chmod 755 "$1""#;
    let mut sh = Command::new("sh");
    sh.args(["-c", script, "sh"]).arg(&file).arg(output);
    assert!(sh.status().unwrap().success());
    file
}

#[test]
fn versions_are_read_from_the_output_of_the_servers() {
    let cases = [
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("postgres (PostgreSQL) 19beta1", (19, 1)),
        ("nats-server: v2.15.1", (2, 15)),
    ];
    for (text, (major, minor)) in cases {
        assert_eq!(Version::in_text(text), Some(Version { major, minor }), "{text}");
    }
    assert_eq!(Version::in_text("hello"), None);
}

#[test]
fn an_old_nats_named_explicitly_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let old = write_fake(dir.path(), "nats-server", "nats-server: v2.9.10");
    let message = find_nats(Some(&old)).unwrap_err().to_string();
    assert!(message.contains("2.9") && message.contains("2.11") && message.contains("install"));
}

#[test]
fn an_old_server_is_skipped_with_a_note_when_a_newer_one_follows() {
    let dir = tempfile::tempdir().unwrap();
    let old = write_fake(&dir.path().join("a"), "nats-server", "nats-server: v2.9.10");
    let new = write_fake(&dir.path().join("b"), "nats-server", "nats-server: v2.15.1");
    let places = vec![(Origin::Path, old), (Origin::Cache, new.clone())];
    let found = choose_first(places, NatsBin::inspect, |_| panic!("one is good")).unwrap();
    assert_eq!(found.bin.file, new);
    assert_eq!(found.skipped.len(), 1);
    assert!(found.skipped[0].contains("2.9"));
    assert!(found.to_string().starts_with("nats-server 2.15 (cache: /"));
}

#[test]
fn a_directory_without_initdb_is_not_a_postgres() {
    let dir = tempfile::tempdir().unwrap();
    write_fake(dir.path(), "postgres", "postgres (PostgreSQL) 18.6");
    let message = find_postgres(Some(dir.path())).unwrap_err().to_string();
    assert!(message.contains("initdb"), "{message}");
}

#[test]
fn newer_names_come_first() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pg-9", "pg-18.6.3", "pg-15", "other"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let names: Vec<_> = list_children(dir.path(), "pg-")
        .into_iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
        .collect();
    assert_eq!(names, ["pg-18.6.3", "pg-15", "pg-9"]);
}
