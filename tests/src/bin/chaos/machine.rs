//! The machine under the gateway runs out of something.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::run::Done;

/// A small disk in memory, which takes root to mount.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// None where this process may not.
    pub fn mount(mb: u64) -> Option<Disk> {
        let folder =
            tempfile::Builder::new().prefix("walgate-disk-").tempdir_in("/var/tmp").ok()?;
        let disk = Disk { folder };
        disk.mounted(&format!("size={mb}m")).then_some(disk)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn resize(&self, mb: u64) {
        assert!(self.mounted(&format!("remount,size={mb}m")), "the disk is not resized");
    }

    fn mounted(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "walgate-chaos"]).arg(self.path());
        mount.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what still writes there is killed a moment later.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

pub fn no_disk() -> Done {
    Done::Skipped("a small disk takes the right to mount one (root)".to_owned())
}
