//! Builds guests to WebAssembly, for the demo, the tests and the benchmarks. What they do is not
//! known here.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, wasm_toolchain};

/// Environment variable with the folder that holds guests as `{name}.wasm`.
const GUEST_FILES: &str = "WALGATE_GUEST_FILES";

/// Hands the folder of guests to the program; builds the guests if the variable is not set. A
/// program that builds guests itself gets the toolchain, too.
pub fn export_to(command: &mut Command, build: impl Fn() -> Result<PathBuf>) -> Result<()> {
    if env::var_os(GUEST_FILES).is_none() {
        command.env(GUEST_FILES, build()?);
    }
    wasm_toolchain::export_cached(command);
    Ok(())
}

/// Builds the guests that ship and are written in Rust; returns their folder.
pub fn build_shipped() -> Result<PathBuf> {
    build_in(&["guests"])
}

/// Builds all guests; returns their folder.
pub fn build_all() -> Result<PathBuf> {
    let target = build_in(&["guests", "tests/programs"])?;
    build_assemblyscript(&target)?;
    Ok(target)
}

/// Every folder in `places` with a Cargo.toml is a guest.
fn build_in(places: &[&str]) -> Result<PathBuf> {
    let toolchain = wasm_toolchain::provide(log)?.toolchain;
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
    log(&format!("guests are in {}", target.display()));
    Ok(target)
}

/// Builds the guest that is not Rust, if npm is installed.
fn build_assemblyscript(target: &Path) -> Result<()> {
    let place = Path::new(cargo::ROOT).join("guests/assemblyscript");
    let region = target.join("region.wasm");
    // A file of older sources must not be taken for the new one.
    match fs::remove_file(&region) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", region.display()));
        }
        _ => {}
    }
    if Command::new("npm").arg("--version").output().is_err() {
        log("SKIPPED: without npm the guest in AssemblyScript is not built, nor tested");
        return Ok(());
    }
    if !place.join("node_modules").is_dir() {
        run_npm(&place, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])?;
    }
    run_npm(&place, &["test", "--silent"])?;
    let built = place.join("build/region.wasm");
    fs::copy(&built, &region).with_context(|| format!("copy {}", built.display()))?;
    Ok(())
}

fn run_npm(place: &Path, args: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    let output = npm.args(args).current_dir(place).output().context("run npm")?;
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "npm {} failed in {}:\n{out}{err}",
        args.join(" "),
        place.display()
    );
    Ok(())
}

fn log(line: &str) {
    eprintln!("setup: {line}");
}
