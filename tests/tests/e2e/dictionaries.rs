//! Dictionaries dropped into the folder of a running gateway.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use async_nats::jetstream::kv;
use walgate_tests::{
    Audit, Gateway, Site,
    dictionary::{drop_in, train_numbered},
    eventually, on_newest_postgres, stream,
};
use walgate_wire::MAX_DICTIONARY_BYTES;

/// The KV revision that new messages use; waits until it is not `other_than`.
async fn wait_for_dictionary(gateway: &Gateway, other_than: u64) -> u64 {
    eventually("another dictionary is live", async || {
        let (_, body) = gateway.readyz()?;
        match body["tables"]["users"]["dictionary_revision"].as_u64() {
            Some(revision) if revision != other_than => Ok(revision),
            other => Err(format!("revision {other:?}")),
        }
    })
    .await
}

async fn site(server: &std::sync::Arc<walgate_tests::Server>) -> Site {
    let site = Site::new(server).await;
    site.sql("create table users (id bigint generated always as identity primary key, email text, likes text)").await;
    site
}

/// Inserts rows and waits until the stream holds them, compressed with the current dictionary.
async fn insert_rows(site: &Site) {
    site.sql(INSERT).await;
    let lsn = site.database.value("select pg_current_wal_lsn()").await.parse().unwrap();
    stream::wait_for_end(&site.broker, lsn).await;
}

/// Every dictionary that the bucket has ever stored.
async fn stored_dictionaries(site: &Site) -> Vec<Vec<u8>> {
    let messages = stream::read_messages(&site.broker, "KV_dictionaries").await;
    messages.into_iter().map(|message| message.payload.to_vec()).collect()
}

/// Writes the file in pieces. Returns whether every pause was well below the gateway's quiet
/// period.
async fn write_slowly(path: &Path, bytes: &[u8]) -> bool {
    let mut file = fs::File::create(path).unwrap();
    let mut written = Instant::now();
    let mut was_steady = true;
    for piece in bytes.chunks(bytes.len() / 8) {
        file.write_all(piece).unwrap();
        was_steady &= written.elapsed() < Duration::from_millis(150);
        written = Instant::now();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    was_steady
}

const INSERT: &str = "insert into users (email, likes) select 'user' || i || '@example1.org', 'likes ' || i % 17 || ' and ' || i % 23 from generate_series(1, 20) i";

/// Replaces the dictionary `times` times while rows are written. Later readers can read every
/// message.
async fn replace_repeatedly(site: &Site, times: u32) {
    let gateway = site.gateway(&["users"]).start().await;
    let audit = Audit::begin(&site.database).await;
    let replica = site.sqlite_replica(&["users"]);
    site.sql(INSERT).await;
    let mut revision = 0;
    for number in 1..=times {
        drop_in(&site.dictionaries(), "users", &train_numbered(number));
        site.sql("insert into users (email) values ('while it changes')").await;
        revision = wait_for_dictionary(&gateway, revision).await;
        insert_rows(site).await;
    }
    site.wait_until_equal(&replica, "users").await;
    // A new consumer that reads from the first message finds every revision that a message names.
    let entries = audit.assert_stream_is_exact(site, &[("users", "users")]).await;
    let changes = stream::changes(&entries);
    let mut named: Vec<_> = changes.filter_map(|change| change.dictionary.clone()).collect();
    named.dedup();
    assert!(named.len() >= times as usize, "{} dictionaries were used", named.len());
    assert_eq!(named.last().unwrap(), &format!("users_dict@{revision}"));
    // A snapshot uses one dictionary from beginning to end, and a new replica reads it.
    let snapshot = site.take_snapshot("users").await;
    assert_eq!(snapshot.start.dictionary_revision, Some(revision));
    assert_eq!(snapshot.start.dictionary_id.as_deref(), Some("users_dict"));
    assert_eq!(snapshot.dictionaries, [format!("users_dict@{revision}")]);
    site.wait_until_equal(&site.sqlite_replica(&["users"]), "users").await;
}

on_newest_postgres! {
    async fn two_hundred_dictionaries_and_every_message_stays_readable(server) {
        let site = site(&server).await;
        replace_repeatedly(&site, 200).await;
    }

    /// A bucket with a short history would delete revisions that messages name.
    async fn a_bucket_made_by_an_administrator_keeps_every_revision(server) {
        let site = site(&server).await;
        let history = 64;
        let bucket = kv::Config { bucket: "dictionaries".to_owned(), history, ..kv::Config::default() };
        site.broker.jetstream().create_key_value(bucket).await.unwrap();
        replace_repeatedly(&site, history as u32 + 6).await;
    }

    async fn a_bad_file_leaves_the_old_one_and_is_reported_once(server) {
        let site = site(&server).await;
        let folder = site.dictionaries();
        let good = train_numbered(1);
        drop_in(&folder, "users", &good);
        let gateway = site.gateway(&["users"]).start().await;
        let revision = wait_for_dictionary(&gateway, 0).await;
        let refusals = |log: &str| log.matches("dictionary refused").count();
        // Cut inside the entropy tables. Behind them, a shorter file is a valid dictionary, too,
        // only a worse one.
        let half = good[..64].to_vec();
        let bad: [&[u8]; 4] = [b"", b"this is no dictionary at all", &half, &vec![7; MAX_DICTIONARY_BYTES + 1]];
        for (n, bytes) in bad.into_iter().enumerate() {
            drop_in(&folder, "users", bytes);
            eventually("it is reported", async || match refusals(&gateway.log()) {
                reports if reports > n => Ok(()),
                reports => Err(format!("{reports} reports")),
            })
            .await;
            // The gateway reads the folder again, but reports nothing again.
            fs::write(folder.join("another.file"), b"an event").unwrap();
            insert_rows(&site).await;
        }
        let late = train_numbered(2);
        let path = folder.join("users.zstd.dict");
        fs::write(&path, &late).unwrap();
        let next = wait_for_dictionary(&gateway, revision).await;
        insert_rows(&site).await;
        assert!((4..=5).contains(&refusals(&gateway.log())), "{}", gateway.log());

        fs::remove_file(&path).unwrap();
        assert_eq!(wait_for_dictionary(&gateway, next).await, 0);
        insert_rows(&site).await;
        let entries = stream::read_cdc(&site.broker).await;
        let mut used: Vec<_> = stream::changes(&entries).map(|change| change.dictionary.clone()).collect();
        used.dedup();
        let name = |revision| Some(format!("users_dict@{revision}"));
        assert_eq!(used, [name(revision), name(next), None]);
        // The same file again keeps its revision.
        drop_in(&folder, "users", &late);
        assert_eq!(wait_for_dictionary(&gateway, 0).await, next);
        let gateway = gateway.stop().start().await;
        assert_eq!(wait_for_dictionary(&gateway, 0).await, next);
    }

    /// Written in place, with pauses. Half of it is a valid dictionary, too, and must not be
    /// loaded.
    async fn a_slowly_written_dictionary_is_read_whole(server) {
        let site = site(&server).await;
        let path = site.dictionaries().join("users.zstd.dict");
        let gateway = site.gateway(&["users"]).start().await;
        let mut revision = 0;
        let mut number = 0;
        for _ in 0..4 {
            // On a busy machine the pauses may be too long, and half a file may be loaded: try
            // again.
            loop {
                number += 1;
                assert!(number < 100, "the machine is too busy for a file to be written steadily");
                let before = stored_dictionaries(&site).await.len();
                let whole = train_numbered(number);
                let was_steady = write_slowly(&path, &whole).await;
                eventually("the whole one is live", async || match stored_dictionaries(&site).await.last() {
                    Some(last) if *last == whole => Ok(()),
                    _ => Err("another is".to_owned()),
                })
                .await;
                revision = wait_for_dictionary(&gateway, revision).await;
                insert_rows(&site).await;
                if was_steady {
                    assert_eq!(stored_dictionaries(&site).await.len(), before + 1, "half a file was stored");
                    break;
                }
            }
        }
    }

    async fn without_compression_nothing_is_compressed(server) {
        let site = site(&server).await;
        drop_in(&site.dictionaries(), "users", &train_numbered(1));
        site.sql(INSERT).await;
        let _gateway = site.gateway(&["users"]).set_env("COMPRESSION_ENABLED", false).start().await;
        let replica = site.sqlite_replica(&["users"]);
        site.wait_until_equal(&replica, "users").await;
        site.sql(INSERT).await;
        site.wait_until_equal(&replica, "users").await;
        for name in ["CDC", "INIT"] {
            for message in stream::read_messages(&site.broker, name).await {
                assert!(message.headers.get(walgate_wire::CONTENT_ENCODING).is_none(), "{message:?}");
                assert!(message.headers.get(walgate_wire::DICT).is_none(), "{message:?}");
            }
        }
        let snapshot = site.take_snapshot("users").await;
        assert!(!snapshot.start.compression_enabled);
        assert_eq!(snapshot.start.dictionary_id, None);
    }

    async fn a_dictionary_that_has_drifted_is_reported(server) {
        let site = site(&server).await;
        drop_in(&site.dictionaries(), "users", &train_numbered(1));
        let gateway = site.gateway(&["users"]).start().await;
        wait_for_dictionary(&gateway, 0).await;
        let ratio = || gateway.readyz().unwrap().1["tables"]["users"]["dictionary_ratio"].as_f64();
        // Rows similar to the training set first, then different ones.
        let alike = "'user' || i * 7919 + 1 || '@example1.org likes ' || i % 17 || ' and ' || i % 23, 'user' || i * 7919 + 1 || '@example1.org'";
        insert_one_by_one(&site, alike, || ratio().is_some()).await;
        assert!(!gateway.log().contains("worn out"));
        let others = "upper(md5(i::text)), md5((i + 1)::text)";
        insert_one_by_one(&site, others, || ratio().is_some_and(|ratio| ratio > 0.9)).await;
        let reports = gateway.log().matches("its dictionary has worn out").count();
        assert_eq!(reports, 1, "{}", gateway.log());
    }
}

/// Inserts rows in single transactions until `done`.
async fn insert_one_by_one(site: &Site, row: &str, done: impl Fn() -> bool) {
    for _ in 0..20 {
        for number in 0..500 {
            let sql = format!(
                "insert into users (email, likes) select {row} from (select {number} i) one"
            );
            site.sql(&sql).await;
        }
        if done() {
            return;
        }
    }
    panic!("it has not happened after 10,000 rows");
}
