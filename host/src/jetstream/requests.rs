//! The stream of snapshot requests: delivered, extended, acknowledged, rejected.
//!
//! Who may request a snapshot, and what a snapshot consists of, is not known here.

use std::time::Duration;

use async_nats::jetstream::{
    self, AckKind, ErrorCode,
    consumer::{
        AckPolicy, PullConsumer,
        pull::{self, Stream as PullMessages},
    },
    stream::{ConsumerError, ConsumerErrorKind},
};
use futures::StreamExt;
use walgate_wire::{Token, subjects};

use super::streams::{JetStreamError, Streams, request_subjects};
use crate::config::ConfiguredTable;

/// A request that is not extended for this long is delivered again: its gateway is gone.
const ACK_WAIT: Duration = Duration::from_secs(30);
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// The durable consumer of the stream of requests.
pub(super) const CONSUMER: &str = "walgate";

/// Receives the snapshot requests of the configured tables.
pub struct RequestListener {
    messages: PullMessages,
}

/// One snapshot request. It stays in the stream until it is acknowledged or rejected.
pub struct SnapshotRequest {
    message: jetstream::Message,
}

impl RequestListener {
    /// Listens for requests. `redeliver`: requests that another gateway received and has not
    /// acknowledged are delivered at once.
    pub async fn open(
        streams: &Streams,
        tables: &[ConfiguredTable],
        redeliver: bool,
    ) -> Result<RequestListener, JetStreamError> {
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            // The stream may accept more subjects than it should.
            filter_subjects: request_subjects(tables),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 10_000,
            ..pull::Config::default()
        };
        let requests = &streams.requests;
        if redeliver {
            // Unacknowledged requests belong to the consumer of a gateway that is gone.
            match requests.delete_consumer(CONSUMER).await {
                Err(error) if !is_not_found(&error) => return Err(read_error(error)),
                _ => {}
            }
        }
        let consumer: PullConsumer =
            requests.get_or_create_consumer(CONSUMER, config).await.map_err(read_error)?;
        let messages = consumer.messages().await.map_err(read_error)?;
        Ok(RequestListener { messages })
    }

    /// The next request; `None` if the server delivers no more. May be cancelled.
    pub async fn next(&mut self) -> Option<Result<SnapshotRequest, JetStreamError>> {
        let message = self.messages.next().await?;
        Some(message.map(|message| SnapshotRequest { message }).map_err(read_error))
    }
}

impl SnapshotRequest {
    /// The table that the request is for; `None` if the subject holds no token.
    pub fn token(&self) -> Option<Token> {
        Token::parse(self.message.subject.strip_prefix(subjects::REQUEST_PREFIX)?).ok()
    }

    /// Keeps the request from being delivered again while `work` runs.
    pub async fn extend_during(&self, work: impl Future<Output = ()>) {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(EXTEND_EVERY);
        loop {
            tokio::select! {
                () = &mut work => return,
                _ = tick.tick() => {
                    let _ = self.message.ack_with(AckKind::Progress).await;
                }
            }
        }
    }

    /// Removes the request from the stream, and waits until the server has confirmed that.
    pub async fn acknowledge(&self) -> Result<(), JetStreamError> {
        self.message.double_ack().await.map_err(read_error)
    }

    /// Removes a request that will never be served.
    pub async fn reject(&self) {
        let _ = self.message.ack_with(AckKind::Term).await;
    }
}

fn is_not_found(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

fn read_error(reason: impl std::fmt::Display) -> JetStreamError {
    JetStreamError::Read {
        what: "the stream of snapshot requests".to_owned(),
        reason: reason.to_string(),
    }
}
