//! Logs and pages for operators expose neither secrets nor rows, and HTTP requests change nothing.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use walgate_servers::NatsOptions;
use walgate_tests::{Broker, Gateway, Site, eventually, on_newest_postgres, program, stream};

const PASSWORD: &str = "hunter2-s3cret";
/// A value in rows, in every form in which a value can be sent.
const MARKER: &str = "m4rker0fr0ws";

/// A failing guest, values that the server renders, a value out of line, and rows that come and go.
const ROWS: &str = "
    create table t (id text primary key, mood text, v text, j jsonb, r daterange, ts tsvector, arr text[], b bytea);
    alter table t alter v set storage external;
    create view keeps as select * from t where mood = 'keep';
    create table filtered (id int primary key, v text not null);
    alter table filtered replica identity full";

fn insert_script(id: &str, mood: &str) -> String {
    format!(
        "insert into t values ('{MARKER}{id}', '{mood}', repeat('{MARKER}', 500), '{{\"{MARKER}\": 1}}', '[2020-01-01,2021-01-01)',
         '{MARKER}', array['{MARKER}'], '{MARKER}')"
    )
}

/// Neither the gateway's log nor its pages hold the password or the marker.
fn assert_gateway_is_silent(gateway: &Gateway) {
    let mut text = gateway.log();
    for page in ["/readyz", "/healthz", "/metrics"] {
        text += &gateway.get(page).unwrap().1;
    }
    assert_no_secret(&text);
}

fn assert_no_secret(text: &str) {
    let marked = text.lines().filter(|line| line.contains(PASSWORD) || line.contains(MARKER));
    let marked: Vec<&str> = marked.collect();
    assert!(marked.is_empty(), "{}", marked.join("\n"));
    // As Debug prints bytes.
    let bytes = format!("{:?}", MARKER.as_bytes());
    assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    // As JSON carries bytes in base64, at any offset in a message.
    for before in ["", "x", "xx"] {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{before}{MARKER}"));
        let whole = &encoded[4..encoded.len() - 4];
        assert!(!text.contains(whole), "{whole} in {text}");
    }
}

on_newest_postgres! {
    async fn neither_passwords_nor_rows_are_exposed(server) {
        let config = format!("authorization {{ user: gate, password: {PASSWORD:?} }}");
        let observer = async_nats::ConnectOptions::new().user_and_password("gate".into(), PASSWORD.into());
        let options = NatsOptions { extra_config: config, ..NatsOptions::default() };
        let site = Site::with_broker(&server, Broker::start_as(options, observer).await).await;
        site.sql(ROWS).await;
        for mood in ["keep", "drop"] {
            site.sql(&insert_script(mood, mood)).await;
        }
        site.drop_guest("errs", "t.wasm");
        let nats = site.broker.url().replace("nats://", &format!("nats://gate:{PASSWORD}@"));
        let postgres = site.database.url().replace("postgres@", &format!("postgres:{PASSWORD}@"));
        assert!(postgres.contains(PASSWORD), "{postgres}");
        let options = site.gateway(&["t", "filtered"]).with_postgres_url(&postgres).set_env("NATS_URL", &nats).set_env("LOG", "debug");
        let set_aside = options.clone().with_keys("t", "on_guest_error = 'dead-letter'");
        // The statement of the blocking session.
        let other = site.database.open_session().await;
        other.sql(&format!("begin; insert into filtered values (-1, '{MARKER}')")).await;
        let gateway = set_aside.spawn();
        eventually("the blocking session is reported", async || match gateway.readyz()? {
            (503, body) if body["reason"].to_string().contains("transaction open") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_gateway_is_silent(&gateway);
        other.sql("rollback").await;
        gateway.wait_until_ready().await;
        let replica = site.sqlite_replica_with(&["t"], &[("WALGATE_NATS_URL".into(), nats.clone()), ("WALGATE_LOG".into(), "debug".into())]);
        let shows = async || {
            eventually("the copy is what the guest lets through", async || site.find_differences_as(&replica, "keeps", "t").await).await;
        };
        shows().await;
        site.sql(&insert_script("bad", "bad")).await;
        site.sql("update t set mood = mood || '' , arr = null; alter table t add w text default 'x'").await;
        site.sql(&format!("insert into filtered values (1, '{MARKER}')")).await;
        shows().await;
        assert_gateway_is_silent(&gateway);
        assert_no_secret(&replica.log());
        // A panic suspends the table. Then NATS goes down and the gateway restarts.
        site.sql(&format!("insert into filtered values (10, '{MARKER}')")).await;
        let lsn = site.database.value("select pg_current_wal_lsn()").await.parse().unwrap();
        stream::wait_for_end(&site.broker, lsn).await;
        site.drop_guest("panics", "t.wasm");
        let gateway = { gateway.kill9(); options.start().await };
        site.sql(&insert_script("again", "bad")).await;
        eventually("the table is suspended", async || match site.latest_schema("t").await.and_then(|schema| schema.reason) {
            Some(reason) => { assert_no_secret(&reason); Ok(()) }
            None => Err("not yet".to_owned()),
        })
        .await;
        assert_gateway_is_silent(&gateway);
        // The server cannot evaluate this row filter, and its error quotes the value.
        site.sql("alter publication walgate set table filtered where (date_trunc(v, timestamp '2020-01-01') is not null), t").await;
        walgate_tests::snapshot::request(&site.broker, "filtered").await;
        let error = walgate_tests::snapshot::wait_for_error(&site.broker, "filtered").await;
        assert!(error.message.contains("server's log") && error.message.contains("22023"), "{error:?}");
        assert_no_secret(&error.message);
        site.sql(&format!("insert into filtered values (2, '{MARKER}')")).await;
        eventually("the gateway ends", async || if gateway.program().may_have_ended() { Ok(()) } else { Err("it runs".to_owned()) }).await;
        let text = gateway.log();
        assert!(text.contains("22023"), "the server's error was met: {text}");
        assert_no_secret(&text);
        let set_aside = program::run_with("walgate", &["dlq", "--nats", &nats], &[("WALGATE_LOG".into(), "debug".into())]);
        assert!(String::from_utf8_lossy(&set_aside.stdout).contains(MARKER), "an operator who asks for rows sees them");
        assert_no_secret(&String::from_utf8_lossy(&set_aside.stderr));
    }

    async fn http_changes_nothing(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let gateway = site.gateway(&["t"]).start().await;
        assert!(!gateway.log().contains("loopback"));
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            for path in ["/healthz", "/readyz", "/", "/tables/t/snapshot"] {
                let (status, _) = gateway.request(method, path).unwrap();
                assert!([404, 405].contains(&status), "{method} {path}: {status}");
            }
        }
        assert_eq!(gateway.get("/healthz").unwrap().0, 200);
        let port = walgate_servers::free_port().unwrap();
        let open = gateway.stop().set_env("HTTP_LISTEN", format!("0.0.0.0:{port}")).spawn();
        eventually("it warns", async || {
            let log = open.log();
            if log.contains("http.listen is not loopback") { Ok(()) } else { Err(log) }
        })
        .await;
        drop(open);
    }
}
