//! DDL while changes are streamed: replicas follow, and no row is read with the wrong shape.

use walgate_tests::{Audit, Database, Site, eventually, load::Writer, on_each_postgres, stream};
use walgate_wire::TableState;

on_each_postgres! {
    /// The stream does not announce a dropped table, nor an unpublished table that takes its name.
    async fn a_recreated_table_is_another_table(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); insert into t values (1, 'first'), (2, 'first')").await;
        let _gateway = site.gateway(&["t"]).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        let suspended = async |words: &str| {
            eventually("consumers are notified", async || match site.latest_schema("t").await {
                Some(schema) if schema.state == TableState::Suspended && schema.reason.as_ref().is_some_and(|r| r.contains(words)) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        };
        // As in a migration that fills another table first.
        site.sql("create table t_next (id int primary key, v text); insert into t_next values (2, 'second'), (3, 'second');
                  alter table t rename to t_before; alter table t_next rename to t").await;
        suspended("ALTER PUBLICATION \"walgate\" ADD TABLE \"public\".\"t\"").await;
        site.sql("alter publication walgate add table t; insert into t values (4, 'second')").await;
        site.wait_until_equal(&replica, "t").await;
        site.sql("drop table t").await;
        suspended("does not exist").await;
        site.sql("create table t (id int primary key, v text); alter publication walgate add table t; insert into t values (5, 'third')").await;
        site.wait_until_equal(&replica, "t").await;
        // At once, and of the same shape: the catalog never lacks the name.
        site.sql("begin; drop table t; create table t (id int primary key, v text); alter publication walgate add table t; insert into t values (6, 'fourth'); commit").await;
        site.wait_until_equal(&replica, "t").await;
        site.sql("insert into t values (7, 'fourth')").await;
        site.wait_until_equal(&replica, "t").await;
    }

    /// Postgres does not announce the change. Rows of the new shape are read correctly, with a
    /// guest and without.
    async fn attributes_of_a_composite_are_added_and_dropped(server) {
        let site = Site::new(&server).await;
        site.sql("create type pair as (a int, b text); create table t (id int primary key, p pair); create table g (like t including all);
                  insert into t values (1, (1, 'x')); insert into g select * from t").await;
        site.drop_guest("identity", "g.wasm");
        let gateway = site.gateway(&["t", "g"]).start().await;
        let replica = site.sqlite_replica(&["t", "g"]);
        for (n, alter) in ["add attribute c date", "drop attribute a"].into_iter().enumerate() {
            for table in ["t", "g"] {
                site.sql(&format!("insert into {table} select {n} + 10, p from {table} where id = 1")).await;
                site.wait_until_equal(&replica, table).await;
            }
            site.sql(&format!("alter type pair {alter}")).await;
            for table in ["t", "g"] {
                site.sql(&format!("insert into {table} select {n} + 20, p from {table} where id = 1")).await;
                site.wait_until_equal(&replica, table).await;
            }
        }
        assert!(!gateway.log().contains("suspended"), "{}", gateway.log());
    }

    /// Existing rows look different afterwards: in columns of the type, of its arrays, and of types
    /// that contain it.
    async fn a_composite_is_altered_while_no_gateway_runs(server) {
        let site = Site::new(&server).await;
        site.sql("create type pair as (a int, b text); create domain listed as pair[]; create type outer_pair as (p pair, n int);
                  create table t (id int primary key, p pair); create table l (id int primary key, ps listed);
                  create table o (id int primary key, o outer_pair);
                  insert into t values (1, (1, 'x')); insert into l values (1, '{\"(1,x)\"}'); insert into o values (1, '(\"(1,x)\",1)')").await;
        let tables = ["t", "l", "o"];
        let mut gateway = site.gateway(&tables).start().await;
        let replica = site.sqlite_replica(&tables);
        for (n, alter) in ["add attribute c date", "drop attribute b", "rename attribute a to z", "drop attribute c, add attribute d date"].into_iter().enumerate() {
            for table in tables {
                site.wait_until_equal(&replica, table).await;
            }
            let stopped = gateway.stop();
            site.sql(&format!("alter type pair {alter}")).await;
            gateway = stopped.start().await;
            // The gateway looks up types with the first row.
            for table in tables {
                site.sql(&format!("insert into {table} (id) values ({n} + 10)")).await;
                site.wait_until_equal(&replica, table).await;
            }
        }
        // Each table is loaded again once, and none without need.
        let snapshots = |log: &str| log.matches("snapshot complete").count();
        let before = snapshots(&gateway.log());
        assert_eq!(before, 3 * 5, "{}", gateway.log());
        gateway = gateway.stop().start().await;
        for table in tables {
            site.sql(&format!("insert into {table} (id) values (100)")).await;
            site.wait_until_equal(&replica, table).await;
        }
        assert_eq!(snapshots(&gateway.log()), before, "{}", gateway.log());
    }

    /// No later row announces the change: the gateway sees it in the catalog.
    async fn rows_that_ddl_alters_are_loaded_again(server) {
        let site = Site::new(&server).await;
        site.sql("create type mood as enum ('sad', 'ok'); create type pair as (a int, b text); create type other as (a int, b text);
                  create table rewritten (id int primary key, a int); create table labelled (id int primary key, ms mood[]);
                  create table renamed (id int primary key, p pair); create table replaced (id int primary key, o other);
                  create table parted (id int primary key, a int) partition by range (id);
                  create table low partition of parted for values from (0) to (50); create table high partition of parted for values from (50) to (1000);
                  insert into rewritten select i, i from generate_series(1, 99) i; insert into parted select * from rewritten;
                  insert into labelled values (1, '{sad,ok}'); insert into renamed values (1, (1, 'x')); insert into replaced values (1, (1, 'x'))").await;
        let tables = ["rewritten", "labelled", "renamed", "replaced", "parted"];
        let gateway = site.gateway(&tables).start().await;
        let replica = site.sqlite_replica(&tables);
        for table in tables {
            site.wait_until_equal(&replica, table).await;
        }
        site.sql("alter table rewritten alter column a type int using a + 1; alter table parted alter column a type int using a * 2;
                  alter type mood rename value 'sad' to 'gloomy'; alter type pair rename attribute b to z;
                  alter type other drop attribute b, add attribute c text").await;
        for table in tables {
            site.wait_until_equal(&replica, table).await;
        }
        // Rows are read with the current types.
        site.sql("insert into renamed values (2, (2, 'y')); insert into replaced values (2, (2, 'y')); insert into labelled values (2, '{gloomy}')").await;
        for table in tables {
            site.wait_until_equal(&replica, table).await;
        }
        // DDL that does not alter published rows, except for the last statement. Tables loaded
        // after that one show which were not loaded before.
        for harmless in [
            "alter type mood add value 'fine' before 'ok'", "alter table renamed add column late text; insert into renamed (id) values (3)", "create index on replaced (id)",
            "vacuum full rewritten", "alter table labelled alter column ms set not null", "create table more partition of parted for values from (1000) to (2000)",
        ] {
            site.sql(harmless).await;
        }
        site.sql("alter table parted alter column a type int using a + 7").await;
        for table in tables {
            site.wait_until_equal(&replica, table).await;
        }
        let log = gateway.log();
        let snapshots = tables.map(|table| log.matches(&format!("snapshot complete table={table} ")).count());
        assert_eq!(snapshots, [2, 2, 2, 2, 3], "{log}");
        assert!(!log.contains("suspended"), "{log}");
    }

    /// Each step is tested alone, with rows in flight before and after it.
    async fn columns_are_added_and_dropped(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql("create table t (id int primary key, a int, b text, c numeric); insert into t select i, i, 'b' || i, i from generate_series(1, 50) i").await;
        let _gateway = site.gateway(&["t"]).start().await;
        let audit = Audit::begin(&site.database).await;
        let sqlite = site.sqlite_replica(&["t"]);
        let postgres = site.postgres_replica(&copy, &["t"]);
        site.wait_until_equal(&sqlite, "t").await;
        site.wait_until_equal(&postgres, "t").await;
        let ddl = [
            "alter table t add column nullable text",
            "alter table t add column filled int default 7",
            "alter table t add column stamped timestamptz not null default now()",
            "alter table t drop column c",
            "alter table t rename column b to \"B with space\"",
            "alter table t alter column a type bigint",
            "alter table t alter column a type text using 'was ' || a",
            "alter table t alter column filled type numeric(10,2)",
            // Two columns exchange their names.
            "alter table t rename column nullable to x; alter table t rename column filled to nullable; alter table t rename column x to filled",
            // A column is dropped, and another of its name is added.
            "alter table t drop column filled; alter table t add column filled boolean",
            "alter table t drop column nullable, drop column stamped, add column late jsonb",
            // DDL without an effect on published rows.
            "create index on t (a); create table unrelated (id int); alter table t alter column a set default 'd'",
        ];
        for (n, step) in ddl.into_iter().enumerate() {
            let first = 1000 * (n + 1);
            site.sql(&format!("insert into t (id) select i from generate_series({first}, {first} + 20) i; update t set a = '1{n}' where id % 3 = 0")).await;
            site.sql(step).await;
            site.sql(&format!("insert into t (id) values ({first} - 1); delete from t where id = {first} + 5; update t set a = '2{n}' where id % 7 = 0")).await;
            site.wait_until_equal(&sqlite, "t").await;
            site.wait_until_equal(&postgres, "t").await;
        }
        // Reading asserts that each revision was stored before the first message that names it.
        let entries = audit.assert_stream_is_exact(&site, &[("t", "t")]).await;
        let mut revisions: Vec<_> = stream::changes(&entries).map(|change| change.schema_revision).collect();
        assert!(revisions.is_sorted(), "a later row never has an older shape");
        revisions.dedup();
        assert!(revisions.len() > 10, "{revisions:?}");
    }

    /// `walgate verify` does not accept a copy that lacks a column.
    async fn a_missing_column_is_a_difference(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); insert into t values (1, 'one')").await;
        let _gateway = site.gateway(&["t"]).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        let source = site.database.url();
        let target = replica.target.url();
        let verify = || walgate_tests::program::run("walgate", &["verify", "--source", &source, "--replica", &target]);
        assert!(verify().status.success());
        // Consumers follow with the first row of the new shape; there is none yet.
        site.sql("alter table t add column late text").await;
        let verified = verify();
        let report = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(!verified.status.success() && report.contains("column late"), "{verified:?}");
        site.sql("insert into t values (2, 'two', 'now')").await;
        site.wait_until_equal(&replica, "t").await;
        assert!(verify().status.success());
    }

    async fn the_key_changes(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql("create table t (id int primary key, code text not null, v int); insert into t select i, 'c' || i, i from generate_series(1, 20) i").await;
        let _gateway = site.gateway(&["t"]).start().await;
        let sqlite = site.sqlite_replica(&["t"]);
        let postgres = site.postgres_replica(&copy, &["t"]);
        for step in [
            "select 1",
            "alter table t drop constraint t_pkey, add primary key (code)",
            "alter table t replica identity full",
            "alter table t drop constraint t_pkey",
            "alter table t add primary key (id, code)",
            "alter table t replica identity default",
        ] {
            site.sql(step).await;
            site.sql("insert into t select max(id) + 1, 'n' || max(id), 0 from t; update t set v = v + 1 where id % 2 = 0; delete from t where id = (select min(id) from t)").await;
            site.wait_until_equal(&sqlite, "t").await;
            site.wait_until_equal(&postgres, "t").await;
        }
    }

    /// DDL inside a transaction with rows before and after it, while other sessions write.
    async fn ddl_under_load(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id bigint generated always as identity primary key, v text)").await;
        let _gateway = site.gateway(&["t"]).start().await;
        let audit = Audit::begin(&site.database).await;
        let sqlite = site.sqlite_replica(&["t"]);
        let writer = Writer::start(&site.database, |n| format!(
            "insert into t (v) values ('writer {n}'); update t set v = v || '+' where id = (select max(id) - {} from t)", n % 9
        )).await;
        for n in 0..12 {
            writer.wait_for_scripts(15).await;
            let default = if n % 3 == 0 { "default 5" } else { "" };
            site.sql(&format!(
                "begin; lock table t; insert into t (v) values ('before {n}'); alter table t add column c{n} int {default};
                 insert into t (v, c{n}) values ('after {n}', {n}); {} commit;",
                if n % 4 == 3 { format!("alter table t drop column c{};", n - 2) } else { String::new() },
            )).await;
        }
        writer.finish().await;
        // Postgres announces the last drop with the next row.
        site.sql("insert into t (v) values ('the last')").await;
        site.wait_until_equal(&sqlite, "t").await;
        audit.assert_stream_is_exact(&site, &[("t", "t")]).await;
    }

    async fn a_table_is_added_to_the_configuration(server) {
        let site = Site::new(&server).await;
        site.sql("create table old (id int primary key, v text); create table fresh (id int primary key, v text);
                  insert into old values (1, 'x'); insert into fresh select i, 'early' from generate_series(1, 100) i").await;
        let gateway = site.gateway(&["old"]).start().await;
        let audit = Audit::begin(&site.database).await;
        let replica = site.sqlite_replica(&["old"]);
        site.wait_until_equal(&replica, "old").await;
        site.sql("insert into old values (2, 'y'); insert into fresh values (200, 'not yet')").await;
        site.wait_until_equal(&replica, "old").await;
        let before = site.latest_schema("old").await;

        let options = gateway.stop();
        site.sql("insert into old values (3, 'while it was down'); insert into fresh values (201, 'still not')").await;
        let _gateway = options.with_table("fresh").start().await;
        site.sql("insert into old values (4, 'z'); insert into fresh values (202, 'now')").await;
        let both = site.sqlite_replica(&["old", "fresh"]);
        site.wait_until_equal(&both, "fresh").await;
        site.wait_until_equal(&both, "old").await;
        site.wait_until_equal(&replica, "old").await;
        assert_eq!(site.latest_schema("old").await, before, "the other table was not touched");
        audit.assert_stream_is_exact(&site, &[("old", "old"), ("fresh", "fresh")]).await;
    }

    async fn a_table_is_dropped_and_comes_back(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); create table u (id int primary key); insert into t values (1, 'x')").await;
        let _gateway = site.gateway(&["t", "u"]).start().await;
        let replica = site.sqlite_replica(&["t", "u"]);
        site.wait_until_equal(&replica, "t").await;
        site.sql("drop table t; insert into u values (1)").await;
        site.wait_until_equal(&replica, "u").await;
        site.sql("create table t (id int primary key, w int); insert into t values (5, 6); alter publication walgate add table t; insert into t values (6, 7)").await;
        site.sql("insert into u values (2)").await;
        site.wait_until_equal(&replica, "u").await;
        eventually("the new table is there", async || site.find_differences(&replica, "t").await).await;
    }
}
