//! Snapshot requests: who may ask for what, one snapshot at a time for each table.
//!
//! The stream `REQUESTS` holds at most one request a table, and a request stays there until its snapshot has
//! ended: a stampede becomes one snapshot. It may stay for a day, for whoever asks again while it is there is told that
//! it is as good as taken. The stream takes requests for configured tables alone, so that no more wait here than there are
//! tables, and each rests after a snapshot: who asks without end costs the source no more than that. What a snapshot consists of is
//! not known here.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self, AckKind, ErrorCode,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{ConsumerError, ConsumerErrorKind},
};
use futures::StreamExt;
use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::JoinSet,
};
use walgate_wire::{Epoch, InitError, Token, subjects, to_msgpack};

use crate::{
    config::ConfiguredTable,
    context::Gateway,
    egress::outlet::Gate,
    error::SessionError,
    jetstream::{
        publisher::{Headers, Outgoing, publish_acknowledged},
        streams::requests_for,
    },
    schema_registry,
    snapshot::job,
    tables::{SuspendReason, TableEvent},
};

/// A request that is not extended for this long is delivered again: the gateway that had it is gone.
const ACK_WAIT: Duration = Duration::from_secs(30);
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// What a consumer is told to wait after a snapshot that failed for a passing reason.
const RETRY_AFTER_SECONDS: u64 = 5;
/// Of the stream of requests.
pub const CONSUMER: &str = "walgate";

/// When each table's last snapshot ended; held while one is taken.
type Turns = HashMap<Token, Arc<Mutex<Option<Instant>>>>;

/// Serves requests while this gateway holds the slot; ends never, drop it to stop.
pub async fn serve(gateway: Gateway, active: watch::Receiver<Option<Epoch>>) {
    let concurrent = Arc::new(Semaphore::new(gateway.config.snapshot.max_concurrent));
    let mut running = JoinSet::new();
    let tokens = gateway.config.tables.iter().map(|table| table.token.clone());
    let turns: Turns = tokens.map(|token| (token, Arc::default())).collect();
    loop {
        let mut now_active = active.clone();
        if now_active.wait_for(Option::is_some).await.is_err() {
            return;
        }
        if let Err(error) = listen(&gateway, &active, &concurrent, &turns, &mut running).await {
            tracing::warn!(%error, "listening for snapshot requests failed, trying again");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn listen(
    gateway: &Gateway,
    active: &watch::Receiver<Option<Epoch>>,
    concurrent: &Arc<Semaphore>,
    turns: &Turns,
    running: &mut JoinSet<()>,
) -> Result<(), async_nats::Error> {
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        // Also where the stream takes more than it should.
        filter_subjects: requests_for(&gateway.config.tables),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: 10_000,
        ..pull::Config::default()
    };
    let requests = &gateway.streams.requests;
    while running.try_join_next().is_some() {}
    if running.is_empty() {
        // What it waits to have acknowledged was delivered to a gateway that is gone.
        match requests.delete_consumer(CONSUMER).await {
            Err(error) if !is_not_found(&error) => return Err(error.into()),
            _ => {}
        }
    }
    let consumer: PullConsumer = requests.get_or_create_consumer(CONSUMER, config).await?;
    let mut messages = consumer.messages().await?;
    let mut lost = active.clone();
    loop {
        let message = tokio::select! {
            biased;
            _ = lost.wait_for(Option::is_none) => return Ok(()),
            Some(_) = running.join_next() => continue,
            message = messages.next() => message,
        };
        let Some(message) = message else { return Ok(()) };
        let message = message?;
        let token = message.subject.strip_prefix(subjects::REQUEST_PREFIX).map(Token::parse);
        let Some(table) =
            token.and_then(Result::ok).and_then(|token| gateway.table_by_token(&token))
        else {
            let _ = message.ack_with(AckKind::Term).await;
            continue;
        };
        let job = Job { gateway: gateway.clone(), table: table.clone(), active: active.clone() };
        let concurrent = Arc::clone(concurrent);
        let turn = turns.get(&table.token).map(Arc::clone).unwrap_or_default();
        running.spawn(async move {
            extending(&message, Box::pin(job.take_turn(&turn, &concurrent))).await;
            if let Err(error) = message.double_ack().await {
                tracing::warn!(%error, "a snapshot request could not be taken off its stream");
            }
        });
    }
}

fn is_not_found(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// Keeps the request from being delivered again while `work` goes on.
async fn extending(message: &jetstream::Message, work: impl Future<Output = ()>) {
    tokio::pin!(work);
    let mut tick = tokio::time::interval(EXTEND_EVERY);
    loop {
        tokio::select! {
            () = &mut work => return,
            _ = tick.tick() => {
                let _ = message.ack_with(AckKind::Progress).await;
            }
        }
    }
}

/// Tells consumers that a snapshot failed.
async fn refuse(gateway: &Gateway, token: &Token, error: InitError) {
    let body = match to_msgpack(&error) {
        Ok(body) => body.into(),
        Err(error) => return tracing::error!(%error, "an init.error cannot be written"),
    };
    let message = Outgoing {
        subject: subjects::init_error(token),
        headers: Headers::new(),
        body,
        confirms: None,
    };
    if let Err(error) = publish_acknowledged(&gateway.streams.context, message).await {
        tracing::warn!(%error, "consumers could not be told that a snapshot failed");
    }
}

struct Job {
    gateway: Gateway,
    table: ConfiguredTable,
    active: watch::Receiver<Option<Epoch>>,
}

impl Job {
    /// One at a time, after the table's rest and when there is room.
    async fn take_turn(&self, turn: &Mutex<Option<Instant>>, concurrent: &Semaphore) {
        let mut ended = turn.lock().await;
        if let Some(ended) = *ended {
            tokio::time::sleep_until((ended + self.gateway.config.snapshot.cooldown).into()).await;
        }
        let _permit = concurrent.acquire().await;
        self.run().await;
        *ended = Some(Instant::now());
    }

    async fn run(&self) {
        let token = &self.table.token;
        let snapshot_id = job::new_id();
        let before = self.gateway.gate(token);
        let result = job::take(&self.gateway, &self.table, &snapshot_id, self.active.clone()).await;
        let Err(error) = result else { return };
        tracing::error!(table = %token, snapshot_id, %error, "snapshot failed");
        // Anything else that is wrong with a row fails the snapshot alone: whoever has a copy already goes on.
        if matches!(error, SessionError::Guest(_) | SessionError::Outlet(_)) {
            self.stop(&before, &error).await;
        }
        job::purge(&self.gateway, token, &snapshot_id).await;
        let retry_after = matches!(crate::policy::action(&error), crate::policy::Action::Retry)
            .then_some(RETRY_AFTER_SECONDS);
        refuse(
            &self.gateway,
            token,
            InitError {
                table: self.table.name.to_string(),
                snapshot_id: Some(snapshot_id),
                code: code(&error).to_owned(),
                message: error.told(),
                retry_after,
            },
        )
        .await;
    }
}

impl Job {
    /// The guest that the snapshot failed with stops its table, unless it is another by now.
    async fn stop(&self, before: &Gate, error: &SessionError) {
        let (gateway, token) = (&self.gateway, &self.table.token);
        let lock = gateway.lock_tables().await;
        let (gate, reason) = (before.clone(), SuspendReason::from(error));
        let event = TableEvent::SnapshotFailed { token: token.clone(), gate, reason };
        let suspended = schema_registry::suspend_table(gateway, &lock, &self.table, event).await;
        if let Err(error) = suspended {
            tracing::warn!(table = %token, %error, "the table could not be suspended; its next snapshot tries again");
        }
    }
}

fn code(error: &SessionError) -> &'static str {
    match error {
        SessionError::Source(_) => "source_failed",
        SessionError::Body(_) => "row_not_carried",
        SessionError::Suspended { .. } | SessionError::Outlet(_) => "table_suspended",
        SessionError::Guest(_) => "guest_failed",
        SessionError::Broker(_)
        | SessionError::Kv(_)
        | SessionError::Publish(_)
        | SessionError::PublishFailed(_) => "stream_failed",
        SessionError::Replaced(_) | SessionError::Task(_) => "interrupted",
    }
}
