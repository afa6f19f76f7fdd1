//! Snapshot requests from malicious clients, and too many requests.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use walgate_tests::{Gateway, Site, eventually, on_newest_postgres, snapshot};

const REQUESTS: usize = 10_000;
const LOG_LINES_MAX: usize = 200;
const GROWTH_MAX_BYTES: u64 = 32 << 20;

/// Sends these subjects over a bare socket: a client library would reject some of them.
fn send_flood(site: &Site, subjects: impl Iterator<Item = Vec<u8>>) {
    let mut socket = TcpStream::connect(("127.0.0.1", site.broker.server.port())).unwrap();
    let mut sent = b"CONNECT {\"verbose\":false,\"protocol\":1}\r\n".to_vec();
    for subject in subjects {
        sent.extend(b"PUB ");
        sent.extend(subject);
        sent.extend(b" 0\r\n\r\n");
    }
    sent.extend(b"PING\r\n");
    socket.write_all(&sent).unwrap();
    let mut lines = BufReader::new(socket).lines();
    assert!(lines.any(|line| line.unwrap() == "PONG"), "the server took all of it");
}

fn resident_bytes(gateway: &Gateway) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", gateway.program().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Odd subjects, many for unknown tables, and many for one existing table.
fn odd_subjects() -> impl Iterator<Item = Vec<u8>> {
    let odd: [&[u8]; 10] = [
        b"*",
        b">",
        b"t.x",
        b"t.>",
        b"\x01\x7f",
        b"\xff\xfe",
        b"a\x0cb",
        b"=zz",
        b"\"t\"",
        b"t;drop",
    ];
    let odd = odd.into_iter().cycle().take(900).map(<[u8]>::to_vec);
    let unknown = (0..REQUESTS).map(|n| format!("unknown_{n}").into_bytes());
    let known = std::iter::repeat_n(b"t".to_vec(), 100);
    odd.chain(unknown).chain(known).map(|token| [b"snapshot.request.", &token[..]].concat())
}

/// The number of requests that the stream has ever stored.
async fn count_stored(site: &Site) -> u64 {
    let stream = site.broker.jetstream().get_stream("REQUESTS").await.unwrap();
    stream.cached_info().state.last_sequence
}

async fn wait_until_no_request(site: &Site) {
    eventually("all requests are dealt with", async || {
        let stream =
            site.broker.jetstream().get_stream("REQUESTS").await.map_err(|e| e.to_string())?;
        match stream.cached_info().state.messages {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
}

on_newest_postgres! {
    /// Chunks of a failed snapshot would fill the stream until they expire.
    async fn a_failed_snapshot_leaves_no_chunks_behind(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); create view v as
                  select i as id, repeat(md5(i::text), 20) as v, 1 / (40000 - i) as w from generate_series(1, 40000) i").await;
        let _gateway = site.gateway(&["t", "v"]).set_env("SNAPSHOT_CHUNK_BYTES", 65536).start().await;
        snapshot::request(&site.broker, "v").await;
        let error = snapshot::wait_for_error(&site.broker, "v").await;
        assert!(error.message.contains("22012"), "{error:?}");
        let begun = snapshot::count_stored(&site.broker).await;
        assert!(begun > 10, "only {begun} messages: it failed before its first chunk");
        eventually("its chunks are gone", async || {
            let chunks = walgate_tests::stream::read_messages(&site.broker, "INIT").await;
            let left = chunks.iter().filter(|message| message.subject.starts_with("init.snap.")).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} chunks")) }
        })
        .await;
    }

    /// Another request only helps if the table recovers by itself.
    async fn requests_for_a_suspended_table_are_refused(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let _gateway = site.gateway(&["t"]).with_keys("t", "guest = 'missing.wasm'").start().await;
        snapshot::request(&site.broker, "t").await;
        let error = snapshot::wait_for_error(&site.broker, "t").await;
        assert_eq!((error.code.as_str(), error.retry_after), ("table_suspended", None), "{error:?}");
        assert!(error.message.contains("t is suspended") && error.message.contains("missing.wasm"), "{error:?}");
    }

    async fn a_flood_of_requests(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); insert into t values (1, 'a')").await;
        let gateway = site.gateway(&["t"]).start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        wait_until_no_request(&site).await;
        let before = resident_bytes(&gateway);
        let refused = count_stored(&site).await;
        send_flood(&site, odd_subjects());
        wait_until_no_request(&site).await;
        // One request at a time for the existing table; the stream does not even store the others.
        assert!(count_stored(&site).await - refused <= 100, "{refused} before");
        // An administrator's stream that accepts every subject does not stop the gateway, either.
        let jetstream = site.broker.jetstream();
        let mut config = jetstream.get_stream("REQUESTS").await.unwrap().cached_info().config.clone();
        assert_eq!(config.subjects, ["snapshot.request.t"]);
        config.subjects = vec!["snapshot.request.>".to_owned()];
        jetstream.update_stream(config).await.unwrap();
        send_flood(&site, odd_subjects().take(7000));
        eventually("the stream takes everything", async || match count_stored(&site).await - refused {
            5000.. => Ok(()),
            taken => Err(format!("{taken} were taken")),
        })
        .await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 1);
        let after = resident_bytes(&gateway);
        assert!(after < before + GROWTH_MAX_BYTES, "from {before} to {after} bytes");
        assert_eq!(snapshot::count_errors(&site.broker).await, 0);
        assert!(gateway.log().lines().count() < LOG_LINES_MAX && !gateway.log().contains("interrupted"), "{}", gateway.log());
        let (_, ready) = gateway.readyz().unwrap();
        assert_eq!(ready["ready"], true, "{ready}");
        // A restart corrects the stream, also for other tables. The gateway ignores remaining
        // messages.
        site.sql("create table other (id int primary key)").await;
        let gateway = gateway.stop().with_table("other").start().await;
        site.take_snapshot("other").await;
        let jetstream = site.broker.jetstream();
        let config = jetstream.get_stream("REQUESTS").await.unwrap().cached_info().config.clone();
        assert_eq!(config.subjects, ["snapshot.request.other", "snapshot.request.t"]);
        assert!(!gateway.log().contains("interrupted"));
        // Valid requests are served, and tables keep streaming.
        site.sql("insert into t values (2, 'b')").await;
        site.wait_until_equal(&replica, "t").await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 2);
    }

    /// A client requests again and again: the second snapshot comes after the cooldown, and all
    /// requests meanwhile become one.
    async fn a_cooldown_follows_each_snapshot(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key); create table other (id int primary key)").await;
        let gateway = site.gateway(&["t", "other"]).set_env("SNAPSHOT_COOLDOWN_SECONDS", 4).start().await;
        site.take_snapshot("t").await;
        let first = gateway.log().matches("snapshot begins table=t").count();
        assert_eq!(first, 1);
        assert!(snapshot::request(&site.broker, "t").await);
        for _ in 0..20 {
            assert!(!snapshot::request(&site.broker, "t").await, "it waits in the stream, so no other is taken");
        }
        // The cooldown does not delay another table.
        site.take_snapshot("other").await;
        let metas = eventually("the table is copied again", async || {
            let metas = snapshot::read_metas(&site.broker).await;
            let metas: Vec<_> = metas.into_iter().filter(|meta| meta.subject == "init.meta.t").collect();
            let last: Option<walgate_wire::InitMeta> = metas.last().map(|meta| walgate_wire::from_msgpack(&meta.payload).unwrap());
            let begun = gateway.log().matches("snapshot begins table=t").count();
            last.filter(|_| begun == 2 && !gateway.log().contains("failed")).ok_or(format!("{begun} have begun"))
        })
        .await;
        // By the gateway's clock, because the stream no longer holds the first snapshot.
        let ended = logged_at(&gateway.log(), "snapshot complete table=t");
        let begun = logged_at(gateway.log().rsplit_once("snapshot complete table=other").unwrap().1, "snapshot begins table=t");
        assert!(begun - ended >= 4_000_000, "{metas:?}");
    }
}

/// Microseconds of the first line with this text.
fn logged_at(log: &str, words: &str) -> i64 {
    let line = log.lines().find(|line| line.contains(words)).unwrap();
    let time = line.split_whitespace().next().unwrap();
    let clock = time.split('T').nth(1).unwrap().trim_end_matches('Z');
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]) * 1e6) as i64
}
