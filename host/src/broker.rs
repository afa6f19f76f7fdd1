//! The connection to NATS and the streams and buckets that must be there.
//!
//! What is published, and when, is not known here.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind},
        message::StreamMessage,
        stream::{
            Config as StreamConfig, DiscardPolicy, LastRawMessageErrorKind, RawMessageErrorKind,
            RetentionPolicy, StorageType, Stream,
        },
    },
};
use walgate_consumer::{AccessError, NatsAccess};
use walgate_wire::{
    DICT, Epoch, InitStart, PART, POS, PROGRESS_SUBJECT, Part, Progress, SCHEMA, StreamPosition,
    Token, subjects,
};

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
    Access(#[from] AccessError),
    #[error("{what}: {reason}")]
    Setup { what: String, reason: String },
    #[error("NATS {0} is too old: version 2.10 or newer with JetStream is needed")]
    TooOld(String),
    #[error("reading {what} failed: {reason}")]
    Read { what: String, reason: String },
}

/// Connects and waits until the server answers. Later losses of the connection are mended by the client.
pub async fn connect(access: &NatsAccess) -> Result<Client, BrokerError> {
    let way = access.prepare()?.with(|options| {
        options
            .name("walgate")
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(10)))
            .client_capacity(4096)
            .subscription_capacity(1 << 17)
            .reconnect_delay_callback(|attempt| match attempt {
                0 | 1 => Duration::ZERO,
                _ => {
                    let delay = Duration::from_millis((25u64 << attempt.min(7)).min(2000));
                    delay.mul_f64(0.5 + rand::random::<f64>())
                }
            })
    });
    let client = way.connect().await?;
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
    /// Creates what is missing and changes limits that differ from the configuration, unless that is an
    /// administrator's business.
    pub async fn ensure(
        client: &Client,
        config: &config::Nats,
        tables: &[config::Table],
    ) -> Result<Streams, BrokerError> {
        let context =
            jetstream::ContextBuilder::new().timeout(Duration::from_secs(10)).build(client.clone());
        let limits = |stream: &config::Stream, subject: &str| StreamConfig {
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
        Ok(Streams {
            cdc: ensure(cdc).await?,
            init: ensure(limits(&config.init, subjects::INIT_ALL)).await?,
            requests: ensure(requests).await?,
            dlq: ensure(dlq).await?,
            schemas: ensure(bucket("schemas", config.replicas)).await?,
            dictionaries: ensure(bucket("dictionaries", config.replicas)).await?,
            context: context.clone(),
            client: client.clone(),
        })
    }
}

/// What may be asked for, by name: the server refuses everything else. Subjects that others make up may hold bytes that
/// no client can read, and one such message would break the connection of whoever is sent it.
pub fn requests_for(tables: &[config::Table]) -> Vec<String> {
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
            let wanted_age = config.max_age;
            if found.max_bytes == config.max_bytes && found.max_age == wanted_age {
                return Ok(stream);
            }
            if !create {
                tracing::warn!(stream = name, "its limits differ from the configuration and stay, as nats.create is false");
                return Ok(stream);
            }
            let changed = StreamConfig {
                max_bytes: config.max_bytes,
                max_age: wanted_age,
                subjects: config.subjects,
                duplicate_window: found.duplicate_window,
                ..found.clone()
            };
            context
                .update_stream(changed)
                .await
                .map_err(|e| setup(format!("its limits and subjects cannot be changed: {e}")))?;
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
    use backon::{ConstantBuilder, Retryable};
    let lacks_nodes = |e: &CreateStreamError| {
        matches!(e.kind(), CreateStreamErrorKind::JetStream(e)
            if [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::CLUSTER_NOT_AVAILABLE].contains(&e.error_code()))
    };
    let patience = ConstantBuilder::default().with_delay(NODES_RETRY).with_max_times(NODES_TRIES);
    let created = (|| async { context.create_stream(config.clone()).await }).retry(patience);
    let created = created.when(lacks_nodes).notify(|error, _| {
        tracing::warn!(stream = config.name, %error, "trying again: the cluster may not be complete yet");
    });
    created.await.map_err(|error| match lacks_nodes(&error) {
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

/// What the CDC stream says about where the gateway stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    pub last_sequence: u64,
    /// Of the last message that is still there; an incomplete multi-part body does not count.
    pub position: Option<StreamPosition>,
    /// The last progress message that is still there: the slot was never confirmed beyond its `end_lsn`.
    pub progress: Option<(Epoch, Progress)>,
}

/// Reads the tail of the CDC stream.
pub async fn read_tail(cdc: &Stream) -> Result<Tail, BrokerError> {
    let info = cdc.get_info().await.map_err(|e| read_error("the CDC stream", e))?;
    let last_sequence = info.state.last_sequence;
    let mut tail = Tail { last_sequence, position: None, progress: None };
    if info.state.messages == 0 {
        return Ok(tail);
    }
    if let Some(message) = last_of(cdc, "the last progress", PROGRESS_SUBJECT).await? {
        let progress = walgate_wire::from_msgpack(&message.payload)
            .map_err(|e| read_error("the last progress", e))?;
        tail.progress = Some((position_of(&message.headers)?.epoch, progress));
    }
    // Somebody may have deleted the last one.
    if let Some(last) =
        last_of(cdc, "the last message of the CDC stream", subjects::CDC_ALL).await?
    {
        tail.position = last_whole_position(cdc, last.sequence).await?;
    }
    Ok(tail)
}

/// What the last changes of a table name, or its last snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub token: Token,
    pub epoch: Epoch,
    pub schema: u64,
    pub dictionary: Option<u64>,
}

/// Reads what the table's last messages in CDC and INIT name.
pub async fn last_named(streams: &Streams, token: &Token) -> Result<Vec<Named>, BrokerError> {
    let mut named = vec![];
    if let Some(message) = last_of(&streams.cdc, "the CDC stream", &subjects::cdc(token)).await?
        && let Some(schema) = revision(&message.headers, SCHEMA)?
    {
        let epoch = position_of(&message.headers)?.epoch;
        let dictionary = revision(&message.headers, DICT)?;
        named.push(Named { token: token.clone(), epoch, schema, dictionary });
    }
    let subject = subjects::init_start(token);
    if let Some(message) = last_of(&streams.init, "the INIT stream", &subject).await? {
        let start: InitStart = walgate_wire::from_msgpack(&message.payload)
            .map_err(|e| read_error("the last init.start", e))?;
        let (schema, dictionary) = (start.schema_revision, start.dictionary_revision);
        named.push(Named { token: token.clone(), epoch: start.epoch, schema, dictionary });
    }
    Ok(named)
}

async fn last_of(
    stream: &Stream,
    what: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, BrokerError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(read_error(what, e)),
    }
}

/// `7` of `7` and of `users_dict@7`.
fn revision(headers: &async_nats::HeaderMap, name: &str) -> Result<Option<u64>, BrokerError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.as_str().rsplit('@').next().unwrap_or_default().parse();
    number.map(Some).map_err(|e| read_error("the CDC stream", format!("{name}: {e}")))
}

/// Position of the last body that is complete. A gateway that died in the midst of a body of several parts, once
/// or several times, left parts without the rest: they do not count.
async fn last_whole_position(
    cdc: &Stream,
    last_sequence: u64,
) -> Result<Option<StreamPosition>, BrokerError> {
    let mut sequence = last_sequence;
    while sequence > 0 {
        let message = match cdc.get_raw_message(sequence).await {
            Ok(message) => message,
            // Nothing before the parts is left: everything from the slot's position on is sent again.
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(e) => return Err(read_error("the last message of the CDC stream", e)),
        };
        let part = message.headers.get(PART).map(|part| part.as_str().parse::<Part>()).transpose();
        match part.map_err(|e| read_error("the last message of the CDC stream", e))? {
            Some(part) if !part.is_last() => {
                sequence = sequence.saturating_sub(u64::from(part.number));
            }
            _ => return position_of(&message.headers).map(Some),
        }
    }
    Ok(None)
}

fn position_of(headers: &async_nats::HeaderMap) -> Result<StreamPosition, BrokerError> {
    let header = headers.get(POS).ok_or_else(|| {
        read_error("the CDC stream", "a message has no Wg-Pos: something else writes to cdc.>; forbid it, the gateway must be the only writer")
    })?;
    header.as_str().parse().map_err(|e| read_error("the CDC stream", e))
}

fn read_error(what: &str, reason: impl std::fmt::Display) -> BrokerError {
    BrokerError::Read { what: what.to_owned(), reason: reason.to_string() }
}
