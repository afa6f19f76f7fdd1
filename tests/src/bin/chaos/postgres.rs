//! Faults of Postgres itself: it is down, paused, full or altered, or loses the slot. Servers that
//! replace it are in `failover.rs`.

use std::{cell::Cell, time::Duration};

use walgate_tests::{Database, eventually, snapshot};
use walgate_wire::Lsn;

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

pub async fn killed(run: &Run) -> Done {
    away(run, true).await
}

pub async fn restarted(run: &Run) -> Done {
    away(run, false).await
}

async fn away(run: &Run, kill: bool) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    for _ in 0..run.pick(3, 12) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        stage.restart_postgres(kill).await;
        stage.load.wait_for_scripts(run.random_in(1..20)).await;
    }
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

pub async fn paused(run: &Run) -> Done {
    let stage = run.setting().with_own_postgres(&[]).open().await;
    for _ in 0..run.pick(1, 2) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let seconds = run.pick(5, 60);
        run.record_fault(format!("Postgres stopped with SIGSTOP for {seconds} s"));
        stage.server().process().pause().expect("Postgres is paused");
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stage.server().process().resume().expect("Postgres resumes");
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}

pub async fn connection_limit(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[("max_connections", "30")]).open().await;
    for _ in 0..run.pick(1, 5) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let mut sessions = stage.site.database.open_sessions_to_the_limit().await;
        run.record_fault("no connection left for a snapshot");
        let before = snapshot::count_stored(&stage.site.broker).await;
        stage.request_snapshot("bag").await;
        let refused = snapshot::wait_for_error_after(&stage.site.broker, "bag", before).await;
        assert!(refused.message.contains("53300"), "{}", refused.message);
        assert!(refused.retry_after.is_some(), "the limit passes: {refused:?}");
        // The stream continues over its open connection until that is lost, too.
        stage.wait_for_messages(20).await;
        run.record_fault("no connection left for the stream");
        let walgate = "select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = 'walgate' and datname = current_database()";
        eventually("Postgres reports too many connections", async || {
            stage.site.database.rows(walgate).await;
            sessions.extend(stage.site.database.open_sessions_to_the_limit().await);
            match stage.gateway().readyz()? {
                (503, body) if body["reason"].to_string().contains("53300") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        stage.load.wait_for_scripts(20).await;
        drop(sessions);
        stage.gateway().wait_until_ready().await;
    }
    stage.add_newcomer();
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

/// The sequence at which the last snapshot of `bag` began.
async fn last_snapshot_start(stage: &Stage<'_>) -> Option<u64> {
    let starts = snapshot::read_starts(&stage.site.broker).await;
    starts.iter().filter(|m| m.subject.ends_with(".bag")).map(|m| m.sequence).max()
}

async fn wait_for_snapshot_start(stage: &Stage<'_>, before: Option<u64>) {
    eventually("the snapshot begins", async || match last_snapshot_start(stage).await {
        now if now > before => Ok(()),
        now => Err(format!("{now:?}")),
    })
    .await;
}

async fn wait_for_log(stage: &Stage<'_>, words: &str) {
    eventually(format!("the gateway logs: {words}"), async || {
        stage.gateway().log().contains(words).then_some(()).ok_or("nothing of it".to_owned())
    })
    .await;
}

pub async fn long_writer(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    for round in 0..run.pick(2, 10) {
        let before = last_snapshot_start(&stage).await;
        let writer = stage.site.database.open_session().await;
        let gid = format!("stays {round}");
        if round % 2 == 0 {
            run.record_fault("transaction open");
            writer.sql("begin; insert into bag values (-1, 'long')").await;
        } else {
            run.record_fault("transaction prepared");
            writer
                .sql(&format!(
                    "begin; insert into bag values (-1, 'long'); prepare transaction '{gid}'"
                ))
                .await;
        }
        stage.request_snapshot("bag").await;
        let named =
            if round % 2 == 0 { format!("process {} of", writer.pid().await) } else { gid.clone() };
        wait_for_log(&stage, &named).await;
        // Changes are not delayed.
        stage.wait_for_messages(run.random_in(20..100)).await;
        assert_eq!(last_snapshot_start(&stage).await, before, "the snapshot did not wait");
        if round % 2 == 0 {
            writer.sql("insert into bag values (-2, 'at last'); commit").await;
        } else {
            writer.sql(&format!("commit prepared '{gid}'")).await;
        }
        wait_for_snapshot_start(&stage, before).await;
    }
    stage.add_newcomer();
    stage.settle(Ending::Whole).await
}

/// A commit that waits for a standby is in the log and in no snapshot. A watermark at the current
/// LSN would lose it.
pub async fn stalled_standby(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    for round in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let before = last_snapshot_start(&stage).await;
        run.record_fault("a synchronous standby that does not answer");
        stage.site.sql("set synchronous_commit = local").await;
        stage.site.sql("alter system set synchronous_standby_names = 'nobody'").await;
        stage.site.sql("select pg_reload_conf()").await;
        let waiting = stage.site.database.open_session().await;
        // Commits wait once the checkpointer has read the new setting. Postgres does not report
        // when it has.
        let attempt = Cell::new(0);
        let released = Cell::new(false);
        let insert = async {
            while !released.get() {
                attempt.set(attempt.get() + 1);
                waiting
                    .sql(&format!("insert into bag values (-7, 'waits {round} {}')", attempt.get()))
                    .await;
            }
        };
        let rest = async {
            let stuck = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like 'insert into bag values (-7%'";
            eventually("the commit waits", async || {
                match stage.site.database.value(stuck).await.as_str() {
                    "1" => Ok(()),
                    other => Err(other.to_owned()),
                }
            })
            .await;
            // The stream has the row, but a query does not see it.
            stage.wait_until_drained().await;
            let looks = format!(
                "select pg_current_wal_lsn(), count(*) from bag where pad = 'waits {round} {}'",
                attempt.get()
            );
            let naive = stage.site.database.rows(&looks).await;
            let naive_lsn: Lsn = naive[0][0].as_deref().expect("an LSN").parse().expect("an LSN");
            assert_eq!(naive[0][1].as_deref(), Some("0"));
            assert!(stage.last_commit().await < naive_lsn);
            stage.request_snapshot("bag").await;
            wait_for_log(&stage, "synchronous standby").await;
            assert_eq!(last_snapshot_start(&stage).await, before, "the snapshot did not wait");
            released.set(true);
            stage.site.sql("alter system reset synchronous_standby_names").await;
            stage.site.sql("select pg_reload_conf()").await;
            wait_for_snapshot_start(&stage, before).await;
        };
        futures::join!(insert, rest);
    }
    // Loads that snapshot, or a later one.
    stage.add_newcomer();
    stage.settle(Ending::Whole).await
}

/// Snapshots do not isolate from TRUNCATE and ALTER, and DROP makes room for another table of that
/// name.
pub async fn ddl_in_snapshot(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).rows(run.pick(3000, 60_000)).open().await;
    stage.add_newcomer();
    for round in 0..run.pick(9, 45) {
        stage.request_snapshot("bag").await;
        tokio::time::sleep(Duration::from_millis(run.random_in(0..120))).await;
        let rows = "insert into bag select i % 100, repeat('q', 1 + i % 200) from generate_series(1, 3000) i";
        let (what, sql) = match round % 3 {
            0 => ("TRUNCATE", format!("truncate bag; {rows}")),
            1 => (
                "ALTER TABLE",
                format!("alter table bag add column more{round} int default {round}"),
            ),
            _ => (
                "DROP TABLE",
                format!(
                    "drop table bag; create table bag (v int, pad text); alter table bag replica identity full;
                     alter publication walgate add table bag; {rows}"
                ),
            ),
        };
        run.record_fault(format!("{what} in a snapshot"));
        stage.site.sql(&sql).await;
        stage.load.wait_for_scripts(run.random_in(5..30)).await;
    }
    stage.settle(Ending::Whole).await
}

/// Without messages of its own a slot would hold back the WAL of the whole server.
pub async fn wal_elsewhere(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    stage.load.hold().await;
    stage.wait_until_drained().await;
    let other = Database::create(&stage.server()).await;
    other.sql("create table elsewhere (id int)").await;
    for _ in 0..run.pick(2, 10) {
        run.record_fault("WAL in another database");
        other.sql("insert into elsewhere select generate_series(1, 10000)").await;
        let goal: Lsn = other.value("select pg_current_wal_lsn()").await.parse().expect("an LSN");
        eventually("the slot advances", async || match stage.site.confirmed_lsn().await {
            confirmed if confirmed >= goal => Ok(()),
            confirmed => Err(format!("{confirmed} of {goal}")),
        })
        .await;
    }
    stage.load.resume();
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

/// Drops the slot, terminating the walsender that uses it.
async fn drop_slot(stage: &Stage<'_>) {
    let slot = stage.site.slot();
    let session = stage.site.database.open_session().await;
    let terminate = format!(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}' and active"
    );
    eventually("the slot is dropped", async || {
        let drop = format!("select pg_drop_replication_slot('{slot}')");
        session.try_sql(&terminate).await.map_err(|e| e.to_string())?;
        session.try_sql(&drop).await.map_err(|e| e.to_string())
    })
    .await;
}

pub async fn slot_dropped(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    for round in 0..run.pick(2, 6) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let is_dead = round % 2 == 0;
        if is_dead {
            stage.kill_gateway();
            stage.load.wait_for_scripts(20).await;
        }
        run.record_fault("slot dropped");
        drop_slot(&stage).await;
        if is_dead {
            stage.start_gateway();
        }
        stage.gateway().wait_until_ready().await;
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Anew).await
}

/// The gateway reports the loss and the remedy, and does not create another slot.
pub async fn slot_invalidated(run: &Run) -> Done {
    let mut stage = run.setting().with_own_postgres(&[]).open().await;
    let slot = stage.site.slot();
    for _ in 0..run.pick(1, 3) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        stage.gateway().program().pause();
        stage.load.wait_for_scripts(20).await;
        run.record_fault("slot invalidated by max_slot_wal_keep_size");
        stage.site.sql("alter system set max_slot_wal_keep_size = '1MB'").await;
        stage.site.sql("select pg_reload_conf()").await;
        let lost =
            format!("select wal_status from pg_replication_slots where slot_name = '{slot}'");
        eventually("the slot is lost", async || {
            for _ in 0..3 {
                stage.site.sql("insert into huge values (-1, 1, 'x', null) on conflict (id) do update set n = huge.n + 1").await;
                stage.site.sql("select pg_switch_wal()").await;
            }
            stage.site.sql("checkpoint").await;
            match stage.site.database.value(&lost).await.as_str() {
                "lost" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        stage.site.sql("alter system reset max_slot_wal_keep_size").await;
        stage.site.sql("select pg_reload_conf()").await;
        stage.gateway().program().resume();
        let (code, log) = stage.wait_until_gateway_ends();
        assert_eq!(code, Some(4), "{log}");
        let remedy = format!("SELECT pg_drop_replication_slot('{slot}')");
        assert!(log.contains(&remedy), "no remedy: {log}");
        // The command from the gateway's report.
        stage.site.database.rows(&remedy).await;
        stage.load.hold().await;
        stage.restart_audit().await;
        stage.load.resume();
        stage.start_gateway();
        stage.gateway().wait_until_ready().await;
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Anew).await
}
