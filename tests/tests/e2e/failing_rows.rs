//! Rows on which a guest fails: in tables with whole old rows, with and without a key; in such
//! numbers that the guest counts as broken; and in snapshots.

use walgate_tests::{Database, Replica, Site, eventually, on_newest_postgres};
use walgate_wire::TableState;

use crate::{
    guest_tools::{json_lines, run_expecting},
    guests::{state, wait_until_stream_is_full},
    misbehaviour::{
        Case, ERRS, LIES_ZERO, PANICS, TRAPS, create, create_plain, fix_guest, wait_for_log,
        wait_until_others_flow,
    },
};

/// Three kinds of failure: the guest rejects its row, its answer is invalid, or it fails the whole
/// batch.
const WAYS: [Case; 3] = [ERRS, LIES_ZERO, PANICS];

/// With replica identity FULL, a change holds the failing value twice.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Keyed,
    /// Each row exists twice.
    Keyless,
}

/// A table of this shape, and how its guest fails on it.
struct Failing {
    table: String,
    shape: Shape,
    case: Case,
}

impl Failing {
    async fn create(site: &Site, shape: Shape, case: Case) -> Failing {
        let (name, key) = match shape {
            Shape::Keyed => ("keyed", "primary key"),
            Shape::Keyless => ("keyless", "not null"),
        };
        let table = format!("{}_{name}", case.program);
        site.sql(&format!(
            "create table {table} (id int {key}, mood text, note text not null default 'before');
            alter table {table} replica identity full"
        ))
        .await;
        site.drop_guest(case.program, &format!("{table}.wasm"));
        Failing { table, shape, case }
    }

    /// Updates from one mood to another. The second half of the rows also gets other keys.
    fn mood_updates(&self) -> Vec<(usize, &str, &str)> {
        let moods = ["keep", self.case.mood, "drop"];
        let pairs = moods.iter().flat_map(|from| moods.iter().map(move |to| (*from, *to)));
        let both = pairs.clone().chain(pairs.take(if self.shape == Shape::Keyed { 9 } else { 0 }));
        both.enumerate().map(|(id, (from, to))| (id, from, to)).collect()
    }

    async fn insert(&self, site: &Site) {
        let copies = if self.shape == Shape::Keyless { 2 } else { 1 };
        for (id, from, _) in self.mood_updates() {
            let rows = vec![format!("({id}, '{from}')"); copies].join(", ");
            site.sql(&format!("insert into {} (id, mood) values {rows}", self.table)).await;
        }
    }

    async fn update(&self, site: &Site) {
        for (id, _, to) in self.mood_updates() {
            let moved = if id < 9 { id } else { id + 100 };
            let table = &self.table;
            site.sql(&format!(
                "update {table} set id = {moved}, mood = '{to}', note = 'after' where id = {id}"
            ))
            .await;
        }
    }

    /// Deletes one of each two rows.
    async fn delete(&self, site: &Site) {
        let half = match self.shape {
            Shape::Keyed => "id % 2 = 0",
            Shape::Keyless => "ctid in (select min(ctid) from {} group by id)",
        };
        let half = half.replace("{}", &self.table);
        site.sql(&format!("delete from {} where {half}", self.table)).await;
    }

    async fn wait_until_published(&self, site: &Site, replicas: &[Replica]) {
        for replica in replicas {
            self.case.wait_until_published(site, replica, &self.table).await;
        }
    }

    /// For a table with a key: how many inserts and updates produce the mood on which the guest
    /// fails.
    fn failure_count(&self) -> usize {
        let bad = |mood: &str| usize::from(mood == self.case.mood);
        self.mood_updates().iter().map(|(_, from, to)| bad(from) + bad(to)).sum()
    }
}

on_newest_postgres! {
    async fn rows_fail_and_are_fixed_with_replica_identity_full(server) {
        let site = Site::new(&server).await;
        let mut options = site.gateway(&[]);
        let mut failing = vec![];
        for case in WAYS {
            for (shape, on_error) in [(Shape::Keyed, "drop"), (Shape::Keyless, "dead-letter")] {
                let one = Failing::create(&site, shape, case).await;
                options = options.with_table(&one.table).with_keys(&one.table, &format!("on_guest_error = '{on_error}'"));
                failing.push(one);
            }
        }
        let gateway = options.start().await;
        let tables: Vec<&str> = failing.iter().map(|one| one.table.as_str()).collect();
        let database = Database::create(&server).await;
        let replicas = [site.sqlite_replica(&tables), site.postgres_replica(&database, &tables)];
        for one in &failing {
            one.wait_until_published(&site, &replicas).await;
            one.insert(&site).await;
        }
        for one in &failing {
            one.wait_until_published(&site, &replicas).await;
            one.update(&site).await;
        }
        for one in &failing {
            one.wait_until_published(&site, &replicas).await;
            one.delete(&site).await;
        }
        for one in &failing {
            one.wait_until_published(&site, &replicas).await;
        }
        let (_, body) = gateway.readyz().unwrap();
        for one in &failing {
            let Failing { table, shape, case } = one;
            match shape {
                Shape::Keyed => {
                    let failed = &body["tables"][table.as_str()]["guest"]["failed"];
                    assert_eq!(failed, one.failure_count(), "of {table}: {body}");
                }
                Shape::Keyless => {
                    let letters = json_lines(&run_expecting(0, &["dlq", "--nats", &site.broker.url(), table]));
                    let new = letters.iter().filter(|letter| letter["row"]["mood"] == case.mood);
                    assert!(new.count() >= 2 * one.failure_count(), "{letters:?}");
                }
            }
        }
        let late = [site.sqlite_replica(&tables)];
        for one in &failing {
            one.wait_until_published(&site, &late).await;
        }
    }

    /// The update that fixes the row leaves a value out of line unchanged, so Postgres does not
    /// send it.
    async fn a_fixed_row_is_whole(server) {
        let site = Site::new(&server).await;
        create(&site, "t").await;
        site.sql("alter table t add about text; alter table t alter about set storage external").await;
        site.drop_guest("traps", "t.wasm");
        let _gateway = site.gateway(&["t"]).with_keys("t", "on_guest_error = 'drop'").start().await;
        let replica = site.sqlite_replica(&["t"]);
        TRAPS.wait_until_published(&site, &replica, "t").await;
        site.sql("insert into t (mood, about) values ('bad', repeat('about', 2000)), ('keep', 'short')").await;
        TRAPS.wait_until_published(&site, &replica, "t").await;
        site.sql("update t set mood = 'mended' where mood = 'bad'").await;
        TRAPS.wait_until_published(&site, &replica, "t").await;
    }

    /// A row that the guest rejects is the row's fault. Too many broken calls in one batch are the
    /// guest's fault.
    async fn a_guest_that_fails_too_often_suspends_its_table(server) {
        let site = Site::new(&server).await;
        create_plain(&site).await;
        let mut options = site.gateway(&["plain"]);
        for case in WAYS {
            create(&site, case.program).await;
            site.drop_guest(case.program, &format!("{}.wasm", case.program));
            options = options.with_table(case.program).with_keys(case.program, "on_guest_error = 'drop'");
        }
        let gateway = options.start().await;
        let replica = site.sqlite_replica(&["plain", "errs", "liar", "panics"]);
        for case in WAYS {
            case.wait_until_published(&site, &replica, case.program).await;
            site.sql(&format!(
                "insert into {} (mood) select case when i % 2 = 0 then 'keep' else '{}' end from generate_series(1, 100) i",
                case.program, case.mood
            ))
            .await;
        }
        for case in [ERRS, LIES_ZERO] {
            case.wait_until_published(&site, &replica, case.program).await;
            let (_, body) = gateway.readyz().unwrap();
            assert_eq!(body["tables"][case.program]["guest"]["failed"], 50, "{body}");
        }
        let reason = state(&site, "panics", TableState::Suspended).await.reason.unwrap();
        assert!(reason.contains("guest panics fails on 17 rows of one batch of public.panics"), "{reason}");
        wait_until_others_flow(&site, &replica).await;
        assert_eq!(site.find_differences_as(&replica, "panics_native", "panics").await, Ok(()), "a row passed");
        fix_guest(&site, &replica, "panics").await;
    }

    async fn a_row_that_fails_a_snapshot_suspends_its_table(server) {
        let site = Site::new(&server).await;
        create(&site, "t").await;
        create_plain(&site).await;
        // Beyond the rows on which the gateway tries a new guest.
        site.sql("insert into t (mood) select 'keep' from generate_series(1, 20000); insert into t (mood) values ('bad')").await;
        site.drop_guest("errs", "t.wasm");
        let gateway = site.gateway(&["t", "plain"]).with_keys("t", "on_guest_change = 'reseed'").start().await;
        let replica = site.sqlite_replica(&["t", "plain"]);
        let reason = state(&site, "t", TableState::Suspended).await.reason.unwrap();
        assert!(reason.contains("guest errs fails on row"), "{reason}");
        wait_for_log(&gateway, "public.t", "in no mood for this row").await;
        site.sql("insert into t (mood) values ('keep')").await;
        wait_until_others_flow(&site, &replica).await;
        site.sql("delete from t where mood = 'bad'").await;
        fix_guest(&site, &replica, "t").await;
    }

    /// The full stream blocks the snapshot with its old guest while the table gets another guest.
    async fn a_replaced_guest_suspends_no_table(server) {
        let site = Site::new(&server).await;
        create(&site, "t").await;
        site.sql("alter table t add filling text;
            insert into t (mood, filling) select 'keep', (select string_agg(gen_random_uuid()::text || j || i, '') from generate_series(1, 100) j)
              from generate_series(1, 3000) i;
            insert into t (mood) values ('bad')").await;
        site.drop_guest("errs", "t.wasm");
        let options = site.gateway(&["t"]).set_env("NATS_INIT_MAX_BYTES", 1_200_000).set_env("SNAPSHOT_WORKERS", 1);
        let gateway = options.start().await;
        let replica = site.sqlite_replica(&["t"]);
        wait_until_stream_is_full(&gateway).await;
        site.drop_guest("identity", "t.wasm");
        eventually("the other guest is live", async || match site.latest_schema("t").await {
            Some(schema) if schema.guest.as_ref().is_some_and(|guest| guest.name == "identity") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let jetstream = site.broker.jetstream();
        let mut init = jetstream.get_stream("INIT").await.unwrap().cached_info().config.clone();
        init.max_bytes = -1;
        jetstream.update_stream(init).await.unwrap();
        eventually("the snapshot has failed", async || {
            let log = gateway.log();
            if log.contains("the table has another guest by now") { Ok(()) } else { Err(log) }
        })
        .await;
        fix_guest(&site, &replica, "t").await;
        assert!(!gateway.log().contains("table suspended"), "{}", gateway.log());
    }
}
