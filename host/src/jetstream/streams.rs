//! The connection to NATS, and the streams and buckets that must exist.
//!
//! What is published, and when, is not known here. The contents of the streams are not known
//! either.

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
use walgate_wire::{Token, buckets, subjects};

use super::{
    chain::{ChainMode, ConnectionGeneration},
    publisher::{Publisher, max_body_bytes},
    stream_config,
};
use crate::config;

/// Revisions of a KV key that are kept. The limit of 64 in clients is not the server's. Every
/// revision that a retained message refers to must stay readable.
const KV_REVISIONS_MAX: i64 = 1_000_000;
/// A retry of a lost acknowledgement comes sooner than this.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The window of the CDC stream. Changes are never sent twice, and the server keeps every message
/// id of the window in memory.
const CHANGES_WINDOW: Duration = Duration::from_secs(1);

/// Attempts to create a stream while a cluster lacks nodes for it.
const NODES_RETRY: Duration = Duration::from_millis(500);
const NODES_TRIES: usize = 30;

/// A failure to connect to NATS, to set up its streams, or to read from them.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    #[error(transparent)]
    Connect(#[from] NatsConnectError),
    #[error("{what}: {reason}")]
    Setup { what: String, reason: String },
    #[error("NATS {0} is too old: version 2.10 or newer with JetStream is needed")]
    TooOld(String),
    #[error("reading {what} failed: {reason}")]
    Read { what: String, reason: String },
}

/// Waits until the server answers. The client repairs later losses of the connection.
async fn connect(options: &NatsOptions) -> Result<Client, JetStreamError> {
    let connector = options.build_connector()?.with_options(|options| {
        options
            .name("walgate")
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(10)))
            .client_capacity(4096)
            .subscription_capacity(1 << 17)
    });
    let client = connector.connect().await?;
    if !client.is_server_compatible(2, 10, 0) {
        return Err(JetStreamError::TooOld(client.server_info().version));
    }
    Ok(client)
}

/// The streams and buckets of the wire contract, on one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    pub(super) client: Client,
    pub(super) context: jetstream::Context,
    publisher: Publisher,
    pub(super) cdc: Stream,
    pub(super) init: Stream,
    pub(super) requests: Stream,
    pub(super) schemas: Stream,
    pub(super) dictionaries: Stream,
}

impl Streams {
    /// Connects, and creates or corrects the streams as [`Streams::ensure`] does.
    pub async fn connect(
        options: &NatsOptions,
        config: &config::NatsConfig,
        tables: &[config::ConfiguredTable],
    ) -> Result<Streams, JetStreamError> {
        let client = connect(options).await?;
        Box::pin(ensure_streams(&client, config, tables)).await
    }

    /// Creates missing streams, and applies the configured limits. Corrects settings that would
    /// lose data. If `nats.create` is false, an administrator must do all of this.
    pub async fn ensure(
        &self,
        config: &config::NatsConfig,
        tables: &[config::ConfiguredTable],
    ) -> Result<Streams, JetStreamError> {
        Box::pin(ensure_streams(&self.client, config, tables)).await
    }

    /// Publishes what is not part of the chain of changes.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The server's `max_payload`: the most bytes of a message, headers included.
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The largest body that fits one message.
    pub fn max_body_bytes(&self) -> usize {
        max_body_bytes(self.max_payload())
    }

    /// Identifies the connection as it is now; differs after every reconnect.
    pub fn connection_generation(&self) -> ConnectionGeneration {
        ConnectionGeneration::of(&self.client.statistics())
    }

    /// How a chain in the CDC stream states what its messages follow. Replicas of a stream that
    /// were restarted do not know the last message id (nats-server 2.15).
    pub fn chain_mode(&self) -> ChainMode {
        match self.cdc.cached_info().config.num_replicas > 1 {
            true => ChainMode::Sequence,
            false => ChainMode::MsgId,
        }
    }

    /// The last sequence of the CDC stream.
    pub async fn last_change_sequence(&self) -> Result<u64, JetStreamError> {
        let info = self.cdc.get_info().await.map_err(|error| JetStreamError::Read {
            what: "the CDC stream".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(info.state.last_sequence)
    }

    /// Deletes the chunks of a failed snapshot. They only take space: a failure is logged.
    pub async fn purge_snapshot(&self, token: &Token, snapshot_id: &str) {
        let chunks = subjects::init_snap_of(token, snapshot_id);
        if let Err(error) = self.init.purge().filter(&chunks).await {
            tracing::warn!(chunks, %error, "failed snapshot not purged");
        }
    }

    /// Deletes the table's snapshots before sequence `before` of the INIT stream. They only take
    /// space: a failure is logged.
    pub async fn purge_superseded(&self, token: &Token, before: u64) {
        let superseded = [
            subjects::init_snap_all(token),
            subjects::init_start(token),
            subjects::init_meta(token),
            subjects::init_error(token),
        ];
        for subject in superseded {
            if let Err(error) = self.init.purge().filter(&subject).sequence(before).await {
                tracing::warn!(subject, %error, "superseded snapshots not purged");
            }
        }
    }
}

async fn ensure_streams(
    client: &Client,
    config: &config::NatsConfig,
    tables: &[config::ConfiguredTable],
) -> Result<Streams, JetStreamError> {
    let context =
        jetstream::ContextBuilder::new().timeout(Duration::from_secs(10)).build(client.clone());
    let requests = requests_config(config, tables);
    let cdc = StreamConfig {
        duplicate_window: CHANGES_WINDOW,
        ..stream_config(config, &config.cdc, subjects::CDC_ALL)
    };
    // Dead letters are for an operator: new ones replace old ones, and no publisher waits.
    let dlq = StreamConfig {
        discard: DiscardPolicy::Old,
        ..stream_config(config, &config.dlq, subjects::DLQ_ALL)
    };
    let ensure = |stream: StreamConfig| ensure_stream(&context, stream, config.create);
    let (cdc, init, requests, _, schemas, dictionaries) = futures::try_join!(
        ensure(cdc),
        ensure(stream_config(config, &config.init, subjects::INIT_ALL)),
        ensure(requests),
        ensure(dlq),
        ensure(bucket_config(buckets::SCHEMAS, config.replicas)),
        ensure(bucket_config(buckets::DICTIONARIES, config.replicas)),
    )?;
    let client = client.clone();
    let publisher = Publisher::new(context.clone());
    Ok(Streams { client, context, publisher, cdc, init, requests, schemas, dictionaries })
}

/// A stream of changes, snapshots or dead letters, with its configured limits.
fn stream_config(
    nats: &config::NatsConfig,
    stream: &config::StreamSettings,
    subject: &str,
) -> StreamConfig {
    StreamConfig {
        name: stream.name.clone(),
        subjects: vec![subject.to_owned()],
        max_bytes: stream.max_bytes.map_or(-1, |b| i64::try_from(b).unwrap_or(i64::MAX)),
        max_age: stream.max_age.unwrap_or_default(),
        num_replicas: nats.replicas,
        // A full stream is back-pressure: the server deletes nothing that is not read.
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        ..StreamConfig::default()
    }
}

/// The stream of snapshot requests: at most one a table, for a day.
fn requests_config(nats: &config::NatsConfig, tables: &[config::ConfiguredTable]) -> StreamConfig {
    StreamConfig {
        name: nats.requests.clone(),
        subjects: request_subjects(tables),
        retention: RetentionPolicy::WorkQueue,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages: 10_000,
        max_bytes: -1,
        max_message_size: 4096,
        max_age: Duration::from_secs(24 * 3600),
        num_replicas: nats.replicas,
        ..StreamConfig::default()
    }
}

/// The subjects of snapshot requests, one a table: the server refuses all others. An invented
/// subject may hold bytes that no client can read. Such a message would break the connection of
/// every client that receives it.
pub(super) fn request_subjects(tables: &[config::ConfiguredTable]) -> Vec<String> {
    let mut subjects: Vec<String> =
        tables.iter().map(|table| subjects::snapshot_request(&table.token)).collect();
    subjects.sort();
    subjects
}

/// As `nats kv add` creates a bucket, but with more revisions.
fn bucket_config(name: &str, replicas: usize) -> StreamConfig {
    StreamConfig {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: KV_REVISIONS_MAX,
        // The server's form of "no limit".
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

async fn ensure_stream(
    context: &jetstream::Context,
    config: StreamConfig,
    create: bool,
) -> Result<Stream, JetStreamError> {
    let name = config.name.clone();
    let setup = |reason: String| JetStreamError::Setup { what: format!("stream {name}"), reason };
    match context.get_stream(&name).await {
        Ok(stream) => correct_stream(context, stream, config, create).await.map_err(setup),
        Err(error) if is_not_found(&error) && !create => Err(setup(
            "does not exist, and nats.create is false: `walgate nats setup` creates it, with an \
             administrator's credentials"
                .to_owned(),
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

/// Updates an existing stream if its settings would lose data or differ from the configuration.
async fn correct_stream(
    context: &jetstream::Context,
    stream: Stream,
    config: StreamConfig,
    create: bool,
) -> Result<Stream, String> {
    let name = config.name.clone();
    let found = &stream.cached_info().config;
    let unsafe_settings = stream_config::find_unsafe_settings(found, &config);
    let wrong = stream_config::describe_settings(&unsafe_settings);
    let matches = stream_config::matches_configuration(found, &config);
    match (unsafe_settings.is_empty(), matches) {
        (true, true) => return Ok(stream),
        (true, false) if !create => {
            tracing::warn!(
                stream = name,
                "stream limits, replicas or subjects differ from the configuration and stay, as \
                 nats.create is false: `walgate nats setup` changes them"
            );
            return Ok(stream);
        }
        (false, _) if !create => {
            return Err(format!(
                "{wrong}, or data is lost; nats.create is false: `walgate nats setup` corrects it, \
                 with an administrator's credentials"
            ));
        }
        (false, _) => {
            tracing::warn!(stream = name, "stream settings that lose data are corrected: {wrong}");
        }
        (true, false) => {}
    }
    let corrected = stream_config::correct_config(found, config);
    context.update_stream(corrected).await.map_err(|error| match wrong.is_empty() {
        true => format!("its limits, replicas and subjects cannot be changed: {error}"),
        false => format!(
            "{wrong}, or data is lost, and the server does not change that: {error}. If nothing in \
             it is needed, `nats stream rm {name}` and start again: the gateway creates it again, \
             and copies are loaded again"
        ),
    })?;
    context.get_stream(&name).await.map_err(|error| error.to_string())
}

/// Retries for a while: a cluster that has just started does not know all its nodes yet.
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
            "cannot be created: {error}; nats.replicas = {} needs as many connected servers with JetStream",
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

    /// Plays a server of this version: sends INFO, answers PING.
    async fn serve_greeting(listener: TcpListener, version: &str) -> std::io::Result<()> {
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

    async fn connect_to_version(version: &'static str) -> Result<(), JetStreamError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(serve_greeting(listener, version));
        let connected = connect(&NatsOptions::from(url)).await.map(drop);
        server.abort();
        connected
    }

    #[tokio::test]
    async fn a_server_that_is_too_old_is_refused() {
        for version in ["2.10.0", "2.15.1", "3.0.0"] {
            connect_to_version(version).await.unwrap();
        }
        for version in ["2.9.25", "1.4.1"] {
            let error = connect_to_version(version).await.unwrap_err().to_string();
            assert!(error.contains(&format!("NATS {version} is too old: version 2.10")), "{error}");
        }
    }
}
