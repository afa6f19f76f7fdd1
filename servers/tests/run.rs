//! The real servers: they start, survive `kill -9`, pause, and are gone when they should be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walgate_servers::{
    NatsBin, NatsOptions, PgBin, PgOptions, PrivateNats, PrivatePostgres, find_all_postgres,
    find_nats,
};

fn nats() -> NatsBin {
    let explicit = std::env::var_os("WALGATE_NATS_SERVER").map(PathBuf::from);
    find_nats(explicit.as_deref()).expect("a nats-server to test with").bin
}

fn every_postgres() -> Vec<PgBin> {
    let all = find_all_postgres();
    assert!(!all.is_empty(), "no Postgres on this machine; run `cargo xtask setup`");
    all
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn gone_within(pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while runs(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    !runs(pid)
}

fn greeting(port: u16) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}

#[test]
fn postgres_keeps_its_rows_through_kill_9_and_is_gone_after_drop() {
    for bin in every_postgres() {
        let settings = vec![("wal_sender_timeout".to_string(), "7s".to_string())];
        let mut pg =
            PrivatePostgres::start(&bin, PgOptions { settings, ..Default::default() }).unwrap();
        assert!(pg.psql("show server_version").unwrap().starts_with(&bin.version.to_string()));
        assert_eq!(pg.psql("show wal_level").unwrap(), "logical");
        assert_eq!(pg.psql("show wal_sender_timeout").unwrap(), "7s");
        pg.psql("create table t (n int); insert into t values (1), (2);").unwrap();

        pg.kill9().unwrap();
        assert!(pg.psql("select 1").is_err());
        pg.start_again().unwrap();
        assert_eq!(pg.psql("select n from t order by n").unwrap(), "1\n2");
        pg.stop_fast().unwrap();
        pg.start_again().unwrap();
        assert_eq!(pg.psql("select sum(n) from t").unwrap(), "3");

        let (pid, data) = (pg.pid(), pg.data_dir());
        drop(pg);
        assert!(!runs(pid));
        assert!(!data.exists());
    }
}

#[test]
fn a_paused_postgres_answers_only_when_resumed() {
    let bin = every_postgres().remove(0);
    let mut pg = PrivatePostgres::start(&bin, PgOptions::default()).unwrap();
    pg.pause().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", pg.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // SSLRequest is answered by a single byte.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut byte = [0];
    assert!(stream.read_exact(&mut byte).is_err());
    pg.resume().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut byte).unwrap();
    let pid = pg.pid();
    pg.pause().unwrap();
    drop(pg);
    assert!(!runs(pid), "a paused server dies on drop too");
}

#[test]
fn sql_errors_are_reported_and_long_scripts_pass() {
    let bin = every_postgres().remove(0);
    let pg = PrivatePostgres::start(&bin, PgOptions::default()).unwrap();
    let message = pg.psql("select 1; select no_such_column; select 2").unwrap_err().to_string();
    assert!(message.contains("no_such_column"), "{message}");
    let many = "select repeat('x', 100);\n".repeat(5_000);
    assert_eq!(pg.psql(&many).unwrap().lines().count(), 5_000);
    pg.psql("create database other").unwrap();
    assert_eq!(pg.psql_in("other", "select current_database()").unwrap(), "other");
}

#[test]
fn a_kept_directory_is_started_again_with_its_data() {
    let bin = every_postgres().remove(0);
    // Not the default temporary directory, which may not let an unprivileged user through.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let options =
        PgOptions { dir: Some(dir.path().join("demo")), fsync: true, ..Default::default() };
    let pg = PrivatePostgres::start(&bin, options.clone()).unwrap();
    pg.psql("create table kept (n int)").unwrap();
    assert_eq!(pg.psql("show fsync").unwrap(), "on");
    drop(pg);
    let pg = PrivatePostgres::start(&bin, options).unwrap();
    assert_eq!(pg.psql("select count(*) from kept").unwrap(), "0");
}

#[test]
fn nats_starts_survives_kill_9_and_is_gone_after_drop() {
    let options = NatsOptions {
        max_payload_bytes: Some(123_456),
        max_file_store_bytes: Some(64 << 20),
        sync_always: true,
        extra_config: "server_name: \"mine\"".into(),
        ..Default::default()
    };
    let mut nats = PrivateNats::start(&nats(), options).unwrap();
    let info = greeting(nats.port()).unwrap();
    for expected in ["\"mine\"", "\"max_payload\":123456", "\"jetstream\":true"] {
        assert!(info.contains(expected), "{expected} is not in {info}");
    }
    nats.kill9().unwrap();
    assert!(greeting(nats.port()).is_none());
    nats.start_again().unwrap();
    assert!(greeting(nats.port()).is_some());
    nats.pause().unwrap();
    nats.pause().unwrap();
    assert!(greeting(nats.port()).is_none());
    nats.resume().unwrap();
    assert!(greeting(nats.port()).is_some());
    let (pid, store) = (nats.pid(), nats.store_dir().to_path_buf());
    drop(nats);
    assert!(!runs(pid) && !store.exists());
}

#[test]
fn a_taken_port_and_a_bad_config_are_reported_with_the_servers_own_words() {
    let first = PrivateNats::start(&nats(), NatsOptions::default()).unwrap();
    let same = NatsOptions { port: Some(first.port()), ..Default::default() };
    let message = PrivateNats::start(&nats(), same).unwrap_err().to_string();
    assert!(message.contains("address already in use"), "{message}");
    let bad = NatsOptions { extra_config: "no_such_option: 1".into(), ..Default::default() };
    let message = PrivateNats::start(&nats(), bad).unwrap_err().to_string();
    assert!(message.contains("no_such_option"), "{message}");
}

#[test]
fn many_start_at_once_on_ports_of_their_own() {
    let bin = nats();
    let servers: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| PrivateNats::start(&bin, NatsOptions::default()).unwrap()))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    // The threads that started them have ended, which must not be taken for a parent's death.
    std::thread::sleep(Duration::from_millis(300));
    for server in &servers {
        assert!(greeting(server.port()).is_some());
        assert!(server.port() < 32_768);
    }
}

/// Not a test: the parent that [`servers_die_with_a_parent_that_is_killed`] kills.
#[test]
#[ignore = "is run by another test, in a process of its own"]
fn parent_of_two_servers() {
    let pg = PrivatePostgres::start(&every_postgres().remove(0), PgOptions::default()).unwrap();
    let nats = PrivateNats::start(&nats(), NatsOptions::default()).unwrap();
    println!("\npids {} {}", pg.pid(), nats.pid());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn servers_die_with_a_parent_that_is_killed() {
    if !Path::new("/usr/bin/setpriv").exists() {
        return;
    }
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_of_two_servers", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pids: Vec<u32> = lines
        .map(|line| line.unwrap())
        .find_map(|line| {
            Some(line.strip_prefix("pids ")?.split(' ').map(|pid| pid.parse().unwrap()).collect())
        })
        .unwrap();
    assert!(pids.iter().all(|&pid| runs(pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    for pid in pids {
        assert!(gone_within(pid, Duration::from_secs(10)), "{pid} outlived its parent");
    }
}
