//! Tables and columns of any name, aliases, and the names that consumers see.

use walgate_tests::{Audit, Database, Site, on_each_postgres};

on_each_postgres! {
    async fn odd_names_everywhere(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql(
            "create schema sales; create schema \"odd.schema\"; create schema \"日本\";
             create table sales.orders (id int primary key, v text);
             create table \"odd.schema\".\"odd \"\"table\" (\"Id\" int primary key, \"a b\" text, \"q\"\"uote\" text, \"select\" int, \"é🦀\" text);
             create table \"日本\".\"テーブル\" (id int primary key, v text);
             create table \"Upper\" (\"ID\" int primary key, v text);
             create table \"with space\" (id int primary key, v text);
             create table users (id int primary key, v text);
             insert into sales.orders values (1, 'seed'); insert into \"Upper\" values (1, 'seed');",
        )
        .await;
        let tables = ["sales.orders", "\"odd.schema\".\"odd \"\"table\"", "\"日本\".テーブル", "Upper", "with space", "users"];
        let tokens = [
            "sales=2Eorders",
            "=22odd=2Eschema=22=2E=22odd=20=22=22table=22",
            "=E6=97=A5=E6=9C=AC=2E=E3=83=86=E3=83=BC=E3=83=96=E3=83=AB",
            "Upper",
            "with=20space",
            "users",
        ];
        let _gateway = site.gateway(&tables).start().await;
        let audit = Audit::begin(&site.database).await;
        let sqlite = site.sqlite_replica(&tables);
        let postgres = site.postgres_replica(&copy, &tables);
        site.sql(
            "begin; insert into sales.orders values (2, 'x'); insert into \"odd.schema\".\"odd \"\"table\" values (1, 'a', 'b', 3, 'c');
             insert into \"日本\".\"テーブル\" values (1, '行'); insert into \"Upper\" values (2, 'U'); insert into \"with space\" values (1, 's');
             insert into users values (1, 'u'); commit;
             update sales.orders set v = v || '!'; update \"odd.schema\".\"odd \"\"table\" set \"Id\" = 2, \"é🦀\" = 'd'; delete from users",
        )
        .await;
        for table in tables {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
        let pairs: Vec<_> = tables.into_iter().zip(tokens).collect();
        audit.assert_stream_is_exact(&site, &pairs).await;
        for (table, token) in pairs {
            assert!(site.latest_schema(token).await.is_some(), "{table} is under {token}");
        }
    }

    async fn an_alias_is_the_published_name(server) {
        let site = Site::new(&server).await;
        site.sql("create schema internal; create table internal.tbl_0042 (id int primary key, v text); insert into internal.tbl_0042 values (1, 'x')").await;
        let _gateway = site.gateway(&[]).with_alias("internal.tbl_0042", "customers").start().await;
        let audit = Audit::begin(&site.database).await;
        site.sql("insert into internal.tbl_0042 values (2, 'y')").await;
        audit.assert_stream_is_exact(&site, &[("internal.tbl_0042", "customers")]).await;
        assert_eq!(site.take_snapshot("customers").await.rows.len(), 2);
        assert!(site.latest_schema("internal=2Etbl_0042").await.is_none());
    }
}
