//! Faults of dictionaries and guests: they are swapped, broken and deleted under load.

use std::{fs, time::Duration};

use walgate_tests::{dictionary, eventually, site::guest_bytes};
use walgate_wire::TableState;

use crate::{
    run::{Done, Run},
    stage::{Ending, Setting, Stage},
};

/// Copies are loaded again when the guest changes: the oracle only knows the last guest.
fn setting_with_reseed(run: &Run) -> Setting<'_> {
    run.setting().gateway(|_, options| options.with_keys("users", "on_guest_change = 'reseed'"))
}

fn file_names(stage: &Stage<'_>) -> [std::path::PathBuf; 2] {
    [
        stage.site.folder().join("guests/users.wasm"),
        stage.site.dictionaries().join("users.zstd.dict"),
    ]
}

async fn wait_until_refused(stage: &Stage<'_>, what: &str, before: usize) {
    eventually(format!("{what} is refused"), async || {
        match stage.gateway().log().matches(&format!("{what} refused")).count() {
            count if count > before => Ok(()),
            count => Err(format!("{count} refusals, {before} before")),
        }
    })
    .await;
}

/// The gateway refuses a half-written file and keeps the old version; once the file is whole, the
/// gateway loads it.
pub async fn half_written(run: &Run) -> Done {
    let stage = setting_with_reseed(run).open().await;
    let [guest, file] = file_names(&stage);
    dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::train_numbered(0));
    for round in 0..run.pick(2, 8) {
        let count = |what: &str| stage.gateway().log().matches(&format!("{what} refused")).count();
        let guests = count("guest");
        let dictionaries = count("dictionary");
        let next = guest_bytes("users_next");
        let better = dictionary::train_numbered(round + 1);
        run.record_fault("guest half-written");
        fs::write(&guest, &next[..next.len() / 2 + round as usize]).expect("a file");
        wait_until_refused(&stage, "guest", guests).await;
        run.record_fault("dictionary half-written");
        // Cut inside the entropy tables: behind them, a shorter file is a valid dictionary, too.
        fs::write(&file, &better[..60 + round as usize]).expect("a file");
        wait_until_refused(&stage, "dictionary", dictionaries).await;
        stage.wait_for_messages(20).await;
        fs::write(&guest, &next).expect("a file");
        fs::write(&file, &better).expect("a file");
        stage.wait_for_messages(20).await;
        stage.site.drop_guest("users", "users.wasm");
    }
    stage.settle(Ending::Whole).await
}

pub async fn swapped(run: &Run) -> Done {
    let stage = setting_with_reseed(run).open().await;
    for round in 0..run.pick(20, 300) {
        run.record_fault("guest and dictionary swapped after 100 ms");
        let guest = if round % 2 == 0 { "users_next" } else { "users" };
        stage.site.drop_guest(guest, "users.wasm");
        dictionary::drop_in(
            &stage.site.dictionaries(),
            "users",
            &dictionary::train_numbered(round),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.settle(Ending::Whole).await
}

async fn is_suspended(stage: &Stage<'_>) {
    eventually("users is suspended", async || match stage.site.latest_schema("users").await {
        Some(schema) if schema.state == TableState::Suspended => Ok(()),
        other => Err(format!("{:?}", other.map(|schema| schema.state))),
    })
    .await;
}

/// A table stops without its guest; the other tables continue.
pub async fn deleted(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(2, 8) {
        let [guest, file] = file_names(&stage);
        dictionary::drop_in(
            &stage.site.dictionaries(),
            "users",
            &dictionary::train_numbered(round),
        );
        stage.wait_for_messages(20).await;
        run.record_fault("dictionary deleted");
        fs::remove_file(&file).expect("the file is removed");
        stage.wait_for_messages(20).await;
        run.record_fault("guest deleted");
        fs::remove_file(&guest).expect("the file is removed");
        is_suspended(&stage).await;
        stage.wait_for_messages(20).await;
        if round % 2 == 1 {
            stage.kill_and_start_gateway();
            stage.wait_for_messages(20).await;
        }
        stage.site.drop_guest("users", "users.wasm");
    }
    stage.settle(Ending::Whole).await
}

pub async fn folders_removed(run: &Run) -> Done {
    let stage = run.stage().await;
    for round in 0..run.pick(1, 6) {
        dictionary::drop_in(
            &stage.site.dictionaries(),
            "users",
            &dictionary::train_numbered(round),
        );
        stage.wait_for_messages(20).await;
        for folder in [stage.site.folder().join("guests"), stage.site.dictionaries()] {
            run.record_fault("folder removed");
            fs::remove_dir_all(&folder).expect("the folder is removed");
        }
        is_suspended(&stage).await;
        stage.wait_for_messages(20).await;
        for folder in [stage.site.folder().join("guests"), stage.site.dictionaries()] {
            fs::create_dir(&folder).expect("a folder");
        }
        stage.site.drop_guest("users", "users.wasm");
        stage.wait_for_messages(20).await;
    }
    stage.settle(Ending::Whole).await
}
