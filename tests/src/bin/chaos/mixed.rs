//! Kills gateway, consumers and NATS at random, while DDL alters tables often.

use crate::{
    run::{Done, Run},
    stage::Ending,
};

/// The share of DDL in all transactions.
const DDL_SHARE: f64 = 0.07;

pub async fn killed_at_random(run: &Run) -> Done {
    let mut stage = run.setting().ddl(DDL_SHARE).open().await;
    for _ in 0..run.pick(10, 100) {
        stage.load.wait_for_scripts(run.random_in(1..30)).await;
        match run.random_in(0..8) {
            0 | 1 => stage.kill_and_start_gateway(),
            2 | 3 => {
                run.record_fault("copy in SQLite killed");
                stage.sqlite.start_again();
            }
            4 | 5 => {
                run.record_fault("copy in Postgres killed");
                stage.postgres.start_again();
            }
            6 => {
                // A gateway that starts without NATS would end, and would have to be started again.
                stage.gateway().wait_until_ready().await;
                run.record_fault("NATS killed");
                stage.site.broker.server.kill9().expect("NATS is killed");
                stage.site.broker.server.start_again().expect("NATS starts again");
            }
            _ => drop(stage.gateway().wait_until_ready().await),
        }
    }
    stage.settle(Ending::Whole).await
}
