//! Another server answers at the source's address: a standby, or a restored backup. Faults of one
//! server are in `postgres.rs`.

use walgate_tests::{
    eventually,
    standby::{Backup, STANDBY, Standby, promote},
};
use walgate_wire::Lsn;

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

/// The first version whose standbys synchronise slots.
const SYNCHRONISES_SINCE: u32 = 17;

fn no_synchronised_slots(run: &Run) -> Option<Done> {
    let major = run.bin.version.major;
    (major < SYNCHRONISES_SINCE).then(|| {
        Done::Skipped(format!(
            "Postgres {major} cannot synchronise slots, {SYNCHRONISES_SINCE} and newer can"
        ))
    })
}

/// Makes a standby while the load is held. Begins another audit, whose slot the standby has as
/// well.
async fn make_standby(stage: &mut Stage<'_>, synchronises: bool) -> Standby {
    stage.load.hold().await;
    let standby = Standby::of(&stage.server(), synchronises);
    stage.site.database.reconnect().await;
    stage.restart_audit().await;
    if synchronises {
        eventually("both slots are synchronised", async || {
            // The standby begins at the current position: the slots have to advance to it.
            stage.advance_audit().await;
            standby.has_slot(&stage.site.slot())?;
            standby.has_slot(stage.audit_slot())
        })
        .await;
    }
    standby
}

/// Kills the primary. Its address is answered by a standby for a while, and then by a primary.
async fn fail_over(run: &Run, stage: &mut Stage<'_>, standby: Standby) {
    run.record_fault("primary killed, standby promoted");
    let server = stage.server();
    standby.replace_primary(&server);
    stage.wait_for_reason("standby").await;
    promote(&server).await;
    stage.site.database.reconnect().await;
}

async fn set_on_primary(stage: &Stage<'_>, name: &str, value: &str) {
    stage.site.sql(&format!("alter system set {name} = '{value}'")).await;
    stage.site.sql("select pg_reload_conf()").await;
}

/// The failover is invisible to the gateway and the consumers.
pub async fn synchronised(run: &Run) -> Done {
    if let Some(skipped) = no_synchronised_slots(run) {
        return skipped;
    }
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    let standby = make_standby(&mut stage, true).await;
    // A commit that was acknowledged to its client is on the standby. Nothing reaches the stream
    // before it is there.
    set_on_primary(&stage, "synchronized_standby_slots", STANDBY).await;
    set_on_primary(&stage, "synchronous_standby_names", STANDBY).await;
    stage.load.resume();
    stage.wait_for_messages(run.random_in(20..100)).await;
    fail_over(run, &mut stage, standby).await;
    stage.load.wait_for_scripts(20).await;
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

/// The stream holds changes that the new primary lacks: the slot exists, and does not help.
pub async fn behind(run: &Run) -> Done {
    if let Some(skipped) = no_synchronised_slots(run) {
        return skipped;
    }
    let mut stage = run.setting().with_own_postgres(&[]).without_ddl().open().await;
    let mut standby = make_standby(&mut stage, true).await;
    standby.stop();
    stage.load.resume();
    stage.wait_for_messages(run.random_in(20..100)).await;
    stage.load.hold().await;
    stage.wait_until_drained().await;
    fail_over(run, &mut stage, standby).await;
    stage.gateway().wait_until_ready().await;
    stage.restart_audit().await;
    stage.load.resume();
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Anew).await
}

pub async fn without_slot(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    let standby = make_standby(&mut stage, false).await;
    set_on_primary(&stage, "synchronous_standby_names", STANDBY).await;
    stage.load.resume();
    stage.wait_for_messages(run.random_in(20..100)).await;
    stage.load.hold().await;
    fail_over(run, &mut stage, standby).await;
    stage.restart_audit().await;
    stage.load.resume();
    stage.gateway().wait_until_ready().await;
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Anew).await
}

/// Takes a backup, and returns a position between it and the present.
async fn take_backup(run: &Run, stage: &mut Stage<'_>) -> (Backup, Lsn) {
    stage.wait_for_messages(run.random_in(10..60)).await;
    let backup = Backup::of(&stage.server());
    stage.site.database.reconnect().await;
    stage.load.wait_for_scripts(run.random_in(10..40)).await;
    let now = stage.site.database.value("select pg_current_wal_lsn()").await;
    stage.wait_for_messages(run.random_in(20..100)).await;
    stage.load.hold().await;
    stage.wait_until_drained().await;
    (backup, now.parse().expect("an LSN"))
}

/// Every copy is loaded again with the current rows.
async fn settle_with_new_epoch(mut stage: Stage<'_>) -> Done {
    stage.site.database.reconnect().await;
    stage.gateway().wait_until_ready().await;
    stage.restart_audit().await;
    stage.load.resume();
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Anew).await
}

pub async fn recovered(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).without_ddl().open().await;
    let (backup, point) = take_backup(run, &mut stage).await;
    run.record_fault("recovered to an earlier point");
    backup.recover(&stage.server(), point).await;
    Box::pin(settle_with_new_epoch(stage)).await
}

/// Neither the timeline nor the slot shows the restore. The positions do, as long as nothing was
/// written since.
pub async fn put_back(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).without_ddl().open().await;
    let (backup, _) = take_backup(run, &mut stage).await;
    run.record_fault("earlier files put back");
    backup.restore_files(&stage.server());
    Box::pin(settle_with_new_epoch(stage)).await
}
