//! Publishing messages one by one, each acknowledged: snapshots, snapshot errors, dead letters.
//!
//! The contents of a body are not known here. Changes are published by `chain`.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{self, context::PublishError},
};
use bytes::Bytes;
use walgate_nats_connect::Backoff;
use walgate_wire::{Lsn, MSG_ID, PART, Part};

/// Retries of a message outside the chain: delays double from the first to the longest.
const PUBLISH_RETRY_FIRST: Duration = Duration::from_millis(100);
const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(5);
const PUBLISH_RETRIES: usize = 12;
/// Room for subject and headers below the server's `max_payload`, which counts headers.
const HEADER_ROOM_BYTES: usize = 1024;

/// The headers of a message to be published.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub(super) HeaderMap);

impl Headers {
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Sets the header `name`; a value that it had before is replaced.
    pub fn insert(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    /// Headers of one part of a body. If the whole body has a message id, the part gets its own.
    pub(super) fn for_part(&self, part: Option<Part>) -> Headers {
        let Some(part) = part else { return self.clone() };
        let mut headers: HeaderMap = self
            .0
            .iter()
            .filter(|(name, _)| AsRef::<str>::as_ref(name) != MSG_ID)
            .flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())))
            .collect();
        headers.insert(PART, part.to_string());
        if let Some(id) = self.0.get(MSG_ID) {
            headers.insert(MSG_ID, format!("{id}/{}", part.number));
        }
        Headers(headers)
    }
}

/// One message to be published. A body that is larger than a message is sent in parts. The chain
/// gives its messages their ids.
#[derive(Debug)]
pub struct Outgoing {
    pub subject: String,
    pub headers: Headers,
    pub body: Bytes,
    /// The LSN that may be confirmed once this message is stored.
    pub confirms: Option<Lsn>,
}

/// A message that the stream did not store, in spite of retries.
#[derive(Debug, thiserror::Error)]
#[error("publishing to {subject} failed: {reason}")]
pub struct PublishFailed {
    pub subject: String,
    pub reason: String,
}

/// Publishes messages whose order does not matter. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    context: jetstream::Context,
}

impl Publisher {
    pub(super) fn new(context: jetstream::Context) -> Publisher {
        Publisher { context }
    }

    /// Returns the stream sequence once the message is stored. If the acknowledgement is lost, the
    /// message is sent again under the same message id.
    pub async fn publish_acknowledged(&self, message: Outgoing) -> Result<u64, PublishFailed> {
        let max_bytes = max_body_bytes(self.context.client().max_payload());
        let mut last = 0;
        for (part, piece) in walgate_wire::split_into_parts(&message.body, max_bytes) {
            let headers = message.headers.for_part(part);
            let body = message.body.slice_ref(piece);
            last = self.publish_with_retries(&message.subject, headers, body).await?;
        }
        Ok(last)
    }

    async fn publish_with_retries(
        &self,
        subject: &str,
        headers: Headers,
        body: Bytes,
    ) -> Result<u64, PublishFailed> {
        let mut backoff = Backoff::new(PUBLISH_RETRY_FIRST, PUBLISH_RETRY_MAX);
        let mut retries_left = PUBLISH_RETRIES;
        loop {
            match self.try_publish(subject, &headers, &body).await {
                Ok(sequence) => return Ok(sequence),
                Err(error) if retries_left == 0 => {
                    let reason = error.to_string();
                    return Err(PublishFailed { subject: subject.to_owned(), reason });
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    let retry_in_ms = delay.as_millis() as u64;
                    tracing::warn!(subject, %error, retry_in_ms, "publish failed, publishing again");
                    tokio::time::sleep(delay).await;
                    retries_left -= 1;
                }
            }
        }
    }

    async fn try_publish(
        &self,
        subject: &str,
        headers: &Headers,
        body: &Bytes,
    ) -> Result<u64, PublishError> {
        let (headers, body) = (headers.0.clone(), body.clone());
        let sent = self.context.publish_with_headers(subject.to_owned(), headers, body).await?;
        Ok(sent.await?.sequence)
    }
}

/// The largest body that fits one message of a server with this `max_payload`, headers included.
pub(super) fn max_body_bytes(max_payload: usize) -> usize {
    max_payload.saturating_sub(HEADER_ROOM_BYTES).max(1024)
}
