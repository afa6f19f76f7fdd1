//! Faults of one NATS server: it is down, slow, silent, full, or loses data.

use std::{path::Path, process::Command, time::Duration};

use walgate_servers::NatsOptions;
use walgate_tests::{dictionary, eventually, proxy::Network};

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

pub async fn killed(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(4, 12) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let server = &mut stage.site.broker.server;
        if round % 2 == 0 {
            run.record_fault("NATS killed");
            server.kill9().expect("NATS is killed");
        } else {
            run.record_fault("NATS stopped");
            server.stop().expect("NATS stops");
        }
        stage.load.wait_for_scripts(run.random_in(5..40)).await;
        stage.site.broker.server.start_again().expect("NATS starts again");
    }
    stage.wait_for_messages(30).await;
    stage.settle(Ending::Whole).await
}

pub async fn paused(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for _ in 0..run.pick(1, 2) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let seconds = run.pick(5, 60);
        run.record_fault(format!("NATS stopped with SIGSTOP for {seconds} s"));
        stage.site.broker.server.pause().expect("NATS is paused");
        stage.load.wait_for_scripts(20).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stage.site.broker.server.resume().expect("NATS resumes");
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}

pub async fn slow(run: &Run) -> Done {
    let stage = run.setting().with_proxy().open().await;
    for delay in [Duration::from_millis(5), Duration::from_millis(run.random_in(20..100))] {
        run.record_fault(format!("every 16 KiB takes {delay:?} to NATS, and from it"));
        stage.site.broker.set_network(Network::Slow(delay));
        stage.wait_for_messages(run.pick(40, 500)).await;
    }
    stage.site.broker.set_network(Network::Good);
    stage.settle(Ending::Whole).await
}

/// Earlier connections stay half-open even when the network has recovered; new ones work.
pub async fn partitioned(run: &Run) -> Done {
    let stage = run.setting().with_proxy().open().await;
    for _ in 0..run.pick(1, 3) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let seconds = run.pick(2, 45);
        run.record_fault(format!("nothing arrives for {seconds} s; connections stay half-open"));
        stage.site.broker.set_network(Network::Silent);
        stage.load.wait_for_scripts(50).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stage.site.broker.set_network(Network::Good);
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}

/// No unread message is deleted: the gateway waits, and continues once there is room.
pub async fn full(run: &Run) -> Done {
    let limit = |options: walgate_tests::gateway::GatewayOptions, mb: u64| {
        options.set_env("NATS_CDC_MAX_BYTES", mb << 20)
    };
    let mut stage = run.setting().gateway(|_, options| limit(options, 16)).open().await;
    for round in 0..run.pick(1, 3) {
        stage
            .site
            .sql("insert into huge select 100 + i, 0, 'fills', noise(200000) from generate_series(1, 120) i")
            .await;
        run.record_fault("CDC at max_bytes");
        stage.wait_for_reason("the stream is full").await;
        stage.load.wait_for_scripts(50).await;
        stage.site.sql("delete from huge where id > 100").await;
        // An operator makes room.
        stage.kill_gateway();
        let options = limit(stage.options(), 16 + 64 * (round + 1));
        stage.start_gateway_as(options);
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}

async fn purge(stage: &Stage<'_>, run: &Run) {
    run.record_fault("CDC purged");
    let stream = stage.site.broker.jetstream().get_stream("CDC").await.expect("the stream");
    stream.purge().await.expect("the stream is purged");
}

/// A consumer that had read everything continues. A consumer that had not notices the loss and
/// loads again.
pub async fn purged(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for _ in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        purge(&stage, run).await;
        stage.wait_for_messages(run.random_in(10..60)).await;
        stage.sqlite.kill9();
        stage.wait_for_messages(20).await;
        stage.kill_gateway();
        purge(&stage, run).await;
        stage.load.wait_for_scripts(10).await;
        stage.start_gateway();
        stage.wait_for_messages(10).await;
        stage.sqlite.start_again();
    }
    stage.settle(Ending::Cut).await
}

pub async fn deleted(run: &Run) -> Done {
    let stage = run.stage().await;
    for _ in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        run.record_fault("CDC deleted");
        let context = stage.site.broker.jetstream();
        context.delete_stream("CDC").await.expect("the stream is deleted");
        stage.load.wait_for_scripts(10).await;
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Anew).await
}

/// The store is restored to an earlier state, as with a leader that never replicated its last
/// messages.
pub async fn forgetful(run: &Run) -> Done {
    restore_old_folders(run, &[""]).await
}

/// After a power cut each stream ends at its last synced message: messages name lost revisions.
pub async fn buckets_forgetful(run: &Run) -> Done {
    restore_old_folders(
        run,
        &["jetstream/$G/streams/KV_schemas", "jetstream/$G/streams/KV_dictionaries"],
    )
    .await
}

/// NATS restarts with earlier copies of these folders of its store.
async fn restore_old_folders(run: &Run, folders: &[&str]) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(2, 6) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let earlier = stage.site.folder().join(format!("store{round}"));
        stage.site.broker.server.stop().expect("NATS stops");
        let store = stage.site.broker.server.store_dir().to_owned();
        copy_folder(&store, &earlier);
        stage.site.broker.server.start_again().expect("NATS starts again");
        // Revisions that the gateway knows to be stored, and that consumers have seen.
        dictionary::drop_in(
            &stage.site.dictionaries(),
            "users",
            &dictionary::train_numbered(round),
        );
        stage.site.drop_guest(if round % 2 == 0 { "users_next" } else { "users" }, "users.wasm");
        stage.site.sql(&format!("alter table bag add column lost{round} int")).await;
        stage.wait_for_messages(run.random_in(40..100)).await;
        stage.site.sql("insert into bag (v) values (-2)").await;
        stage.wait_until_drained().await;
        run.record_fault("NATS restarted without what it had acknowledged last");
        stage.site.broker.server.kill9().expect("NATS is killed");
        for folder in folders {
            std::fs::remove_dir_all(store.join(folder)).expect("the folder is removed");
            copy_folder(&earlier.join(folder), &store.join(folder));
        }
        if round % 2 == 1 {
            stage.kill_gateway();
        }
        stage.site.broker.server.start_again().expect("NATS starts again");
        if round % 2 == 1 {
            stage.start_gateway();
        }
        stage.gateway().wait_until_ready().await;
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Anew).await
}

/// A new server, or one whose disk was replaced: all streams and buckets are gone.
pub async fn wiped(run: &Run) -> Done {
    let mut stage = run.stage().await;
    dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::train_numbered(7));
    for round in 0..run.pick(2, 6) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        run.record_fault("NATS restarted with an empty store");
        stage.site.broker.server.kill9().expect("NATS is killed");
        let store = stage.site.broker.server.store_dir().to_owned();
        std::fs::remove_dir_all(&store).expect("the store is removed");
        if round % 2 == 1 {
            stage.kill_gateway();
        }
        stage.load.wait_for_scripts(10).await;
        stage.site.broker.server.start_again().expect("NATS starts again");
        if round % 2 == 1 {
            stage.start_gateway();
        }
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Anew).await
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{} is not copied", from.display());
}

pub async fn disk_full(run: &Run) -> Done {
    let Some(disk) = crate::machine::Disk::mount(24) else {
        return crate::machine::no_disk();
    };
    // Streams may reserve more than the disk has.
    let options = NatsOptions {
        store_dir: Some(disk.path().join("store")),
        max_file_store_bytes: Some(10 << 30),
        ..NatsOptions::default()
    };
    let mut stage = run.setting().with_nats(options).open().await;
    for round in 0..run.pick(1, 3) {
        stage
            .site
            .sql("insert into huge select 100 + i, 0, 'fills', noise(700000) from generate_series(1, 40) i")
            .await;
        run.record_fault("no room on the disk of NATS");
        eventually("the disk is full", async || match stage.gateway().readyz()? {
            (503, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        stage.load.wait_for_scripts(50).await;
        stage.site.sql("delete from huge where id > 100").await;
        disk.resize(24 + 60 * (round + 1));
        // nats-server stops using a disk that failed, until it is restarted.
        stage.site.broker.server.kill9().expect("NATS is killed");
        stage.site.broker.server.start_again().expect("NATS starts again");
        stage.wait_for_messages(20).await;
    }
    let done = stage.settle(Ending::Whole).await;
    drop(disk);
    done
}
