//! The files of a private Postgres, and how one is made and started from them: initdb, settings,
//! ownership, readiness. What happens to the running server is `postgres.rs`.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::During;
use crate::find::PgBin;
use crate::postgres::{PgOptions, Recovery};
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::user::{self, User};
use crate::{Error, Result};

pub(crate) const SUPERUSER: &str = "postgres";

/// The parts that survive when the server is killed and started again.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub bin: PgBin,
    /// Zero until the first start.
    pub port: u16,
    home: PathBuf,
    user: Option<User>,
    scratch: Scratch,
}

impl Cluster {
    pub(crate) fn prepare(bin: &PgBin, options: &PgOptions) -> Result<Self> {
        let scratch = Scratch::create()?;
        let home = options.dir.clone().unwrap_or_else(|| scratch.path().to_path_buf());
        if !home.is_dir() {
            fs::create_dir_all(&home)
                .and_then(|()| fs::set_permissions(&home, Permissions::from_mode(0o755)))
                .during(|| format!("make the directory {}", home.display()))?;
        }
        let home = fs::canonicalize(&home).during(|| format!("open {}", home.display()))?;
        let user = user::find_unprivileged()?;
        let cluster = Self { bin: bin.clone(), port: 0, home, user, scratch };
        cluster.make_dir(&cluster.socket_dir(), 0o755)?;
        cluster.make_dir(&cluster.data_dir(), 0o700)?;
        if let Some(user) = &cluster.user {
            user.check_reach(&cluster.data_dir())?;
            user.check_reach(&cluster.bin.program("postgres"))?;
        }
        cluster.initialise(options.copy_of.as_deref())?;
        if let Some(recovery) = options.recovery {
            cluster.prepare_recovery(recovery)?;
        }
        Ok(cluster)
    }

    fn prepare_recovery(&self, recovery: Recovery) -> Result<()> {
        let slots = self.data_dir().join("pg_replslot");
        let entries = fs::read_dir(&slots).during(|| format!("read {}", slots.display()))?;
        for slot in entries.flatten() {
            let path = slot.path();
            fs::remove_dir_all(&path).during(|| format!("remove {}", path.display()))?;
        }
        self.write(
            match recovery {
                Recovery::Standby => "standby.signal",
                Recovery::PointInTime => "recovery.signal",
            },
            "",
        )
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    fn make_dir(&self, dir: &Path, mode: u32) -> Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .mode(mode)
            .create(dir)
            .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode)))
            .during(|| format!("make the directory {}", dir.display()))?;
        self.user.as_ref().map_or(Ok(()), |user| user.give_ownership(dir))
    }

    fn initialise(&self, copy_of: Option<&Path>) -> Result<()> {
        match fs::read_to_string(self.data_dir().join("PG_VERSION")) {
            Ok(version) if version.trim() == self.bin.version.major.to_string() => Ok(()),
            Ok(version) => {
                let reason = format!(
                    "it holds the data of version {}, and this is {} ({}); \
                     use that version or another directory",
                    version.trim(),
                    self.bin.version,
                    self.bin.dir.display()
                );
                Err(Error::Unusable { name: "data directory", path: self.data_dir(), reason })
            }
            Err(_) if copy_of.is_some() => copy_of.map_or(Ok(()), |data| self.copy_data(data)),
            Err(_) => match self.run_initdb("C.UTF-8") {
                Err(Error::Command { output, .. }) if output.contains("invalid locale name") => {
                    self.run_initdb("C")
                }
                other => other,
            },
        }
    }

    /// Keeps owners and modes.
    fn copy_data(&self, data: &Path) -> Result<()> {
        let mut command = Command::new("cp");
        command.args(["-a", "--reflink=auto"]).arg(data.join(".")).arg(self.data_dir());
        run_tool(&mut command)
    }

    fn run_initdb(&self, locale: &str) -> Result<()> {
        let program = self.bin.program("initdb");
        let mut command = Command::new(&program);
        command
            .args(["--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"])
            .arg(format!("--locale={locale}"))
            .arg(format!("--username={SUPERUSER}"))
            .arg("-D")
            .arg(self.data_dir())
            .current_dir(&self.home)
            .stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        run_tool(without_pg_env(&mut command))
    }

    /// In a file of its own rather than on the command line, so that ALTER SYSTEM still works.
    pub(crate) fn configure(&self, options: &PgOptions) -> Result<()> {
        let durable = if options.fsync { "on" } else { "off" };
        let ours = [
            ("listen_addresses", "127.0.0.1".to_string()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", self.socket_dir().display().to_string()),
            ("wal_level", "logical".into()),
            ("max_connections", "200".into()),
            ("max_wal_senders", "40".into()),
            ("max_replication_slots", "40".into()),
            ("max_prepared_transactions", "20".into()),
            ("fsync", durable.into()),
            ("full_page_writes", durable.into()),
            ("logging_collector", "off".into()),
        ];
        let ours = ours.iter().map(|(name, value)| (*name, value.as_str()));
        let theirs = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: String = ours
            .chain(theirs)
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        self.write("walgate.conf", &lines)?;
        for (name, text) in &options.files {
            self.write(name, text)?;
            let file = self.data_dir().join(name);
            fs::set_permissions(&file, Permissions::from_mode(0o600))
                .during(|| format!("protect {}", file.display()))?;
        }

        let main = self.data_dir().join("postgresql.conf");
        let text = fs::read_to_string(&main).during(|| format!("read {}", main.display()))?;
        let include = "include 'walgate.conf'\n";
        if text.ends_with(include) {
            return Ok(());
        }
        self.write("postgresql.conf", &format!("{text}{include}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.data_dir().join(name);
        fs::write(&file, text).during(|| format!("write {}", file.display()))?;
        self.user.as_ref().map_or(Ok(()), |user| user.give_ownership(&file))
    }

    pub(crate) fn launch(&self) -> Result<Process> {
        let socket = self.socket_dir().join(format!(".s.PGSQL.{}", self.port));
        let launch = Launch {
            name: "Postgres",
            program: self.bin.program("postgres"),
            args: vec!["-D".into(), self.data_dir().display().to_string()],
            cwd: &self.data_dir(),
            log: &self.log(),
            user: self.user.as_ref(),
            orphan_signal: "QUIT",
        };
        Process::start(&launch, |_| accepts_connections(&socket))
    }
}

fn run_tool(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().during(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::Command { name, output })
}

/// The socket is in our own directory, so only our server can answer. If another server has taken
/// the TCP port, ours ends before it makes its socket.
fn accepts_connections(socket: &Path) -> bool {
    send_startup(socket).is_ok_and(|reply| match reply.first() {
        // Any authentication request.
        Some(b'R') => true,
        // cannot_connect_now: starting up or recovering.
        Some(b'E') => !reply.windows(5).any(|code| code == b"57P03"),
        _ => false,
    })
}

/// Sends a start-up message of protocol 3.0, reads the first part of the reply, and terminates.
fn send_startup(socket: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    stream.write_all(&(body.len() as u32 + 4).to_be_bytes())?;
    stream.write_all(body)?;
    let mut reply = vec![0; 1024];
    let length = stream.read(&mut reply)?;
    reply.truncate(length);
    stream.write_all(b"X\0\0\0\x04")?;
    Ok(reply)
}

/// PGPORT, PGOPTIONS and the like are meant for another server.
pub(crate) fn without_pg_env(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
}
