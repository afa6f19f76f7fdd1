//! A private directory for one server, removed on drop. Directories that a killed parent left
//! behind are removed by the next process: one is in use as long as its lock is held. What is in it
//! is not known here.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::error::During;

/// On disk rather than in memory, enterable by others, and short: a socket path has some 100 bytes.
const HOME: &str = "/var/tmp";
const PREFIX: &str = "walgate-run-";
const LOCK: &str = "in-use";

#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    pub(crate) fn create() -> Result<Self> {
        remove_abandoned();
        let home = Some(PathBuf::from(HOME)).filter(|home| home.is_dir());
        let home = home.unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&home)
            // Set afterwards, so that the umask does not apply.
            .and_then(|dir| {
                fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).map(|()| dir)
            })
            .during(|| format!("make a directory in {}", home.display()))?;
        let lock = create_lock(dir.path()).during(|| format!("lock {}", dir.path().display()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The file is locked before it has its name, so that no other process sees it unlocked.
fn create_lock(dir: &Path) -> std::io::Result<File> {
    let unnamed = dir.join("locking");
    let file = File::create(&unnamed)?;
    file.lock()?;
    fs::rename(unnamed, dir.join(LOCK))?;
    Ok(file)
}

fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(HOME) else { return };
    let ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(PREFIX);
    for dir in entries.flatten().filter(|e| ours(&e.file_name())).map(|e| e.path()) {
        let abandoned = File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            // It may be another user's, or another process may be removing it: both are fine.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_in_use_stay_and_abandoned_ones_are_removed() {
        let living = Scratch::create().unwrap();
        let dead = Scratch::create().unwrap();
        let Scratch { dir, _lock } = dead;
        let abandoned = dir.keep();
        drop(_lock);
        remove_abandoned();
        assert!(living.path().join(LOCK).exists());
        assert!(!abandoned.exists());
        let path = living.path().to_path_buf();
        drop(living);
        assert!(!path.exists());
    }
}
