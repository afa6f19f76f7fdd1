//! Every problem is reported with its remedy before anything is changed.

use std::sync::Arc;

use walgate_tests::{Server, Site, gateway::GatewayOptions, on_each_postgres, on_newest_postgres};

/// The gateway exits with `code` and reports all of `words`. Postgres and NATS are unchanged.
async fn assert_refused(site: &Site, gateway: GatewayOptions, code: i32, words: &[&str]) {
    let ended = gateway.run_to_end();
    for word in words {
        assert!(ended.output.contains(word), "no '{word}' in: {}", ended.output);
    }
    assert_eq!(ended.code, Some(code), "{}", ended.output);
    let slot = site.slot();
    let made = format!(
        "select (select count(*) from pg_publication where pubname = 'walgate')
              + (select count(*) from pg_replication_slots where slot_name = '{slot}')"
    );
    assert_eq!(site.database.value(&made).await, "0", "something was created");
    for stream in ["CDC", "INIT", "REQUESTS", "KV_schemas", "KV_dictionaries"] {
        assert!(site.broker.jetstream().get_stream(stream).await.is_err(), "{stream} was created");
    }
}

on_each_postgres! {
    async fn a_missing_table_is_reported_with_a_similar_name(server) {
        let site = Site::new(&server).await;
        site.sql("create table customers (id int primary key); create schema sales; create table sales.orders (id int)").await;
        let gateway = site.gateway(&["public.custommers", "sales.nothing_like_it", "customers"]);
        assert_refused(&site, gateway, 3, &["custommers", "customers", "did you mean", "sales.nothing_like_it", "[[tables]]"]).await;
    }

    async fn missing_rights_are_reported_with_the_grant(server) {
        let site = Site::new(&server).await;
        let role = format!("weak_{}", site.database.name());
        site.sql(&format!("create table t (id int primary key); create role {role} login")).await;
        let url = site.database.url().replace("postgres@", &format!("{role}@"));
        let gateway = site.gateway(&["t"]).with_postgres_url(&url);
        assert_refused(&site, gateway.clone(), 3, &[&role, "REPLICATION", "GRANT SELECT ON"]).await;
        site.sql(&format!("alter role {role} replication")).await;
        assert_refused(&site, gateway, 3, &[&role, "GRANT SELECT ON"]).await;
        site.sql(&format!("drop role {role}")).await;
    }

    async fn a_server_without_logical_wal_is_refused(server) {
        let own = Arc::new(Server::start(server.bin(), &[("wal_level", "replica")]));
        let site = Site::new(&own).await;
        site.sql("create table t (id int primary key)").await;
        assert_refused(&site, site.gateway(&["t"]), 3, &["wal_level", "logical", "ALTER SYSTEM", "restart"]).await;
    }

    async fn exhausted_replication_slots_are_reported(server) {
        let own = Arc::new(Server::start(server.bin(), &[("max_replication_slots", "1")]));
        let site = Site::new(&own).await;
        site.sql("create table t (id int primary key)").await;
        site.sql("select pg_create_logical_replication_slot('others', 'pgoutput')").await;
        assert_refused(&site, site.gateway(&["t"]), 3, &["max_replication_slots", "pg_replication_slots"]).await;
    }
}

on_newest_postgres! {
    /// The configuration is refused, not the server.
    async fn an_invalid_url_is_refused(server) {
        let site = Site::new(&server).await;
        for (url, word) in [("postgres://u@[::1/d", "postgres.url"), ("postgres://localhost/d", "names no user"), ("user=u port=x", "postgres.url"), ("postgres://u@h/d?sslmode=verify", "verify-full")] {
            assert_refused(&site, site.gateway(&["t"]).with_postgres_url(url), 2, &[word]).await;
        }
    }

    async fn the_configuration_is_checked_first(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let with = |key: &str, value: &str| site.gateway(&["t"]).set_env(key, value);
        assert_refused(&site, with("SNAPSHOT_WORKERSS", "3"), 2, &["workerss"]).await;
        assert_refused(&site, with("SNAPSHOT_WORKERS", "0"), 2, &["snapshot.workers", "1 to 32"]).await;
        assert_refused(&site, with("POSTGRES_SLOT", "Bad Slot"), 2, &["postgres.slot", "a-z"]).await;
        assert_refused(&site, with("HTTP_LISTEN", "here"), 2, &["http.listen"]).await;
        assert_refused(&site, with("POSTGRES_URL_FILE", "/no/such/file"), 2, &["/no/such/file", "POSTGRES_URL_FILE"]).await;
        assert_refused(&site, site.gateway(&["t", "public.t"]), 2, &["public.t", "twice"]).await;
        assert_refused(&site, site.gateway(&[]), 2, &["[[tables]]"]).await;
    }

    async fn unreachable_servers_are_reported(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let nowhere = "postgres://postgres:hunter2@127.0.0.1:1/db";
        let ended = site.gateway(&["t"]).with_postgres_url(nowhere).run_to_end();
        assert_eq!(ended.code, Some(3), "{}", ended.output);
        assert!(ended.output.contains("127.0.0.1:1") && ended.output.contains("postgres"), "{}", ended.output);
        assert!(!ended.output.contains("hunter2"), "a password is no one's business: {}", ended.output);
        let gateway = site.gateway(&["t"]).with_name("no-nats").set_env("NATS_URL", "nats://user:hunter2@127.0.0.1:1");
        assert_password_refused(&site, gateway).await;
    }

    /// An existing publication of that name is extended, never shrunk. A slot of another plugin is
    /// left alone.
    async fn existing_publications_and_slots_are_respected(server) {
        let site = Site::new(&server).await;
        let slot = site.slot();
        site.sql("create table t (id int primary key); create table theirs (id int primary key);
                  create publication walgate for table theirs").await;
        site.sql(&format!("select pg_create_logical_replication_slot('{slot}', 'test_decoding')")).await;
        let ended = site.gateway(&["t"]).run_to_end();
        assert_eq!(ended.code, Some(3));
        assert!(ended.output.contains(&slot) && ended.output.contains("test_decoding"), "{}", ended.output);
        let tables = "select string_agg(tablename, ',' order by tablename) from pg_publication_tables where pubname = 'walgate'";
        assert_eq!(site.database.value(tables).await, "theirs");
        site.sql(&format!("select pg_drop_replication_slot('{slot}')")).await;
        let _gateway = site.gateway(&["t"]).start().await;
        assert_eq!(site.database.value(tables).await, "t,theirs");
    }
}

async fn assert_password_refused(site: &Site, gateway: GatewayOptions) {
    let ended = gateway.run_to_end();
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(
        ended.output.contains("NATS") && ended.output.contains("127.0.0.1:1"),
        "{}",
        ended.output
    );
    assert!(!ended.output.contains("hunter2"), "a password is no one's business: {}", ended.output);
    assert_eq!(site.database.value("select count(*) from pg_publication").await, "0");
}
