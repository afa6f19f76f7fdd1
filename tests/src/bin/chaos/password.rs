//! The gateway's password is changed while all programs run.

use std::{fs, path::Path};

use walgate_tests::{Server, eventually};

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

pub async fn rotated(run: &Run) -> Done {
    let hba = "host all all 127.0.0.1/32 scram-sha-256";
    let server = Server::guarded(&run.bin, &[], hba, &[]);
    let create = format!("create role gate superuser login password '{}'", secret(0));
    server.process().psql_in("postgres", &create).expect("the role is made");
    let setting = run.setting().on(server).gateway(|site, options| {
        let (file, database) = (site.folder().join(FILE), &site.database);
        fs::write(&file, secret(0)).expect("a file");
        let port = database.server().process().port();
        let url = format!("postgres://gate@127.0.0.1:{port}/{}", database.name());
        options.postgres_url(&url).set("POSTGRES_PASSWORD_FILE", file.display())
    });
    let mut stage = setting.open().await;
    let file = stage.site.folder().join(FILE);
    for round in 1..=run.pick(3, 12) {
        stage.grows(run.some(10..60)).await;
        let new = secret(round);
        match round % 3 {
            0 => {
                run.fault("password changed, then the file, then the connections cut");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                replace(&file, &new);
                cut(&stage).await;
            }
            1 => {
                run.fault("password changed, the connections cut, the file later");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                cut(&stage).await;
                eventually("it is refused", async || match stage.gateway().readyz()? {
                    (503, body) if body["reason"].to_string().contains("password") => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
                stage.load.writes(20).await;
                replace(&file, &new);
            }
            _ => {
                run.fault("the file is gone, the password changed, gateway killed");
                fs::remove_file(&file).expect("the file was there");
                stage.site.sql(&format!("alter role gate password '{new}'")).await;
                stage.kill_gateway();
                stage.load.writes(20).await;
                replace(&file, &new);
                stage.start_gateway();
            }
        }
        stage.gateway().ready().await;
    }
    stage.grows(20).await;
    stage.settle(Ending::Whole).await
}

const FILE: &str = "password";

fn secret(round: u64) -> String {
    format!("a secret of round {round}")
}

/// Replaces the file atomically, as tools for rotating secrets do.
fn replace(file: &Path, secret: &str) {
    let next = file.with_extension("next");
    fs::write(&next, format!("{secret}\n")).expect("a file");
    fs::rename(&next, file).expect("the file is replaced");
}

async fn cut(stage: &Stage<'_>) {
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gate'";
    stage.site.sql(cut).await;
}
