//! The hand-over from snapshot to changes loses nothing, and readers never see an inconsistent
//! state.

use std::{cell::Cell, collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::sleep;
use walgate_tests::{
    Audit, Database, Gateway, Replica, Server, Site, Target, eventually, load::Writer,
    on_each_postgres, on_newest_postgres, oracle::Copy, snapshot, stream,
};
use walgate_wire::TableState;

/// Moves money within each of two tables, in one transaction: each total stays the same.
fn transfer_script(n: u64) -> String {
    let from = (n * 7919) % 1000;
    let to = (n * 104_729 + 13) % 1000;
    let amount = n % 97;
    let one = |table: &str| {
        format!(
            "update {table} set balance = balance - {amount} where id = {from};
             update {table} set balance = balance + {amount} where id = {to};"
        )
    };
    format!("begin; {} {} commit", one("checking"), one("savings"))
}

/// Moves money from one table to the other: the total of both stays the same.
fn transfer_across_script(n: u64) -> String {
    let id = (n * 7919) % 1000;
    let amount = n % 97;
    format!(
        "begin; update checking set balance = balance - {amount} where id = {id};
         update savings set balance = balance + {amount} where id = {id}; commit"
    )
}

const BANK: &str = "create table checking (id int primary key, balance bigint, filler text);
    create table savings (id int primary key, balance bigint, filler text);
    insert into checking select i, 1000, repeat('x', 400) from generate_series(0, 19999) i;
    insert into savings select i, 1000, repeat('y', 400) from generate_series(0, 19999) i;";
const EACH: i64 = 20_000_000;

/// Kills both copies and the gateway, again and again. At the end all of them run.
async fn kill_all(copies: [&mut Replica; 2], mut gateway: Gateway, times: u32) -> Gateway {
    let [first, second] = copies;
    for _ in 0..times {
        sleep(Duration::from_millis(300)).await;
        first.start_again();
        gateway = gateway.kill9().start().await;
        second.start_again();
    }
    gateway
}

/// Reads the copy until it has shown `goal` states of both tables. `check` judges every reading.
async fn watch_states(target: &Target, goal: usize, check: impl Fn(i64, i64)) {
    let mut copy = Copy::open(target).await;
    let mut seen = 0;
    let mut different = HashSet::new();
    eventually("enough readings of the bank", async || {
        let Some((checking, savings, mark)) =
            copy.read_sums("checking", "savings", "balance").await
        else {
            // The file of a replica appears after its process has started.
            copy = Copy::open(target).await;
            return Err("the tables are not there yet".to_owned());
        };
        check(checking, savings);
        seen += 1;
        different.insert(mark);
        if different.len() >= goal {
            Ok(())
        } else {
            Err(format!("{seen} readings of {} states", different.len()))
        }
    })
    .await;
}

/// How often the replica has loaded a table.
fn count_loads(replica: &Replica) -> usize {
    replica.log().lines().filter(|line| line.contains(" loaded ")).count()
}

/// Reads an existing copy, again and again; returns the number of readings.
async fn watch_until(target: &Target, done: &Cell<bool>) -> usize {
    let copy = Copy::open(target).await;
    let mut readings = 0;
    while !done.get() {
        let seen = copy.read_sums("checking", "savings", "balance").await;
        let (checking, savings, _) = seen.expect("both tables are there");
        assert_eq!((checking, savings), (EACH, EACH), "{target}");
        readings += 1;
        // Lets other tasks of this thread run.
        sleep(Duration::from_millis(1)).await;
    }
    readings
}

on_each_postgres! {
    /// A publication that an administrator created. Its row filter has no effect if the whole
    /// schema is published. Without `publish_generated_columns` no change has such columns.
    /// Snapshots behave as the stream does.
    async fn snapshots_hold_the_rows_the_stream_would(server) {
        let site = Site::new(&server).await;
        site.sql("create table f (id int primary key, n int, active boolean); alter table f replica identity full;
                  create table g (id int primary key, n int, twice int generated always as (n * 2) stored);
                  create view plain as select id, n from g;
                  insert into f select i, i, i % 2 = 0 from generate_series(1, 100) i; insert into g select i, i from generate_series(1, 100) i;
                  create publication walgate for tables in schema public, table f where (active)").await;
        let _gateway = site.gateway(&["f", "g"]).start().await;
        let first = site.sqlite_replica(&["f", "g"]);
        let shows = async |replica: &Replica| {
            site.wait_until_equal(replica, "f").await;
            eventually("the copy is what was sent", async || site.find_differences_as(replica, "plain", "g").await).await;
        };
        shows(&first).await;
        site.sql("update f set n = -n where id < 9; insert into f select i, i, false from generate_series(200, 210) i;
                  update g set n = -n where id < 9; insert into g select i, i from generate_series(200, 210) i").await;
        shows(&first).await;
        let second = site.sqlite_replica(&["f", "g"]);
        shows(&second).await;
        shows(&first).await;
        for table in ["f", "g"] {
            assert_eq!(site.latest_schema(table).await.expect("a schema").state, TableState::Live);
        }
    }

    async fn readers_of_the_bank_never_see_a_wrong_total(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql(BANK).await;
        let gateway = site.gateway(&["checking", "savings"]).set_env("SNAPSHOT_CHUNK_BYTES", 100_000).start().await;
        let audit = Audit::begin(&site.database).await;
        let inside = |offset: u64| move |n| transfer_script(n + offset);
        let writers = [
            Writer::start(&site.database, inside(0)).await,
            Writer::start(&site.database, inside(1_000_000)).await,
        ];
        let mut sqlite = site.sqlite_replica(&["checking", "savings"]);
        let mut postgres = site.postgres_replica(&copy, &["checking", "savings"]);
        let file = sqlite.target.clone();
        let database = postgres.target.clone();
        // During a load and while catching up, each table by itself shows a state that existed.
        let each = |checking, savings| assert_eq!((checking, savings), (EACH, EACH));
        let kills = kill_all([&mut sqlite, &mut postgres], gateway, 3);
        let (gateway, (), ()) = futures::join!(kills, watch_states(&file, 30, each), watch_states(&database, 30, each));
        join_all(writers.map(Writer::finish)).await;
        for table in ["checking", "savings"] {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
        // Once all tables have caught up, a transaction over several of them is applied as one.
        let writer = Writer::start(&site.database, transfer_across_script).await;
        let total = |checking, savings| assert_eq!(checking + savings, 2 * EACH);
        let kills = kill_all([&mut sqlite, &mut postgres], gateway, 3);
        let (_gateway, (), ()) = futures::join!(kills, watch_states(&file, 60, total), watch_states(&database, 60, total));
        writer.finish().await;
        for table in ["checking", "savings"] {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
        audit.assert_stream_is_exact(&site, &[("checking", "checking"), ("savings", "savings")]).await;
    }

    /// The old rows stay until the new ones are complete: readers never see a missing or incomplete
    /// table.
    async fn readers_of_the_bank_do_not_notice_a_reload(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql(BANK).await;
        let _gateway = site.gateway(&["checking", "savings"]).set_env("SNAPSHOT_CHUNK_BYTES", 100_000).start().await;
        let replicas = [site.sqlite_replica(&["checking", "savings"]), site.postgres_replica(&copy, &["checking", "savings"])];
        for replica in &replicas {
            site.wait_until_equal(replica, "checking").await;
            site.wait_until_equal(replica, "savings").await;
        }
        let writer = Writer::start(&site.database, transfer_script).await;
        let done = Cell::new(false);
        let reloads = async {
            // Another type each time, so the copies have to be loaded again.
            for (ty, goal) in [("varchar(500)", 4), ("text", 6), ("varchar(500)", 8)] {
                for table in ["checking", "savings"] {
                    site.sql(&format!("alter table {table} alter column filler type {ty}")).await;
                }
                for replica in &replicas {
                    eventually("both tables are loaded again", async || match count_loads(replica) {
                        loads if loads >= goal => Ok(()),
                        loads => Err(format!("{loads} loads of {goal} in {}", replica.target)),
                    })
                    .await;
                }
            }
            done.set(true);
        };
        let file = &replicas[0].target;
        let database = &replicas[1].target;
        let ((), in_file, in_database) = futures::join!(reloads, watch_until(file, &done), watch_until(database, &done));
        // Readers who had to wait for rows would have read only once for each load.
        assert!(in_file > 6 && in_database > 6, "{in_file} and {in_database} readings");
        let each = |checking, savings| assert_eq!((checking, savings), (EACH, EACH));
        futures::join!(watch_states(file, 10, each), watch_states(database, 10, each));
        writer.finish().await;
        for replica in &replicas {
            site.wait_until_equal(replica, "checking").await;
            site.wait_until_equal(replica, "savings").await;
        }
    }

    /// For a table without a key the overlap cannot be resolved by key: the transaction ids have to
    /// make it exact.
    async fn a_table_without_a_key_lacks_and_repeats_no_rows(server) {
        let site = Site::new(&server).await;
        site.sql("create table bag (v int, pad text); insert into bag select i % 100, repeat('p', 300) from generate_series(1, 30000) i").await;
        let _gateway = site.gateway(&["bag"]).set_env("SNAPSHOT_CHUNK_BYTES", 100_000).start().await;
        let writers = [
            Writer::start(&site.database, |n| format!("insert into bag values ({n}, 'first')")).await,
            Writer::start(&site.database, |n| format!("begin; insert into bag values ({n}, 'second'); select pg_sleep(0.01); insert into bag values ({n}, 'second'); commit")).await,
        ];
        let replicas = [site.sqlite_replica(&["bag"]), site.sqlite_replica(&["bag"])];
        for writer in &writers {
            writer.wait_for_scripts(50).await;
        }
        for replica in &replicas {
            eventually("the copy is there", async || Copy::open(&replica.target).await.count_rows("bag").await.ok_or("not yet".to_owned())).await;
        }
        writers[0].wait_for_scripts(50).await;
        join_all(writers.map(Writer::finish)).await;
        for replica in &replicas {
            site.wait_until_equal(replica, "bag").await;
        }
    }

    async fn empty_huge_and_odd_tables(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        // Random bytes: neither Postgres nor zstd can compress them.
        site.sql(
            "create table empty (id int primary key, v text);
             create table huge (id int primary key, v bytea, t text);
             create function noise(bytes int) returns bytea language sql as
               $$ select string_agg(decode(md5(random()::text), 'hex'), '') from generate_series(1, bytes / 16) $$;
             insert into huge values (1, noise(10000000), 'x'), (2, 'small', repeat('compressible ', 800000));
             create view seen as select id, length(v) as n from huge;
             create materialized view kept as select id as key from huge;
             create table no_columns ();
             insert into no_columns default values;",
        )
        .await;
        let tables = ["empty", "huge", "seen"];
        let _gateway = site.gateway(&["empty", "huge", "seen", "kept", "no_columns"]).start().await;
        let audit = Audit::begin(&site.database).await;
        let all = ["empty", "huge", "seen", "no_columns"];
        let sqlite = site.sqlite_replica(&all);
        let postgres = site.postgres_replica(&copy, &all);
        let have_rows = async |count: u64| {
            for replica in [&sqlite, &postgres] {
                eventually("rows without columns are there", async || match Copy::open(&replica.target).await.count_rows("no_columns").await {
                    Some(found) if found == count => Ok(()),
                    other => Err(format!("{other:?} of {count}")),
                })
                .await;
            }
        };
        have_rows(1).await;
        for table in tables {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
        site.sql("insert into huge values (3, noise(10000000), null); update huge set t = 'short' where id = 2; update huge set v = noise(3000000) where id = 1").await;
        site.sql("update huge set id = 4 where id = 3; insert into empty values (1, ''); insert into no_columns default values").await;
        have_rows(2).await;
        site.sql("truncate no_columns").await;
        have_rows(0).await;
        for table in ["empty", "huge"] {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
        let entries = audit.assert_stream_is_exact(&site, &[("empty", "empty"), ("huge", "huge"), ("no_columns", "no_columns")]).await;
        assert!(entries.iter().any(|e| matches!(e, stream::Entry::Changes { parts: 10.., .. })), "a row of many parts");
        let all = site.take_snapshot("kept").await;
        assert_eq!(all.rows.len(), 2);
    }
}

on_newest_postgres! {
    async fn fifty_requests_become_one_snapshot(server) {
        let own = Arc::new(Server::start(server.bin(), &[]));
        let site = Site::new(&own).await;
        site.sql("create table t (id int primary key); insert into t select generate_series(1, 1000)").await;
        let _gateway = site.gateway(&["t"]).start().await;
        // An old transaction delays the first snapshot, so that the other requests meet it.
        let old = site.database.open_session().await;
        old.sql("begin; select pg_current_xact_id()").await;
        let asked = join_all((0..50).map(|_| snapshot::request(&site.broker, "t"))).await;
        assert_eq!(asked.iter().filter(|accepted| **accepted).count(), 1, "one waits, the others are refused");
        old.sql("commit").await;
        eventually("the snapshot is complete", async || match snapshot::read_metas(&site.broker).await.len() {
            1.. => Ok(()),
            0 => Err("not yet".to_owned()),
        }).await;
        assert_eq!(snapshot::read_starts(&site.broker).await.len(), 1);
        // Then the next request is accepted.
        eventually("another request", async || {
            if snapshot::request(&site.broker, "t").await { Ok(()) } else { Err("refused".to_owned()) }
        }).await;
    }

    async fn snapshots_run_in_parallel_up_to_the_limit(server) {
        let own = Arc::new(Server::start(server.bin(), &[]));
        let site = Site::new(&own).await;
        for table in ["a", "b", "c"] {
            site.sql(&format!("create table {table} (id int primary key, v text); insert into {table} select i, repeat(md5(i::text), 10) from generate_series(1, 20000) i")).await;
        }
        let gateway = site.gateway(&["a", "b", "c"]).set_env("SNAPSHOT_MAX_CONCURRENT", 1).set_env("SNAPSHOT_CHUNK_BYTES", 65536);
        let _gateway = gateway.start().await;
        // An old transaction delays every snapshot, so that all could begin at once.
        let old = site.database.open_session().await;
        old.sql("begin; select pg_current_xact_id()").await;
        for table in ["a", "b", "c"] {
            assert!(snapshot::request(&site.broker, table).await);
        }
        let requests = async || site.broker.jetstream().get_stream("REQUESTS").await.expect("the stream");
        eventually("all requests are taken", async || match requests().await.consumer_info("walgate").await {
            Ok(info) if info.num_ack_pending == 3 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        old.sql("commit").await;
        eventually("all snapshots are complete", async || match snapshot::read_metas(&site.broker).await.len() {
            3 => Ok(()),
            complete => Err(format!("{complete} of 3")),
        })
        .await;
        let edges = stream::read_messages(&site.broker, "INIT").await.into_iter().map(|message| message.subject);
        let edges: Vec<_> = edges.filter(|subject| !subject.starts_with("init.snap.")).collect();
        for (at, pair) in edges.chunks(2).enumerate() {
            let table = pair[0].strip_prefix("init.start.").unwrap_or_else(|| panic!("message {at} of {edges:?}"));
            assert_eq!(pair[1], format!("init.meta.{table}"), "{edges:?}");
        }
    }

    async fn unconfigured_tables_are_refused(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); create table secret (id int primary key); insert into secret values (42)").await;
        let _gateway = site.gateway(&["t"]).start().await;
        for table in ["secret", "no_such_table", "pg_catalog=2Epg_authid", "t.x"] {
            assert!(!snapshot::request(&site.broker, table).await, "{table}: the server takes none for it");
        }
        assert!(snapshot::request(&site.broker, "t").await);
        eventually("the one that is offered is served", async || match snapshot::read_metas(&site.broker).await.len() {
            1 => Ok(()),
            other => Err(format!("{other} snapshots")),
        })
        .await;
        assert_eq!(snapshot::read_starts(&site.broker).await.len(), 1);
    }

    async fn the_gateway_dies_during_a_snapshot(server) {
        let site = Site::new(&server).await;
        let copy = Database::create(&server).await;
        site.sql(
            "create table t (id int primary key, v text);
             insert into t select i, (select string_agg(md5(i || ' ' || j), '') from generate_series(1, 10) j) from generate_series(1, 60000) i",
        )
        .await;
        let gateway = site.gateway(&["t"]).set_env("SNAPSHOT_CHUNK_BYTES", 65536).start().await;
        let writer = Writer::start(&site.database, |n| format!("update t set v = 'changed {n}' where id = {}", n % 500)).await;
        let replicas = [site.sqlite_replica(&["t"]), site.postgres_replica(&copy, &["t"])];
        eventually("some chunks", async || match snapshot::count_stored(&site.broker).await {
            10.. => Ok(()),
            messages => Err(format!("{messages} messages")),
        }).await;
        let listener = async || {
            let requests = site.broker.jetstream().get_stream("REQUESTS").await.expect("the stream");
            requests.consumer_info("walgate").await.map(|info| info.created).map_err(|e| e.to_string())
        };
        let before = listener().await.expect("the gateway listens");
        let options = gateway.kill9();
        assert_eq!(snapshot::read_metas(&site.broker).await.len(), 0, "killed too late to mean anything");
        let _gateway = options.start().await;
        // The next gateway gets the request at once, without waiting for the server's timeout.
        eventually("the request is taken over", async || match listener().await? {
            created if created > before => Ok(()),
            _ => Err("the consumer of the one before".to_owned()),
        }).await;
        for replica in &replicas {
            eventually("the copy is there", async || {
                Copy::open(&replica.target).await.count_rows("t").await.ok_or("not yet".to_owned())
            }).await;
        }
        writer.finish().await;
        for replica in &replicas {
            site.wait_until_equal(replica, "t").await;
        }
    }
}
