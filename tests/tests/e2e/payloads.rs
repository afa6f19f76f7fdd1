//! Servers with a smaller or larger `max_payload` than the default: bodies are cut to fit, and
//! copies are complete.

use walgate_servers::NatsOptions;
use walgate_tests::{
    Audit, Database, Site, dictionary::drop_in, eventually, on_newest_postgres, stream,
};
use walgate_wire::PART;

const TABLES: &str = "
    create function noise(bytes int) returns bytea language sql as
      $$ select string_agg(decode(md5(random()::text || i), 'hex'), '') from generate_series(1, bytes / 16) i $$;
    create table large (id int primary key, v bytea, t text);
    create table small (id int primary key, v text);
    insert into small select i, 'row ' || i from generate_series(1, 20000) i;";

/// Snapshots and changes, with rows below and far above the size of one message.
async fn rows_of_every_size(server: std::sync::Arc<walgate_tests::Server>, max_payload_bytes: u64) {
    let options =
        NatsOptions { max_payload_bytes: Some(max_payload_bytes), ..NatsOptions::default() };
    let site = Site::with_nats(&server, options).await;
    let copy = Database::create(&server).await;
    site.sql(TABLES).await;
    let sizes = [
        100,
        max_payload_bytes / 2,
        max_payload_bytes - 1000,
        max_payload_bytes,
        max_payload_bytes * 2 + 17,
    ];
    for (id, bytes) in sizes.iter().enumerate() {
        site.sql(&format!("insert into large values ({id}, noise({bytes}), 'seeded')")).await;
    }
    let _gateway = site.gateway(&["large", "small"]).start().await;
    let audit = Audit::begin(&site.database).await;
    let sqlite = site.sqlite_replica(&["large", "small"]);
    let postgres = site.postgres_replica(&copy, &["large", "small"]);
    let same = async || {
        for table in ["large", "small"] {
            site.wait_until_equal(&sqlite, table).await;
            site.wait_until_equal(&postgres, table).await;
        }
    };
    same().await;
    for (id, bytes) in sizes.iter().enumerate() {
        site.sql(&format!(
            "begin; insert into large values ({id} + 10, noise({bytes}), 'live'); update small set v = v || '!' where id % 7 = {id}; update large set v = noise({bytes} + 5) where id = {id}; commit"
        ))
        .await;
    }
    site.sql("update large set t = 'the large value stays' where id > 10; update large set id = id + 100 where id in (3, 4); delete from large where id = 2; insert into small select i, repeat('x', 100) from generate_series(30000, 60000) i").await;
    same().await;
    audit.assert_stream_is_exact(&site, &[("large", "large"), ("small", "small")]).await;
    // A later copy reads a snapshot of them.
    let late = site.sqlite_replica(&["large", "small"]);
    site.wait_until_equal(&late, "large").await;
    for name in ["CDC", "INIT"] {
        let messages = stream::read_messages(&site.broker, name).await;
        assert!(
            messages.iter().any(|message| message.headers.get(PART).is_some()),
            "{name} has no part"
        );
        let largest = messages.iter().map(|message| message.payload.len() as u64).max().unwrap();
        assert!(
            largest <= max_payload_bytes && largest > max_payload_bytes / 2,
            "{name}: {largest}"
        );
    }
}

on_newest_postgres! {
    async fn every_message_fits_a_max_payload_of_64_kib(server) {
        rows_of_every_size(server, 64 << 10).await;
    }

    async fn every_message_fits_a_max_payload_of_8_mib(server) {
        rows_of_every_size(server, 8 << 20).await;
    }

    /// A dictionary is one message. The gateway refuses one that does not fit, reports it, and
    /// everything else continues.
    async fn a_dictionary_above_max_payload_is_refused(server) {
        let options = NatsOptions { max_payload_bytes: Some(64 << 10), ..NatsOptions::default() };
        let site = Site::with_nats(&server, options).await;
        site.sql(TABLES).await;
        let gateway = site.gateway(&["small"]).start().await;
        let replica = site.sqlite_replica(&["small"]);
        let mut state = 1u32;
        let mut noise = || { state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); (b'!' + (state >> 24) as u8 % 90) as char };
        let samples: Vec<String> = (0..2000).map(|_| (0..200).map(|_| noise()).collect::<String>().repeat(2)).collect();
        let sizes: Vec<usize> = samples.iter().map(String::len).collect();
        let trained = walgate_wire::train_dictionary(samples.concat().as_bytes(), &sizes, 112_640).unwrap();
        assert!(trained.bytes().len() > 64 << 10);
        drop_in(&site.dictionaries(), "small", trained.bytes());
        eventually("the refusal is logged", async || match gateway.log() {
            log if log.contains("dictionary refused") && log.contains("max_payload") => Ok(()),
            log => Err(log),
        })
        .await;
        site.sql("insert into small values (0, 'after')").await;
        site.wait_until_equal(&replica, "small").await;
        drop_in(&site.dictionaries(), "small", &walgate_tests::dictionary::train_numbered(1));
        eventually("a smaller one is live", async || match gateway.log() {
            log if log.contains("dictionary is live") => Ok(()),
            log => Err(log),
        })
        .await;
        assert_eq!(gateway.log().matches("dictionary refused").count(), 1, "{}", gateway.log());
    }
}
