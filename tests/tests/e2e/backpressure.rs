//! Waiting and blocked parts: operators can see them, and they block no more than they have to.

use std::sync::Arc;

use walgate_tests::{Gateway, Server, Site, eventually, on_each_postgres, on_newest_postgres};
use walgate_wire::TableState;

fn lag_ms(gateway: &Gateway) -> Result<f64, String> {
    let (_, body) = gateway.readyz()?;
    body["lag_ms"].as_f64().ok_or_else(|| body.to_string())
}

async fn wait_for_lag_above(gateway: &Gateway, ms: f64) {
    eventually(format!("it is behind by more than {ms} ms"), async || match lag_ms(gateway)? {
        lag if lag > ms => Ok(()),
        lag => Err(lag.to_string()),
    })
    .await;
}

async fn wait_until_caught_up(gateway: &Gateway) {
    eventually("it is not behind any more", async || match lag_ms(gateway)? {
        lag if lag < 500.0 => Ok(()),
        lag => Err(lag.to_string()),
    })
    .await;
}

/// `/readyz` names the obstacle as the reason why the gateway is not ready.
async fn wait_for_reason(gateway: &Gateway, word: &str) {
    eventually(format!("it waits for {word}"), async || match gateway.readyz()? {
        (503, body) if body["reason"].to_string().contains(word) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

on_newest_postgres! {
    async fn lag_grows_while_nats_is_paused(server) {
        let mut site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let gateway = site.gateway(&["t"]).start().await;
        site.sql("insert into t values (1)").await;
        wait_until_caught_up(&gateway).await;
        site.broker.server.pause().expect("paused");
        site.sql("insert into t values (2)").await;
        wait_for_lag_above(&gateway, 2000.0).await;
        wait_for_lag_above(&gateway, 4000.0).await;
        site.broker.server.resume().expect("resumed");
        wait_until_caught_up(&gateway).await;
    }

    /// As in a deployment that starts everything at once.
    async fn servers_may_come_up_after_the_gateway(server) {
        let own = Arc::new(Server::start(server.bin(), &[]));
        let mut site = Site::new(&own).await;
        site.sql("create table t (id int primary key); insert into t values (1)").await;
        own.process().stop_fast().expect("Postgres stops");
        site.broker.server.stop().expect("NATS stops");
        let gateway = site.gateway(&["t"]).spawn();
        wait_for_reason(&gateway, "Postgres at").await;
        let other = site.gateway(&["t"]).with_name("other").spawn();
        wait_for_reason(&other, "Postgres at").await;
        other.stop();
        own.process().start_again().expect("Postgres starts");
        wait_for_reason(&gateway, "NATS at").await;
        site.broker.server.start_again().expect("NATS starts");
        gateway.wait_until_ready().await;
        site.database.reconnect().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
    }

    async fn the_session_that_blocks_the_slot_is_reported(server) {
        let own = Arc::new(Server::start(server.bin(), &[]));
        let site = Site::new(&own).await;
        site.sql("create table t (id int primary key)").await;
        site.sql("begin; insert into t values (1); prepare transaction 'stays'").await;
        let gateway = site.gateway(&["t"]).spawn();
        wait_for_reason(&gateway, "stays").await;
        // The slot exists already, but its creation has not ended.
        let other = site.gateway(&["t"]).with_name("other").spawn();
        wait_for_reason(&other, "being created").await;
        site.sql("commit prepared 'stays'").await;
        eventually("one of them streams", async || match (gateway.readyz()?, other.readyz()?) {
            ((200, _), (503, _)) | ((503, _), (200, _)) => Ok(()),
            both => Err(format!("{both:?}")),
        })
        .await;
    }
}

on_each_postgres! {
    /// The dropped column's type is unknown when its last changes are read.
    async fn a_suspended_table_resumes_after_alter_table(server) {
        let site = Site::new(&server).await;
        site.sql("create type mood as enum ('ok'); create table t (id int primary key, m mood); create table u (id int primary key)").await;
        let gateway = site.gateway(&["t", "u"]).start().await;
        let replica = site.sqlite_replica(&["t", "u"]);
        site.wait_until_equal(&replica, "t").await;
        site.wait_until_equal(&replica, "u").await;
        gateway.program().pause();
        site.sql("insert into t values (1, 'ok'); alter table t drop column m; drop type mood; insert into u values (1)").await;
        gateway.program().resume();
        site.wait_until_equal(&replica, "u").await;
        assert!(gateway.log().contains("was dropped before its last changes were read"), "{}", gateway.log());
        site.sql("insert into t values (2)").await;
        site.wait_until_equal(&replica, "t").await;
        let (_, body) = gateway.readyz().expect("it answers");
        assert_eq!(body["tables"]["t"]["suspended"], serde_json::Value::Null, "{body}");
    }

    /// A long lock on one table, as in a migration, delays no other table, nor the start of a
    /// gateway.
    async fn a_locked_table_blocks_no_other_table(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); create table u (id int primary key);
                  create table p (id int primary key) partition by range (id); create table p1 partition of p default").await;
        site.drop_guest("identity", "t.wasm");
        let gateway = site.gateway(&["t", "u", "p"]).start().await;
        let replica = site.sqlite_replica(&["t", "u", "p"]);
        for table in ["t", "u", "p"] {
            site.wait_until_equal(&replica, table).await;
        }
        let options = gateway.stop();
        let migration = site.database.open_session().await;
        migration.sql("begin; lock table t, p in access exclusive mode").await;
        let _gateway = options.start().await;
        let schema = site.latest_schema("t").await.expect("a schema");
        assert!(schema.guest.is_some() && schema.state == TableState::Live, "{schema:?}");
        site.sql("insert into u values (1)").await;
        site.wait_until_equal(&replica, "u").await;
        migration.sql("insert into t values (1, 'x'); insert into p values (1); commit").await;
        site.wait_until_equal(&replica, "t").await;
        site.wait_until_equal(&replica, "p").await;
    }

    /// While ALTER TABLE waits for an old reader, rows of that table and of others keep streaming.
    async fn a_waiting_alter_table_blocks_no_rows(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); create table u (id int primary key)").await;
        let _gateway = site.gateway(&["t", "u"]).start().await;
        let replica = site.sqlite_replica(&["t", "u"]);
        site.wait_until_equal(&replica, "t").await;
        site.wait_until_equal(&replica, "u").await;
        let (reader, writer, owner) =
            (site.database.open_session().await, site.database.open_session().await, site.database.open_session().await);
        reader.sql("begin; select * from t").await;
        writer.sql("begin; insert into t values (1, 'before')").await;
        let alter = async { owner.sql("alter table t add column w text").await };
        let rest = async {
            let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter table t %'";
            eventually("the ALTER waits", async || match site.database.value(waiting).await.as_str() {
                "1" => Ok(()),
                other => Err(other.to_owned()),
            })
            .await;
            // These are the first rows of t in this session, so the gateway has to look up its
            // shape.
            writer.sql("commit; insert into u values (1)").await;
            site.wait_until_equal(&replica, "u").await;
            assert_eq!(site.database.value(waiting).await, "1", "it has not waited long enough");
            reader.sql("commit").await;
        };
        futures::join!(alter, rest);
        site.sql("insert into t values (2, 'after', 'w')").await;
        site.wait_until_equal(&replica, "t").await;
        site.wait_until_equal(&replica, "u").await;
    }
}
