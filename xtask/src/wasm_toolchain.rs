//! Provides the Rust toolchain for guests: what is on this machine, else rustup's target, else one
//! made of Debian's packages and kept in the cache. What a guest does is not known here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use walgate_servers::{
    Error, WASM_TARGET, WASM_TOOLCHAIN, WasmToolchain, cached_dirs, find_wasm_toolchain,
};

use crate::debian_toolchain;

/// Prefix of the toolchains in the cache.
pub const CACHED: &str = "rust-wasm-";

/// A toolchain, and where it is if `walgate guest build` cannot find it by itself.
pub struct ProvidedToolchain {
    pub toolchain: WasmToolchain,
    dir: Option<PathBuf>,
}

/// The toolchain on this machine, or a new one. `log` gets a line before each step that takes long.
pub fn provide(log: impl Fn(&str)) -> Result<ProvidedToolchain> {
    let missing = match find_on_this_machine() {
        Err(error) if is_missing(&error) => error,
        found => return found,
    };
    log(&format!("rustup target add {WASM_TARGET}"));
    // Without a network this fails at once. The second search shows whether it worked.
    match Command::new("rustup").args(["target", "add", WASM_TARGET]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => log(&format!("rustup failed: {}", last_line(&output.stderr))),
        Err(error) => log(&format!("rustup cannot be run: {error}")),
    }
    match find_on_this_machine() {
        Err(error) if is_missing(&error) => {}
        found => return found,
    }
    if !debian_toolchain::is_debian() {
        return Err(missing);
    }
    debian_toolchain::make(&log)?;
    find_on_this_machine()
}

/// Hands a toolchain of the cache to `program`, which may run `walgate guest build`.
pub fn export_cached(program: &mut Command) {
    if let Ok(ProvidedToolchain { dir: Some(dir), .. }) = find_on_this_machine() {
        program.env(WASM_TOOLCHAIN, dir);
    }
}

fn find_on_this_machine() -> Result<ProvidedToolchain> {
    let missing = match find_wasm_toolchain() {
        Ok(toolchain) => return Ok(ProvidedToolchain { toolchain, dir: None }),
        Err(error) => error,
    };
    let mut cached = cached_dirs(CACHED);
    match cached.find(|dir| dir.join("bin/rustc").is_file()) {
        Some(dir) => {
            let toolchain = WasmToolchain::in_dir(&dir)?;
            Ok(ProvidedToolchain { toolchain, dir: Some(dir) })
        }
        None => Err(missing.into()),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Missing { .. }))
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.trim_end().lines().last().unwrap_or("without a message").to_owned()
}
