//! Makes a toolchain for wasm32-unknown-unknown out of Debian's packages, without installing any:
//! its rustc-web is unpacked into the cache, and the target's standard library is built from its
//! sources, once. What is built with it is not known here.

use std::env::consts::ARCH;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use walgate_servers::{WASM_TARGET, clean_cargo};

use crate::cache;
use crate::wasm_toolchain::CACHED;

/// The oldest compiler that builds the guest SDK.
const LEAST: (u32, u32) = (1, 95);

/// Runs the unpacked rustc with its own libraries, wherever the cache is.
const WRAPPER: &str = "#!/bin/sh
here=$(CDPATH= cd -- \"$(dirname -- \"$0\")/..\" && pwd)
LD_LIBRARY_PATH=\"$here/usr/lib/@ARCH@-linux-gnu:$here/usr/lib\" exec \"$here/usr/bin/rustc\" \"$@\"
";

const EMPTY: &str = "[package]
name = \"walgate_empty\"
version = \"0.0.0\"
edition = \"2021\"

[workspace]
";

pub fn is_debian() -> bool {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
    runs("apt-get") && runs("dpkg")
}

/// Puts a toolchain into the cache. `log` gets a line before each step that takes long.
pub fn make(log: &impl Fn(&str)) -> Result<()> {
    let cache = cache::make_cache_dir()?;
    let work = cache::make_work_dir(&cache)?;
    let apt = PackageIndex::open(work.path(), log)?;
    let version = &apt.version;
    let target = cache.join(format!("{CACHED}{version}"));
    log(&format!(
        "fetching Debian's rustc-web {version} (nothing is installed) and building the standard \
         library of {WASM_TARGET} into {}; this takes some minutes, once",
        target.display()
    ));
    let root = work.path().join("root");
    for package in apt.list_packages()? {
        let file = apt.download(&package, work.path())?;
        run(Command::new("dpkg").arg("-x").arg(&file).arg(&root), "dpkg -x")?;
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    let rustc = write_wrapper(&root)?;
    build_std(&rustc, work.path(), &root)?;
    // The sources are most of its size, and no longer needed.
    let sources = root.join("usr/src");
    fs::remove_dir_all(&sources).with_context(|| format!("remove {}", sources.display()))?;
    cache::publish(&root, &target)
}

/// Debian's package index: the system's, or a private one where that is missing or old.
struct PackageIndex {
    options: Vec<String>,
    /// The upstream version of rustc-web: `1.96.0`.
    version: String,
}

impl PackageIndex {
    fn open(work: &Path, log: &impl Fn(&str)) -> Result<PackageIndex> {
        let sandbox = vec!["-o".into(), "APT::Sandbox::User=root".into()];
        if let Some(apt) = PackageIndex::query(sandbox.clone())? {
            return Ok(apt);
        }
        log("apt has no rustc-web that is new enough: updating a private copy of its index");
        let mut options = sandbox;
        for (key, dir) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            let dir = work.join(dir);
            fs::create_dir_all(dir.join("partial"))
                .with_context(|| format!("make {}", dir.display()))?;
            options.extend(["-o".into(), format!("{key}={}", dir.display())]);
        }
        run(Command::new("apt-get").args(&options).arg("update"), "apt-get update")?;
        PackageIndex::query(options)?.with_context(|| {
            let (major, minor) = LEAST;
            format!(
                "no Rust toolchain for {WASM_TARGET} can be made: Debian's rustc-web is older than \
                 {major}.{minor}; run `rustup target add {WASM_TARGET}`"
            )
        })
    }

    /// `None`: there is no rustc-web, or it is too old.
    fn query(options: Vec<String>) -> Result<Option<PackageIndex>> {
        let mut show = Command::new("apt-cache");
        show.args(&options).args(["show", "--no-all-versions", "rustc-web"]);
        let text = query_apt(&mut show)?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let digits = |c: &char| c.is_ascii_digit() || *c == '.';
        let version: String = version.unwrap_or_default().chars().take_while(digits).collect();
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let new_enough = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= LEAST;
        Ok(new_enough.then_some(PackageIndex { options, version }))
    }

    /// The compiler, its libraries and the standard library's sources.
    fn list_packages(&self) -> Result<Vec<String>> {
        let mut packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
        let mut at = 0;
        while at < packages.len() {
            let mut depends = Command::new("apt-cache");
            let text = query_apt(depends.args(&self.options).arg("depends").arg(&packages[at]))?;
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            for name in names {
                let ours = name.starts_with("libstd-rust-web") || name.starts_with("libllvm");
                if ours && !packages.iter().any(|known| known == name) {
                    packages.push(name.to_owned());
                }
            }
            at += 1;
        }
        Ok(packages)
    }

    /// Returns the package's file.
    fn download(&self, package: &str, work: &Path) -> Result<PathBuf> {
        let mut apt = Command::new("apt-get");
        apt.args(&self.options).arg("download").arg(package).current_dir(work);
        run(&mut apt, &format!("apt-get download {package}"))?;
        let prefix = format!("{package}_");
        let entries = fs::read_dir(work).with_context(|| format!("read {}", work.display()))?;
        let is_it = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        let found = entries.flatten().find(is_it).map(|entry| entry.path());
        found.with_context(|| format!("apt-get download {package} wrote no file"))
    }
}

/// The output of apt-cache; empty if it finds nothing.
fn query_apt(query: &mut Command) -> Result<String> {
    let output = query.output().context("run apt-cache")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_wrapper(root: &Path) -> Result<PathBuf> {
    let bin = root.join("bin");
    let rustc = bin.join("rustc");
    fs::create_dir_all(&bin)
        .and_then(|()| fs::write(&rustc, WRAPPER.replace("@ARCH@", ARCH)))
        .and_then(|()| fs::set_permissions(&rustc, Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", rustc.display()))?;
    Ok(rustc)
}

/// Builds an empty crate together with the standard library, which is then copied to where rustc
/// looks for it.
fn build_std(rustc: &Path, work: &Path, root: &Path) -> Result<()> {
    let empty = work.join("empty");
    fs::create_dir_all(empty.join("src"))
        .and_then(|()| fs::write(empty.join("src/lib.rs"), ""))
        .and_then(|()| fs::write(empty.join("Cargo.toml"), EMPTY))
        .with_context(|| format!("write {}", empty.display()))?;
    let mut build = clean_cargo();
    build.current_dir(&empty).args(["build", "--release", "--target", WASM_TARGET]);
    build.arg("-Zbuild-std=std,panic_abort").arg("--target-dir").arg(empty.join("target"));
    build.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    // Without bitcode, link-time optimisation fails.
    build.env("RUSTFLAGS", "-Cembed-bitcode=yes");
    run(&mut build, "cargo build -Zbuild-std")?;
    let built = empty.join("target").join(WASM_TARGET).join("release/deps");
    let lib = root.join("usr/lib/rustlib").join(WASM_TARGET).join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("make {}", lib.display()))?;
    for entry in
        fs::read_dir(&built).with_context(|| format!("read {}", built.display()))?.flatten()
    {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".rlib") && !text.starts_with("libwalgate_empty") {
            fs::copy(entry.path(), lib.join(&name)).with_context(|| format!("copy {text}"))?;
        }
    }
    Ok(())
}

/// Runs a command to its end; the error holds the end of its output.
fn run(command: &mut Command, name: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stream = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(stream);
    let lines: Vec<&str> = text.lines().collect();
    bail!("{name} failed: {}", lines[lines.len().saturating_sub(20)..].join("\n"))
}
