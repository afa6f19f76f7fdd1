//! What Walgate is made of: `cargo xtask audit` judges it, `cargo xtask sbom` lists it. Both are other people's tools,
//! to be installed once; `tests/tests/supply_chain.rs` holds licences and sources without them.

use std::fs;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// Where the bill of materials goes, from the root.
const SBOM: &str = "target/walgate.cdx.json";

/// Advisories, licences, bans and sources, by `deny.toml`.
pub fn audit() -> Result<ExitCode> {
    installed("deny", "cargo-deny")?;
    cargo::become_it(&mut cargo::command(["deny", "check"]))
}

/// Of the binary `walgate`, with everything that is linked into it, in CycloneDX.
pub fn sbom() -> Result<ExitCode> {
    installed("cyclonedx", "cargo-cyclonedx")?;
    let written = Path::new(cargo::ROOT).join("host/walgate.cdx.json");
    let options =
        ["--format", "json", "--spec-version", "1.5", "--override-filename", "walgate.cdx"];
    let what = ["cyclonedx", "--manifest-path", "host/Cargo.toml", "--describe", "crate"];
    cargo::cargo(what.into_iter().chain(options))?;
    let sbom = Path::new(cargo::ROOT).join(SBOM);
    fs::rename(&written, &sbom).with_context(|| format!("move {}", written.display()))?;
    println!("{SBOM}");
    Ok(ExitCode::SUCCESS)
}

fn installed(subcommand: &str, package: &str) -> Result<()> {
    let mut version = cargo::command([subcommand, "--version"]);
    let status =
        version.stdout(Stdio::null()).stderr(Stdio::null()).status().context("run cargo")?;
    if !status.success() {
        bail!("cargo {subcommand} is not here: cargo install {package} --locked");
    }
    Ok(())
}
