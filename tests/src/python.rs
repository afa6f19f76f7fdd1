//! A Python with the two libraries that `tests/python` needs, in a virtual environment of our cache.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

const LIBRARIES: [&str; 2] = ["msgpack", "zstandard"];

/// Its interpreter, made once; an `Err` says why there is none.
static INTERPRETER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let home = walgate_servers::cache_dir().join("python");
    let python = home.join("bin/python");
    if imports(&python) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(LIBRARIES))?;
    if imports(&python) { Ok(python) } else { Err("its libraries cannot be imported".to_owned()) }
});

fn imports(python: &Path) -> bool {
    let import = format!("import {}", LIBRARIES.join(", "));
    Command::new(python).args(["-c", &import]).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a script of `tests/python`. None, with a message, where there is no Python.
pub fn script(name: &str, argument: &Path) -> Option<Output> {
    match &*INTERPRETER {
        Ok(python) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
            let output = Command::new(python).arg(script).arg(argument).output();
            Some(output.expect("Python runs"))
        }
        Err(reason) => {
            eprintln!("SKIPPED: the wire was not checked by Python, there is none: {reason}");
            None
        }
    }
}
