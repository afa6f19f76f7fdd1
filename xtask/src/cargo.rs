//! Runs cargo, and what cargo has built, from the workspace's root.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub fn command<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(ROOT);
    // What `cargo xtask` told this process about its own package. Build scripts of others watch these variables (ring's
    // does) and would run again, with all that stands on them, whenever cargo is called without us.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        cargo.env_remove(name);
    }
    cargo
}

pub fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut cargo = command(args);
    let status = cargo.status().with_context(|| format!("run {cargo:?}"))?;
    if !status.success() {
        let words: Vec<_> = cargo.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!("`cargo {}` failed ({status}); its own words are above", words.join(" "));
    }
    Ok(())
}

/// Formatting, lints and layering.
pub fn check() -> Result<()> {
    cargo(["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--quiet"];
    cargo(clippy.into_iter().chain(["--", "-D", "warnings"]))?;
    // Of the workspace, with its features: what is built for it is what the tests need.
    cargo(["test", "--release", "--workspace", "--test", "layering"])
}

/// What cargo prints.
pub fn output<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut cargo = command(args);
    let output =
        cargo.stderr(Stdio::inherit()).output().with_context(|| format!("run {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?} failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// A program from the release profile, to be run where the user stands. A relative target directory
/// counts from the root, where we run cargo.
pub fn built(program: &str) -> Command {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Command::new(Path::new(ROOT).join(target).join("release").join(program))
}

/// Signals and the exit code are then the program's own.
pub fn become_it(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("run {}", command.get_program().display()))
}
