//! A server process we own: born on a thread that never ends, signalled by its pid, and killed
//! together with its children. It does not know which server it is.

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

/// A large store is read, or a log replayed, before a server is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Where any port will do.
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
    /// Working directory; a server must not sit in a directory that its user may not enter.
    pub cwd: &'a Path,
    pub log: &'a Path,
    pub user: Option<&'a User>,
    /// Sent to the server by the kernel when we die, however we die (`setpriv --pdeathsig`).
    pub orphan_signal: &'static str,
}

#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Returns once `ready`, which is given its pid, says yes; a server that does not get there is killed.
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
        let child = spawn_on_lasting_thread(command(launch, log)?)
            .during(|| format!("start {} ({})", launch.name, launch.program.display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name: launch.name, child, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `None` while it runs.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// To the process alone. Once it has been reaped its pid means nothing and nothing is sent.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited().is_some() {
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

    /// Returns when every thread stands still: a signal's sender is otherwise ahead of it.
    fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // NOWAIT leaves the report for the next asker: it is made only once for each stop.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while self.exited().is_none() {
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
            match self.exited() {
                Some(status) => return Some(status),
                None if Instant::now() >= deadline => return None,
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// SIGKILL to the whole tree; returns when the process has been reaped.
    pub(crate) fn kill_tree(&mut self) -> Result<()> {
        // Stopped first: once it is dead its children are no longer known as such.
        self.signal(Signal::STOP)?;
        let children = children_of(self.pid);
        self.signal(Signal::KILL)?;
        for child in &children {
            self.send(*child, Signal::KILL)?;
        }
        self.child.wait().during(|| format!("wait for {} to die", self.name))?;
        // A successor would find their hold on shared memory and ports.
        let deadline = Instant::now() + CHILDREN_GONE;
        while Instant::now() < deadline && living().iter().any(|(pid, _)| children.contains(pid)) {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Polls `ready` until it says yes, the process dies or the time is up.
    fn await_ready(&mut self, log: &Path, ready: impl Fn(u32) -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let reason = match self.exited() {
                Some(status) => format!("it ended with {status}"),
                None if ready(self.pid()) => return Ok(()),
                None if Instant::now() >= deadline => format!("not ready after {READY_WITHIN:?}"),
                None => {
                    std::thread::sleep(POLL);
                    continue;
                }
            };
            return Err(Error::Start { name: self.name, reason, log: tail(log) });
        }
    }
}

/// Starts a server on this port; or on a free one, and on another if that was taken before the server bound it.
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

/// What a server says when its port was taken between our choosing it and its binding it.
fn is_port_clash(error: &Error) -> bool {
    matches!(error, Error::Start { log, .. } if log.to_lowercase().contains("address already in use"))
}

fn command(launch: &Launch<'_>, log: File) -> Result<Command> {
    let mut command = match setpriv() {
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
        // Ctrl-C at the terminal is for us; we decide when our servers stop.
        .process_group(0);
    Ok(command)
}

/// util-linux only; elsewhere servers die on drop but outlive a SIGKILL of their parent.
fn setpriv() -> Option<&'static Path> {
    static SETPRIV: LazyLock<Option<&'static Path>> = LazyLock::new(|| {
        let places = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
        // Busybox has one without --pdeathsig.
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

/// The parent-death signal is sent when the *thread* that forked ends, not the process, so a
/// server started by a test's thread and kept for later tests would die early.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static NURSERY: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The asker waits for the answer; if it is gone, so is its wish for a server.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    let _ = orphan.kill();
                }
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    NURSERY
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// Direct children: all of Postgres' processes are children of the postmaster, each in a session
/// of its own, so a process group would not reach them.
fn children_of(parent: Pid) -> Vec<Pid> {
    living().into_iter().filter(|&(_, ppid)| ppid == Some(parent)).map(|(pid, _)| pid).collect()
}

/// Process and parent of everything that runs and is not merely waiting to be reaped.
fn living() -> Vec<(Pid, Option<Pid>)> {
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

pub(crate) fn tail(log: &Path) -> String {
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
