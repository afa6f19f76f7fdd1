//! A Python with the libraries of `consumers/python`, in a virtual environment in our cache. It
//! runs the consumer in Python, and the scripts of `tests/python`, which use libraries other than
//! ours.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

/// Which libraries, in which versions.
const REQUIREMENTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../consumers/python/requirements.txt");
const CONSUMER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../consumers/python/walgate_consumer.py");

/// The interpreter of the virtual environment, created once; an `Err` holds the reason for its
/// absence.
static INTERPRETER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let home = walgate_servers::cache_dir().join("python");
    let python = home.join("bin/python");
    let installed = home.join("requirements.txt");
    let wanted = fs::read(REQUIREMENTS).map_err(|e| format!("{REQUIREMENTS}: {e}"))?;
    if python.is_file() && fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    if run_command(Command::new(&python).arg("--version")).is_err() {
        run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    }
    let mut pip = Command::new(&python);
    run_command(pip.args(["-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]))?;
    // Written last, so that an interrupted installation is repeated.
    fs::write(&installed, wanted).map_err(|e| format!("{}: {e}", installed.display()))?;
    Ok(python)
});

fn run_command(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn find_interpreter(unchecked: &str) -> Option<&'static Path> {
    match &*INTERPRETER {
        Ok(python) => Some(python),
        Err(reason) => {
            eprintln!("SKIPPED: {unchecked}, for there is no Python: {reason}");
            None
        }
    }
}

/// Runs a script of `tests/python`. Without a Python, prints a message and returns `None`.
pub fn script(name: &str, argument: &Path) -> Option<Output> {
    let python = find_interpreter("the wire was not checked by Python")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    let output = Command::new(python).arg(script).arg(argument).output();
    Some(output.expect("Python runs"))
}

/// The interpreter for the consumer in Python, and its script. Without a Python, prints a message
/// and returns `None`.
pub fn consumer() -> Option<(&'static Path, &'static str)> {
    Some((find_interpreter("the consumer in Python was not run")?, CONSUMER))
}
