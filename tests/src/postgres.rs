//! Postgres for tests: one server for each major version, shared by all tests of the process, and
//! one database for each test.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use walgate_servers::{PgBin, PgOptions, PrivatePostgres, find_all_postgres};

/// Which of the installed servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    Newest,
    Oldest,
    /// The newest that can encrypt connections.
    WithTls,
}

/// A running Postgres.
pub struct Server {
    bin: PgBin,
    process: Mutex<PrivatePostgres>,
    /// The harness connects over the unix socket, which `pg_hba.conf` does not restrict.
    by_socket: bool,
}

/// Runs a test on the shared server of that major version.
pub fn run_on<T: Future<Output = ()>>(major: Major, test: impl FnOnce(Arc<Server>) -> T) {
    let all = find_all_postgres();
    assert!(!all.is_empty(), "no Postgres on this machine; run `cargo xtask setup`");
    let bin = match major {
        Major::Newest => all.first(),
        Major::Oldest if all.len() < 2 => {
            eprintln!("skipped: only one major version of Postgres is here ({})", all[0].version);
            return;
        }
        Major::Oldest => all.last(),
        Major::WithTls => match all.iter().find(|bin| bin.supports_tls()) {
            None => {
                eprintln!("skipped: no Postgres here was built with OpenSSL");
                return;
            }
            found => found,
        },
    };
    let server = Server::shared(bin.expect("there is one"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test(server));
}

/// The data directory of a fresh server: `initdb` runs once for all servers of the process.
fn template_data(bin: &PgBin) -> PathBuf {
    static TEMPLATES: Mutex<Vec<PrivatePostgres>> = Mutex::new(vec![]);
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = templates.iter().find(|template| template.bin() == bin) {
        return template.data_dir();
    }
    let started = PrivatePostgres::start(bin, PgOptions::default());
    let stopped = started.and_then(|mut server| server.stop_fast().map(|()| server));
    let template = stopped.expect("Postgres starts and stops");
    let data = template.data_dir();
    templates.push(template);
    data
}

impl Server {
    /// The server that all tests of this process share if they do not disturb it.
    pub fn shared(bin: &PgBin) -> Arc<Server> {
        static SERVERS: Mutex<Vec<Arc<Server>>> = Mutex::new(vec![]);
        Server::share_one(&SERVERS, bin)
    }

    /// A shared server for copies alone. A consumer in the middle of a transaction keeps its own
    /// transaction open. That would delay every new slot and snapshot of the source's server.
    pub fn shared_for_copies(bin: &PgBin) -> Arc<Server> {
        static SERVERS: Mutex<Vec<Arc<Server>>> = Mutex::new(vec![]);
        Server::share_one(&SERVERS, bin)
    }

    fn share_one(servers: &Mutex<Vec<Arc<Server>>>, bin: &PgBin) -> Arc<Server> {
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.iter().find(|server| server.bin == *bin) {
            return Arc::clone(server);
        }
        let server = Arc::new(Server::start(bin, &[]));
        servers.push(Arc::clone(&server));
        server
    }

    /// A server for one test, for settings that concern the whole server.
    pub fn start(bin: &PgBin, settings: &[(&str, &str)]) -> Server {
        let settings = to_owned_pairs(settings);
        let copy_of = Some(template_data(bin));
        let options = PgOptions { settings, copy_of, ..PgOptions::default() };
        Server::launch(bin, options, false)
    }

    /// A server with `hba` as its rules for TCP, and with `files` in its data directory.
    pub fn start_with_hba(
        bin: &PgBin,
        settings: &[(&str, &str)],
        hba: &str,
        files: &[(&str, &str)],
    ) -> Server {
        let hba = format!("local all all trust\n{hba}\n");
        let mut files = to_owned_pairs(files);
        files.push(("pg_hba.conf".to_owned(), hba));
        let settings = to_owned_pairs(settings);
        let copy_of = Some(template_data(bin));
        let options = PgOptions { settings, files, copy_of, ..PgOptions::default() };
        Server::launch(bin, options, true)
    }

    fn launch(bin: &PgBin, options: PgOptions, by_socket: bool) -> Server {
        let process = PrivatePostgres::start(bin, options).expect("Postgres starts");
        Server { bin: bin.clone(), process: Mutex::new(process), by_socket }
    }

    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// Access to the process, to stop, kill and start it.
    pub fn process(&self) -> MutexGuard<'_, PrivatePostgres> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn url(&self, database: &str) -> String {
        let process = self.process();
        if self.by_socket { process.unix_url(database) } else { process.url(database) }
    }

    /// The server's log.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.process().log()).expect("a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// `server_version_num / 10000`.
    pub fn major(&self) -> u32 {
        self.bin.version.major
    }
}

fn to_owned_pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// A database that is dropped at the end, together with its slots.
pub struct Database {
    server: Arc<Server>,
    name: String,
    client: Client,
}

impl Database {
    pub async fn create(server: &Arc<Server>) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        server.process().psql(&format!("create database {name}")).expect("a database");
        Database::open(server, &name).await
    }

    /// One that is there already; it is dropped at the end, too.
    pub async fn open(server: &Arc<Server>, name: &str) -> Database {
        let client = connect(&server.url(name)).await;
        Database { server: Arc::clone(server), name: name.to_owned(), client }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Opens one more session.
    pub async fn open_session(&self) -> Session {
        Session(connect(&self.url()).await)
    }

    /// Opens as many sessions as the server accepts.
    pub async fn open_sessions_to_the_limit(&self) -> Vec<Session> {
        let mut sessions = vec![];
        while let Ok((client, connection)) = tokio_postgres::connect(&self.url(), NoTls).await {
            tokio::spawn(connection);
            sessions.push(Session(client));
        }
        sessions
    }

    /// Connects again after a restart of the server.
    pub async fn reconnect(&mut self) {
        self.client = connect(&self.url()).await;
    }

    /// Runs statements; several in one text are one transaction.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> impl Future<Output = ()> {
        execute(&self.client, sql)
    }

    /// Rows of the last query in `sql`, every value as Postgres prints it.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> impl Future<Output = Vec<Vec<Option<String>>>> {
        query(&self.client, sql)
    }

    /// The first value of the first row.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        let first = rows.into_iter().next().and_then(|row| row.into_iter().next());
        first.flatten().unwrap_or_else(|| panic!("no value: {sql}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        // A prepared transaction of a failed test would delay every snapshot of the server.
        let prepared = "select format('rollback prepared %L', gid) from pg_prepared_xacts where database = current_database() \\gexec";
        let _ = self.server.process().psql_in(name, prepared);
        let gone = format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = '{name}' and active;
             select pg_sleep(0.05);
             select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{name}';
             drop database {name} with (force);"
        );
        // The server may be stopped already. A slot may take a moment to be released.
        for _ in 0..10 {
            if self.server.process().psql(&gone).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// A session beside the database's own: for transactions that stay open.
pub struct Session(Client);

impl Session {
    #[track_caller]
    pub fn sql(&self, sql: &str) -> impl Future<Output = ()> {
        execute(&self.0, sql)
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> impl Future<Output = Vec<Vec<Option<String>>>> {
        query(&self.0, sql)
    }

    /// The pid of its server process.
    pub async fn pid(&self) -> String {
        self.rows("select pg_backend_pid()").await[0][0].clone().expect("a number")
    }

    /// Does not panic, for statements that a test interrupts.
    pub async fn try_sql(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.0.batch_execute(sql).await
    }
}

/// A session that prints what oracles compare: ISO dates in UTC.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("Postgres accepts a session");
    tokio::spawn(async move {
        // Ends with the client, or with the server; then the client's calls fail.
        let _ = connection.await;
    });
    let settings = "set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres'; \
                    set extra_float_digits = 1; set bytea_output = 'hex'; set lc_monetary = 'C'";
    client.batch_execute(settings).await.expect("settings that every version has");
    client
}

#[track_caller]
fn execute(client: &Client, sql: &str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let done = client.batch_execute(sql).await;
        done.unwrap_or_else(|e| panic!("{caller}: {}\n{sql}", describe_error(&e)));
    }
}

#[track_caller]
fn query(client: &Client, sql: &str) -> impl Future<Output = Vec<Vec<Option<String>>>> {
    let caller = std::panic::Location::caller();
    async move {
        let messages = client.simple_query(sql).await;
        let messages =
            messages.unwrap_or_else(|e| panic!("{caller}: {}\n{sql}", describe_error(&e)));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }
}

pub(crate) fn describe_error(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}
