//! The consumers are killed; the gateway is not affected.

use std::{fs, path::Path, time::Duration};

use walgate_tests::{eventually, oracle::Copy, replica::Target};

use crate::{
    run::{Done, Run},
    stage::Ending,
};

pub async fn killed_mid_apply(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for _ in 0..run.pick(5, 30) {
        stage.wait_for_messages(run.random_in(2..30)).await;
        run.record_fault("copy in SQLite killed");
        stage.sqlite.start_again();
        stage.load.wait_for_scripts(run.random_in(1..10)).await;
        run.record_fault("copy in Postgres killed");
        stage.postgres.start_again();
    }
    stage.settle(Ending::Whole).await
}

pub async fn killed_mid_snapshot(run: &Run) -> Done {
    let mut stage = run.setting().rows(run.pick(5000, 100_000)).open().await;
    stage.add_newcomer();
    let mut hits = 0;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(run.random_in(10..400))).await;
        let newcomer = stage.newest_copy();
        newcomer.kill9();
        let is_loaded = Copy::open(&newcomer.target).await.count_rows("users").await.is_some();
        if is_loaded {
            // The copy was already complete: use another one.
            newcomer.start_again();
            stage.add_newcomer();
            continue;
        }
        run.record_fault("copy killed before it was loaded");
        newcomer.start_again();
        hits += 1;
        if hits == run.pick(4, 20) {
            return stage.settle(Ending::Whole).await;
        }
    }
    panic!("every copy was loaded before it was killed");
}

/// SQLite's log grows when it commits; the kill hits that commit or the next one.
pub async fn killed_at_commit(run: &Run) -> Done {
    let mut stage = run.stage().await;
    let Target::Sqlite(file) = stage.sqlite.target.clone() else {
        unreachable!("that copy is a SQLite file")
    };
    let mut log = file.into_os_string();
    log.push("-wal");
    for _ in 0..run.pick(5, 30) {
        let before = modification_time(log.as_ref());
        eventually("the copy commits", async || match modification_time(log.as_ref()) {
            now if now != before => Ok(()),
            now => Err(format!("{now:?}")),
        })
        .await;
        run.record_fault("copy in SQLite killed");
        stage.sqlite.start_again();
        stage.load.wait_for_scripts(run.random_in(1..10)).await;
    }
    stage.settle(Ending::Whole).await
}

fn modification_time(file: &Path) -> Option<(std::time::SystemTime, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
