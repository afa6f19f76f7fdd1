//! An ordered reading of a stream from a sequence on, that begins again where it was when anything happens
//! to the server, the connection or the consumer on it. What is read is not known here.

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

/// Messages between the reading task and its reader, beside what one pull request may hold.
const QUEUE_MESSAGES: usize = 8;
const PULL_MESSAGES: usize = 2000;
const PULL_BYTES_MIN: usize = 4 << 20;
const HEARTBEAT: Duration = Duration::from_secs(5);
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// The server drops a consumer that nobody asks for so long.
const INACTIVE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// More filters than this cost the server more than the messages that they keep away.
const FILTERS_MAX: usize = 64;

/// One stored message.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub seq: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    /// Messages that the stream held behind this one when it was sent.
    pub pending: u64,
    /// The first of another stream of the same name: revisions count anew.
    pub rewound: bool,
}

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub jetstream: jetstream::Context,
    pub stream: String,
    pub subjects: Vec<String>,
    /// All that `subjects` may be part of, `cdc.>` say.
    pub everything: &'static str,
    /// Whether to begin at the first message if the stream turns out to be another of the same name.
    pub rewinds: bool,
}

/// The reading end. The reading stops when it is dropped.
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
    /// Reads from the message with sequence `next` on.
    pub fn open(source: Source, next: u64) -> Feed {
        let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
        let task = tokio::spawn(
            Reading { source, next, consumer_seq: 0, created: None, rewound: false }.run(sender),
        );
        Feed { queue, task }
    }

    /// The next message. Waits for as long as there is none, and while the server is away. Loses nothing
    /// when it is dropped.
    pub async fn next(&mut self) -> Delivery {
        match self.queue.recv().await {
            Some(delivery) => delivery,
            // The task ends only when this end is dropped.
            None => std::future::pending().await,
        }
    }

    /// Whether nothing more has arrived.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

struct Reading {
    source: Source,
    next: u64,
    /// Of the last message; the server numbers what it sends without gaps.
    consumer_seq: u64,
    /// When the stream was created, as far as it was asked for.
    created: Option<i128>,
    rewound: bool,
}

impl Reading {
    async fn run(mut self, sender: mpsc::Sender<Delivery>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            match self.messages().await {
                Ok(messages) => match self.forward(messages, &sender).await {
                    None => return,
                    Some((reason, moved)) => {
                        let stream = &self.source.stream;
                        tracing::debug!(stream, reason, "reading again from where it was");
                        if moved {
                            backoff.reset();
                        }
                    }
                },
                Err(reason) => {
                    let stream = &self.source.stream;
                    tracing::warn!(stream, reason, "cannot read the stream, trying again");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Whoever wipes a server does not tell.
    async fn rewind_if_new(&mut self) -> Result<(), String> {
        let Source { jetstream, stream, .. } = &self.source;
        let handle = jetstream.get_stream_no_info(stream).await.map_err(|e| e.to_string())?;
        let info = handle.get_info().await.map_err(|e| e.to_string())?;
        let created = info.created.unix_timestamp_nanos();
        let known = *self.created.get_or_insert(created);
        if known != created || info.state.last_sequence + 1 < self.next {
            tracing::warn!(stream, "the stream was created anew: reading it from its beginning");
            (self.created, self.next, self.rewound) = (Some(created), 1, true);
        }
        Ok(())
    }

    async fn messages(&mut self) -> Result<pull::Stream, String> {
        if self.source.rewinds {
            self.rewind_if_new().await?;
        }
        let Source { jetstream, stream, subjects, everything, .. } = &self.source;
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
        // A message larger than what is left of a request ends the request, so it has to fit a whole one.
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

    /// Until the reader is gone (none) or the reading broke off: why, and whether it had moved.
    async fn forward(
        &mut self,
        mut messages: pull::Stream,
        sender: &mpsc::Sender<Delivery>,
    ) -> Option<(String, bool)> {
        let mut moved = false;
        loop {
            let message = tokio::select! {
                biased;
                () = sender.closed() => return None,
                message = messages.next() => message,
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Some((error.to_string(), moved)),
                None => return Some(("the server ended the reading".to_owned(), moved)),
            };
            let info = match message.info() {
                Ok(info) => info,
                Err(error) => return Some((error.to_string(), moved)),
            };
            if info.consumer_sequence != self.consumer_seq + 1 {
                return Some(("a message was lost on the way".to_owned(), moved));
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
            moved = true;
            if sender.send(delivery).await.is_err() {
                return None;
            }
        }
    }
}

/// Microseconds since 1970 from nanoseconds.
pub(crate) fn micros(nanos: i128) -> i64 {
    i64::try_from(nanos / 1000).unwrap_or(i64::MAX)
}
