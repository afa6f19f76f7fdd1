//! The gateway inside the demo: the same as `walgate run`, with a configuration made here.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;
use walgate_wire::TableName;

use crate::{shop, site::Site};
use walgate_host::{
    config::{
        CompressionConfig, Config, ConfiguredTable, GuestsConfig, HttpConfig, NatsConfig,
        OnGuestChange, PostgresConfig, SnapshotConfig, StreamSettings, TableGuest, UseDictionary,
    },
    observe::status::Status,
};

const NAME: &str = "walgate_demo";
const READY_WITHIN: Duration = Duration::from_secs(20);

pub fn config(site: &Site) -> Config {
    let stream =
        |name: &str| StreamSettings { name: name.to_owned(), max_bytes: None, max_age: None };
    let table = |table: &str| {
        let name = TableName::new("public", table);
        let guest = TableGuest {
            file: format!("{table}.wasm").into(),
            on_change: OnGuestChange::Reseed,
            ..TableGuest::default()
        };
        ConfiguredTable { token: name.token(), name, guest, shed: false }
    };
    Config {
        postgres: PostgresConfig {
            slot: NAME.to_owned(),
            ..PostgresConfig::at(site.postgres_url().into(), NAME.to_owned())
        },
        nats: NatsConfig {
            access: Some(site.nats.url().into()),
            port: 0,
            replicas: 1,
            create: true,
            cdc: stream("CDC"),
            init: stream("INIT"),
            requests: "REQUESTS".to_owned(),
            dlq: stream("DLQ"),
        },
        compression: CompressionConfig {
            enabled: true,
            level: 1,
            use_dictionary: UseDictionary::Always,
            dictionaries: site.dictionaries(),
        },
        guests: GuestsConfig { dir: site.guests(), ..GuestsConfig::default() },
        snapshot: SnapshotConfig {
            workers: 2,
            chunk_bytes: 3 << 20,
            max_concurrent: 1,
            cooldown: Duration::ZERO,
        },
        http: HttpConfig { listen: site.http },
        data_dir: site.data_dir(),
        start_wait: Duration::ZERO,
        tables: shop::TABLES.map(table).into(),
    }
}

/// Runs until `stop` becomes true.
pub async fn run(config: Config, status: Status, mut stop: watch::Receiver<bool>) -> Result<()> {
    let stopped = async move {
        let _ = stop.wait_for(|&stop| stop).await;
    };
    // On its own thread: its future does not move between threads.
    let runtime = tokio::runtime::Handle::current();
    let running = move || runtime.block_on(walgate_host::supervisor::run(config, status, stopped));
    Ok(tokio::task::spawn_blocking(running).await??)
}

/// Waits until the gateway streams changes.
pub async fn ready(status: &Status) -> Result<()> {
    let begun = Instant::now();
    while !status.is_streaming() {
        if begun.elapsed() > READY_WITHIN {
            let problem = status.problem().unwrap_or_else(|| "no reason was given".to_owned());
            bail!("the gateway is not ready after {} s: {problem}", READY_WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
