//! The surroundings of one test: a source database, a broker, a folder for all files.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;
use walgate_servers::NatsOptions;
use walgate_wire::Lsn;

use crate::{Broker, Database, Replica, Server, gateway::GatewayOptions, replica::Target};

/// Fields are dropped in this order: programs may write to the folder until the end.
pub struct Site {
    pub database: Database,
    pub broker: Broker,
    folder: TempDir,
    replicas: Cell<u32>,
}

impl Site {
    pub async fn new(server: &Arc<Server>) -> Site {
        Site::with_nats(server, NatsOptions::default()).await
    }

    pub async fn with_nats(server: &Arc<Server>, options: NatsOptions) -> Site {
        Site::with_broker(server, Broker::start(options).await).await
    }

    pub async fn with_broker(server: &Arc<Server>, broker: Broker) -> Site {
        let database = Database::create(server).await;
        let folder = tempfile::Builder::new().prefix("walgate-test-").tempdir_in("/var/tmp");
        let folder = folder.or_else(|_| tempfile::tempdir()).expect("a folder");
        for drop_in in ["dictionaries", "guests"] {
            fs::create_dir(folder.path().join(drop_in)).expect("a folder in a folder");
        }
        Site { database, broker, folder, replicas: Cell::new(0) }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn dictionaries(&self) -> PathBuf {
        self.folder().join("dictionaries")
    }

    /// Drops a guest of the source tree into the folder, atomically.
    pub fn drop_guest(&self, guest: &str, file: &str) {
        self.drop_file(&guest_bytes(guest), file);
    }

    /// Drops any bytes into the folder of guests, atomically.
    pub fn drop_file(&self, bytes: &[u8], file: &str) {
        let path = self.folder().join("guests").join(file);
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .expect("a file");
    }

    /// The configuration file of the site's gateway.
    pub fn config(&self) -> PathBuf {
        self.folder().join("gateway.toml")
    }

    /// Runs statements at the source.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> impl Future<Output = ()> {
        self.database.sql(sql)
    }

    /// The options of this site's gateway, for these tables.
    pub fn gateway(&self, tables: &[&str]) -> GatewayOptions {
        GatewayOptions {
            folder: self.folder().to_owned(),
            name: "gateway".to_owned(),
            postgres: self.database.url(),
            slot: self.slot(),
            publication: "walgate".to_owned(),
            nats: Some(self.broker.url()),
            tables: tables.iter().map(|table| ((*table).to_owned(), None)).collect(),
            env: vec![],
            keys: vec![],
        }
    }

    /// All databases of a server share one namespace of slots, so each site has its own slot name.
    pub fn slot(&self) -> String {
        format!("slot_{}", self.database.name())
    }

    /// Kills or stops the server, starts it again and reconnects. Only for a server of one test.
    pub async fn restart_postgres(&mut self, kill: bool) {
        {
            let mut server = self.database.server().process();
            let stopped = if kill { server.kill9() } else { server.stop_fast() };
            stopped.and_then(|()| server.start_again()).expect("Postgres starts again");
        }
        self.database.reconnect().await;
    }

    /// The position that the gateway confirmed last.
    pub async fn confirmed_lsn(&self) -> Lsn {
        let slot = self.slot();
        let sql = format!(
            "select confirmed_flush_lsn from pg_replication_slots where slot_name = '{slot}'"
        );
        self.database.value(&sql).await.parse().expect("an LSN")
    }

    /// A copy in a SQLite file.
    pub fn sqlite_replica(&self, tables: &[&str]) -> Replica {
        self.sqlite_replica_with(tables, &[])
    }

    /// A copy in a SQLite file; `env` holds the access to NATS.
    pub fn sqlite_replica_with(&self, tables: &[&str], env: &[(String, String)]) -> Replica {
        let number = self.next_replica_number();
        let file = self.folder().join(format!("replica{number}.db"));
        let nats = self.broker.url();
        let log = self.replica_log(number);
        Replica::start(&nats, Target::Sqlite(file), tables, log, env)
    }

    /// A copy that the consumer in Python keeps; `None` without a Python.
    pub fn python_replica(&self, tables: &[&str]) -> Option<Replica> {
        let number = self.next_replica_number();
        let file = self.folder().join(format!("replica{number}.db"));
        Replica::start_python(&self.broker.url(), file, tables, self.replica_log(number))
    }

    /// A copy in another database.
    pub fn postgres_replica(&self, database: &Database, tables: &[&str]) -> Replica {
        self.postgres_replica_at(&database.url(), tables)
    }

    /// A copy in the database at `url`.
    pub fn postgres_replica_at(&self, url: &str, tables: &[&str]) -> Replica {
        let number = self.next_replica_number();
        let target = Target::Postgres(url.to_owned());
        Replica::start(&self.broker.url(), target, tables, self.replica_log(number), &[])
    }

    fn next_replica_number(&self) -> u32 {
        self.replicas.set(self.replicas.get() + 1);
        self.replicas.get()
    }

    fn replica_log(&self, number: u32) -> PathBuf {
        self.folder().join(format!("replica{number}.log"))
    }
}

impl Drop for Site {
    /// Keeps the folder of a failed test if `WALGATE_TEST_KEEP` is set.
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("WALGATE_TEST_KEEP").is_some() {
            self.folder.disable_cleanup(true);
        }
    }
}

fn guest_file(guest: &str) -> PathBuf {
    let folder = std::env::var_os("WALGATE_GUEST_FILES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests"),
        PathBuf::from,
    );
    folder.join(format!("{guest}.wasm"))
}

/// A guest whose build needs npm. `None` without npm, because then no guest was built.
pub fn npm_guest_bytes(guest: &str) -> Option<Vec<u8>> {
    let npm = Command::new("npm").arg("--version").output();
    (guest_file(guest).is_file() || npm.is_ok()).then(|| guest_bytes(guest))
}

/// A guest as `cargo xtask` built it.
pub fn guest_bytes(guest: &str) -> Vec<u8> {
    let path = guest_file(guest);
    fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; `cargo xtask guests` builds it", path.display()))
}
