//! A private Postgres: trust authentication on loopback and a unix socket, `wal_level=logical`,
//! run as an unprivileged user when we are root, dead when dropped. It knows no tables.

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
    /// A stopped server's `data/` of the same version, copied where there is none yet: quicker than `initdb`, with
    /// everything that is in it, the system identifier too.
    pub copy_of: Option<PathBuf>,
    /// It begins by reading the WAL of another server, as `settings` say; slots of the copy are left out, as
    /// `pg_basebackup` leaves them out.
    pub recovery: Option<Recovery>,
    /// `None`: a free one.
    pub port: Option<u16>,
    /// Off by default: faster, survives `kill -9` of Postgres, does not survive a power cut.
    pub fsync: bool,
    /// For postgresql.conf, after our own, so these win.
    pub settings: Vec<(String, String)>,
    /// Name and text of files in `data/`, for the server's eyes only: certificates, `pg_hba.conf`. The unix socket has
    /// to let the superuser in.
    pub files: Vec<(String, String)>,
}

/// What a server that recovers is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It follows a primary (`primary_conninfo`) until it is promoted.
    Standby,
    /// It reads an archive (`restore_command`) up to a point, and goes on from there.
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

    /// Runs statements, each in its own transaction, as superuser. The answer is psql's unaligned
    /// output without headers: `a|b` and newlines. The first error ends it.
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
            // From a thread: a long script and a long answer would otherwise wait for each other.
            // psql that has stopped reading at an error says so itself.
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

    /// Fast shutdown: open transactions are rolled back, walsenders finish. One whose receiver
    /// never confirms would hold it up forever, so after ten seconds it becomes immediate.
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

    /// On the same data, port and socket; a server that still runs is stopped first.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop_fast()?;
        self.process = self.cluster.launch()?;
        Ok(())
    }

    /// On the same data, but another port: it takes the place of a server that is gone.
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
        // Immediate rather than SIGKILL, which would leak shared memory segments. Data that is
        // kept recovers from it like from a crash.
        let _ = self.resume();
        let _ = self.stop_immediately();
    }
}
