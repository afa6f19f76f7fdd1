//! A private Postgres: trust authentication on loopback and a unix socket, `wal_level=logical`,
//! run by an unprivileged user when we are root, stopped on drop. It knows no tables.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{Cluster, SUPERUSER, without_pg_env};
use crate::error::During;
use crate::find::PgBin;
use crate::process::{Process, start_on};
use crate::{Error, Result};

const FAST_STOP_WITHIN: Duration = Duration::from_secs(10);
const IMMEDIATE_STOP_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub struct PgOptions {
    /// Holds `data/` and `postgres.log`, and is kept. An existing `data/` is started as it is.
    /// `None`: a private directory that is removed on drop.
    pub dir: Option<PathBuf>,
    /// `data/` of a stopped server of the same version, copied if there is no `data/` yet. This is
    /// quicker than `initdb`, and copies the system identifier, too.
    pub copy_of: Option<PathBuf>,
    /// The server begins by replaying WAL of another server, as `settings` say. Replication slots
    /// are not copied, as with `pg_basebackup`.
    pub recovery: Option<Recovery>,
    /// `None`: a free one.
    pub port: Option<u16>,
    /// Off by default: faster, survives `kill -9` of Postgres, does not survive a power cut.
    pub fsync: bool,
    /// For postgresql.conf, after our own, so these win.
    pub settings: Vec<(String, String)>,
    /// Name and text of files in `data/` that only the server may read: certificates,
    /// `pg_hba.conf`. The superuser must be able to log in through the unix socket.
    pub files: Vec<(String, String)>,
}

/// The kind of recovery that a server begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The server follows a primary (`primary_conninfo`) until it is promoted.
    Standby,
    /// The server replays an archive (`restore_command`) up to a point, then accepts writes.
    PointInTime,
}

#[derive(Debug)]
pub struct PrivatePostgres {
    process: Process,
    cluster: Cluster,
}

impl PrivatePostgres {
    /// Blocks until it accepts connections: about two seconds, most of them `initdb`.
    pub fn start(bin: &PgBin, options: PgOptions) -> Result<Self> {
        let mut cluster = Cluster::prepare(bin, &options)?;
        let process = start_on(options.port, |port| {
            cluster.port = port;
            cluster.configure(&options)?;
            cluster.launch()
        })?;
        Ok(Self { process, cluster })
    }

    pub fn bin(&self) -> &PgBin {
        &self.cluster.bin
    }

    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn socket_dir(&self) -> PathBuf {
        self.cluster.socket_dir()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.cluster.data_dir()
    }

    pub fn log(&self) -> PathBuf {
        self.cluster.log()
    }

    /// `postgresql://postgres@127.0.0.1:PORT/db`
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{SUPERUSER}@127.0.0.1:{}/{database}", self.port())
    }

    /// The same over the unix socket, its directory percent-encoded in the host's place.
    pub fn unix_url(&self, database: &str) -> String {
        let host = self.socket_dir().display().to_string().replace('/', "%2F");
        format!("postgresql://{SUPERUSER}@{host}:{}/{database}", self.port())
    }

    /// Runs statements in the database `postgres`; see [`psql_in`](Self::psql_in).
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// Runs statements as superuser, each in its own transaction, up to the first error. Returns
    /// psql's unaligned output without headers: `a|b` and newlines.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let program = self.cluster.bin.program("psql");
        let mut command = Command::new(&program);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(self.unix_url(database)).args(["-f", "-"]);
        let mut child = without_pg_env(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .during(|| format!("run {}", program.display()))?;
        let input = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // From a thread: a long script and long output would otherwise block each other. An
            // error that makes psql stop reading is in its own output.
            scope.spawn(|| input.map(|mut input| input.write_all(sql.as_bytes())));
            child.wait_with_output()
        })
        .during(|| format!("read from {}", program.display()))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(Error::Command { name: format!("psql in {database}"), output });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_string())
    }

    /// Fast shutdown: open transactions are rolled back, walsenders finish. A walsender whose
    /// receiver never confirms would block it for ever, so after ten seconds it becomes an
    /// immediate shutdown.
    pub fn stop_fast(&mut self) -> Result<()> {
        self.resume()?;
        self.process.signal(Signal::INT)?;
        if self.process.wait_at_most(FAST_STOP_WITHIN).is_some() {
            return Ok(());
        }
        self.stop_immediately()
    }

    /// SIGKILL to all its processes at once, as a crash of the machine would, minus the disk.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill_tree()
    }

    /// Starts on the same data, port and socket. A server that still runs is stopped first.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop_fast()?;
        self.process = self.cluster.launch()?;
        Ok(())
    }

    /// Starts on the same data, but another port: it replaces a server that is gone.
    pub fn start_again_on(&mut self, port: u16) -> Result<()> {
        self.psql(&format!("alter system set port = {port}"))?;
        self.stop_fast()?;
        self.cluster.port = port;
        self.start_again()
    }

    /// SIGSTOP to all its processes: connections stay open and nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause_tree()
    }

    pub fn resume(&mut self) -> Result<()> {
        self.process.resume_tree()
    }

    fn stop_immediately(&mut self) -> Result<()> {
        self.process.signal(Signal::QUIT)?;
        match self.process.wait_at_most(IMMEDIATE_STOP_WITHIN) {
            Some(_) => Ok(()),
            None => self.process.kill_tree(),
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Immediate rather than SIGKILL, which would leak shared memory segments. Data that is kept
        // recovers as after a crash.
        let _ = self.resume();
        let _ = self.stop_immediately();
    }
}
