//! A Rust toolchain that can build guests: rustup's, with the target wasm32-unknown-unknown, or on Debian one
//! made of its own packages and kept in the cache. What a guest is, is not known here.

mod debian;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::During;
use crate::find::cached;
use crate::{Error, Result};

const TARGET: &str = "wasm32-unknown-unknown";
const NAME: &str = "a Rust toolchain for wasm32-unknown-unknown";
const CACHED: &str = "rust-wasm-";
const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown`, or build on a Debian machine that reaches its package server";

/// Builds guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmToolchain {
    /// In place of the rustc that cargo finds.
    rustc: Option<PathBuf>,
    linker: Option<PathBuf>,
}

/// What is on this machine; nothing is downloaded.
pub fn find_wasm_toolchain() -> Result<WasmToolchain> {
    if target_lib(&sysroot()?).is_dir() {
        return Ok(WasmToolchain { rustc: None, linker: None });
    }
    match cached(CACHED).find(|dir| dir.join("bin/rustc").is_file()) {
        Some(dir) => WasmToolchain::cached(&dir),
        None => {
            let looked = format!("rustc has no {TARGET}, and there is none in the cache");
            Err(Error::Missing { name: NAME, looked, remedy: REMEDY })
        }
    }
}

/// What is on this machine, or else what rustup fetches.
fn add_wasm_target(say: impl Fn(&str)) -> Result<WasmToolchain> {
    let missing = match find_wasm_toolchain() {
        Err(missing @ Error::Missing { .. }) => missing,
        found => return found,
    };
    say(&format!("rustup target add {TARGET}"));
    // Offline it fails at once. Whether it worked shows in the sysroot.
    let added = Command::new("rustup").args(["target", "add", TARGET]).output();
    match added {
        Ok(output) if output.status.success() => {}
        Ok(output) => say(&format!("rustup cannot: {}", last_line(&output.stderr))),
        Err(error) => say(&format!("rustup cannot be run: {error}")),
    }
    if target_lib(&sysroot()?).is_dir() { find_wasm_toolchain() } else { Err(missing) }
}

/// What is on this machine, or else what rustup fetches, or else one made of Debian's packages. `say` hears of each
/// before it begins.
pub fn wasm_toolchain(say: impl Fn(&str)) -> Result<WasmToolchain> {
    match add_wasm_target(&say) {
        Err(Error::Missing { .. }) if debian::is_here() => {}
        found => return found,
    }
    debian::make(&say)?;
    find_wasm_toolchain()
}

impl WasmToolchain {
    fn cached(dir: &Path) -> Result<WasmToolchain> {
        Ok(WasmToolchain { rustc: Some(dir.join("bin/rustc")), linker: Some(rust_lld()?) })
    }

    /// A cargo that builds for wasm when given `--target wasm32-unknown-unknown`, whoever started us.
    pub fn cargo(&self) -> Command {
        let mut cargo = cargo();
        if let (Some(rustc), Some(linker)) = (&self.rustc, &self.linker) {
            cargo.env("RUSTC", rustc);
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo
    }

    /// Builds the guest whose Cargo.toml is in `manifest_dir`, for speed and size; returns the `.wasm`.
    pub fn build_guest(&self, manifest_dir: &Path, target_dir: &Path) -> Result<PathBuf> {
        let mut build = self.cargo();
        build.args(["build", "--release", "--lib", "--target", TARGET]);
        build.args(["--message-format", "json-render-diagnostics"]);
        for setting in
            ["lto='fat'", "codegen-units=1", "panic='abort'", "debug=0", "strip='debuginfo'"]
        {
            build.arg("--config").arg(format!("profile.release.{setting}"));
        }
        build.arg("--manifest-path").arg(manifest_dir.join("Cargo.toml"));
        build.arg("--target-dir").arg(target_dir);
        // What the compiler says goes to the terminal as it comes.
        build.stderr(std::process::Stdio::inherit());
        let output = build.output().during(|| "run cargo".into())?;
        if !output.status.success() {
            let name = format!("cargo build in {}", manifest_dir.display());
            return Err(Error::Command { name, output: output.status.to_string() });
        }
        artifact(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| Error::Unusable {
            name: "guest crate",
            path: manifest_dir.into(),
            reason:
                "it builds no .wasm; its Cargo.toml needs [lib] crate-type = [\"cdylib\", \"rlib\"]"
                    .into(),
        })
    }
}

/// The last one that cargo names: dependencies come first.
fn artifact(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let files = message["filenames"].as_array()?;
        let wasm = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"));
        wasm.map(PathBuf::from)
    })
}

/// Without what a cargo around us, or its build scripts, have set for their own compilers.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
    ] {
        cargo.env_remove(name);
    }
    cargo
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).output().during(|| "run rustc".into())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command { name: "rustc".into(), output: last_line(&output.stderr) })
}

fn sysroot() -> Result<PathBuf> {
    Ok(rustc(&["--print", "sysroot"])?.trim_end().into())
}

fn target_lib(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET).join("lib")
}

/// rustup's linker; one on PATH elsewhere.
fn rust_lld() -> Result<PathBuf> {
    let verbose = rustc(&["-vV"])?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let bundled = sysroot()?.join("lib/rustlib").join(host).join("bin/rust-lld");
    Ok(if bundled.is_file() { bundled } else { PathBuf::from("wasm-ld") })
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.trim_end().lines().last().unwrap_or("it said nothing").to_owned()
}

/// Runs to its end; what it said is in the error.
fn run(command: &mut Command, name: &str) -> Result<Vec<u8>> {
    let output = command.output().during(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    });
    let lines: Vec<&str> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(Error::Command { name: name.into(), output: end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifact_is_the_last_one() {
        let messages = "{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/deps/libx.rlib\"],\"fresh\":true}\n\
            {\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/users.wasm\",\"/t/libusers.rlib\"],\"executable\":null}\n\
            {\"reason\":\"build-finished\",\"success\":true}";
        assert_eq!(artifact(messages), Some("/t/users.wasm".into()));
        assert_eq!(artifact("{\"reason\":\"build-finished\"}"), None);
    }
}
