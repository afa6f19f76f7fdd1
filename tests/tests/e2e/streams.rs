//! Streams and buckets that existed before the gateway, with settings that lose data.

use std::sync::Arc;

use async_nats::jetstream::{
    kv,
    stream::{Config, DiscardPolicy, RetentionPolicy},
};
use walgate_tests::{Server, Site, on_newest_postgres, program::run_with};

async fn site(server: &Arc<Server>) -> Site {
    let site = Site::new(server).await;
    site.sql("create table t (id int primary key)").await;
    site
}

/// The settings that `nats stream add` suggests, and those of `nats kv add --history 64 --ttl 1h`.
async fn create_as_others(site: &Site, changes: Config) {
    let jetstream = site.broker.jetstream();
    for (name, subject) in [("CDC", "cdc.>"), ("INIT", "init.>")] {
        let subjects = vec![subject.to_owned()];
        let stream = Config { name: name.to_owned(), subjects, ..changes.clone() };
        jetstream.create_stream(stream).await.unwrap();
    }
    for bucket in ["schemas", "dictionaries"] {
        let max_age = std::time::Duration::from_secs(3600);
        let config =
            kv::Config { bucket: bucket.into(), history: 64, max_age, ..kv::Config::default() };
        jetstream.create_key_value(config).await.unwrap();
    }
}

async fn stream_config(site: &Site, stream: &str) -> Config {
    let mut stream = site.broker.jetstream().get_stream(stream).await.unwrap();
    stream.info().await.unwrap().config.clone()
}

/// No needed message is deleted any more, and the administrator's description is still there.
async fn assert_keeps_everything(site: &Site) {
    for stream in ["CDC", "INIT"] {
        let config = stream_config(site, stream).await;
        assert_eq!(config.discard, DiscardPolicy::New, "{stream}");
        assert!(config.max_messages_per_subject <= 0, "{config:?}");
        assert_eq!(config.description.as_deref(), Some("made by hand"), "{stream}");
    }
    for bucket in ["KV_schemas", "KV_dictionaries"] {
        let config = stream_config(site, bucket).await;
        assert_eq!(config.max_messages_per_subject, 1_000_000, "{bucket}");
        assert!(config.max_age.is_zero(), "{config:?}");
    }
}

fn hand_made_config() -> Config {
    let description = Some("made by hand".to_owned());
    Config {
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 100,
        description,
        ..Config::default()
    }
}

on_newest_postgres! {
    async fn stream_settings_that_lose_data_are_corrected(server) {
        let site = site(&server).await;
        create_as_others(&site, hand_made_config()).await;
        let gateway = site.gateway(&["t"]).start().await;
        assert_keeps_everything(&site).await;
        assert!(gateway.log().contains("discard is old and has to be new"), "{}", gateway.log());
        site.sql("insert into t select generate_series(1, 1000)").await;
        site.wait_until_equal(&site.sqlite_replica(&["t"]), "t").await;
    }

    async fn a_gateway_without_rights_reports_the_correction(server) {
        let site = site(&server).await;
        create_as_others(&site, hand_made_config()).await;
        let may_not = site.gateway(&["t"]).set_env("NATS_CREATE", false);
        let refused = may_not.clone().run_to_end();
        assert_eq!(refused.code, Some(3), "{}", refused.output);
        let said = &refused.output;
        assert!(said.contains("has to be") && said.contains("walgate nats setup"), "{said}");
        assert_eq!(stream_config(&site, "CDC").await.discard, DiscardPolicy::Old, "nothing was changed");
        let file = may_not.write_config();
        let setup = run_with("walgate", &["nats", "setup", "-c", file.to_str().unwrap()], &[]);
        assert!(setup.status.success(), "{setup:?}");
        assert_keeps_everything(&site).await;
        may_not.start().await;
    }

    /// Readers would consume each other's changes, and the server cannot convert such a stream.
    async fn stream_settings_that_cannot_be_corrected_are_refused(server) {
        let site = site(&server).await;
        let queue = Config { retention: RetentionPolicy::WorkQueue, ..hand_made_config() };
        create_as_others(&site, queue).await;
        let refused = site.gateway(&["t"]).run_to_end();
        assert_eq!(refused.code, Some(3), "{}", refused.output);
        for word in ["retention is workqueue and has to be limits", "nats stream rm "] {
            assert!(refused.output.contains(word), "no '{word}' in: {}", refused.output);
        }
    }
}
