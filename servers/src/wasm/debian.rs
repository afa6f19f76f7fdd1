//! Makes a toolchain for wasm32-unknown-unknown of Debian's packages, without installing any: its rustc-web is
//! unpacked into the cache, and the target's standard library is built from its sources, once.

use std::env::consts::ARCH;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CACHED, NAME, REMEDY, TARGET, cargo, run};
use crate::cache::{make_cache, open_to_all};
use crate::error::During;
use crate::{Error, Result};

/// Of the guest SDK.
const LEAST: (u32, u32) = (1, 95);

/// Runs what was unpacked beside it with its libraries, wherever the cache is.
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

pub fn is_here() -> bool {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    there("apt-get") && there("dpkg")
}

pub fn make(say: &impl Fn(&str)) -> Result<()> {
    let cache = make_cache()?;
    let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&cache);
    let work = work.during(|| format!("make a directory in {}", cache.display()))?;
    let apt = Apt::ready(work.path(), say)?;
    let version = &apt.version;
    let target = cache.join(format!("{CACHED}{version}"));
    say(&format!(
        "fetching Debian's rustc-web {version} (nothing is installed) and building the standard library of {TARGET} \
         into {}; this takes some minutes, once",
        target.display()
    ));
    let root = work.path().join("root");
    for package in apt.packages()? {
        let file = apt.download(&package, work.path())?;
        run(Command::new("dpkg").arg("-x").arg(&file).arg(&root), "dpkg -x")?;
        fs::remove_file(&file).during(|| format!("remove {}", file.display()))?;
    }
    let rustc = write_wrapper(&root)?;
    build_std(&rustc, work.path(), &root)?;
    // Of no use any more, and most of its size.
    let sources = root.join("usr/src");
    fs::remove_dir_all(&sources).during(|| format!("remove {}", sources.display()))?;
    open_to_all(&root).during(|| format!("open {}", root.display()))?;
    match fs::rename(&root, &target) {
        // Another process was faster.
        Err(_) if target.is_dir() => Ok(()),
        other => other.during(|| format!("make {}", target.display())),
    }
}

/// Debian's package index: the system's, or a private one where that is missing or old.
struct Apt {
    options: Vec<String>,
    /// Of rustc-web, as upstream counts: `1.96.0`.
    version: String,
}

impl Apt {
    fn ready(work: &Path, say: &impl Fn(&str)) -> Result<Apt> {
        let sandbox = vec!["-o".into(), "APT::Sandbox::User=root".into()];
        if let Some(apt) = Apt::with(sandbox.clone())? {
            return Ok(apt);
        }
        say("apt knows no rustc-web that is new enough: updating a private copy of its index");
        let mut options = sandbox;
        for (key, dir) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            let dir = work.join(dir);
            fs::create_dir_all(dir.join("partial")).during(|| format!("make {}", dir.display()))?;
            options.extend(["-o".into(), format!("{key}={}", dir.display())]);
        }
        run(Command::new("apt-get").args(&options).arg("update"), "apt-get update")?;
        Apt::with(options)?.ok_or_else(|| Error::Missing {
            name: NAME,
            looked: format!("Debian's rustc-web is older than {}.{}", LEAST.0, LEAST.1),
            remedy: REMEDY,
        })
    }

    /// `None`: no rustc-web, or too old a one.
    fn with(options: Vec<String>) -> Result<Option<Apt>> {
        let mut show = Command::new("apt-cache");
        show.args(&options).args(["show", "--no-all-versions", "rustc-web"]);
        let text = said(&mut show)?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let digits = |c: &char| c.is_ascii_digit() || *c == '.';
        let version: String = version.unwrap_or_default().chars().take_while(digits).collect();
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let new_enough = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= LEAST;
        Ok(new_enough.then_some(Apt { options, version }))
    }

    /// The compiler, its libraries and the standard library's sources.
    fn packages(&self) -> Result<Vec<String>> {
        let mut packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
        let mut at = 0;
        while at < packages.len() {
            let mut depends = Command::new("apt-cache");
            let text = said(depends.args(&self.options).arg("depends").arg(&packages[at]))?;
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

    /// The file it is in.
    fn download(&self, package: &str, work: &Path) -> Result<PathBuf> {
        let mut apt = Command::new("apt-get");
        apt.args(&self.options).arg("download").arg(package).current_dir(work);
        run(&mut apt, &format!("apt-get download {package}"))?;
        let prefix = format!("{package}_");
        let entries = fs::read_dir(work).during(|| format!("read {}", work.display()))?;
        let is_it = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        let found = entries.flatten().find(is_it).map(|entry| entry.path());
        found.ok_or_else(|| Error::Command {
            name: format!("apt-get download {package}"),
            output: "it left no file".into(),
        })
    }
}

/// What a query of the index prints; nothing where it finds nothing.
fn said(query: &mut Command) -> Result<String> {
    let output = query.output().during(|| "run apt-cache".into())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_wrapper(root: &Path) -> Result<PathBuf> {
    let bin = root.join("bin");
    let rustc = bin.join("rustc");
    fs::create_dir_all(&bin)
        .and_then(|()| fs::write(&rustc, WRAPPER.replace("@ARCH@", ARCH)))
        .and_then(|()| fs::set_permissions(&rustc, Permissions::from_mode(0o755)))
        .during(|| format!("write {}", rustc.display()))?;
    Ok(rustc)
}

/// An empty crate is built together with the standard library, which then goes to where rustc looks for it.
fn build_std(rustc: &Path, work: &Path, root: &Path) -> Result<()> {
    let empty = work.join("empty");
    fs::create_dir_all(empty.join("src"))
        .and_then(|()| fs::write(empty.join("src/lib.rs"), ""))
        .and_then(|()| fs::write(empty.join("Cargo.toml"), EMPTY))
        .during(|| format!("write {}", empty.display()))?;
    let mut build = cargo();
    build.current_dir(&empty).args(["build", "--release", "--target", TARGET]);
    build.arg("-Zbuild-std=std,panic_abort").arg("--target-dir").arg(empty.join("target"));
    build.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    // Without it link-time optimisation fails.
    build.env("RUSTFLAGS", "-Cembed-bitcode=yes");
    run(&mut build, "cargo build -Zbuild-std")?;
    let built = empty.join("target").join(TARGET).join("release/deps");
    let lib = root.join("usr/lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&lib).during(|| format!("make {}", lib.display()))?;
    for entry in fs::read_dir(&built).during(|| format!("read {}", built.display()))?.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".rlib") && !text.starts_with("libwalgate_empty") {
            fs::copy(entry.path(), lib.join(&name)).during(|| format!("copy {text}"))?;
        }
    }
    Ok(())
}
