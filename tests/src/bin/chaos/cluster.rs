//! A NATS cluster of three nodes, with each stream on all of them.

use std::time::Duration;

use walgate_tests::proxy::Network;

use crate::{
    run::{Done, Run},
    stage::Ending,
};

pub async fn leader_killed(run: &Run) -> Done {
    let mut stage = run.setting().with_cluster().open().await;
    for _ in 0..run.pick(2, 8) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let leader = stage.site.broker.find_leader("CDC").await;
        run.record_fault("the node that leads CDC killed");
        stage.site.broker.node(leader).kill9().expect("the node is killed");
        stage.wait_for_messages(run.random_in(20..60)).await;
        stage.site.broker.node(leader).start_again().expect("the node starts again");
        stage.site.broker.wait_until_replicated().await;
    }
    stage.settle(Ending::Whole).await
}

/// Cuts off the leader. For a while it accepts messages that it cannot replicate, and must not
/// acknowledge them.
pub async fn leader_cut_off(run: &Run) -> Done {
    let stage = run.setting().with_cluster().open().await;
    for _ in 0..run.pick(1, 4) {
        stage.wait_for_messages(run.random_in(10..60)).await;
        let leader = stage.site.broker.find_leader("CDC").await;
        run.record_fault("the node that leads CDC cut off from the others, not from its clients");
        stage.site.broker.set_network_around(leader, Network::Silent);
        tokio::time::sleep(Duration::from_secs(run.pick(3, 30))).await;
        stage.load.wait_for_scripts(50).await;
        stage.site.broker.set_network_around(leader, Network::Good);
        stage.wait_for_messages(20).await;
        stage.site.broker.wait_until_replicated().await;
    }
    stage.settle(Ending::Whole).await
}

pub async fn rolling_restart(run: &Run) -> Done {
    let mut stage = run.setting().with_cluster().open().await;
    for _ in 0..run.pick(1, 4) {
        for node in 0..stage.site.broker.node_count() {
            run.record_fault("a node stopped and started again");
            stage.site.broker.node(node).stop().expect("the node stops");
            stage.load.wait_for_scripts(run.random_in(5..30)).await;
            stage.site.broker.node(node).start_again().expect("the node starts again");
            stage.site.broker.wait_until_replicated().await;
            stage.wait_for_messages(5).await;
        }
    }
    stage.settle(Ending::Whole).await
}
