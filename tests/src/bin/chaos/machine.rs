//! The gateway's machine runs out of a resource.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::Command,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tempfile::TempDir;
use walgate_tests::{dictionary, eventually};

use crate::{
    run::{Done, Run},
    stage::Ending,
};

/// A small disk in memory; mounting it needs root.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None` if this process may not mount.
    pub fn mount(mb: u64) -> Option<Disk> {
        let folder =
            tempfile::Builder::new().prefix("walgate-disk-").tempdir_in("/var/tmp").ok()?;
        let disk = Disk { folder };
        disk.is_mounted(&format!("size={mb}m")).then_some(disk)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn resize(&self, mb: u64) {
        assert!(self.is_mounted(&format!("remount,size={mb}m")), "the disk is not resized");
    }

    /// Fills the disk completely.
    fn fill_up(&self) {
        let zeros = fs::File::open("/dev/zero").expect("zeros");
        let mut file = fs::File::create(self.path().join("rest")).expect("a file");
        let full = io::copy(&mut zeros.take(1 << 30), &mut file).expect_err("it ends");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn is_mounted(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "walgate-chaos"]).arg(self.path());
        mount.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A lazy unmount: programs that still write there are killed a moment later.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

pub fn no_disk() -> Done {
    Done::Skipped("a small disk takes the right to mount one (root)".to_owned())
}

/// No file and no socket can be opened while all connections of the gateway break.
pub async fn files_exhausted(run: &Run) -> Done {
    let mut stage = run.stage().await;
    // A missing file is noticed without opening any.
    dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::train_numbered(1));
    for round in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let pid = stage.gateway().program().pid();
        run.record_fault("no file descriptor left while connections break");
        limit_files(pid, 8);
        stage.request_snapshot("users").await;
        stage.site.broker.server.kill9().expect("NATS is killed");
        stage.site.broker.server.start_again().expect("NATS starts again");
        let slot = stage.site.slot();
        stage
            .site
            .sql(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}' and active"
            ))
            .await;
        for what in ["guest", "dictionary"] {
            let words = format!("cannot look for any {what}");
            eventually(format!("the gateway reports: {words}"), async || {
                match stage.gateway().log().matches(&words).count() {
                    count if count > round => Ok(()),
                    count => Err(format!("{count} times")),
                }
            })
            .await;
        }
        stage.load.wait_for_scripts(50).await;
        limit_files(pid, 4096);
        stage.gateway().wait_until_ready().await;
        stage.wait_for_messages(20).await;
        stage.add_newcomer();
    }
    stage.settle(Ending::Whole).await
}

/// Sets the soft limit: open files stay open.
fn limit_files(pid: u32, files: u64) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    let limits = getrlimit(Resource::Nofile);
    let lower = Rlimit { current: Some(files), maximum: limits.maximum };
    prlimit(Some(pid), Resource::Nofile, lower).expect("limits of our own child");
}

/// The gateway keeps only compiled guests there: without room it compiles them again.
pub async fn data_dir_full(run: &Run) -> Done {
    let Some(disk) = Disk::mount(1) else {
        return no_disk();
    };
    run.record_fault("no room in data_dir");
    disk.fill_up();
    let setting = run.setting().gateway(|_, options| {
        options
            .set_env("DATA_DIR", disk.path().display())
            .with_keys("users", "on_guest_change = 'reseed'")
    });
    let mut stage = setting.open().await;
    for round in 0..run.pick(2, 8) {
        let guest = if round % 2 == 0 { "users_next" } else { "users" };
        stage.site.drop_guest(guest, "users.wasm");
        stage.wait_for_messages(20).await;
        stage.kill_and_start_gateway();
        stage.gateway().wait_until_ready().await;
    }
    stage.settle(Ending::Whole).await
}
