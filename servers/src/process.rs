//! A server process that we own: started on a thread that never ends, signalled by its pid, and
//! killed together with its children. Which server it is is not known here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::error::During;
use crate::user::User;
use crate::{Error, Result, free_port};

/// Before a server is ready it may read a large store or replay a log.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Starts of a server that may have any port.
const PORT_TRIES: u32 = 5;
const POLL: Duration = Duration::from_millis(20);
const CHILDREN_GONE: Duration = Duration::from_secs(5);
const LOG_TAIL_BYTES: u64 = 2_000;

/// How to run a server in the foreground.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The working directory. The server's user must be able to enter it.
    pub cwd: &'a Path,
    pub log: &'a Path,
    pub user: Option<&'a User>,
    /// The kernel sends it to the server when this process dies in any way (`setpriv --pdeathsig`).
    pub orphan_signal: &'static str,
}

#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Returns once `ready`, which gets the pid, is true. A server that does not become ready is
    /// killed.
    pub(crate) fn start(launch: &Launch<'_>, ready: impl Fn(u32) -> bool) -> Result<Self> {
        let mut process = Self::spawn(launch)?;
        match process.await_ready(launch.log, ready) {
            Ok(()) => Ok(process),
            Err(e) => {
                process.kill_tree()?;
                Err(e)
            }
        }
    }

    fn spawn(launch: &Launch<'_>) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(launch.log)
            .during(|| format!("open the log {}", launch.log.display()))?;
        let child = spawn_on_lasting_thread(build_command(launch, log)?)
            .during(|| format!("start {} ({})", launch.name, launch.program.display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name: launch.name, child, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Signals the process alone. After it has been reaped its pid is invalid and nothing is sent.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status().is_some() {
            return Ok(());
        }
        self.send(self.pid, signal)
    }

    /// SIGSTOP to the process, so that it starts no more children, and then to its children.
    pub(crate) fn pause_tree(&mut self) -> Result<()> {
        self.pause()?;
        children_of(self.pid).into_iter().try_for_each(|child| self.send(child, Signal::STOP))
    }

    pub(crate) fn resume_tree(&mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        children_of(self.pid).into_iter().try_for_each(|child| self.send(child, Signal::CONT))
    }

    /// Returns when every thread has stopped. The signal alone takes effect later.
    fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // NOWAIT keeps the report for the next call: the kernel makes one for each stop.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while self.exit_status().is_none() {
            match waitid(WaitId::Pid(self.pid), stopped) {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(_)) => break,
                Err(e) => return Err(e).during(|| format!("wait for {} to pause", self.name)),
            }
        }
        Ok(())
    }

    fn send(&self, pid: Pid, signal: Signal) -> Result<()> {
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e).during(|| format!("signal {} (pid {pid:?})", self.name)),
        }
    }

    pub(crate) fn wait_at_most(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.exit_status() {
                Some(status) => return Some(status),
                None if Instant::now() >= deadline => return None,
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// SIGKILL to the whole tree; returns when the process has been reaped.
    pub(crate) fn kill_tree(&mut self) -> Result<()> {
        // Stopped first: after its death the children have another parent.
        self.signal(Signal::STOP)?;
        let children = children_of(self.pid);
        self.signal(Signal::KILL)?;
        for child in &children {
            self.send(*child, Signal::KILL)?;
        }
        self.child.wait().during(|| format!("wait for {} to die", self.name))?;
        // Otherwise the next server would find shared memory and ports in use.
        let deadline = Instant::now() + CHILDREN_GONE;
        while Instant::now() < deadline
            && list_processes().iter().any(|(pid, _)| children.contains(pid))
        {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Polls `ready` until it is true, the process dies or the time is up.
    fn await_ready(&mut self, log: &Path, ready: impl Fn(u32) -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let reason = match self.exit_status() {
                Some(status) => format!("it ended with {status}"),
                None if ready(self.pid()) => return Ok(()),
                None if Instant::now() >= deadline => format!("not ready after {READY_WITHIN:?}"),
                None => {
                    std::thread::sleep(POLL);
                    continue;
                }
            };
            return Err(Error::Start { name: self.name, reason, log: read_log_tail(log) });
        }
    }
}

/// Starts a server on this port. Without one: on a free port, and on another if that was taken
/// before the server bound it.
pub(crate) fn start_on<T>(port: Option<u16>, mut start: impl FnMut(u16) -> Result<T>) -> Result<T> {
    let mut tries = if port.is_some() { 1 } else { PORT_TRIES };
    loop {
        tries -= 1;
        match start(port.map_or_else(free_port, Ok)?) {
            Err(e) if tries > 0 && is_port_clash(&e) => {}
            started => return started,
        }
    }
}

/// Whether another process took the port after we chose it and before the server bound it.
fn is_port_clash(error: &Error) -> bool {
    matches!(error, Error::Start { log, .. } if log.to_lowercase().contains("address already in use"))
}

fn build_command(launch: &Launch<'_>, log: File) -> Result<Command> {
    let mut command = match find_setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", launch.orphan_signal]);
            if let Some(user) = launch.user {
                command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()]);
                command.arg("--clear-groups");
            }
            command.arg(&launch.program);
            command
        }
        None => {
            let mut command = Command::new(&launch.program);
            if let Some(user) = launch.user {
                command.uid(user.uid).gid(user.gid);
            }
            command
        }
    };
    let errors = log.try_clone().during(|| "share the log file".into())?;
    command
        .args(&launch.args)
        .current_dir(launch.cwd)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C at the terminal must not reach the servers: we decide when they stop.
        .process_group(0);
    Ok(command)
}

/// Part of util-linux. Without it servers end on drop, but survive a SIGKILL of their parent.
fn find_setpriv() -> Option<&'static Path> {
    static SETPRIV: LazyLock<Option<&'static Path>> = LazyLock::new(|| {
        let places = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
        // Busybox has a setpriv without --pdeathsig.
        places.into_iter().find(|p| {
            Command::new(p)
                .args(["--pdeathsig", "KILL", "true"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
    });
    *SETPRIV
}

/// The kernel sends the parent-death signal when the *thread* that forked ends, not the process. A
/// server that a test's thread starts and later tests use would die early.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static STARTER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // If the caller is gone, its server must not stay.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    let _ = orphan.kill();
                }
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    STARTER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// Direct children. All of Postgres' processes are children of the postmaster, each in its own
/// session: signalling the process group would not reach them.
fn children_of(parent: Pid) -> Vec<Pid> {
    list_processes()
        .into_iter()
        .filter(|&(_, ppid)| ppid == Some(parent))
        .map(|(pid, _)| pid)
        .collect()
}

/// Every process and its parent, without those that only wait to be reaped.
fn list_processes() -> Vec<(Pid, Option<Pid>)> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let pid = Pid::from_raw(fields.next()?.parse().ok()?)?;
        let state = fields.next()?;
        let parent = Pid::from_raw(fields.next()?.parse().ok()?);
        (!state.starts_with(['Z', 'X'])).then_some((pid, parent))
    };
    if let Ok(entries) = fs::read_dir("/proc") {
        return entries.flatten().filter_map(|e| row(&stat_line(&e.path())?)).collect();
    }
    let ps = Command::new("ps").args(["-A", "-o", "pid=,state=,ppid="]).output();
    let table = ps.map(|ps| String::from_utf8_lossy(&ps.stdout).into_owned()).unwrap_or_default();
    table.lines().filter_map(row).collect()
}

/// `/proc/PID/stat` without the name, which may hold spaces and brackets: "pid state ppid …".
fn stat_line(dir: &Path) -> Option<String> {
    let pid: u32 = dir.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    Some(format!("{pid}{}", stat.rsplit_once(')')?.1))
}

pub(crate) fn read_log_tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_string(),
        Err(e) => format!("(the log {} cannot be read: {e})", log.display()),
    }
}
