//! NATS behind a slow network: many tables, and every request takes long.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use walgate_servers::NatsOptions;
use walgate_tests::{Broker, Site, eventually, on_newest_postgres, proxy::Network};

const TABLES: usize = 40;
/// A request and its reply take twice as long. A session sends at least two dozen requests in turn.
/// They take longer than the thirty seconds after which Postgres expects feedback.
const ONE_WAY: Duration = Duration::from_millis(1000);
/// The gateway's `wal_sender_timeout`.
const POSTGRES_WAITS: Duration = Duration::from_secs(30);

on_newest_postgres! {
    /// Opening a session takes longer than Postgres waits for feedback, and succeeds all the same.
    async fn a_session_may_open_slower_than_wal_sender_timeout(server) {
        let broker = Broker::start(NatsOptions::default()).await.behind_proxy().await;
        let site = Site::with_broker(&server, broker).await;
        let names: Vec<String> = (0..TABLES).map(|n| format!("t{n}")).collect();
        let mut sql = String::new();
        for name in &names {
            write!(sql, "create table {name} (id int primary key);").unwrap();
        }
        site.sql(&sql).await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let gateway = site.gateway(&names).start().await;
        // The gateway looks up the revisions that the last messages name, table by table.
        for name in &names {
            site.sql(&format!("insert into {name} values (1)")).await;
        }
        site.wait_until_equal(&site.sqlite_replica(&names[..1]), names[0]).await;

        let slot = site.slot();
        let holder = format!("select coalesce(active_pid, 0) from pg_replication_slots where slot_name = '{slot}'");
        let first = site.database.value(&holder).await;
        site.broker.set_network(Network::Slow(ONE_WAY));
        let began = Instant::now();
        site.sql(&format!("select pg_terminate_backend({first})")).await;
        let second = eventually("the next session holds the slot", async || {
            let pid = site.database.value(&holder).await;
            if pid == "0" || pid == first { Err(pid) } else { Ok(pid) }
        })
        .await;
        eventually("it streams", async || match gateway.log().matches(" streaming epoch").count() {
            2 => Ok(()),
            times => Err(format!("{times} times")),
        })
        .await;
        assert!(began.elapsed() > POSTGRES_WAITS, "it opened too fast to show anything");
        assert_eq!(site.database.value(&holder).await, second, "{}", gateway.log());
        site.broker.set_network(Network::Good);
        site.sql(&format!("insert into {} values (2)", names[0])).await;
        site.wait_until_equal(&site.sqlite_replica(&names[..1]), names[0]).await;
    }
}
