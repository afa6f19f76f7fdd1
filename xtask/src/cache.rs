//! Fills the cache directory, which every user of the machine may read. What is in it is not known
//! here.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;
use walgate_servers::cache_dir;

/// The cache directory, readable by all.
pub fn make_cache_dir() -> Result<PathBuf> {
    let cache = cache_dir();
    if !cache.is_dir() {
        fs::create_dir_all(&cache)
            .and_then(|()| fs::set_permissions(&cache, Permissions::from_mode(0o755)))
            .with_context(|| format!("make the directory {}", cache.display()))?;
    }
    Ok(cache)
}

/// A directory on the cache's file system, removed on drop.
pub fn make_work_dir(cache: &Path) -> Result<TempDir> {
    let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(cache);
    work.with_context(|| format!("make a directory in {}", cache.display()))
}

/// Gives a complete directory its final name: the target is whole or absent.
pub fn publish(complete: &Path, target: &Path) -> Result<()> {
    make_readable(complete).with_context(|| format!("open {}", complete.display()))?;
    match fs::rename(complete, target) {
        // Another process was faster, and its files are the same.
        Err(_) if target.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("make {}", target.display())),
    }
}

/// Whatever the umask: the user that Postgres runs as must read all this and run the programs.
fn make_readable(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            make_readable(&entry?.path())?;
        }
        return fs::set_permissions(path, Permissions::from_mode(0o755));
    }
    let program = path.parent().is_some_and(|dir| dir.ends_with("bin") || dir.ends_with("scripts"));
    let mode = if program || meta.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    if meta.is_symlink() { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)) }
}
