//! The WAL that the slot holds back stays within the operator's budget. Tables that were shed for
//! it come back.

use std::time::{Duration, Instant};

use serde_json::Value;
use walgate_tests::{Gateway, Site, eventually, on_newest_postgres};

/// A statement that writes more WAL than any budget here.
const WRITE: &str =
    "insert into u select n, repeat(md5(n::text), 20) from generate_series(1, 20000) n";

async fn wait_for_pressure(gateway: &Gateway, pressure: &str) -> Value {
    eventually(format!("the pressure is {pressure}"), async || {
        let (_, body) = gateway.readyz()?;
        let wal = &body["wal"];
        if wal["pressure"] == pressure { Ok(wal.clone()) } else { Err(wal.to_string()) }
    })
    .await
}

on_newest_postgres! {
    async fn tables_are_shed_while_the_stream_is_behind_and_come_back(server) {
        let mut site = Site::new(&server).await;
        site.sql("create table t (id int primary key); create table u (id int primary key, v text)").await;
        let gateway = site.gateway(&["t", "u"]).set_env("POSTGRES_WAL_BUDGET", "4MiB").with_keys("t", "shed = true");
        let gateway = gateway.start().await;
        let replica = site.sqlite_replica(&["t", "u"]);
        site.wait_until_equal(&replica, "t").await;
        site.wait_until_equal(&replica, "u").await;
        site.broker.server.pause().expect("paused");
        site.sql(WRITE).await;
        wait_for_pressure(&gateway, "shedding").await;
        site.sql("insert into t select generate_series(1, 1000)").await;
        site.broker.server.resume().expect("resumed");
        eventually("t is left out", async || match gateway.log() {
            log if log.contains("may be shed") => Ok(()),
            log => Err(log),
        })
        .await;
        site.wait_until_equal(&replica, "u").await;
        // Postgres removes WAL at its next checkpoint.
        site.sql("checkpoint").await;
        wait_for_pressure(&gateway, "calm").await;
        site.sql("insert into t values (0)").await;
        site.wait_until_equal(&replica, "t").await;
        let (_, body) = gateway.readyz().expect("it answers");
        assert_eq!(body["tables"]["t"]["suspended"], Value::Null, "{body}");
    }

    async fn an_open_transaction_is_named_and_snapshots_still_end(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); create table u (id int primary key, v text)").await;
        let gateway = site.gateway(&["t", "u"]).set_env("POSTGRES_WAL_BUDGET", "4MiB").with_keys("t", "shed = true");
        let gateway = gateway.start().await;
        let holder = site.database.open_session().await;
        holder.sql("begin; insert into t values (1)").await;
        site.sql(WRITE).await;
        site.sql("checkpoint").await;
        let wal = wait_for_pressure(&gateway, "throttled").await;
        assert!(wal["retained_bytes"].as_u64() > Some(4 << 20), "{wal}");
        eventually("the log has a warning", async || match gateway.log() {
            log if log.contains("a transaction that is still open") => Ok(()),
            log => Err(log),
        })
        .await;
        holder.sql("commit").await;
        let replica = site.sqlite_replica(&["t", "u"]);
        site.wait_until_equal(&replica, "u").await;
        site.wait_until_equal(&replica, "t").await;
    }

    async fn a_gateway_that_waits_for_nats_stops_when_asked(server) {
        let mut site = Site::new(&server).await;
        site.sql("create table u (id int primary key, v text)").await;
        let gateway = site.gateway(&["u"]).start().await;
        let replica = site.sqlite_replica(&["u"]);
        site.wait_until_equal(&replica, "u").await;
        site.broker.server.pause().expect("paused");
        site.sql(WRITE).await;
        let asked = Instant::now();
        let again = gateway.stop();
        // Not a claim about speed: the servers' own timeouts are longer.
        assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
        site.broker.server.resume().expect("resumed");
        let _gateway = again.start().await;
        site.wait_until_equal(&replica, "u").await;
    }
}
