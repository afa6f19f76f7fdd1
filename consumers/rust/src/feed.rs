//! Ordered reading of a stream from a sequence on. After a failure of the server, the connection or
//! the consumer on it, reading resumes at the same sequence. Message contents are not known here.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{sync::mpsc, task::JoinHandle};
use walgate_nats_connect::Backoff;

/// Messages queued between the reading task and the feed's owner, beside those of one pull request.
const QUEUE_MESSAGES: usize = 8;
const PULL_MESSAGES: usize = 2000;
const PULL_BYTES_MIN: usize = 4 << 20;
const HEARTBEAT: Duration = Duration::from_secs(5);
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// The server drops a consumer without requests after this time.
const INACTIVE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// More filter subjects than this cost the server more than sending all messages does.
const FILTERS_MAX: usize = 64;

/// One stored message.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Sequence in the stream.
    pub seq: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    /// Messages that the stream held after this one when the server sent it.
    pub pending: u64,
    /// This is the first message of a new stream of the same name: KV revisions start over.
    pub rewound: bool,
}

/// What a feed reads.
#[derive(Clone, Debug)]
pub(crate) struct FeedSource {
    pub jetstream: jetstream::Context,
    pub stream: String,
    pub subjects: Vec<String>,
    /// A wildcard that covers all `subjects`, for example `cdc.>`.
    pub everything: &'static str,
    /// Whether to begin at the first message if the stream was deleted and created again.
    pub rewinds: bool,
}

/// Receives the messages of a stream. The reading task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: mpsc::Receiver<Delivery>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    /// Starts a task that reads from the message with sequence `next` on.
    pub fn open(source: FeedSource, next: u64) -> Feed {
        let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
        let task = tokio::spawn(
            StreamReader { source, next, consumer_seq: 0, created: None, rewound: false }
                .run(sender),
        );
        Feed { queue, task }
    }

    /// The next message. Waits while there is none, and while the server is unreachable. Cancel
    /// safe.
    pub async fn next(&mut self) -> Delivery {
        match self.queue.recv().await {
            Some(delivery) => delivery,
            // The task ends only when this feed is dropped.
            None => std::future::pending().await,
        }
    }

    /// Whether no message is queued.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

struct StreamReader {
    source: FeedSource,
    next: u64,
    /// Consumer sequence of the last message. The server numbers deliveries without gaps.
    consumer_seq: u64,
    /// When the stream was created, in nanoseconds since 1970; none until it was read.
    created: Option<i128>,
    rewound: bool,
}

impl StreamReader {
    async fn run(mut self, sender: mpsc::Sender<Delivery>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            match self.open_messages().await {
                Ok(messages) => match self.forward_messages(messages, &sender).await {
                    None => return,
                    Some((reason, has_progressed)) => {
                        let stream = &self.source.stream;
                        tracing::debug!(stream, reason, "stream reading interrupted, resuming");
                        if has_progressed {
                            backoff.reset();
                        }
                    }
                },
                Err(reason) => {
                    let stream = &self.source.stream;
                    tracing::warn!(stream, reason, "stream cannot be read, retrying");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Detects a stream that was deleted and created again, which the server does not report.
    async fn rewind_if_recreated(&mut self) -> Result<(), String> {
        let FeedSource { jetstream, stream, .. } = &self.source;
        let handle = jetstream.get_stream_no_info(stream).await.map_err(|e| e.to_string())?;
        let info = handle.get_info().await.map_err(|e| e.to_string())?;
        let created = info.created.unix_timestamp_nanos();
        let known = *self.created.get_or_insert(created);
        if known != created || info.state.last_sequence + 1 < self.next {
            tracing::warn!(stream, "stream was created again, reading it from its beginning");
            self.created = Some(created);
            self.next = 1;
            self.rewound = true;
        }
        Ok(())
    }

    async fn open_messages(&mut self) -> Result<pull::Stream, String> {
        if self.source.rewinds {
            self.rewind_if_recreated().await?;
        }
        let FeedSource { jetstream, stream, subjects, everything, .. } = &self.source;
        let filter_subjects = if subjects.len() > FILTERS_MAX {
            vec![(*everything).to_owned()]
        } else {
            subjects.clone()
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            filter_subjects,
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let consumer: PullConsumer =
            jetstream.create_consumer_on_stream(config, stream).await.map_err(|e| e.to_string())?;
        self.consumer_seq = 0;
        // A message larger than the rest of a pull request ends the request, so every message must
        // fit into a whole one.
        let message_bytes_max = jetstream.client().server_info().max_payload;
        consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .max_bytes_per_batch(PULL_BYTES_MIN.max(message_bytes_max * 2))
            .heartbeat(HEARTBEAT)
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .map_err(|e| e.to_string())
    }

    /// Forwards messages until the feed is dropped (none), or until reading fails. Returns the
    /// reason of the failure, and whether any message was forwarded.
    async fn forward_messages(
        &mut self,
        mut messages: pull::Stream,
        sender: &mpsc::Sender<Delivery>,
    ) -> Option<(String, bool)> {
        let mut has_progressed = false;
        loop {
            let message = tokio::select! {
                biased;
                () = sender.closed() => return None,
                message = messages.next() => message,
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Some((error.to_string(), has_progressed)),
                None => return Some(("the server ended the delivery".to_owned(), has_progressed)),
            };
            let info = match message.info() {
                Ok(info) => info,
                Err(error) => return Some((error.to_string(), has_progressed)),
            };
            if info.consumer_sequence != self.consumer_seq + 1 {
                return Some(("a message was lost in delivery".to_owned(), has_progressed));
            }
            self.consumer_seq = info.consumer_sequence;
            let delivery = Delivery {
                seq: info.stream_sequence,
                pending: info.pending,
                rewound: std::mem::take(&mut self.rewound),
                subject: message.message.subject.to_string(),
                headers: message.message.headers.unwrap_or_default(),
                payload: message.message.payload,
            };
            self.next = delivery.seq + 1;
            has_progressed = true;
            if sender.send(delivery).await.is_err() {
                return None;
            }
        }
    }
}

/// Microseconds since 1970 from nanoseconds.
pub(crate) fn micros_from_nanos(nanos: i128) -> i64 {
    i64::try_from(nanos / 1000).unwrap_or(i64::MAX)
}
