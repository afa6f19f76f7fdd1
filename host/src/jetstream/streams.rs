//! The connection to NATS and the streams and buckets that must be there.
//!
//! What is published, and when, is not known here, nor what is in the streams.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind},
        stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use walgate_nats_connect::{NatsConnectError, NatsOptions};
use walgate_wire::{buckets, subjects};

use super::stream_config;
use crate::config;

/// Revisions of a KV key that are kept. The clients' limit of 64 is not the server's; every revision that a
/// retained message names must stay fetchable.
const KV_REVISIONS_MAX: i64 = 1_000_000;
/// A retry of a lost acknowledgement comes sooner than this.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// For changes, which are never sent twice: the server remembers the ids of all messages for so long.
const CHANGES_WINDOW: Duration = Duration::from_secs(1);

/// How often, and how many times, a cluster is asked for a stream that it has not the nodes for.
const NODES_RETRY: Duration = Duration::from_millis(500);
const NODES_TRIES: usize = 30;

/// A failure to reach NATS or to set it up.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Access(#[from] NatsConnectError),
    #[error("{what}: {reason}")]
    Setup { what: String, reason: String },
    #[error("NATS {0} is too old: version 2.10 or newer with JetStream is needed")]
    TooOld(String),
    #[error("reading {what} failed: {reason}")]
    Read { what: String, reason: String },
}

/// Connects and waits until the server answers. Later losses of the connection are mended by the client.
pub async fn connect(access: &NatsOptions) -> Result<Client, BrokerError> {
    let connector = access.build_connector()?.with_options(|options| {
        options
            .name("walgate")
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(10)))
            .client_capacity(4096)
            .subscription_capacity(1 << 17)
    });
    let client = connector.connect().await?;
    if !client.is_server_compatible(2, 10, 0) {
        return Err(BrokerError::TooOld(client.server_info().version));
    }
    Ok(client)
}

/// The streams and buckets of the wire contract.
#[derive(Clone, Debug)]
pub struct Streams {
    pub client: Client,
    pub context: jetstream::Context,
    pub cdc: Stream,
    pub init: Stream,
    pub requests: Stream,
    pub dlq: Stream,
    pub schemas: Stream,
    pub dictionaries: Stream,
}

impl Streams {
    /// Creates what is missing, changes limits that differ from the configuration and puts right what would lose data, unless that
    /// is an administrator's business.
    pub async fn ensure(
        client: &Client,
        config: &config::NatsConfig,
        tables: &[config::ConfiguredTable],
    ) -> Result<Streams, BrokerError> {
        let context =
            jetstream::ContextBuilder::new().timeout(Duration::from_secs(10)).build(client.clone());
        let limits = |stream: &config::StreamSettings, subject: &str| StreamConfig {
            name: stream.name.clone(),
            subjects: vec![subject.to_owned()],
            max_bytes: stream.max_bytes.map_or(-1, |b| i64::try_from(b).unwrap_or(i64::MAX)),
            max_age: stream.max_age.unwrap_or_default(),
            num_replicas: config.replicas,
            // A full stream is back-pressure: nothing that a consumer has not read is thrown away.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            allow_direct: true,
            duplicate_window: DUPLICATE_WINDOW,
            ..StreamConfig::default()
        };
        let requests = StreamConfig {
            name: config.requests.clone(),
            subjects: requests_for(tables),
            retention: RetentionPolicy::WorkQueue,
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages: 10_000,
            max_bytes: -1,
            max_message_size: 4096,
            max_age: Duration::from_secs(24 * 3600),
            num_replicas: config.replicas,
            ..StreamConfig::default()
        };
        let cdc = StreamConfig {
            duplicate_window: CHANGES_WINDOW,
            ..limits(&config.cdc, subjects::CDC_ALL)
        };
        // Set aside for an operator: the newest are worth most, and nobody waits for room.
        let dlq =
            StreamConfig { discard: DiscardPolicy::Old, ..limits(&config.dlq, subjects::DLQ_ALL) };
        let ensure = |stream: StreamConfig| ensure(&context, stream, config.create);
        let (cdc, init, requests, dlq, schemas, dictionaries) = futures::try_join!(
            ensure(cdc),
            ensure(limits(&config.init, subjects::INIT_ALL)),
            ensure(requests),
            ensure(dlq),
            ensure(bucket(buckets::SCHEMAS, config.replicas)),
            ensure(bucket(buckets::DICTIONARIES, config.replicas)),
        )?;
        let client = client.clone();
        Ok(Streams {
            cdc,
            init,
            requests,
            dlq,
            schemas,
            dictionaries,
            context: context.clone(),
            client,
        })
    }
}

/// What may be asked for, by name: the server refuses everything else. Subjects that others make up may hold bytes that
/// no client can read, and one such message would break the connection of whoever is sent it.
pub fn requests_for(tables: &[config::ConfiguredTable]) -> Vec<String> {
    let mut subjects: Vec<String> =
        tables.iter().map(|table| subjects::snapshot_request(&table.token)).collect();
    subjects.sort();
    subjects
}

/// What `nats kv add` makes, but for the number of revisions kept.
fn bucket(name: &str, replicas: usize) -> StreamConfig {
    StreamConfig {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: KV_REVISIONS_MAX,
        // As the server says that there is no limit.
        max_bytes: -1,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        ..StreamConfig::default()
    }
}

async fn ensure(
    context: &jetstream::Context,
    config: StreamConfig,
    create: bool,
) -> Result<Stream, BrokerError> {
    let name = config.name.clone();
    let setup = |reason: String| BrokerError::Setup { what: format!("stream {name}"), reason };
    match context.get_stream(&name).await {
        Ok(stream) => {
            let found = &stream.cached_info().config;
            let unsafe_settings = stream_config::unsafe_settings(found, &config);
            let wrong = stream_config::in_words(&unsafe_settings);
            let is_as_configured = stream_config::is_as_configured(found, &config);
            match (unsafe_settings.is_empty(), is_as_configured) {
                (true, true) => return Ok(stream),
                (true, false) if !create => {
                    tracing::warn!(stream = name, "its limits, replicas or subjects differ from the configuration and stay, as nats.create is false: `walgate nats setup` changes them");
                    return Ok(stream);
                }
                (false, _) if !create => return Err(setup(format!(
                    "{wrong}, or data is lost; nats.create is false: `walgate nats setup` sets it right, with an administrator's credentials"
                ))),
                (false, _) => tracing::warn!(stream = name, "{wrong}: set right, for data would be lost"),
                (true, false) => {}
            }
            let changed = stream_config::put_right(found, config);
            context.update_stream(changed).await.map_err(|e| setup(match wrong.is_empty() {
                true => format!("its limits, replicas and subjects cannot be changed: {e}"),
                false => format!(
                    "{wrong}, or data is lost, and the server does not change that: {e}. If nothing in it is needed, `nats stream rm {name}` and start again: it is made anew, and copies are loaded again"
                ),
            }))?;
            context.get_stream(&name).await.map_err(|e| setup(e.to_string()))
        }
        Err(error) if is_not_found(&error) && !create => Err(setup(
            "is not there, and nats.create is false: `walgate nats setup` creates it, with an administrator's credentials".to_owned(),
        )),
        Err(error) if is_not_found(&error) => {
            let mut config = config;
            if !config.max_age.is_zero() {
                config.duplicate_window = config.duplicate_window.min(config.max_age);
            }
            create_stream(context, &config).await.map_err(setup)
        }
        Err(error) => Err(setup(error.to_string())),
    }
}

/// A cluster that was started a moment ago has not found its nodes yet.
async fn create_stream(
    context: &jetstream::Context,
    config: &StreamConfig,
) -> Result<Stream, String> {
    let lacks_nodes = |e: &CreateStreamError| {
        matches!(e.kind(), CreateStreamErrorKind::JetStream(e)
            if [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::CLUSTER_NOT_AVAILABLE].contains(&e.error_code()))
    };
    let mut created = context.create_stream(config.clone()).await;
    for _ in 0..NODES_TRIES {
        let Err(error) = &created else { break };
        if !lacks_nodes(error) {
            break;
        }
        let stream = config.name.as_str();
        tracing::warn!(stream, %error, "stream not created, retrying: the cluster may be incomplete");
        tokio::time::sleep(NODES_RETRY).await;
        created = context.create_stream(config.clone()).await;
    }
    created.map_err(|error| match lacks_nodes(&error) {
        true => format!(
            "cannot be created: {error}; nats.replicas = {} takes as many servers with JetStream that see each other",
            config.num_replicas
        ),
        false => format!("cannot be created: {error}"),
    })
}

fn is_not_found(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::context::GetStreamErrorKind::JetStream;
    matches!(error.kind(), JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    /// The beginning of a server of this version: what it says of itself, and that it lives.
    async fn greeting(listener: TcpListener, version: &str) -> std::io::Result<()> {
        let (socket, _) = listener.accept().await?;
        let (reader, mut writer) = socket.into_split();
        let info = format!(
            "INFO {{\"server_id\":\"S\",\"server_name\":\"S\",\"version\":\"{version}\",\"go\":\"go\",\"host\":\"127.0.0.1\",\
             \"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"jetstream\":true}}\r\n"
        );
        writer.write_all(info.as_bytes()).await?;
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("PING") {
                writer.write_all(b"PONG\r\n").await?;
            }
        }
        Ok(())
    }

    async fn connects_to(version: &'static str) -> Result<(), BrokerError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(greeting(listener, version));
        let connected = connect(&NatsOptions::from(url)).await.map(drop);
        server.abort();
        connected
    }

    #[tokio::test]
    async fn a_server_that_is_too_old_is_told_what_is_needed() {
        for version in ["2.10.0", "2.15.1", "3.0.0"] {
            connects_to(version).await.unwrap();
        }
        for version in ["2.9.25", "1.4.1"] {
            let error = connects_to(version).await.unwrap_err().to_string();
            assert!(error.contains(&format!("NATS {version} is too old: version 2.10")), "{error}");
        }
    }
}
