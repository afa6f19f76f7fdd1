//! The requests of a consumer to JetStream, and their repetition while the server is unreachable.
//! Message bodies are not known here.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    message::StreamMessage,
    stream::{RawMessageError, RawMessageErrorKind},
};
use walgate_nats_connect::Backoff;

use crate::{
    Error,
    feed::{FeedSource, micros_from_nanos},
    state::StreamExtent,
};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Consecutive failures that are not logged: elections and restarts.
const UNLOGGED_FAILURES: u32 = 3;

/// The names of the gateway's streams, if they differ from the defaults.
#[derive(Clone, Debug)]
pub struct StreamNames {
    /// The stream of changes. Default `CDC`.
    pub cdc: String,
    /// The stream of snapshots. Default `INIT`.
    pub init: String,
    /// The prefix of JetStream API subjects, for an account that imports the streams from the
    /// gateway's account. Default `$JS.API`.
    pub api: String,
}

impl Default for StreamNames {
    fn default() -> Self {
        StreamNames { cdc: "CDC".into(), init: "INIT".into(), api: "$JS.API".into() }
    }
}

/// The gateway's streams and buckets on the server.
#[derive(Clone, Debug)]
pub(crate) struct RemoteStreams {
    pub jetstream: jetstream::Context,
    pub names: StreamNames,
}

impl RemoteStreams {
    pub fn new(client: async_nats::Client, names: StreamNames) -> RemoteStreams {
        RemoteStreams { jetstream: jetstream::with_prefix(client, &names.api), names }
    }

    pub fn cdc_source(&self, subjects: Vec<String>) -> FeedSource {
        FeedSource {
            jetstream: self.jetstream.clone(),
            stream: self.names.cdc.clone(),
            subjects,
            everything: walgate_wire::subjects::CDC_ALL,
            rewinds: false,
        }
    }

    pub fn init_source(&self, subjects: Vec<String>) -> FeedSource {
        FeedSource {
            jetstream: self.jetstream.clone(),
            stream: self.names.init.clone(),
            subjects,
            everything: walgate_wire::subjects::INIT_ALL,
            rewinds: true,
        }
    }

    pub fn schemas_source(&self, subjects: Vec<String>) -> FeedSource {
        let stream = walgate_wire::buckets::SCHEMAS_STREAM.to_owned();
        FeedSource {
            jetstream: self.jetstream.clone(),
            stream,
            subjects,
            everything: "$KV.schemas.>",
            rewinds: true,
        }
    }

    pub async fn stream_extent(&self, stream: &str) -> Result<StreamExtent, Error> {
        let failed =
            |e: &dyn std::fmt::Display| Error::nats(format!("looking at stream {stream}"), e);
        let handle = self.jetstream.get_stream_no_info(stream).await.map_err(|e| failed(&e))?;
        let info = handle.get_info().await.map_err(|e| failed(&e))?;
        Ok(StreamExtent {
            first_seq: info.state.first_sequence,
            last_seq: info.state.last_sequence,
            created: micros_from_nanos(info.created.unix_timestamp_nanos()),
        })
    }

    pub async fn message_at(&self, stream: &str, seq: u64) -> Result<Option<StreamMessage>, Error> {
        let handle = self.open_stream(stream).await?;
        optional_message(stream, handle.get_raw_message(seq).await)
    }

    /// The last message on `subject`, which may contain wildcards.
    pub async fn last_message(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StreamMessage>, Error> {
        let handle = self.open_stream(stream).await?;
        optional_message(stream, handle.get_last_raw_message_by_subject(subject).await)
    }

    async fn open_stream(&self, stream: &str) -> Result<jetstream::stream::Stream<()>, Error> {
        let handle = self.jetstream.get_stream_no_info(stream).await;
        handle.map_err(|e| Error::nats(format!("opening stream {stream}"), e))
    }

    /// Requests a snapshot through JetStream. A request that is stored already counts as success.
    pub async fn publish_snapshot_request(&self, token: &walgate_wire::Token) -> Result<(), Error> {
        let subject = walgate_wire::subjects::snapshot_request(token);
        let failed = |e: &dyn std::fmt::Display| Error::nats(format!("publishing {subject}"), e);
        let publish = self.jetstream.publish(subject.clone(), bytes::Bytes::new());
        match publish.await.map_err(|e| failed(&e))?.await {
            Ok(_) => Ok(()),
            Err(e) if format!("{e:?} {e}").contains("maximum messages per subject") => Ok(()),
            Err(e) => Err(failed(&e)),
        }
    }
}

fn optional_message(
    stream: &str,
    result: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, Error> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(Error::nats(format!("reading a message of stream {stream}"), e)),
    }
}

/// Repeats a request until it has an answer. `what` is named in the log.
pub(crate) async fn ask_until_answered<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut failures = 0;
    loop {
        let reason = match ask().await {
            Ok(Some(answer)) => return answer,
            Ok(None) => "not available yet".to_owned(),
            Err(error) => error.to_string(),
        };
        failures += 1;
        if failures > UNLOGGED_FAILURES {
            tracing::warn!(reason, "waiting for {what}");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
