//! A child process of a test. Its output goes to a file, which a failed test prints, and it ends
//! with the test. This file does not know which program it is.

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// At most so many lines of a failed test's log are printed.
const TAIL_LINES: usize = 60;
/// A program that takes longer to end counts as hanging.
const END_WITHIN: Duration = Duration::from_secs(60);

thread_local! {
    /// The programs that this test's thread has started.
    static STARTED: RefCell<Vec<Weak<Inner>>> = const { RefCell::new(vec![]) };
}

/// One program, running or ended.
pub struct Program(Rc<Inner>);

struct Inner {
    name: String,
    log: PathBuf,
    child: RefCell<Child>,
    /// Its end is expected.
    may_end: Cell<bool>,
}

/// A program of this workspace. `cargo build --release` puts it beside the running test or
/// benchmark.
pub fn find_built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the test knows its own file");
    let mut folder = this.parent().expect("a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("target/release of target/release/deps");
    }
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --release --workspace --bins --examples`, or `cargo xtask test`",
        program.display()
    );
    program
}

/// Runs a program to its end.
pub fn run(name: &str, args: &[&str]) -> Output {
    run_with(name, args, &[])
}

/// The same, with additions to its environment.
pub fn run_with(name: &str, args: &[&str], env: &[(String, String)]) -> Output {
    let mut command = Command::new(find_built(name));
    remove_test_variables(&mut command);
    let command = command.args(args).env("NO_COLOR", "1").envs(env.iter().cloned());
    command.output().expect("the program runs")
}

/// A program would refuse the harness's own variables as unknown configuration.
fn remove_test_variables(command: &mut Command) {
    let ours = std::env::vars_os().map(|(name, _)| name);
    ours.filter(|name| name.to_string_lossy().starts_with("WALGATE_TEST_")).for_each(|name| {
        command.env_remove(name);
    });
}

/// The name and exit status of a program that ended unexpectedly.
pub(crate) fn find_unexpected_end() -> Option<String> {
    STARTED.with_borrow_mut(|started| {
        started.retain(|program| program.strong_count() > 0);
        let running = started.iter().filter_map(Weak::upgrade).filter(|p| !p.may_end.get());
        running.into_iter().find_map(|program| {
            let status = program.child.borrow_mut().try_wait().ok().flatten()?;
            Some(format!("{} ended with {status}", program.name))
        })
    })
}

/// A user who follows a page has set none of our variables, but for the compiler of guests.
pub fn without_walgate_env(command: &mut Command) {
    let ours = std::env::vars_os().map(|(name, _)| name);
    let ours = ours.filter(|name| name.to_string_lossy().starts_with("WALGATE_"));
    ours.filter(|name| name != walgate_servers::WASM_TOOLCHAIN).for_each(|name| {
        command.env_remove(name);
    });
}

impl Program {
    /// Appends standard output and error to `log`.
    pub fn spawn(
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        log: &Path,
    ) -> Program {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let mut command = command_that_dies_with_us(program);
        remove_test_variables(&mut command);
        command.args(args).envs(env.iter().cloned()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("one more handle")).stderr(file);
        // Ctrl-C goes to the test, which then ends its programs.
        command.process_group(0);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("{name}: {}: {e}", program.display()));
        let inner = Rc::new(Inner {
            name: name.to_owned(),
            log: log.to_owned(),
            child: RefCell::new(child),
            may_end: Cell::new(false),
        });
        STARTED.with_borrow_mut(|started| started.push(Rc::downgrade(&inner)));
        Program(inner)
    }

    pub fn kill9(&self) {
        self.0.may_end.set(true);
        let mut child = self.0.child.borrow_mut();
        let _ = child.kill();
        child.wait().expect("a killed program is reaped");
    }

    /// Sends SIGTERM; returns the exit status.
    pub fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_until_ended()
    }

    /// Sends SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.0.child.borrow_mut();
        if child.try_wait().ok().flatten().is_none() {
            kill_process(Pid::from_child(&child), signal).expect("our own child takes signals");
        }
    }

    /// Waits for its end.
    pub fn wait_until_ended(&self) -> ExitStatus {
        self.0.may_end.set(true);
        let deadline = Instant::now() + END_WITHIN;
        loop {
            if let Some(status) = self.0.child.borrow_mut().try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.0.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has ended. From now on its end is expected.
    pub fn may_have_ended(&self) -> bool {
        self.0.may_end.set(true);
        self.has_ended()
    }

    pub fn has_ended(&self) -> bool {
        self.0.child.borrow_mut().try_wait().expect("our own child").is_some()
    }

    pub fn pid(&self) -> u32 {
        self.0.child.borrow().id()
    }

    /// All of its log. If it shares the log with predecessors, theirs comes first.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.0.log).unwrap_or_else(|e| e.to_string().into_bytes());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("--- log of {} ({}):\n{tail}\n---", self.0.name, self.0.log.display());
        }
    }
}

/// Uses `setpriv --pdeathsig` if installed, so that a killed test leaves no process behind. The
/// kernel sends the signal when the spawning *thread* ends, which is the test's own.
fn command_that_dies_with_us(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}
