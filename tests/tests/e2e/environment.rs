//! A gateway that is configured by the environment alone, as in a container, and the precedence
//! over the file.

use std::fs;

use walgate_tests::{
    Site, eventually, on_newest_postgres,
    program::{Program, find_built},
    stream,
};

on_newest_postgres! {
    async fn the_environment_alone_configures_a_gateway(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); create schema sales; create table sales.orders (id int primary key);
                  insert into t values (1, 'one'); insert into sales.orders values (7)").await;
        let folder = site.folder();
        let [url, user, data, dictionaries] = ["url", "user", "data", "dictionaries"].map(|name| folder.join(name).display().to_string());
        fs::write(&url, format!("{}\n", site.database.url())).unwrap();
        let nats = site.broker.url();
        // The file is in this folder, and the environment overrides it.
        fs::create_dir(&user).unwrap();
        fs::write(format!("{user}/walgate.toml"), "[postgres]\nurl = 'postgres://nobody@127.0.0.1:1/none'\nslot = 'none'\n[[tables]]\nname = 'public.nothing'\n").unwrap();
        let config = format!("{user}/walgate.toml");
        let slot = site.slot();
        let set: &[(&str, &str)] = &[
            ("TABLES", r#"[{name="public.t", alias="renamed"}, {name="sales.orders", on_guest_error="drop"}]"#),
            ("POSTGRES_URL_FILE", &url), ("POSTGRES_SLOT", &slot), ("POSTGRES_PUBLICATION", "walgate"), ("POSTGRES_WAL_BUDGET", "512MiB"),
            ("NATS_URL", &nats), ("NATS_CDC_STREAM", "CHANGES"), ("NATS_INIT_STREAM", "SNAPSHOTS"), ("NATS_CDC_MAX_BYTES", "100000000"), ("NATS_REPLICAS", "1"),
            ("COMPRESSION_ENABLED", "false"), ("COMPRESSION_DICTIONARIES", &dictionaries), ("SNAPSHOT_WORKERS", "2"), ("SNAPSHOT_CHUNK_BYTES", "65536"),
            ("SNAPSHOT_COOLDOWN_SECONDS", "0"), ("HTTP_LISTEN", "127.0.0.1:0"), ("DATA_DIR", &data), ("START_WAIT_SECONDS", "0"), ("CONFIG", &config),
        ];
        let env: Vec<_> = set.iter().map(|(name, value)| (format!("WALGATE_{name}"), (*value).to_owned())).chain([("NO_COLOR".to_owned(), "1".to_owned())]).collect();
        let log = folder.join("environment.log");
        let gateway = Program::spawn("gateway", &find_built("walgate"), &["run".to_owned()], &env, &log);
        eventually("it streams", async || match gateway.log() {
            log if log.contains("streaming") => Ok(()),
            log => Err(log),
        })
        .await;
        let stream = site.broker.jetstream().get_stream("CHANGES").await.unwrap();
        assert_eq!(stream.cached_info().config.max_bytes, 100_000_000);
        assert!(site.broker.jetstream().get_stream("CDC").await.is_err());
        site.sql("insert into t values (2, 'two'); insert into sales.orders values (8)").await;
        eventually("changes arrive under their names", async || {
            let messages = stream::read_messages(&site.broker, "CHANGES").await;
            let has = |subject: &str| messages.iter().any(|message| message.subject == subject && message.headers.get(walgate_wire::CONTENT_ENCODING).is_none());
            if has("cdc.renamed") && has("cdc.sales=2Eorders") { Ok(()) } else { Err(format!("{messages:?}")) }
        })
        .await;
        assert_eq!(site.database.value(&format!("select slot_name from pg_replication_slots where slot_name = '{slot}' and active")).await, slot);
        assert!(gateway.terminate().success(), "{}", gateway.log());
        // The error for a wrong value names the variable.
        let mut wrong = env;
        wrong.push(("WALGATE_SNAPSHOT_WORKERS".to_owned(), "many".to_owned()));
        let refused = walgate_tests::program::run_with("walgate", &["run"], &wrong);
        let report = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{report}");
        assert!(report.contains("snapshot.workers") && report.contains("environment"), "{report}");
    }
}
