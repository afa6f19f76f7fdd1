//! The gateway's password is changed while all programs run.

use std::{fs, path::Path};

use walgate_tests::{Server, eventually};

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

pub async fn rotated(run: &Run) -> Done {
    let hba = "host all all 127.0.0.1/32 scram-sha-256";
    let server = Server::start_with_hba(&run.bin, &[], hba, &[]);
    let create = format!("create role gate superuser login password '{}'", new_secret(0));
    server.process().psql_in("postgres", &create).expect("the role is made");
    let setting = run.setting().on_server(server).gateway(|site, options| {
        let file = site.folder().join(FILE);
        let database = &site.database;
        fs::write(&file, new_secret(0)).expect("a file");
        let port = database.server().process().port();
        let url = format!("postgres://gate@127.0.0.1:{port}/{}", database.name());
        options.with_postgres_url(&url).set_env("POSTGRES_PASSWORD_FILE", file.display())
    });
    let mut stage = setting.open().await;
    let file = stage.site.folder().join(FILE);
    for round in 1..=run.pick(3, 12) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let new = new_secret(round);
        match round % 3 {
            0 => {
                run.record_fault("password changed, then the file, then the connections cut");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                replace_file(&file, &new);
                cut_connections(&stage).await;
            }
            1 => {
                run.record_fault("password changed, the connections cut, the file later");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                cut_connections(&stage).await;
                eventually("it is refused", async || match stage.gateway().readyz()? {
                    (503, body) if body["reason"].to_string().contains("password") => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
                stage.load.wait_for_scripts(20).await;
                replace_file(&file, &new);
            }
            _ => {
                run.record_fault("the file is gone, the password changed, gateway killed");
                fs::remove_file(&file).expect("the file was there");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                stage.kill_gateway();
                stage.load.wait_for_scripts(20).await;
                replace_file(&file, &new);
                stage.start_gateway();
            }
        }
        stage.gateway().wait_until_ready().await;
    }
    stage.wait_for_messages(20).await;
    stage.settle(Ending::Whole).await
}

const FILE: &str = "password";

fn new_secret(round: u64) -> String {
    format!("a secret of round {round}")
}

/// Replaces the file atomically, as tools for rotating secrets do.
fn replace_file(file: &Path, secret: &str) {
    let next = file.with_extension("next");
    fs::write(&next, format!("{secret}\n")).expect("a file");
    fs::rename(&next, file).expect("the file is replaced");
}

async fn cut_connections(stage: &Stage<'_>) {
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gate'";
    stage.site.sql(cut).await;
}
