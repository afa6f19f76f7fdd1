//! Walgate's dependencies: `cargo xtask audit` checks them, `cargo xtask sbom` lists them. The
//! check needs cargo-deny; `tests/tests/supply_chain.rs` checks licences and sources without it.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, sbom};

/// Advisories, licences, bans and sources, by `deny.toml`.
pub fn run_audit() -> Result<ExitCode> {
    let mut version = cargo::cargo_command(["deny", "--version"]);
    let status =
        version.stdout(Stdio::null()).stderr(Stdio::null()).status().context("run cargo")?;
    if !status.success() {
        bail!("cargo deny is not here: cargo install cargo-deny --locked");
    }
    cargo::replace_process(&mut cargo::cargo_command(["deny", "check"]))
}

/// Lists the binary `walgate` and everything that is linked into it.
pub fn write_sbom() -> Result<ExitCode> {
    sbom::write()?;
    println!("{}", sbom::FILE);
    Ok(ExitCode::SUCCESS)
}
