//! Publishing message by message, each acknowledged: snapshots, their errors, dead letters.
//!
//! What is inside a body is not known here. Changes are published by `chain`.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use walgate_nats_connect::Backoff;
use walgate_wire::{Lsn, MSG_ID, PART, Part};

/// Retries of a message outside the chain: delays double from the first to the longest.
const PUBLISH_RETRY_FIRST: Duration = Duration::from_millis(100);
const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(5);
const PUBLISH_RETRIES: usize = 12;
/// Room for subject and headers below the server's `max_payload`, which counts headers.
pub const HEADER_ROOM_BYTES: usize = 1024;

/// Headers of a message, for those who do not know NATS otherwise.
pub type Headers = async_nats::HeaderMap;

/// One message to be published; a body larger than a message is sent in parts. Those of a chain get their message id there.
#[derive(Debug)]
pub struct Outgoing {
    pub subject: String,
    pub headers: Headers,
    pub body: Bytes,
    /// The LSN that may be confirmed once this message is stored.
    pub confirms: Option<Lsn>,
}

/// Publishes messages whose order among each other does not matter (snapshots), each acknowledged and, where
/// the acknowledgement was lost, sent again under the same message id.
pub async fn publish_acknowledged(
    context: &jetstream::Context,
    message: Outgoing,
) -> Result<u64, PublishFailed> {
    let max_bytes = context.client().max_payload().saturating_sub(HEADER_ROOM_BYTES).max(1024);
    let mut last = 0;
    for (part, piece) in walgate_wire::split_into_parts(&message.body, max_bytes) {
        let headers = part_headers(&message.headers, part);
        last = publish_retrying(context, &message.subject, headers, message.body.slice_ref(piece))
            .await?;
    }
    Ok(last)
}

/// Headers of one part of a body, with an id of its own if the whole has one.
pub(super) fn part_headers(whole: &Headers, part: Option<Part>) -> Headers {
    let Some(part) = part else { return whole.clone() };
    let mut headers: Headers = whole
        .iter()
        .filter(|(name, _)| AsRef::<str>::as_ref(name) != MSG_ID)
        .flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())))
        .collect();
    headers.insert(PART, part.to_string());
    if let Some(id) = whole.get(MSG_ID) {
        headers.insert(MSG_ID, format!("{id}/{}", part.number));
    }
    headers
}

/// A message that the stream did not take in spite of retries.
#[derive(Debug, thiserror::Error)]
#[error("publishing to {subject} failed: {reason}")]
pub struct PublishFailed {
    pub subject: String,
    pub reason: String,
}

async fn publish_retrying(
    context: &jetstream::Context,
    subject: &str,
    headers: Headers,
    body: Bytes,
) -> Result<u64, PublishFailed> {
    let attempt = || async {
        let ack =
            context.publish_with_headers(subject.to_owned(), headers.clone(), body.clone()).await?;
        Ok::<u64, jetstream::context::PublishError>(ack.await?.sequence)
    };
    let mut backoff = Backoff::new(PUBLISH_RETRY_FIRST, PUBLISH_RETRY_MAX);
    let mut retries_left = PUBLISH_RETRIES;
    loop {
        match attempt().await {
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
