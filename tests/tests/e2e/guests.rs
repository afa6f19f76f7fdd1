//! Guests on the running gateway: the copy equals the rows that the guest keeps, whatever happens
//! to source or guest.
//!
//! The oracle is a view of the source that expresses the guest in SQL, or the guest itself, run
//! natively.

use std::time::Duration;

use walgate_tests::{
    Database, Gateway, Replica, Server, Site, eventually, fixtures, native::judge,
    on_each_postgres, on_newest_postgres,
};
use walgate_wire::{Schema, TableState};

async fn site_with_users(server: &std::sync::Arc<Server>) -> Site {
    let site = Site::new(server).await;
    site.sql("create table plain (id int primary key, v text)").await;
    site.sql(&fixtures::create_users(300)).await;
    site
}

/// Waits until the copy equals `view`.
pub async fn wait_until_equal_to_view(site: &Site, replica: &Replica, view: &str, table: &str) {
    let what = format!("{table} in the copy is {view}");
    eventually(what, async || site.find_differences_as(replica, view, table).await).await;
}

pub async fn state(site: &Site, token: &str, state: TableState) -> Schema {
    eventually(format!("{token} is {state:?}"), async || match site.latest_schema(token).await {
        Some(schema) if schema.state == state => Ok(schema),
        other => Err(format!("{:?}", other.map(|s| (s.state, s.reason)))),
    })
    .await
}

/// Waits until a snapshot is blocked by a full INIT.
pub async fn wait_until_stream_is_full(gateway: &Gateway) {
    eventually("the stream is full", async || {
        let log = gateway.log();
        if log.contains("publishing again") { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Rows enter and leave the filter, change their keys, and are deleted.
const MOVES: &str = "
    update users set country = (array['DE','FR','PL'])[1 + (id / 7 + random() * 3)::int % 3] where id % 4 = 0;
    update users set email = 'new' || email where id % 5 = 0;
    update users set id = id + 10000 where id % 11 = 0 and id < 10000;
    update users set about = repeat(md5(random()::text), 200) where id % 13 = 0;
    delete from users where id % 17 = 0;
    insert into users (email, country) select 'x' || i || '@example.com', (array['DE','FR'])[1 + i % 2]
      from generate_series(1, 40) i;";

on_each_postgres! {
    async fn published_rows_are_those_the_guest_accepts(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        let mut gateway = site.gateway(&["users", "plain"]).start().await;
        let sqlite = site.sqlite_replica(&["users"]);
        let database = Database::create(&server).await;
        let postgres = site.postgres_replica(&database, &["users"]);
        for identity in ["default", "full"] {
            site.sql(&format!("alter table users replica identity {identity}")).await;
            for _ in 0..3 {
                site.sql(MOVES).await;
                gateway = gateway.kill9().start().await;
                site.sql(MOVES).await;
            }
            wait_until_equal_to_view(&site, &sqlite, "admitted", "users").await;
            wait_until_equal_to_view(&site, &postgres, "admitted", "users").await;
            let native = site.run_guest_natively(judge::<users::users>, "users", "true").await;
            wait_until_equal_to_view(&site, &sqlite, &native, "users").await;
            wait_until_equal_to_view(&site, &postgres, &native, "users").await;
        }
        site.sql("truncate users").await;
        wait_until_equal_to_view(&site, &sqlite, "admitted", "users").await;
        let schema = site.latest_schema("users").await.unwrap();
        assert_eq!(schema.guest.unwrap().name, "users");
        assert!(schema.columns.iter().all(|column| column.name != "password_hash"));
    }

    /// Postgres does not send a value that an update leaves unchanged. A row that enters the filter
    /// is complete all the same.
    async fn rows_that_enter_the_filter_are_whole(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        site.sql("alter table users alter about set storage external;
            insert into users (id, email, country, about) select 1000 + i, 'e@x.org', 'FR', repeat('about', 2000) from generate_series(1, 5) i").await;
        let _gateway = site.gateway(&["users"]).start().await;
        let sqlite = site.sqlite_replica(&["users"]);
        let database = Database::create(&server).await;
        let postgres = site.postgres_replica(&database, &["users"]);
        wait_until_equal_to_view(&site, &sqlite, "admitted", "users").await;
        wait_until_equal_to_view(&site, &postgres, "admitted", "users").await;
        site.sql("update users set country = 'DE' where id > 1000").await;
        site.sql("update users set country = 'PL' where id = 1001; update users set id = 2002 where id = 1002").await;
        site.sql("update users set country = 'DE' where id = 1001").await;
        wait_until_equal_to_view(&site, &sqlite, "admitted", "users").await;
        wait_until_equal_to_view(&site, &postgres, "admitted", "users").await;
    }
}

on_newest_postgres! {
    /// Only the table holds a value that an update left unchanged, and another session has locked
    /// the table.
    async fn a_lookup_in_a_locked_table_blocks_no_other_table(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        site.sql("alter table users alter about set storage external;
            insert into users (id, email, country, about) values (1001, 'e@x.org', 'FR', repeat('about', 2000))").await;
        let gateway = site.gateway(&["users", "plain"]).start().await;
        let replica = site.sqlite_replica(&["users", "plain"]);
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        site.wait_until_equal(&replica, "plain").await;
        gateway.program().pause();
        site.sql("update users set country = 'DE' where id = 1001").await;
        let migration = site.database.open_session().await;
        migration.sql("begin; lock table users in access exclusive mode").await;
        site.sql("insert into plain values (1, 'flows')").await;
        gateway.program().resume();
        site.wait_until_equal(&replica, "plain").await;
        let schema = site.latest_schema("users").await.expect("a schema");
        assert!(schema.state == TableState::Suspended && schema.reason.as_ref().is_some_and(|r| r.contains("locked")), "{schema:?}");
        migration.sql("commit").await;
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
    }

    async fn guests_are_swapped_under_load(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        let gateway = site.gateway(&["users", "plain"]).with_keys("users", "on_guest_change = 'reseed'").start().await;
        let replica = site.sqlite_replica(&["users"]);
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        site.sql(MOVES).await;
        site.drop_guest("users_next", "users.wasm");
        site.sql(MOVES).await;
        wait_until_equal_to_view(&site, &replica, "admitted_next", "users").await;
        // Invalid files change nothing and are reported once.
        let good = walgate_tests::site::guest_bytes("users");
        for (n, bad) in [&b"no wasm"[..], &good[..good.len() / 2], b""].into_iter().enumerate() {
            site.drop_file(bad, "users.wasm");
            eventually("it is refused", async || match gateway.log().matches("guest refused").count() {
                count if count > n => Ok(()),
                count => Err(format!("{count} refusals")),
            })
            .await;
            site.sql(MOVES).await;
        }
        wait_until_equal_to_view(&site, &replica, "admitted_next", "users").await;
        site.drop_guest("users", "users.wasm");
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        assert_eq!(gateway.log().matches("guest refused").count(), 3, "{}", gateway.log());
    }

    async fn a_missing_guest_suspends_only_its_table(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        let gateway = site.gateway(&["users", "plain"]).start().await;
        let replica = site.sqlite_replica(&["users", "plain"]);
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        let file = site.folder().join("guests/users.wasm");
        std::fs::remove_file(&file).unwrap();
        let stopped = state(&site, "users", TableState::Suspended).await;
        assert!(stopped.reason.unwrap().contains("users.wasm is not there"));
        site.sql(MOVES).await;
        site.sql("insert into plain values (1, 'flows')").await;
        site.wait_until_equal(&replica, "plain").await;
        // The table does not stream after a restart, either, nor in a snapshot.
        let gateway = gateway.stop().start().await;
        site.sql(MOVES).await;
        site.sql("insert into plain values (2, 'flows')").await;
        site.wait_until_equal(&replica, "plain").await;
        state(&site, "users", TableState::Suspended).await;
        let late = site.sqlite_replica(&["users"]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let copy = walgate_tests::oracle::Copy::open(&late.target).await;
        assert_eq!(copy.count_rows("users").await.unwrap_or(0), 0);
        site.drop_guest("users", "users.wasm");
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        wait_until_equal_to_view(&site, &late, "admitted", "users").await;
        drop(gateway);
    }

    async fn an_optional_guest_may_be_removed(server) {
        let site = site_with_users(&server).await;
        site.drop_guest("users", "users.wasm");
        let keys = "guest_optional = true\non_guest_change = 'reseed'";
        let _gateway = site.gateway(&["users"]).with_keys("users", keys).start().await;
        let replica = site.sqlite_replica(&["users"]);
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        std::fs::remove_file(site.folder().join("guests/users.wasm")).unwrap();
        wait_until_equal_to_view(&site, &replica, "users", "users").await;
    }

    async fn without_a_key_whole_rows_are_filtered(server) {
        let site = Site::new(&server).await;
        site.sql("create table users (email text not null, country text not null, password_hash text, n int);
            alter table users replica identity full;
            create view admitted as select left(email, 1) || '***' || substr(email, position('@' in email)) email, country, n
              from users where country = 'DE'").await;
        site.drop_guest("users", "users.wasm");
        let _gateway = site.gateway(&["users"]).start().await;
        let replica = site.sqlite_replica(&["users"]);
        site.sql("insert into users select 'a' || i % 5 || '@x.org', (array['DE','FR'])[1 + i % 2], 'h', i % 3 from generate_series(1, 60) i").await;
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
        for n in 0..3 {
            site.sql(&format!("update users set country = 'DE' where n = {n} and country = 'FR' and ctid in (select ctid from users where n = {n} limit 9)")).await;
            site.sql(&format!("update users set country = 'PL', n = n + 1 where n = {n} and ctid in (select ctid from users where n = {n} limit 4)")).await;
            site.sql(&format!("delete from users where ctid in (select ctid from users where n = {n} limit 2)")).await;
        }
        wait_until_equal_to_view(&site, &replica, "admitted", "users").await;
    }

    /// `guests/assemblyscript`: a plain module, built without Rust.
    async fn a_guest_in_assemblyscript_filters_rows(server) {
        let Some(region) = walgate_tests::site::npm_guest_bytes("region") else {
            return println!("SKIPPED: there is no npm to build it with");
        };
        let site = Site::new(&server).await;
        site.sql("create table people (id int primary key, email text not null, country text, secret text, about text);
            create view admitted as select id, left(email, 1) || '***' || substr(email, position('@' in email)) email, country, about,
              octet_length(email) length from people where country = 'FR'").await;
        site.drop_file(&region, "people.wasm");
        let gateway = site.gateway(&["people"]).with_keys("people", "guest_params = { region = 'FR' }").start().await;
        let replica = site.sqlite_replica(&["people"]);
        site.sql("insert into people select i, 'p' || i || '@example.org', (array['DE','FR'])[1 + i % 2], 's' from generate_series(1, 5000) i").await;
        site.sql("update people set country = 'FR' where id % 7 = 0; update people set country = null where id % 5 = 0; delete from people where id % 11 = 0").await;
        wait_until_equal_to_view(&site, &replica, "admitted", "people").await;
        let late = site.sqlite_replica(&["people"]);
        wait_until_equal_to_view(&site, &late, "admitted", "people").await;
        drop(gateway);
    }

    /// The guest's table declares a domain's base type. So the gateway can refuse in advance a
    /// guest whose output the domain cannot hold.
    async fn a_domain_is_checked_by_its_base_type(server) {
        let site = Site::new(&server).await;
        site.sql("create domain small as int check (value < 1000); create domain large as bigint; create domain words as text;
            create domain key as bigint; create table t (id key primary key, n small, t words, secret text);
            create table u (id key primary key, n large, t words, secret text);
            create view leaving as select id, n, t, id + n total from t; insert into t values (1, 2, 'word'), (2, null, null)").await;
        let keys = "guest_params = { of = '1', kept_below = '1', failed_below = '0', masked_below = '0', blanked_below = '0' }";
        for file in ["t.wasm", "u.wasm"] {
            site.drop_guest("random_misbehaviour", file);
        }
        let _gateway = site.gateway(&["t", "u"]).with_keys("t", keys).with_keys("u", keys).start().await;
        let reason = state(&site, "u", TableState::Suspended).await.reason.unwrap();
        assert!(reason.contains("column n is bigint; the guest reads it as an i32"), "{reason}");
        let replica = site.sqlite_replica(&["t"]);
        site.sql("insert into t values (3, 4, 'more')").await;
        wait_until_equal_to_view(&site, &replica, "leaving", "t").await;
    }

    async fn columns_are_added_and_replaced(server) {
        let site = Site::new(&server).await;
        site.sql("create table orders (id bigint primary key, number text not null, quantity int not null, unit_price numeric(10,2) not null, placed_at timestamptz not null);
            create view leaving as select id, number, quantity, unit_price, date_trunc('hour', placed_at) placed_at, quantity * unit_price items_total
              from orders where number not like 'TEST-%'").await;
        site.drop_guest("orders", "orders.wasm");
        let _gateway = site.gateway(&["orders"]).start().await;
        let replica = site.sqlite_replica(&["orders"]);
        site.sql("insert into orders select i, case when i % 7 = 0 then 'TEST-' else 'WG-' end || i, i % 9, (i % 1000) / 100.0, now() - i * interval '17 min' from generate_series(1, 500) i").await;
        wait_until_equal_to_view(&site, &replica, "leaving", "orders").await;
        site.sql("update orders set quantity = quantity + 1, number = 'TEST-' || id where id % 10 = 0; alter table orders add note text").await;
        site.sql("create or replace view leaving as select id, number, quantity, unit_price, date_trunc('hour', placed_at) placed_at, quantity * unit_price items_total, note
              from orders where number not like 'TEST-%'; update orders set note = 'n' || id where id % 3 = 0; update orders set number = 'WG-' || id where id % 20 = 0").await;
        wait_until_equal_to_view(&site, &replica, "leaving", "orders").await;
        let native = site.run_guest_natively(judge::<orders::orders>, "orders", "true").await;
        wait_until_equal_to_view(&site, &replica, &native, "orders").await;
        // `walgate verify` applies the same guest.
        let verified = walgate_tests::program::run("walgate", &[
            "verify", "--source", &site.database.url(), "--replica", &replica.target.url(),
            "--config", &site.config().display().to_string(),
        ]);
        assert!(verified.status.success(), "{verified:?}");
    }
}
