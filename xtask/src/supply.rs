//! What Walgate is made of: `cargo xtask audit` judges it, `cargo xtask sbom` lists it. Judging needs another's tool,
//! installed once; `tests/tests/supply_chain.rs` holds licences and sources without it.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, sbom};

/// Advisories, licences, bans and sources, by `deny.toml`.
pub fn audit() -> Result<ExitCode> {
    let mut version = cargo::command(["deny", "--version"]);
    let status =
        version.stdout(Stdio::null()).stderr(Stdio::null()).status().context("run cargo")?;
    if !status.success() {
        bail!("cargo deny is not here: cargo install cargo-deny --locked");
    }
    cargo::become_it(&mut cargo::command(["deny", "check"]))
}

/// Of the binary `walgate`, with everything that is linked into it.
pub fn sbom() -> Result<ExitCode> {
    sbom::write()?;
    println!("{}", sbom::FILE);
    Ok(ExitCode::SUCCESS)
}
