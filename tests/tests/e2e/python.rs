//! The consumer in Python, which was written from docs/PROTOCOL.md alone, against the real gateway.
//! Its copy equals the source after every event.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use walgate_tests::{
    Gateway, Replica, Site,
    dictionary::{drop_in, train_numbered},
    eventually, fixtures,
    load::Writer,
    on_newest_postgres, stream,
};
use walgate_wire::{DICT, PART};

const TABLES: [&str; 5] = ["orders", "sales.Order Lines", "bag", "docs", "users"];
/// Each table, and the view or table that its copy has to equal.
const COPIES: [(&str, &str); 5] = [
    ("orders", "orders"),
    ("sales.Order Lines", "sales.Order Lines"),
    ("bag", "bag"),
    ("docs", "docs"),
    ("admitted", "users"),
];

/// A table with a composite key, and one in another schema with names to quote. A table without a
/// key, one with rows above 1 MB whose values are out of line, and [`fixtures`].
const CREATE: &str = r#"
    create type color as enum ('red', 'green'); create type place as (street text, number int, since date);
    create table orders (shop int, id bigint, note text, total numeric(12,3), placed timestamptz, local timestamp, due date, at time,
      tags text[], sizes int[], prices numeric[], meta jsonb, raw bytea, ref uuid, paid bool, weight float8, half real, color color, place place, old_a int default 1, old_b text default 'b', old_c int default 3,
      primary key (id, shop));
    create schema sales;
    create table sales."Order Lines" (order_id bigint, "line no" int, what text, primary key (order_id, "line no"));
    create table bag (v text, n numeric, j json); alter table bag replica identity full;
    create table docs (id int primary key, title text, body text, raw bytea);
    alter table docs alter body set storage external, alter raw set storage external;
    insert into bag values ('twice', 1, '[1]'), ('twice', 1, '[1]'), (null, null, null);
    insert into docs select i, 'title ' || i, repeat(md5(i::text), 60000), decode(repeat(md5(i::text), 400), 'hex') from generate_series(1, 3) i;
    insert into orders (shop, id, note) select i % 3, -i, 'seeded' from generate_series(1, 30000) i;
    insert into orders (shop, id, placed, local, due, weight, half, total) values
      (9, -1, 'infinity', '-infinity', 'infinity', 'NaN', '-Infinity', 'NaN'), (9, -2, '0044-03-15 12:00:00+00 BC', '0044-03-15 BC', '0044-03-15 BC', -0.0, 0.1, 0);
"#;

/// One transaction over all the tables.
fn transaction_script(n: u64) -> String {
    let mut sql = format!(
        r#"begin;
        insert into orders select {n} % 3, {n}, 'order {n} 🦀', {n}.125, now(), localtimestamp, current_date, localtime,
          array['a', null, 'q"\{n}'], array[{n}, null], array[{n}.50, 'NaN'], '{{"n": [{n}, null, "é"]}}', '\x00ff', gen_random_uuid(),
          {n} % 2 = 0, {n} / 7.0, {n} / 7.0, 'green', '("street {n}, x",{n},2024-02-29)';
        insert into sales."Order Lines" select {n}, i, 'line ' || i from generate_series(1, {n} % 5) i;
        update orders set note = note || '+', shop = shop + 10 where id = {n} - 3;
        update docs set title = 'title {n}' where id = 1 + {n} % 3;
        insert into bag values ('n' || {n} % 4, {n}, '{{"b": 1, "a": {n}}}'), ('twice', 1, '[1]');
        delete from bag where ctid = (select min(ctid) from bag where v = 'twice');
        update bag set n = n::numeric + 1 where ctid = (select max(ctid) from bag where v = 'n' || {n} % 3);
        update users set country = (array['DE','FR','PL'])[1 + (id + {n}) % 3], phone = 'p{n}' where id % 50 = {n} % 50;
        insert into users (email, country) values ('live{n}@example.org', (array['DE','FR'])[1 + {n} % 2]);
        "#
    );
    if n.is_multiple_of(5) {
        sql += &format!(
            r#"delete from orders where id = {n} - 4; delete from sales."Order Lines" where order_id = {n} - 6;
               delete from users where id % 97 = {n} % 97;"#
        );
    }
    if n % 18 == 9 {
        sql += &format!(
            "update docs set body = (select string_agg(md5({n}::text || i), '') from generate_series(1, 90000) i) where id = 2;
             update docs set id = id where id = 2; delete from docs where id = 3; insert into docs (id, title, body) values (3, 'again', repeat('x', {n} * 20000));"
        );
    }
    if n % 40 == 39 {
        sql += r#"truncate sales."Order Lines";"#;
    }
    sql + if n.is_multiple_of(11) { "rollback;" } else { "commit;" }
}

/// A snapshot that begins meanwhile has to wait for this transaction, and then includes it. So
/// consumers get its changes twice.
fn long_transaction_script(n: u64) -> String {
    format!("begin; insert into bag values ('slow', {n}); select pg_sleep(0.2); commit;")
}

/// A site with its copy, its load, and the random times of kills.
struct Scene {
    site: Site,
    replica: Replica,
    writer: Writer,
    slow: Writer,
    random: SmallRng,
}

impl Scene {
    /// Kills the consumer at random moments, `times` times.
    async fn kill_repeatedly(&mut self, times: u32) {
        for _ in 0..times {
            let (writes, more) =
                (self.random.random_range(0..6), self.random.random_range(0..1200));
            self.writer.wait_for_scripts(writes).await;
            // Also between two transactions of the load.
            tokio::time::sleep(Duration::from_millis(more)).await;
            self.replica.kill9();
            self.writer.wait_for_scripts(self.random.random_range(0..4)).await;
            self.replica.start_again();
        }
    }

    /// Alters tables while the load is held, because its statements name some of the columns.
    async fn run_ddl(&mut self, ddl: &str) {
        self.writer.hold().await;
        self.slow.hold().await;
        self.site.sql(ddl).await;
        self.site
            .sql(
                "insert into orders (shop, id) select 70, min(id) - 1 from orders; insert into bag (v) values ('new');
                 insert into docs (id, title) select max(id) + 1, 'new' from docs; update orders set shop = 71 where shop = 70",
            )
            .await;
        self.writer.resume();
        self.slow.resume();
    }

    /// Holds the load. `--until-caught-up` succeeds; then the copy has to equal the source without
    /// waiting.
    async fn assert_caught_up(&mut self) {
        self.writer.hold().await;
        self.slow.hold().await;
        let end = self.site.database.value("select pg_current_wal_lsn()").await.parse().unwrap();
        stream::wait_for_end(&self.site.broker, end).await;
        let status = self.replica.run_until_ended(&["--until-caught-up"]);
        assert!(status.success(), "{status}: {}", self.replica.log());
        for (source, copy) in COPIES {
            if let Err(difference) =
                self.site.find_differences_as(&self.replica, source, copy).await
            {
                panic!("{copy} is not {source}: {difference}");
            }
        }
        self.replica.start_again();
        self.writer.resume();
        self.slow.resume();
    }

    /// Drops the slot, so the gateway cannot know which changes the stream lacks.
    async fn force_new_epoch(&self, gateway: Gateway) -> Gateway {
        let before = stream::last_epoch(&self.site.broker).await;
        let options = gateway.stop();
        let drop_slot = format!("select pg_drop_replication_slot('{}')", self.site.slot());
        let session = self.site.database.open_session().await;
        eventually("the slot is free", async || {
            session.try_sql(&drop_slot).await.map_err(|e| e.to_string())
        })
        .await;
        self.site.sql("delete from orders where id % 7 = 0").await;
        let gateway = options.start().await;
        assert!(stream::last_epoch(&self.site.broker).await > before);
        gateway
    }
}

on_newest_postgres! {
    async fn a_consumer_written_from_the_protocol_document_alone(server) {
        let site = Site::new(&server).await;
        site.sql(CREATE).await;
        site.sql(&fixtures::create_users(3000)).await;
        site.drop_guest("users", "users.wasm");
        drop_in(&site.dictionaries(), "users", &train_numbered(1));
        let gateway = site.gateway(&TABLES).set_env("SNAPSHOT_CHUNK_BYTES", 65536).start().await;
        let Some(replica) = site.python_replica(&TABLES) else { return };
        let writer = Writer::start_paced(&site.database, Duration::from_millis(30), transaction_script).await;
        let slow = Writer::start(&site.database, long_transaction_script).await;
        let seed = rand::random();
        println!("seed {seed}");
        let mut scene = Scene { site, replica, writer, slow, random: SmallRng::seed_from_u64(seed) };
        scene.kill_repeatedly(6).await;
        scene.assert_caught_up().await;

        drop_in(&scene.site.dictionaries(), "orders", &train_numbered(2));
        drop_in(&scene.site.dictionaries(), "users", &train_numbered(3));
        scene.kill_repeatedly(2).await;
        // Columns are added, dropped and renamed: the copy follows in place, or is loaded again.
        scene
            .run_ddl("alter table orders add column late jsonb; alter table orders rename column old_a to x;
                  alter table orders rename column old_b to old_a; alter table orders rename column x to \"old b\"; alter table orders drop column old_c")
            .await;
        eventually("the new shape is followed", async || match scene.replica.log() {
            log if log.contains("orders: now at schema revision") => Ok(()),
            log => Err(log),
        })
        .await;
        for ddl in [
            "alter table docs drop column raw, add column raw text",
            "alter table orders add column old_c int default 3; alter table bag alter n type text",
        ] {
            scene.run_ddl(ddl).await;
            tokio::time::sleep(Duration::from_millis(scene.random.random_range(0..500))).await;
            scene.replica.start_again();
        }
        scene.assert_caught_up().await;

        let _gateway = scene.force_new_epoch(gateway).await;
        scene.kill_repeatedly(4).await;
        scene.assert_caught_up().await;
        scene.writer.finish().await;
        scene.slow.finish().await;
        // Asserts that the stream held the difficult cases.
        let messages = stream::read_messages(&scene.site.broker, "CDC").await;
        let some = |subject: &str, header: &str| {
            messages.iter().any(|m| m.subject == subject && m.headers.get(header).is_some())
        };
        assert!(some("cdc.users", DICT) && some("cdc.orders", DICT) && some("cdc.docs", PART));
    }
}
