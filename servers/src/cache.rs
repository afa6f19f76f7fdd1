//! Files in the cache directory, which every user of the machine may read. What lies there is not known here.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::During;
use crate::{Result, cache_dir};

/// The cache directory, open to all.
pub(crate) fn make_cache() -> Result<PathBuf> {
    let cache = cache_dir();
    if !cache.is_dir() {
        fs::create_dir_all(&cache)
            .and_then(|()| fs::set_permissions(&cache, Permissions::from_mode(0o755)))
            .during(|| format!("make the directory {}", cache.display()))?;
    }
    Ok(cache)
}

/// Whatever our umask: the user that Postgres runs as must read all this and run the programs.
pub(crate) fn open_to_all(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
        return fs::set_permissions(path, Permissions::from_mode(0o755));
    }
    let program = path.parent().is_some_and(|dir| dir.ends_with("bin") || dir.ends_with("scripts"));
    let mode = if program || meta.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    if meta.is_symlink() { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)) }
}
