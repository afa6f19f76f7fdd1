//! Other clients write to the gateway's streams and buckets, with rights that they should not have.
//! Nothing is lost, and the damage can be undone.

use async_nats::HeaderMap;
use walgate_tests::{Broker, Site, eventually, on_newest_postgres};

on_newest_postgres! {
    /// The stream rejects a publish that does not follow the gateway's last message. In the same
    /// way it rejects a second gateway.
    async fn a_foreign_message_is_noticed_and_can_be_removed(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); insert into t values (1)").await;
        let gateway = site.gateway(&["t"]).start().await;
        let ack = site.broker.jetstream().publish("cdc.t", "not ours".into()).await.unwrap().await.unwrap();
        site.sql("insert into t values (2)").await;
        eventually("it is noticed", async || {
            let log = gateway.log();
            let is_logged = log.contains("another gateway wrote to the stream") && log.contains("something else writes to cdc.>");
            if is_logged { Ok(()) } else { Err(log) }
        })
        .await;
        let stream = site.broker.jetstream().get_stream("CDC").await.unwrap();
        stream.delete_message(ack.sequence).await.unwrap();
        gateway.wait_until_ready().await;
        site.sql("insert into t values (3)").await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
    }

    /// In a cluster the server may store what follows a foreign message that comes between two
    /// messages in flight. Then a new epoch begins. Otherwise the foreign message has to be
    /// deleted.
    async fn a_foreign_message_in_a_cluster_loses_nothing(server) {
        let site = Site::with_broker(&server, Broker::cluster().await).await;
        site.sql("create table t (id int primary key, v text); insert into t values (0, '')").await;
        let gateway = site.gateway(&["t"]).set_env("NATS_REPLICAS", 3).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        let jetstream = site.broker.jetstream();
        let cdc = jetstream.get_stream("CDC").await.unwrap();
        let rows = site.sql("insert into t select i, repeat('x', 200) from generate_series(1, 30000) i");
        let foreign = async { jetstream.publish("cdc.elsewhere", "not ours".into()).await.unwrap().await.unwrap() };
        let (_, foreign) = futures::join!(rows, foreign);
        eventually("it is noticed", async || {
            let log = gateway.log();
            if log.contains("something else writes to cdc.>") {
                let _ = cdc.delete_message(foreign.sequence).await;
                return Ok(());
            }
            if log.contains("somebody else wrote to the CDC stream") { Ok(()) } else { Err(log) }
        })
        .await;
        site.wait_until_equal(&replica, "t").await;
    }

    /// All gateways may end before one of them notices.
    async fn an_old_gap_begins_a_new_epoch(server) {
        let site = Site::with_broker(&server, Broker::cluster().await).await;
        site.sql("create table t (id int primary key); insert into t values (1)").await;
        let gateway = site.gateway(&["t"]).set_env("NATS_REPLICAS", 3).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        let gateway = gateway.kill9();
        let jetstream = site.broker.jetstream();
        let cdc = jetstream.get_stream("CDC").await.unwrap();
        let last = cdc.get_last_raw_message_by_subject("cdc.=progress").await.unwrap();
        assert!(last.headers.get("Wg-Chain").is_some(), "{:?}", last.headers);
        jetstream.publish("cdc.elsewhere", "not ours".into()).await.unwrap().await.unwrap();
        let behind: HeaderMap = ["Wg-Pos", "Wg-Chain"]
            .map(|name| (name.parse().unwrap(), last.headers.get(name).unwrap().clone()))
            .into_iter()
            .collect();
        let sent = jetstream.publish_with_headers(last.subject.to_string(), behind, last.payload);
        sent.await.unwrap().await.unwrap();
        site.sql("insert into t values (2)").await;
        let gateway = gateway.start().await;
        site.wait_until_equal(&replica, "t").await;
        let reports = |log: String| log.matches("somebody else wrote to the CDC stream").count();
        let noticed = reports(gateway.log());
        assert!(noticed > 0, "{}", gateway.log());
        let gateway = gateway.kill9().start().await;
        site.sql("insert into t values (3)").await;
        site.wait_until_equal(&replica, "t").await;
        assert_eq!(reports(gateway.log()), noticed, "once is enough: {}", gateway.log());
    }

    /// As with `nats kv del`.
    async fn a_deleted_schema_is_published_again(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); insert into t values (1)").await;
        let gateway = site.gateway(&["t"]).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        let jetstream = site.broker.jetstream();
        let deleted = jetstream.publish_with_headers("$KV.schemas.t", headers, "".into()).await;
        deleted.unwrap().await.unwrap();
        site.sql("alter table t add column v text; insert into t values (2, 'x')").await;
        site.wait_until_equal(&replica, "t").await;
        gateway.wait_until_ready().await;
        assert!(site.latest_schema("t").await.is_some_and(|schema| schema.columns.len() == 2));
    }
}
