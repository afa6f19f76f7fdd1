//! The questions that a consumer asks the server, and patience with its absence. Message bodies are not
//! known here.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    message::StreamMessage,
    stream::{RawMessageError, RawMessageErrorKind},
};
use walgate_nats_connect::Backoff;

use crate::{
    Error,
    feed::{Source, micros},
    state::StreamExtent,
};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Failures in a row that pass without a word: elections and restarts.
const QUIET_FAILURES: u32 = 3;

/// What the streams are called on this server.
#[derive(Clone, Debug)]
pub struct StreamNames {
    /// Changes. Default `CDC`.
    pub cdc: String,
    /// Snapshots. Default `INIT`.
    pub init: String,
    /// Where JetStream is asked, for an account that imports it from the gateway's. Default `$JS.API`.
    pub api: String,
}

impl Default for StreamNames {
    fn default() -> Self {
        StreamNames { cdc: "CDC".into(), init: "INIT".into(), api: "$JS.API".into() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub jetstream: jetstream::Context,
    pub names: StreamNames,
}

impl Remote {
    pub fn new(client: async_nats::Client, names: StreamNames) -> Remote {
        Remote { jetstream: jetstream::with_prefix(client, &names.api), names }
    }

    pub fn cdc(&self, subjects: Vec<String>) -> Source {
        let (jetstream, stream) = (self.jetstream.clone(), self.names.cdc.clone());
        Source {
            jetstream,
            stream,
            subjects,
            everything: walgate_wire::subjects::CDC_ALL,
            rewinds: false,
        }
    }

    pub fn init(&self, subjects: Vec<String>) -> Source {
        let (jetstream, stream) = (self.jetstream.clone(), self.names.init.clone());
        Source {
            jetstream,
            stream,
            subjects,
            everything: walgate_wire::subjects::INIT_ALL,
            rewinds: true,
        }
    }

    pub fn schemas(&self, subjects: Vec<String>) -> Source {
        let stream = walgate_wire::buckets::SCHEMAS_STREAM.to_owned();
        Source {
            jetstream: self.jetstream.clone(),
            stream,
            subjects,
            everything: "$KV.schemas.>",
            rewinds: true,
        }
    }

    pub async fn extent(&self, stream: &str) -> Result<StreamExtent, Error> {
        let failed =
            |e: &dyn std::fmt::Display| Error::nats(format!("looking at stream {stream}"), e);
        let handle = self.jetstream.get_stream_no_info(stream).await.map_err(|e| failed(&e))?;
        let info = handle.get_info().await.map_err(|e| failed(&e))?;
        Ok(StreamExtent {
            first_seq: info.state.first_sequence,
            last_seq: info.state.last_sequence,
            created: micros(info.created.unix_timestamp_nanos()),
        })
    }

    pub async fn message_at(&self, stream: &str, seq: u64) -> Result<Option<StreamMessage>, Error> {
        let handle = self.handle(stream).await?;
        found(stream, handle.get_raw_message(seq).await)
    }

    /// `subject` may hold wildcards.
    pub async fn last_of(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StreamMessage>, Error> {
        let handle = self.handle(stream).await?;
        found(stream, handle.get_last_raw_message_by_subject(subject).await)
    }

    async fn handle(&self, stream: &str) -> Result<jetstream::stream::Stream<()>, Error> {
        let handle = self.jetstream.get_stream_no_info(stream).await;
        handle.map_err(|e| Error::nats(format!("opening stream {stream}"), e))
    }

    /// Through JetStream. That somebody else has asked already is as good.
    pub async fn ask_for_snapshot(&self, token: &walgate_wire::Token) -> Result<(), Error> {
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

fn found(
    stream: &str,
    result: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, Error> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(Error::nats(format!("reading a message of stream {stream}"), e)),
    }
}

/// Asks until there is an answer: a server that is away comes back. `what` is being waited for.
pub(crate) async fn patiently<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut failures = 0;
    loop {
        let reason = match ask().await {
            Ok(Some(answer)) => return answer,
            Ok(None) => "it is not there yet".to_owned(),
            Err(error) => error.to_string(),
        };
        failures += 1;
        if failures > QUIET_FAILURES {
            tracing::warn!(reason, "waiting for {what}");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
