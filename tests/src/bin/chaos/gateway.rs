//! The gateway is killed at the worst moments, and runs beside another one.

use std::time::Duration;

use walgate_tests::{dictionary, eventually, snapshot, stream};

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

pub async fn killed_idle(run: &Run) -> Done {
    let mut stage = run.stage().await;
    stage.load.hold().await;
    for _ in 0..run.pick(2, 6) {
        stage.wait_until_drained().await;
        stage.kill_and_start_gateway();
        stage.gateway().wait_until_ready().await;
    }
    stage.load.resume();
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

pub async fn killed_streaming(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(4, 12) {
        match round % 4 {
            // Before it is ready, right after, and while it streams.
            0 => {}
            1 => drop(stage.gateway().wait_until_ready().await),
            _ => stage.wait_for_messages(run.random_in(10..80)).await,
        }
        stage.kill_gateway();
        stage.load.wait_for_scripts(run.random_in(1..20)).await;
        stage.start_gateway();
    }
    stage.settle(Ending::Whole).await
}

/// NATS is paused meanwhile: at the kill the stream holds at most the messages in flight.
pub async fn killed_in_transaction(run: &Run) -> Done {
    let rows = run.pick(30_000, 1_000_000);
    let mut stage = run.stage().await;
    stage.load.hold().await;
    stage.wait_until_drained().await;
    let changes = |stage: &Stage<'_>| {
        let (_, body) = stage.gateway().readyz()?;
        Ok::<_, String>(body["tables"]["bag"]["changes"].as_u64().unwrap_or(0))
    };
    let insert = format!(
        "insert into bag select i, 'one transaction' || repeat('x', i % 60) from generate_series(1, {rows}) i"
    );
    // When Postgres announces the table again, the gateway reads its schema, and sends nothing
    // without NATS.
    for _ in 0..5 {
        let before = changes(&stage).expect("the gateway answers");
        stage.site.broker.server.pause().expect("NATS is paused");
        stage.site.sql(&insert).await;
        let sent = eventually("some of it is sent", async || match changes(&stage)? {
            now if now > before + 2000 => Ok(()),
            now => Err(format!("{before}, now {now}")),
        });
        if tokio::time::timeout(Duration::from_secs(30), sent).await.is_ok() {
            break;
        }
        stage.site.broker.server.resume().expect("NATS resumes");
        stage.wait_until_drained().await;
    }
    stage.kill_gateway();
    stage.site.broker.server.resume().expect("NATS resumes");
    let stated = stream::last_progress(&stage.site.broker).await.expect("progress").end_lsn;
    assert!(stated <= stage.last_commit().await, "the transaction is whole before it is sent");
    // Again and again, at any position.
    stage.load.resume();
    for _ in 0..run.pick(2, 5) {
        stage.start_gateway();
        stage.wait_for_messages(run.random_in(2..run.pick(8, 200))).await;
        stage.kill_gateway();
    }
    stage.start_gateway();
    stage.settle(Ending::Whole).await
}

pub async fn killed_in_snapshot(run: &Run) -> Done {
    let mut stage = run.setting().rows(run.pick(5000, 100_000)).open().await;
    for _ in 0..run.pick(2, 6) {
        stage.request_snapshot("users").await;
        let begun = snapshot::count_stored(&stage.site.broker).await;
        let more = run.random_in(1..12);
        eventually("a snapshot is under way", async || {
            match snapshot::count_stored(&stage.site.broker).await {
                now if now > begun + more => Ok(()),
                now => Err(format!("{now} messages, {begun} before")),
            }
        })
        .await;
        stage.kill_and_start_gateway();
        stage.add_newcomer();
        stage.gateway().wait_until_ready().await;
    }
    stage.settle(Ending::Whole).await
}

/// Messages that NATS has acknowledged but Postgres has not heard of are neither lost nor sent
/// twice.
pub async fn killed_before_feedback(run: &Run) -> Done {
    let mut stage = run.stage().await;
    let mut hits = 0;
    for _ in 0..100 {
        stage.wait_for_messages(1 + run.random_in(0..5)).await;
        stage.kill_gateway();
        let stated = stream::last_progress(&stage.site.broker).await.expect("progress").end_lsn;
        hits += u32::from(stage.site.confirmed_lsn().await < stated);
        stage.start_gateway();
        if hits == run.pick(2, 10) {
            run.record_fault(format!(
                "{hits} of them with acknowledgements that Postgres had not heard of"
            ));
            return stage.settle(Ending::Whole).await;
        }
    }
    panic!("the slot was never behind the stream when the gateway was killed");
}

pub async fn killed_in_swap(run: &Run) -> Done {
    let reseeds = |_: &_, options: walgate_tests::gateway::GatewayOptions| {
        options.with_keys("users", "on_guest_change = 'reseed'")
    };
    let mut stage = run.setting().gateway(reseeds).open().await;
    for round in 0..run.pick(4, 20) {
        let guest = if round % 2 == 0 { "users_next" } else { "users" };
        stage.site.drop_guest(guest, "users.wasm");
        dictionary::drop_in(
            &stage.site.dictionaries(),
            "users",
            &dictionary::train_numbered(round),
        );
        stage.load.wait_for_scripts(1).await;
        tokio::time::sleep(Duration::from_millis(run.random_in(0..250))).await;
        stage.kill_and_start_gateway();
        stage.load.wait_for_scripts(run.random_in(1..30)).await;
    }
    stage.settle(Ending::Whole).await
}

pub async fn standby_takes_over(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(2, 6) {
        let second = stage.options().with_name(&format!("standby{round}")).spawn();
        eventually("the standby reports that it waits", async || match second.readyz()? {
            (503, body) if body["reason"].to_string().contains("standby") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        stage.wait_for_messages(run.random_in(20..50)).await;
        assert_eq!(second.readyz().expect("it answers").0, 503, "two gateways stream");
        stage.kill_gateway();
        stage.replace_gateway(second);
        stage.gateway().wait_until_ready().await;
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}

/// The gateway is paused with changes in its buffers while Postgres gives the slot to another. Then
/// it resumes.
pub async fn paused_and_replaced(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..40)).await;
        stage.gateway().program().pause();
        run.record_fault("gateway stopped with SIGSTOP while another takes its slot");
        stage.load.wait_for_scripts(30).await;
        let second = stage.options().with_name(&format!("standby{round}")).spawn();
        let slot = stage.site.slot();
        stage
            .site
            .sql(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}'"
            ))
            .await;
        second.wait_until_ready().await;
        stage.wait_for_messages(30).await;
        let first = stage.replace_gateway(second).expect("the first one");
        first.program().resume();
        eventually("the first one waits", async || match first.readyz()? {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        stage.load.wait_for_scripts(50).await;
        first.stop();
    }
    stage.settle(Ending::Whole).await
}
