//! Builds guests to WebAssembly, for the demo, the tests and the benchmarks.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use walgate_servers::wasm_toolchain;

use crate::cargo;

/// Where those who need guests find them as `{name}.wasm`.
const GUEST_FILES: &str = "WALGATE_GUEST_FILES";

/// Tells the program where guests are, and builds them if nobody did.
pub fn export(command: &mut Command, build: impl Fn() -> Result<PathBuf>) -> Result<()> {
    if env::var_os(GUEST_FILES).is_none() {
        command.env(GUEST_FILES, build()?);
    }
    Ok(())
}

/// The folder that holds those that ship and are Rust.
pub fn shipped() -> Result<PathBuf> {
    build(&["guests"])
}

/// The folder that holds all of them.
pub fn all() -> Result<PathBuf> {
    let target = build(&["guests", "tests/programs"])?;
    assemblyscript(&target)?;
    Ok(target)
}

/// Every folder in `places` with a Cargo.toml is a guest.
fn build(places: &[&str]) -> Result<PathBuf> {
    let toolchain = wasm_toolchain(say)?;
    let target = Path::new(cargo::ROOT).canonicalize()?.join("target").join("guests");
    for place in places {
        let place = Path::new(cargo::ROOT).join(place);
        let entries = fs::read_dir(&place).with_context(|| format!("read {}", place.display()))?;
        for guest in entries {
            let guest = guest?.path();
            if !guest.join("Cargo.toml").is_file() {
                continue;
            }
            let wasm = toolchain.build_guest(&guest, &target)?;
            let name = wasm.file_name().with_context(|| format!("name {}", wasm.display()))?;
            fs::copy(&wasm, target.join(name))
                .with_context(|| format!("copy {}", wasm.display()))?;
        }
    }
    say(&format!("guests are in {}", target.display()));
    Ok(target)
}

/// The guest in another language, where npm is.
fn assemblyscript(target: &Path) -> Result<()> {
    let place = Path::new(cargo::ROOT).join("guests/assemblyscript");
    let region = target.join("region.wasm");
    // One of older sources must not pass for this one.
    match fs::remove_file(&region) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", region.display()));
        }
        _ => {}
    }
    if Command::new("npm").arg("--version").output().is_err() {
        say("SKIPPED: without npm the guest in AssemblyScript is not built, nor tested");
        return Ok(());
    }
    if !place.join("node_modules").is_dir() {
        npm(&place, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])?;
    }
    npm(&place, &["test", "--silent"])?;
    let built = place.join("build/region.wasm");
    fs::copy(&built, &region).with_context(|| format!("copy {}", built.display()))?;
    Ok(())
}

fn npm(place: &Path, args: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    let output = npm.args(args).current_dir(place).output().context("run npm")?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (words(&output.stdout), words(&output.stderr));
    ensure!(
        output.status.success(),
        "npm {} failed in {}:\n{out}{err}",
        args.join(" "),
        place.display()
    );
    Ok(())
}

fn say(line: &str) {
    eprintln!("setup: {line}");
}
