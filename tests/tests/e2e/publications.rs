//! A publication that an operator created: rows and columns outside of it are in no snapshot and in
//! no change. The oracle of row filters is a view; the oracle of columns reads the publication
//! itself.

use walgate_tests::{
    Database, Gateway, Replica, Site, eventually, on_each_postgres, on_newest_postgres, stream,
};

/// Waits until both copies of `table` equal `view`.
async fn wait_until_equal_to_view(site: &Site, copies: &[&Replica], view: &str, table: &str) {
    for copy in copies {
        let what = format!("{table} in {} is {view}", copy.target);
        eventually(what, async || site.find_differences_as(copy, view, table).await).await;
    }
}

/// Uncompressed, so that the test can search messages for unpublished values.
async fn start_uncompressed(site: &Site, tables: &[&str]) -> Gateway {
    site.gateway(tables).set_env("COMPRESSION_ENABLED", false).start().await
}

async fn assert_nowhere(site: &Site, secret: &str) {
    for name in ["CDC", "INIT", "KV_schemas"] {
        for message in stream::read_messages(&site.broker, name).await {
            let found =
                message.payload.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
            assert!(!found, "{secret} is in {name}: {message:?}");
        }
    }
}

on_each_postgres! {
    async fn column_lists_and_row_filters(server) {
        let site = Site::new(&server).await;
        let database = Database::create(&server).await;
        site.sql(
            "create table people (id int, region text, note text, secret text default 'my secret', more text default 'my secret', primary key (id, region));
             create table whole (id int primary key, v text, active boolean); alter table whole replica identity full;
             create view people_published as select region, id, note from people where region <> 'hidden';
             create view whole_published as select * from whole where active;
             create publication walgate for table people (id, note, region) where (region <> 'hidden'), whole where (active);
             insert into people (id, region, note) select i, (array['north', 'hidden', 'south'])[1 + i % 3], 'seeded ' || i from generate_series(1, 300) i;
             insert into people (id, region, note) values (1000, 'hidden', 'my secret');
             insert into whole select i, 'seeded', i % 2 = 0 from generate_series(1, 50) i;",
        )
        .await;
        let _gateway = start_uncompressed(&site, &["people", "whole"]).await;
        let sqlite = site.sqlite_replica(&["people", "whole"]);
        let postgres = site.postgres_replica(&database, &["people", "whole"]);
        let same = async || {
            wait_until_equal_to_view(&site, &[&sqlite, &postgres], "people_published", "people").await;
            wait_until_equal_to_view(&site, &[&sqlite, &postgres], "whole_published", "whole").await;
        };
        same().await;
        for script in [
            "insert into people (id, region, note) values (500, 'north', 'new'), (501, 'hidden', 'my secret'), (502, 'south', null);
             insert into whole values (100, 'in', true), (101, 'out', false)",
            // Only unpublished columns change.
            "update people set secret = 'my secret too', more = null where id < 20",
            // Rows enter the filter and leave it.
            "update people set region = 'west', note = 'came' where region = 'hidden' and id < 100; update people set region = 'hidden', note = 'my secret' where region = 'south' and id < 100;
             update whole set active = not active where id % 5 = 0; update whole set v = v || '!' where id % 4 = 0",
            "update people set id = id + 2000 where id % 7 = 0; delete from people where id % 5 = 0; delete from whole where id % 3 = 0",
            "alter table people add column later text default 'my secret'; insert into people (id, region, note) values (600, 'north', 'after'); update people set later = 'my secret' where id < 30",
            "truncate people, whole; insert into people (id, region, note) values (1, 'north', 'alone'), (2, 'hidden', 'my secret'); insert into whole values (1, 'a', true), (2, 'b', false)",
        ] {
            site.sql(script).await;
            same().await;
        }
        let late = site.sqlite_replica(&["people", "whole"]);
        wait_until_equal_to_view(&site, &[&late], "people_published", "people").await;
        wait_until_equal_to_view(&site, &[&late], "whole_published", "whole").await;
        let columns: Vec<_> = site.latest_schema("people").await.unwrap().columns.into_iter().map(|column| column.name).collect();
        assert_eq!(columns, ["id", "region", "note"]);
        assert_nowhere(&site, "my secret").await;
    }

    /// Postgres then refuses updates and deletes. Inserted rows have no key at consumers.
    async fn a_column_list_without_the_key(server) {
        let site = Site::new(&server).await;
        let database = Database::create(&server).await;
        site.sql(
            "create table t (id int primary key, v text, secret text default 'my secret');
             create view published as select v from t;
             create publication walgate for table t (v); insert into t values (1, 'twice'), (2, 'twice'), (3, null)",
        )
        .await;
        let _gateway = start_uncompressed(&site, &["t"]).await;
        let sqlite = site.sqlite_replica(&["t"]);
        let postgres = site.postgres_replica(&database, &["t"]);
        wait_until_equal_to_view(&site, &[&sqlite, &postgres], "published", "t").await;
        let refused = site.database.open_session().await.try_sql("update t set v = 'x'").await;
        assert!(refused.unwrap_err().to_string().contains("db error"));
        site.sql("insert into t values (4, 'twice'), (5, 'new')").await;
        wait_until_equal_to_view(&site, &[&sqlite, &postgres], "published", "t").await;
        site.sql("truncate t; insert into t values (1, 'again'), (2, 'again')").await;
        wait_until_equal_to_view(&site, &[&sqlite, &postgres], "published", "t").await;
        assert!(site.latest_schema("t").await.unwrap().key.is_empty());
        assert_nowhere(&site, "my secret").await;
    }
}

on_newest_postgres! {
    /// Without `publish_generated_columns` the publication has no generated columns, unless a
    /// column list names one.
    async fn generated_columns_follow_the_publication(server) {
        let site = Site::new(&server).await;
        site.sql(
            "create table none (id int primary key, n int, twice int generated always as (n * 2) stored);
             create table listed (like none including all);
             create publication walgate for table none, listed (id, twice) with (publish_generated_columns = none);
             insert into none (id, n) select i, i from generate_series(1, 30) i; insert into listed (id, n) select i, i from generate_series(1, 30) i;",
        )
        .await;
        let _gateway = site.gateway(&["none", "listed"]).start().await;
        let replica = site.sqlite_replica(&["none", "listed"]);
        for script in ["select 1", "update none set n = -n where id < 9; update listed set n = -n where id < 9; delete from listed where id = 20", "insert into listed (id, n) values (100, 5)"] {
            site.sql(script).await;
            site.wait_until_equal(&replica, "none").await;
            site.wait_until_equal(&replica, "listed").await;
        }
        let names = async |table: &str| -> Vec<String> {
            site.latest_schema(table).await.unwrap().columns.into_iter().map(|column| column.name).collect()
        };
        assert_eq!((names("none").await, names("listed").await), (vec!["id".to_owned(), "n".to_owned()], vec!["id".to_owned(), "twice".to_owned()]));
    }
}
