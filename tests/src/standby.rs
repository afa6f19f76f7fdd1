//! Servers that replace a test's server at its address: a standby that follows it, or a restored
//! backup of its files. The programs under test do not notice the replacement.

use std::process::Command;

use tempfile::TempDir;
use walgate_servers::{PgOptions, PrivatePostgres, Recovery};
use walgate_wire::Lsn;

use crate::{Server, eventually};

/// The name of the physical slot that keeps WAL for a standby; also the standby's application name.
pub const STANDBY: &str = "standby";

/// A streaming standby.
pub struct Standby(PrivatePostgres);

impl Standby {
    /// The primary is stopped while its files are copied. `synchronises`: the standby synchronises
    /// logical slots marked for failover.
    pub fn of(primary: &Server, synchronises: bool) -> Standby {
        let mut server = primary.process();
        let slot = format!("select pg_create_physical_replication_slot('{STANDBY}', true)");
        server.psql(&slot).expect("a physical slot");
        server.stop_fast().expect("the primary stops");
        let conninfo = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres application_name={STANDBY}",
            server.port()
        );
        let settings = [
            ("primary_conninfo", &*conninfo),
            ("primary_slot_name", STANDBY),
            ("hot_standby_feedback", "on"),
        ];
        let standby = start_server(
            primary,
            PgOptions {
                copy_of: Some(server.data_dir()),
                recovery: Some(Recovery::Standby),
                settings: to_owned_pairs(&settings),
                ..PgOptions::default()
            },
        );
        server.start_again().expect("the primary starts again");
        if synchronises {
            // Set only now: before, the slot sync worker would find no primary and wait for long.
            let on = "alter system set sync_replication_slots = on; select pg_reload_conf()";
            standby.psql(on).expect("a setting");
        }
        Standby(standby)
    }

    /// Whether the standby has synchronised this slot; an `Err` describes its state.
    pub fn has_slot(&self, slot: &str) -> Result<(), String> {
        // Some versions lack these columns.
        let sql = format!(
            "select count(*) from pg_replication_slots s where slot_name = '{slot}'
               and to_jsonb(s)->>'synced' = 'true' and not temporary"
        );
        match self.0.psql(&sql).map_err(|e| e.to_string())? {
            one if one == "1" => Ok(()),
            _ => Err(format!("slot {slot} is not synchronised")),
        }
    }

    /// Stops the standby: it receives no more WAL.
    pub fn stop(&mut self) {
        self.0.stop_fast().expect("the standby stops");
    }

    /// Kills the primary. From then on this server answers at its address, still as a standby.
    pub fn replace_primary(mut self, primary: &Server) {
        let mut place = primary.process();
        place.kill9().expect("the primary is killed");
        self.0
            .start_again()
            .and_then(|()| self.0.start_again_on(place.port()))
            .expect("the standby starts");
        *place = self.0;
    }
}

/// The files of a stopped server.
pub struct Backup(TempDir);

impl Backup {
    /// The server is stopped during the copy.
    pub fn of(server: &Server) -> Backup {
        let folder = tempfile::Builder::new().prefix("walgate-test-").tempdir_in("/var/tmp");
        let folder = folder.expect("a folder");
        let mut server = server.process();
        server.stop_fast().expect("the server stops");
        let copied =
            Command::new("cp").arg("-a").arg(server.data_dir()).arg(folder.path()).status();
        assert!(copied.expect("cp runs").success(), "the server's files are not copied");
        server.start_again().expect("the server starts again");
        Backup(folder)
    }

    /// Restores the files as a volume snapshot would: nothing in them shows the restore.
    pub fn restore_files(&self, server: &Server) {
        self.replace_server(server, None, &[]);
    }

    /// Restores as documented: recovers from the server's archive up to `target`, without any
    /// slots.
    pub async fn recover(&self, server: &Server, target: Lsn) {
        let archive = server.process().data_dir().join("pg_wal");
        // The replaced server deletes its files, so the archive is copied first.
        let kept = tempfile::Builder::new().prefix("walgate-test-").tempdir_in("/var/tmp");
        let kept = kept.expect("a folder");
        server.process().stop_fast().expect("the server stops");
        let copied = Command::new("cp").arg("-a").arg(&archive).arg(kept.path()).status();
        assert!(copied.expect("cp runs").success(), "the archive is not copied");
        let opened = Command::new("chmod").arg("-R").arg("a+rX").arg(kept.path()).status();
        assert!(opened.expect("chmod runs").success(), "the archive cannot be read");
        let restore = format!("cp {}/pg_wal/%f %p", kept.path().display());
        let target = target.to_string();
        let settings = [
            ("restore_command", &*restore),
            ("recovery_target_lsn", &*target),
            ("recovery_target_action", "promote"),
        ];
        self.replace_server(server, Some(Recovery::PointInTime), &settings);
        wait_until_promoted(server).await;
    }

    fn replace_server(
        &self,
        server: &Server,
        recovery: Option<Recovery>,
        settings: &[(&str, &str)],
    ) {
        let mut place = server.process();
        place.stop_fast().expect("the server stops");
        let options = PgOptions {
            copy_of: Some(self.0.path().join("data")),
            recovery,
            port: Some(place.port()),
            settings: to_owned_pairs(settings),
            ..PgOptions::default()
        };
        *place = start_server(server, options);
    }
}

/// Promotes the standby that replaced a server.
pub async fn promote(server: &Server) {
    server.process().psql("select pg_promote()").expect("a standby is promoted");
    wait_until_promoted(server).await;
}

async fn wait_until_promoted(server: &Server) {
    eventually("the server is a primary", async || {
        match server.process().psql("select pg_is_in_recovery()").map_err(|e| e.to_string())? {
            no if no == "f" => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

fn start_server(server: &Server, options: PgOptions) -> PrivatePostgres {
    PrivatePostgres::start(server.bin(), options).expect("Postgres starts")
}

fn to_owned_pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
