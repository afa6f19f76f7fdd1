//! Runs cargo in the workspace's root, and programs that cargo has built. What they do is not known
//! here.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub fn cargo_command<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(ROOT);
    // cargo has set these variables for the package xtask. Build scripts of other packages watch
    // them (ring's does). They would run again, and all that depends on them would be built again,
    // whenever cargo is called without xtask.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        cargo.env_remove(name);
    }
    cargo
}

pub fn run_cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut cargo = cargo_command(args);
    let status = cargo.status().with_context(|| format!("run {cargo:?}"))?;
    if !status.success() {
        let args: Vec<_> = cargo.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!("`cargo {}` failed ({status}); its messages are above", args.join(" "));
    }
    Ok(())
}

/// Formatting, lints, layering and language.
pub fn run_checks() -> Result<()> {
    run_cargo(["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--quiet"];
    run_cargo(clippy.into_iter().chain(["--", "-D", "warnings"]))?;
    // With the features of the whole workspace, so that the tests need no other build.
    run_cargo([
        "test",
        "--release",
        "--workspace",
        "--test",
        "layering",
        "--test",
        "folder_order",
        "--test",
        "language",
    ])
}

/// Returns cargo's standard output.
pub fn read_cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut cargo = cargo_command(args);
    let output =
        cargo.stderr(Stdio::inherit()).output().with_context(|| format!("run {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?} failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// A program of the release profile, to be run in the user's working directory. A relative target
/// directory counts from the root, where cargo runs.
pub fn built_program(program: &str) -> Command {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Command::new(Path::new(ROOT).join(target).join("release").join(program))
}

/// Replaces this process, so that signals and the exit code are the program's own.
pub fn replace_process(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("run {}", command.get_program().display()))
}
