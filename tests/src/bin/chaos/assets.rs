//! Faults of dictionaries and guests: they are swapped, broken and deleted under load.

use std::{fs, time::Duration};

use walgate_tests::{dictionary, eventually, site::wasm};
use walgate_wire::TableState;

use crate::{
    run::{Done, Run},
    stage::{Ending, Setting, Stage},
};

/// Copies are loaded again when the guest changes: the oracle only knows the last guest.
fn reseeding(run: &Run) -> Setting<'_> {
    run.setting().gateway(|_, options| options.keys("users", "on_guest_change = 'reseed'"))
}

fn files(stage: &Stage<'_>) -> [std::path::PathBuf; 2] {
    [
        stage.site.folder().join("guests/users.wasm"),
        stage.site.dictionaries().join("users.zstd.dict"),
    ]
}

async fn refused(stage: &Stage<'_>, what: &str, before: usize) {
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
    let stage = reseeding(run).open().await;
    let [guest, file] = files(&stage);
    dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::numbered(0));
    for round in 0..run.pick(2, 8) {
        let count = |what: &str| stage.gateway().log().matches(&format!("{what} refused")).count();
        let (guests, dictionaries) = (count("guest"), count("dictionary"));
        let (next, better) = (wasm("users_next"), dictionary::numbered(round + 1));
        run.fault("guest half-written");
        fs::write(&guest, &next[..next.len() / 2 + round as usize]).expect("a file");
        refused(&stage, "guest", guests).await;
        run.fault("dictionary half-written");
        // Cut inside the entropy tables: behind them, a shorter file is a valid dictionary, too.
        fs::write(&file, &better[..60 + round as usize]).expect("a file");
        refused(&stage, "dictionary", dictionaries).await;
        stage.grows(20).await;
        fs::write(&guest, &next).expect("a file");
        fs::write(&file, &better).expect("a file");
        stage.grows(20).await;
        stage.site.drop_guest("users", "users.wasm");
    }
    stage.settle(Ending::Whole).await
}

pub async fn swapped(run: &Run) -> Done {
    let stage = reseeding(run).open().await;
    for round in 0..run.pick(20, 300) {
        run.fault("guest and dictionary swapped after 100 ms");
        let guest = if round % 2 == 0 { "users_next" } else { "users" };
        stage.site.drop_guest(guest, "users.wasm");
        dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::numbered(round));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.settle(Ending::Whole).await
}

async fn is_suspended(stage: &Stage<'_>) {
    eventually("users is suspended", async || match stage.site.schema("users").await {
        Some(schema) if schema.state == TableState::Suspended => Ok(()),
        other => Err(format!("{:?}", other.map(|schema| schema.state))),
    })
    .await;
}

/// A table stops without its guest; the other tables continue.
pub async fn deleted(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(2, 8) {
        let [guest, file] = files(&stage);
        dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::numbered(round));
        stage.grows(20).await;
        run.fault("dictionary deleted");
        fs::remove_file(&file).expect("the file is removed");
        stage.grows(20).await;
        run.fault("guest deleted");
        fs::remove_file(&guest).expect("the file is removed");
        is_suspended(&stage).await;
        stage.grows(20).await;
        if round % 2 == 1 {
            stage.kill_and_start_gateway();
            stage.grows(20).await;
        }
        stage.site.drop_guest("users", "users.wasm");
    }
    stage.settle(Ending::Whole).await
}

pub async fn folders_removed(run: &Run) -> Done {
    let stage = run.stage().await;
    for round in 0..run.pick(1, 6) {
        dictionary::drop_in(&stage.site.dictionaries(), "users", &dictionary::numbered(round));
        stage.grows(20).await;
        for folder in [stage.site.folder().join("guests"), stage.site.dictionaries()] {
            run.fault("folder removed");
            fs::remove_dir_all(&folder).expect("the folder is removed");
        }
        is_suspended(&stage).await;
        stage.grows(20).await;
        for folder in [stage.site.folder().join("guests"), stage.site.dictionaries()] {
            fs::create_dir(&folder).expect("a folder");
        }
        stage.site.drop_guest("users", "users.wasm");
        stage.grows(20).await;
    }
    stage.settle(Ending::Whole).await
}
