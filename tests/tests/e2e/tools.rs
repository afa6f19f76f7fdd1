//! The commands for consumers, in unusual situations.

use std::{fs, process::Output};

use walgate_tests::{
    Site, eventually,
    load::Writer,
    on_newest_postgres,
    program::{self, Program, find_built},
    snapshot, stream,
};

fn run_walgate(site: &Site, args: &[&str]) -> Output {
    program::run_with("walgate", args, &[("WALGATE_NATS_URL".to_owned(), site.broker.url())])
}

fn spawn_walgate(site: &Site, args: &[&str]) -> Program {
    let log = site.folder().join(format!("{}.log", args[0]));
    let env = [("WALGATE_NATS_URL".to_owned(), site.broker.url()), ("NO_COLOR".into(), "1".into())];
    let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
    Program::spawn(&args[0], &find_built("walgate"), &args, &env, &log)
}

async fn wait_for_output(program: &Program, words: &str) {
    eventually(format!("the output has {words}"), async || match program.log() {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    })
    .await;
}

on_newest_postgres! {
    async fn train_skips_tables_that_gain_nothing(server) {
        let site = Site::new(&server).await;
        site.sql("create table few (id int primary key, v text); insert into few select i, 'alike ' || i from generate_series(1, 499) i;
                  create table noise (v bytea); create table good (id int primary key, v text);
                  insert into noise select (select string_agg(decode(md5(random()::text || i || j), 'hex'), '') from generate_series(1, 12) j) from generate_series(1, 2000) i;
                  insert into good select i, 'a row that is much like the others, of number ' || i from generate_series(1, 500) i").await;
        let _gateway = site.gateway(&["few", "noise", "good"]).start().await;
        let out = site.folder().join("trained");
        let train = |tables: &[&str]| {
            let output = run_walgate(&site, &[&["train", "--out", out.to_str().unwrap()], tables].concat());
            let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            files.sort();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), files)
        };
        for (table, why) in [("few", "500 rows are needed"), ("noise", "less than 3 %")] {
            let (code, report, files) = train(&[table]);
            assert_eq!((code, files), (Some(1), vec![]), "{report}");
            assert!(report.contains("not written") && report.contains(why), "{report}");
        }
        // A dictionary that does save bytes is written all the same.
        let (code, report, files) = train(&["few", "good", "noise"]);
        assert_eq!((code, files), (Some(1), vec!["good.zstd.dict".into()]), "{report}");
        assert_eq!(train(&["good"]).0, Some(0));
    }

    /// An operator deletes the stream without notifying its readers.
    async fn tail_continues_in_a_recreated_stream(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text)").await;
        let gateway = site.gateway(&["t"]).start().await;
        let tail = spawn_walgate(&site, &["tail", "t"]);
        eventually("it reads", async || {
            site.sql("insert into t select coalesce(max(id), 0) + 1, 'before' from t").await;
            if tail.log().contains("before") { Ok(()) } else { Err(tail.log()) }
        })
        .await;
        site.broker.jetstream().delete_stream("CDC").await.unwrap();
        // The next gateway creates the stream again; its sequences are below those of the old one.
        let _gateway = gateway.kill9().start().await;
        site.sql("insert into t values (1000, 'after')").await;
        wait_for_output(&tail, r#""v":"after""#).await;
        wait_for_output(&tail, "created again").await;
        assert!(tail.terminate().success(), "{}", tail.log());
    }

    /// While another transaction blocks the snapshot, as long as the gateway runs.
    async fn snapshot_waits_while_the_gateway_waits(server) {
        let own = std::sync::Arc::new(walgate_tests::Server::start(server.bin(), &[]));
        let site = Site::new(&own).await;
        site.sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i").await;
        let gateway = site.gateway(&["t"]).start().await;
        let old = site.database.open_session().await;
        old.sql("begin; select pg_current_xact_id()").await;
        let writer = Writer::start_paced(&site.database, std::time::Duration::from_millis(50), |n| format!("update t set v = '{n}' where id = 1")).await;
        let asked = spawn_walgate(&site, &["snapshot", "--patience", "5", "t"]);
        wait_for_output(&asked, "transactions that are").await;
        let sequence = stream::last_sequence(&site.broker).await.unwrap();
        // The gateway's heartbeats measure twice the command's patience.
        eventually("time passes", async || match stream::last_sequence(&site.broker).await {
            Some(now) if now > sequence + 400 => Ok(()),
            now => Err(format!("{now:?} after {sequence}")),
        })
        .await;
        assert!(!asked.has_ended(), "{}", asked.log());
        old.sql("commit").await;
        assert!(asked.wait_until_ended().success(), "{}", asked.log());
        assert!(asked.log().contains("100 rows"), "{}", asked.log());
        writer.finish().await;

        // Without a gateway the command reports that it is missing; the request stays.
        let options = gateway.stop();
        let served = snapshot::read_metas(&site.broker).await.last().map(|meta| meta.sequence);
        let output = run_walgate(&site, &["snapshot", "--patience", "1", "t"]);
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && report.contains("is it running"), "{output:?}");
        let _gateway = options.start().await;
        eventually("the request is served", async || match snapshot::read_metas(&site.broker).await.last().map(|meta| meta.sequence) {
            last if last > served => Ok(()),
            last => Err(format!("{last:?}")),
        })
        .await;
    }
}
