//! Inserts, updates, deletes and truncates on tables of every shape reach both kinds of replica.

use std::sync::Arc;

use walgate_tests::{Database, Replica, Server, Site, on_each_postgres};

/// A site with both kinds of replica, of all its tables.
struct Both {
    _gateway: walgate_tests::Gateway,
    sqlite: Replica,
    postgres: Replica,
    tables: Vec<String>,
    // Dropped after the programs that write to them.
    _copy: Database,
    site: Site,
}

impl Both {
    async fn start(server: &Arc<Server>, sql: &str, tables: &[&str]) -> Both {
        let site = Site::new(server).await;
        let copy = Database::create(server).await;
        site.sql(sql).await;
        let gateway = site.gateway(tables).start().await;
        let sqlite = site.sqlite_replica(tables);
        let postgres = site.postgres_replica(&copy, tables);
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let both = Both { site, _gateway: gateway, sqlite, postgres, tables, _copy: copy };
        both.wait_until_equal().await;
        both
    }

    async fn wait_until_equal(&self) {
        for table in &self.tables {
            self.site.wait_until_equal(&self.sqlite, table).await;
            self.site.wait_until_equal(&self.postgres, table).await;
        }
    }

    /// Runs each script, then waits until both replicas equal the source.
    async fn check_scripts(&self, scripts: &[&str]) {
        for script in scripts {
            self.site.sql(script).await;
            self.wait_until_equal().await;
        }
    }
}

on_each_postgres! {
    async fn keys_of_every_kind(server) {
        let both = Both::start(
            &server,
            "create type color as enum ('red', 'green', 'blue');
             create table numbered (id bigint generated always as identity primary key, v text);
             create table composed (b int, v text, a text, primary key (a, b));
             create table by_uuid (id uuid primary key, v int);
             create table by_text (id text primary key, v int);
             create table by_enum (id color primary key, v int);
             create table by_time (id timestamptz primary key, d date, v numeric);
             create table by_bytes (id bytea primary key, v int);
             create table by_bool (id bool, n numeric, primary key (id, n));
             insert into numbered (v) values ('one'), ('two'), (null);
             insert into composed values (1, 'x', 'a'), (2, 'y', 'a'), (1, 'z', 'b');",
            &["numbered", "composed", "by_uuid", "by_text", "by_enum", "by_time", "by_bytes", "by_bool"],
        )
        .await;
        both.check_scripts(&[
            "insert into numbered (v) values ('three'); insert into by_uuid values (gen_random_uuid(), 1), (gen_random_uuid(), 2);
             insert into by_text values ('', 0), ('a''b', 1), ('日本 🦀', 2); insert into by_enum values ('green', 1), ('red', 2);
             insert into by_time values ('infinity', 'infinity', 'NaN'), ('2024-01-01 00:00:00.000001+00', '0044-01-01 BC', 1.50);
             insert into by_bytes values ('', 1), ('\\x00', 2), ('\\x0000', 3); insert into by_bool values (true, 1.0), (false, 1.0), (true, 'NaN');",
            "update numbered set v = coalesce(v, '') || '!'; update by_uuid set v = v + 1; update by_text set v = v + 10;
             update by_enum set v = 7 where id = 'red'; update by_time set v = v + 1; update by_bytes set v = -v;",
            // Updates of the key itself.
            "update composed set b = b + 10 where a = 'a'; update by_text set id = id || 'x'; update by_enum set id = 'blue' where id = 'red';
             update by_time set id = id + interval '1 day' where id < 'infinity'; update by_bytes set id = id || '\\xff'; update by_bool set n = n + 1;",
            "update composed set a = case a when 'a' then 'c' else 'a' end;",
            "delete from numbered where v like 'o%'; delete from composed where a = 'c'; delete from by_uuid where v = 2;
             delete from by_text where id like 'a%'; delete from by_enum; delete from by_time where id = 'infinity';
             delete from by_bytes where v < -1; delete from by_bool where id;",
            "insert into by_enum values ('red', 5); update by_enum set v = 6; delete from by_enum; insert into by_enum values ('red', 8);",
            "truncate numbered, composed; insert into composed values (1, 'again', 'a');",
        ])
        .await;
    }

    async fn replica_identities(server) {
        let both = Both::start(
            &server,
            "create table full_keyed (id int primary key, v text, big text); alter table full_keyed replica identity full;
             create table indexed (id int primary key, code text not null, v text);
             create unique index indexed_code on indexed (code); alter table indexed replica identity using index indexed_code;
             create table index_only (code text not null, place int not null, v text);
             create unique index index_only_key on index_only (place, code); alter table index_only replica identity using index index_only_key;
             create table bag (v text, n numeric); alter table bag replica identity full;
             create table log (v text, at timestamptz);
             create table log_nothing (id int primary key, v text); alter table log_nothing replica identity nothing;
             insert into bag values ('twice', 1.0), ('twice', 1.0), (null, null), (null, null);
             insert into log values ('seeded', now()), ('seeded', '2024-01-01');",
            &["full_keyed", "indexed", "index_only", "bag", "log", "log_nothing"],
        )
        .await;
        both.check_scripts(&[
            "insert into full_keyed values (1, 'a', repeat('x', 10)), (2, 'b', null); insert into indexed values (1, 'one', 'x'), (2, 'two', 'y');
             insert into index_only values ('a', 1, 'x'), ('a', 2, 'y'); insert into bag values ('twice', 1.00), ('', 'NaN');
             insert into log values ('same', '2024-01-01'), ('same', '2024-01-01'); insert into log_nothing values (1, 'x'), (2, null);",
            "update full_keyed set v = v || '1'; update indexed set v = v || '1'; update index_only set v = 'z' where place = 2;",
            "update full_keyed set id = id + 10; update indexed set code = code || '!' where id = 1; update indexed set id = 30 where id = 2;
             update index_only set place = place + 5;",
            // Changes of one of several equal rows.
            "delete from bag where ctid = (select min(ctid) from bag where v = 'twice'); delete from bag where ctid = (select min(ctid) from bag where v is null);",
            "update bag set n = 2 where ctid = (select min(ctid) from bag where v = 'twice');",
            "update bag set v = 'all the same', n = 0;",
            "delete from bag where ctid <> (select min(ctid) from bag);",
            "delete from full_keyed where id = 11; delete from indexed where id = 30; delete from index_only where place = 6;",
            "truncate log; insert into log values ('after', null);",
        ])
        .await;
    }

    async fn partitions_are_published_as_their_root(server) {
        let both = Both::start(
            &server,
            "create table events (id int, at date, v text, primary key (id, at)) partition by range (at);
             create table events_1 partition of events for values from ('2024-01-01') to ('2024-02-01');
             create table events_2 (v text, extra int, at date not null, id int not null, primary key (id, at));
             alter table events_2 drop column extra;
             alter table events attach partition events_2 for values from ('2024-02-01') to ('2024-03-01');
             create table events_rest partition of events default partition by hash (id);
             create table events_rest_0 partition of events_rest for values with (modulus 2, remainder 0);
             create table events_rest_1 partition of events_rest for values with (modulus 2, remainder 1);
             insert into events select i, date '2024-01-15' + i, 'seed ' || i from generate_series(1, 100) i;",
            &["events"],
        )
        .await;
        both.check_scripts(&[
            "insert into events select i, date '2024-01-01' + i, 'live ' || i from generate_series(200, 260) i;",
            "update events set v = v || '!' where id % 2 = 0;",
            // Moves from one partition to another.
            "update events set at = at + 40 where id < 30;",
            "delete from events where id % 5 = 0;",
            "create table events_3 partition of events for values from ('2030-01-01') to ('2031-01-01');
             insert into events values (1000, '2030-05-05', 'a new partition');",
            "truncate events; insert into events values (1, '2024-01-01', 'alone');",
        ])
        .await;
    }

    async fn unchanged_toast_stays(server) {
        let both = Both::start(
            &server,
            "create table docs (id int primary key, title text, body text, raw bytea);
             alter table docs alter body set storage external, alter raw set storage external;
             create table full_docs (id int, title text, body text); alter table full_docs replica identity full;
             alter table full_docs alter body set storage external;
             insert into docs select i, 'title ' || i, repeat('seeded ' || i, 2000), decode(repeat('00ff', 3000), 'hex') from generate_series(1, 5) i;
             insert into full_docs select i, 't', repeat('seeded ' || i, 2000) from generate_series(1, 3) i;",
            &["docs", "full_docs"],
        )
        .await;
        both.check_scripts(&[
            "insert into docs select i, 'title ' || i, repeat('live ' || i, 2000), decode(repeat('00ff', 3000), 'hex') from generate_series(6, 9) i;",
            "update docs set title = 'new ' || id; update full_docs set title = 'new ' || id;",
            "update docs set body = body || '!' where id % 2 = 0;",
            // The key changes; the large values are not sent.
            "update docs set id = id + 100; update full_docs set id = id + 100;",
            "update docs set body = null where id = 101; update docs set title = 'x' where id = 101; update docs set raw = '' where id = 102;",
            "begin; insert into docs values (500, 'one', repeat('y', 9000), null); update docs set title = 'two' where id = 500;
             update docs set title = 'three', id = 501 where id = 500; commit;",
            "delete from docs where id = 103; delete from full_docs where id = 102;",
        ])
        .await;
    }

    async fn generated_columns_and_defaults(server) {
        let both = Both::start(
            &server,
            "create table priced (id int generated by default as identity primary key, net numeric default 1.5,
               gross numeric generated always as (net * 1.19) stored, note text default 'none', at timestamptz default '2024-01-01');
             insert into priced (net) values (10), (20);",
            &["priced"],
        )
        .await;
        both.check_scripts(&[
            "insert into priced default values; insert into priced (net, note) values (7, null);",
            "update priced set net = net + 1;",
            "delete from priced where net > 20;",
        ])
        .await;
    }

    async fn transactions_of_every_form(server) {
        let both = Both::start(
            &server,
            "create table a (id int primary key, v int); create table b (id int primary key, a int references a deferrable initially deferred, v int);",
            &["a", "b"],
        )
        .await;
        both.check_scripts(&[
            "begin; insert into b values (1, 1, 1); insert into a values (1, 1); commit;",
            "begin; insert into a values (2, 2); savepoint s; insert into a values (3, 3); rollback to s; insert into a values (4, 4);
             savepoint t; update a set v = 40 where id = 4; release t; commit;",
            "begin; insert into a values (9, 9); rollback;",
            "begin; insert into a values (5, 5); prepare transaction 'walgate-test';",
            "commit prepared 'walgate-test'",
            "begin; update a set v = v + 1; delete from a where id = 2; insert into a values (2, 22); update a set id = 6 where id = 5; commit;",
            "begin; truncate a cascade; insert into a values (1, 100); insert into b values (1, 1, 100); commit;",
            "insert into a select i, i from generate_series(100, 20000) i;",
            "update a set v = -v where id > 100; delete from a where id % 3 = 0;",
        ])
        .await;
    }
}
