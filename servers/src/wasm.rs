//! The Rust toolchain that builds guests: the one on `PATH`, or the one that
//! `WALGATE_WASM_TOOLCHAIN` names. Nothing is installed or downloaded here, and what a guest does
//! is not known.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::During;
use crate::find::env_dir;
use crate::{Error, Result};

pub const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// The environment variable that names a toolchain: a directory with `bin/rustc`.
pub const WASM_TOOLCHAIN: &str = "WALGATE_WASM_TOOLCHAIN";
const NAME: &str = "a Rust toolchain for wasm32-unknown-unknown";
const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown`";

/// Builds guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmToolchain {
    /// `None`: the rustc that cargo finds.
    rustc: Option<PathBuf>,
    linker: Option<PathBuf>,
}

/// The rustc on `PATH` if it has the target, else the toolchain that the environment names.
pub fn find_wasm_toolchain() -> Result<WasmToolchain> {
    if target_lib(&sysroot()?).is_dir() {
        return Ok(WasmToolchain { rustc: None, linker: None });
    }
    match env_dir(WASM_TOOLCHAIN) {
        Some(dir) => WasmToolchain::in_dir(&dir),
        None => {
            let looked = format!("rustc has no target {WASM_TARGET}");
            Err(Error::Missing { name: NAME, looked, remedy: REMEDY })
        }
    }
}

impl WasmToolchain {
    /// The toolchain whose compiler is `bin/rustc` in `dir`.
    pub fn in_dir(dir: &Path) -> Result<WasmToolchain> {
        let rustc = dir.join("bin/rustc");
        if !rustc.is_file() {
            let reason = format!("it has no bin/rustc; unset {WASM_TOOLCHAIN}, or {REMEDY}");
            return Err(Error::Unusable { name: NAME, path: dir.into(), reason });
        }
        Ok(WasmToolchain { rustc: Some(rustc), linker: Some(find_rust_lld()?) })
    }

    /// A cargo that builds for wasm when it is given `--target wasm32-unknown-unknown`.
    pub fn cargo(&self) -> Command {
        let mut cargo = clean_cargo();
        if let (Some(rustc), Some(linker)) = (&self.rustc, &self.linker) {
            cargo.env("RUSTC", rustc);
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo
    }

    /// Builds the guest whose Cargo.toml is in `manifest_dir`, for speed and size; returns the
    /// `.wasm`.
    pub fn build_guest(&self, manifest_dir: &Path, target_dir: &Path) -> Result<PathBuf> {
        let mut build = self.cargo();
        build.args(["build", "--release", "--lib", "--target", WASM_TARGET]);
        build.args(["--message-format", "json-render-diagnostics"]);
        for setting in
            ["lto='fat'", "codegen-units=1", "panic='abort'", "debug=0", "strip='debuginfo'"]
        {
            build.arg("--config").arg(format!("profile.release.{setting}"));
        }
        build.arg("--manifest-path").arg(manifest_dir.join("Cargo.toml"));
        build.arg("--target-dir").arg(target_dir);
        // The compiler's diagnostics appear on the terminal while it runs.
        build.stderr(Stdio::inherit());
        let output = build.output().during(|| "run cargo".into())?;
        if !output.status.success() {
            let name = format!("cargo build in {}", manifest_dir.display());
            return Err(Error::Command { name, output: output.status.to_string() });
        }
        last_artifact(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| Error::Unusable {
            name: "guest crate",
            path: manifest_dir.into(),
            reason:
                "it builds no .wasm; its Cargo.toml needs [lib] crate-type = [\"cdylib\", \"rlib\"]"
                    .into(),
        })
    }
}

/// The last `.wasm` that cargo names: dependencies come first.
fn last_artifact(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let files = message["filenames"].as_array()?;
        let wasm = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"));
        wasm.map(PathBuf::from)
    })
}

/// A cargo without the settings that an outer cargo or its build script made for its own compilers.
pub fn clean_cargo() -> Command {
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

fn query_rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).output().during(|| "run rustc".into())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(Error::Command { name: "rustc".into(), output: stderr })
}

fn sysroot() -> Result<PathBuf> {
    Ok(query_rustc(&["--print", "sysroot"])?.trim_end().into())
}

fn target_lib(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(WASM_TARGET).join("lib")
}

/// rustup's own linker; without it, the one on `PATH`.
fn find_rust_lld() -> Result<PathBuf> {
    let verbose = query_rustc(&["-vV"])?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let bundled = sysroot()?.join("lib/rustlib").join(host).join("bin/rust-lld");
    Ok(if bundled.is_file() { bundled } else { PathBuf::from("wasm-ld") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifact_is_the_last_one() {
        let messages = "{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/deps/libx.rlib\"],\"fresh\":true}\n\
            {\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/users.wasm\",\"/t/libusers.rlib\"],\"executable\":null}\n\
            {\"reason\":\"build-finished\",\"success\":true}";
        assert_eq!(last_artifact(messages), Some("/t/users.wasm".into()));
        assert_eq!(last_artifact("{\"reason\":\"build-finished\"}"), None);
    }

    #[test]
    fn a_directory_without_rustc_is_not_a_toolchain() {
        let message = WasmToolchain::in_dir(Path::new("/no/such")).unwrap_err().to_string();
        assert!(message.contains("rustup target add"), "{message}");
    }
}
