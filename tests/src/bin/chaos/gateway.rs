//! The gateway is killed, at the worst moments.

use crate::{
    run::{Done, Run},
    stage::Ending,
};

pub async fn killed_idle(run: &Run) -> Done {
    let mut stage = run.stage().await;
    stage.load.hold().await;
    for _ in 0..run.pick(2, 6) {
        stage.drained().await;
        stage.kill_and_start_gateway();
        stage.gateway().ready().await;
    }
    stage.load.go_on();
    stage.grows(20).await;
    stage.settle(Ending::Whole).await
}

pub async fn killed_streaming(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for round in 0..run.pick(4, 12) {
        match round % 4 {
            // Before it is ready, right after, and under way.
            0 => {}
            1 => drop(stage.gateway().ready().await),
            _ => stage.grows(run.some(10..80)).await,
        }
        stage.kill_gateway();
        stage.load.writes(run.some(1..20)).await;
        stage.start_gateway();
    }
    stage.settle(Ending::Whole).await
}
