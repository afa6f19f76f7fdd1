//! Objects that the owner of a copy in Postgres builds on its tables. They stay if the source's new
//! shape allows. Otherwise the consumer names the blocking object and waits for its removal.

use walgate_tests::{Database, Gateway, Replica, Server, Site, eventually, on_each_postgres};

const TABLE: &str = "
    create table t (id int primary key, a int, b text, c text, d int);
    insert into t select i, i, 'b' || i, 'c' || i, i from generate_series(1, 200) i";

/// Objects on the copy; none of them depends on the column `a`.
const BUILT: &str = "
    create view shown as select id, b from t;
    create index by_b on t (b);
    create table heard (op text);
    create function hear() returns trigger language plpgsql as $$ begin insert into heard values (tg_op); return null; end $$;
    create trigger ears after insert or delete on t for each statement execute function hear();
    comment on table t is 'ours';
    grant select on t to public";

/// Lists all of them, if they exist.
const THERE: &str = "
    select concat_ws(', ',
      (select 'view' from pg_views where viewname = 'shown'),
      (select 'index' from pg_indexes where indexname = 'by_b'),
      (select 'trigger' from pg_trigger where tgname = 'ears'),
      (select 'comment' where obj_description('t'::regclass) = 'ours'),
      (select 'grant' from information_schema.role_table_grants where table_name = 't' and grantee = 'PUBLIC'))";

struct Scene {
    _gateway: Gateway,
    replica: Replica,
    copy: Database,
    site: Site,
}

impl Scene {
    async fn new(server: &std::sync::Arc<Server>) -> Scene {
        let site = Site::new(server).await;
        let copy = Database::create(server).await;
        site.sql(TABLE).await;
        let gateway = site.gateway(&["t"]).start().await;
        let replica = site.postgres_replica(&copy, &["t"]);
        site.wait_until_equal(&replica, "t").await;
        copy.sql(BUILT).await;
        Scene { site, copy, replica, _gateway: gateway }
    }

    /// Alters the source. The copy has to follow, and the objects built on it have to stay.
    async fn assert_follows(&self, sql: &str) {
        self.site.sql(sql).await;
        self.site.wait_until_equal(&self.replica, "t").await;
        let there = self.copy.value(THERE).await;
        assert_eq!(there, "view, index, trigger, comment, grant", "{sql}");
        let rows = self.site.database.value("select count(*) from t").await;
        assert_eq!(self.copy.value("select count(*) from shown").await, rows);
    }

    /// Alters the source while `view` blocks the copy. The log has to name it; once it is dropped,
    /// the copy continues by itself.
    async fn assert_waits_for(&self, view: &str, sql: &str) {
        self.copy.sql(view).await;
        self.site.sql(sql).await;
        eventually("the blocking object is logged", async || match self.replica.log() {
            log if log.contains("view in_the_way depends on")
                && log.contains("\"public\".\"t\"")
                && log.contains("Drop that") =>
            {
                Ok(())
            }
            log => Err(log),
        })
        .await;
        // Readers still see the old rows, without waiting.
        assert_ne!(self.copy.value("select count(*) from in_the_way").await, "0");
        self.copy.sql("drop view in_the_way").await;
        self.assert_follows("select 1").await;
    }
}

on_each_postgres! {
    async fn dependents_survive_a_compatible_schema_change(server) {
        let scene = Scene::new(&server).await;
        for sql in [
            // Loaded again: a type, a default, the key.
            "alter table t alter a type text using 'was ' || a; insert into t values (1000, 'new', 'b', 'c')",
            "alter table t add column e int default 5; insert into t values (1001, 'new', 'b', 'c', 1, 6)",
            "alter table t drop constraint t_pkey, add primary key (id, b); update t set b = b || '!' where id < 9",
            "alter table t drop constraint t_pkey; alter table t replica identity full; alter table t alter id drop not null; alter table t alter b drop not null; insert into t (c) values ('no key')",
            "alter table t alter d type bigint, alter e type numeric; update t set d = 1 where id < 9",
            // Altered in place.
            "alter table t drop column d; insert into t (id, b) values (1002, 'after')",
        ] {
            scene.assert_follows(sql).await;
        }
        assert!(scene.copy.value("select count(*) from heard").await.parse::<u32>().unwrap() > 4);
    }

    /// The consumer does not exit: after that, a supervisor would have it load from the start
    /// again.
    async fn a_blocking_dependent_is_named_and_waited_for(server) {
        let scene = Scene::new(&server).await;
        let in_the_way = "create view in_the_way as select id, a from t";
        scene.assert_waits_for(in_the_way, "alter table t alter a type text using 'was ' || a; insert into t values (1000, 'new')").await;
        // Altered in place, without a load.
        scene.assert_waits_for("create view in_the_way as select id, c from t", "alter table t drop column c; insert into t values (1001, 'newer')").await;
        // After a restart the consumer meets the same view, and names it again.
        scene.assert_waits_for(in_the_way, "alter table t alter a type bytea using null; insert into t (id) values (1002)").await;
    }

    async fn a_blocked_consumer_stops_when_asked(server) {
        let mut scene = Scene::new(&server).await;
        scene.copy.sql("create view in_the_way as select id, a from t").await;
        scene.site.sql("alter table t alter a type text using 'was ' || a; insert into t values (1000, 'new')").await;
        let count_reports = |log: &str| log.matches("cannot take its new shape").count();
        eventually("the blocking object is logged", async || match scene.replica.log() {
            log if count_reports(&log) > 0 => Ok(()),
            log => Err(log),
        })
        .await;
        scene.replica.stop();
        let before = count_reports(&scene.replica.log());
        scene.replica.start_again();
        eventually("the blocking object is logged again", async || match scene.replica.log() {
            log if count_reports(&log) > before => Ok(()),
            log => Err(log),
        })
        .await;
        scene.copy.sql("drop view in_the_way").await;
        scene.assert_follows("select 1").await;
    }
}
