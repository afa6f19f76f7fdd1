//! A private directory for one server, removed on drop. What a killed parent left behind is swept
//! by the next one: a directory belongs to a living process as long as its lock is held.

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
        sweep();
        let home = Some(PathBuf::from(HOME)).filter(|home| home.is_dir());
        let home = home.unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&home)
            // Afterwards, so that our umask has no say.
            .and_then(|dir| {
                fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).map(|()| dir)
            })
            .during(|| format!("make a directory in {}", home.display()))?;
        let lock = lock(dir.path()).during(|| format!("lock {}", dir.path().display()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Locked before it has its name, so that a sweeper never sees it unlocked.
fn lock(dir: &Path) -> std::io::Result<File> {
    let unnamed = dir.join("locking");
    let file = File::create(&unnamed)?;
    file.lock()?;
    fs::rename(unnamed, dir.join(LOCK))?;
    Ok(file)
}

fn sweep() {
    let Ok(entries) = fs::read_dir(HOME) else { return };
    let ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(PREFIX);
    for dir in entries.flatten().filter(|e| ours(&e.file_name())).map(|e| e.path()) {
        let abandoned = File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            // Another user's, or swept by a sibling at this moment: not our concern.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_keep_their_directories_and_the_dead_are_swept() {
        let living = Scratch::create().unwrap();
        let dead = Scratch::create().unwrap();
        let Scratch { dir, _lock } = dead;
        let abandoned = dir.keep();
        drop(_lock);
        sweep();
        assert!(living.path().join(LOCK).exists());
        assert!(!abandoned.exists());
        let path = living.path().to_path_buf();
        drop(living);
        assert!(!path.exists());
    }
}
