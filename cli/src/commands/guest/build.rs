//! `walgate guest build`: compiles a guest's crate to WebAssembly.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use walgate_servers::find_wasm_toolchain;

use crate::commands::Usage;
use crate::commands::guest::read;
use walgate_host::assets::write_whole;

/// Build a guest's crate to WebAssembly, for speed and size.
///
/// Needs a Rust toolchain with the target wasm32-unknown-unknown: `rustup target add
/// wasm32-unknown-unknown`. WALGATE_WASM_TOOLCHAIN names another toolchain, a directory with
/// bin/rustc. The .wasm is written as a whole beside the crate's Cargo.toml, or into --out.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the .wasm goes, for example the folder that a gateway watches [default: the crate's
    /// folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The crate's folder
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if !args.dir.join("Cargo.toml").is_file() {
        let what = format!(
            "{} has no Cargo.toml: name the guest's crate, or make one with `walgate guest new`",
            args.dir.display()
        );
        return Err(Usage(what).into());
    }
    let toolchain = find_wasm_toolchain().context("a guest needs a compiler for wasm")?;
    let built = toolchain.build_guest(&args.dir, &args.dir.join("target"))?;
    let name = built.file_name().with_context(|| format!("{} has no name", built.display()))?;
    let folder = args.out.as_deref().unwrap_or(&args.dir);
    let path = folder.join(name);
    let bytes = read(&built)?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    write_whole(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    println!("{}: {} kB", path.display(), bytes.len().div_ceil(1000));
    Ok(ExitCode::SUCCESS)
}
