//! Snapshot requests: who may ask for what, one snapshot at a time for each table.
//!
//! The stream `REQUESTS` holds at most one request a table, and a request stays there until its snapshot has
//! ended: a stampede becomes one snapshot. What a snapshot consists of is not known here.

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
    sync::{Semaphore, watch},
    task::JoinSet,
};
use walgate_wire::{Epoch, InitError, Token, subjects, to_msgpack};

use crate::{
    config::Table,
    gateway::{Gateway, Stopped},
    policy::SessionError,
    publish::{Headers, Outgoing, publish_acknowledged},
    schemas, snapshots,
};

/// A request that is not extended for this long is delivered again: the gateway that had it is gone.
const ACK_WAIT: Duration = Duration::from_secs(30);
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// What a consumer is told to wait after a snapshot that failed for a passing reason.
const RETRY_AFTER_SECONDS: u64 = 5;
const CONSUMER: &str = "walgate";
/// That a table is not offered is told once in this time; INIT would fill up with it otherwise.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);
/// Tables about which that is remembered; about more at a time nothing is told.
const REFUSED_TABLES_MAX: usize = 1024;

/// Serves requests while this gateway holds the slot; ends never, drop it to stop.
pub async fn serve(gateway: Gateway, active: watch::Receiver<Option<Epoch>>) {
    let concurrent = Arc::new(Semaphore::new(gateway.config.snapshot.max_concurrent));
    let mut running = JoinSet::new();
    let mut refused = Refused::default();
    loop {
        let mut now_active = active.clone();
        if now_active.wait_for(Option::is_some).await.is_err() {
            return;
        }
        if let Err(error) = listen(&gateway, &active, &concurrent, &mut running, &mut refused).await
        {
            tracing::warn!(%error, "listening for snapshot requests failed, trying again");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn listen(
    gateway: &Gateway,
    active: &watch::Receiver<Option<Epoch>>,
    concurrent: &Arc<Semaphore>,
    running: &mut JoinSet<()>,
    refused: &mut Refused,
) -> Result<(), async_nats::Error> {
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
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
        let table = match &token {
            Some(Ok(token)) => gateway.table_by_token(token),
            _ => None,
        };
        match (table, token) {
            (Some(table), _) => {
                let job =
                    Job { gateway: gateway.clone(), table: table.clone(), active: active.clone() };
                let permit = Arc::clone(concurrent).acquire_owned();
                running.spawn(async move {
                    extending(&message, async {
                        let _permit = permit.await;
                        job.run().await;
                    })
                    .await;
                    if let Err(error) = message.double_ack().await {
                        tracing::warn!(%error, "a snapshot request could not be taken off its stream");
                    }
                });
            }
            (None, Some(Ok(token))) => {
                if refused.may_tell(&token, Instant::now()) {
                    unknown(gateway, &token).await;
                }
                let _ = message.ack_with(AckKind::Term).await;
            }
            (None, _) => {
                tracing::debug!("a snapshot request with a malformed table name was dropped");
                let _ = message.ack_with(AckKind::Term).await;
            }
        }
    }
}

fn is_not_found(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// When it was told last that a table is not offered.
#[derive(Debug, Default)]
struct Refused(HashMap<Token, Instant>);

impl Refused {
    fn may_tell(&mut self, token: &Token, now: Instant) -> bool {
        let recent = |told: &Instant| now.duration_since(*told) < REFUSED_AGAIN;
        if self.0.get(token).is_some_and(recent) {
            return false;
        }
        if self.0.len() >= REFUSED_TABLES_MAX {
            self.0.retain(|_, told| recent(told));
        }
        let room = self.0.len() < REFUSED_TABLES_MAX;
        if room {
            self.0.insert(token.clone(), now);
        }
        room
    }
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

async fn unknown(gateway: &Gateway, token: &Token) {
    tracing::info!(table = %token, "snapshot refused: the table is not configured");
    let message = format!(
        "table {token} is not offered by this gateway; its operator can add it under [[tables]]"
    );
    refuse(
        gateway,
        token,
        InitError {
            table: token.to_string(),
            snapshot_id: None,
            code: "unknown_table".to_owned(),
            message,
            retry_after: None,
        },
    )
    .await;
}

/// Tells consumers that a snapshot failed or will not be made.
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
    table: Table,
    active: watch::Receiver<Option<Epoch>>,
}

impl Job {
    async fn run(&self) {
        let token = &self.table.token;
        let snapshot_id = snapshots::new_id();
        let result =
            snapshots::take(&self.gateway, &self.table, &snapshot_id, self.active.clone()).await;
        let Err(error) = result else { return };
        tracing::error!(table = %token, snapshot_id, %error, "snapshot failed");
        if matches!(error, SessionError::Guest(_) | SessionError::Outlet(_)) {
            let stopped =
                schemas::stop(&self.gateway, &self.table, Stopped::Failed, &error.to_string())
                    .await;
            if let Err(error) = stopped {
                tracing::warn!(table = %token, %error, "consumers could not be told that the table is suspended");
            }
        }
        let retry_after = matches!(crate::policy::action(&error), crate::policy::Action::Retry)
            .then_some(RETRY_AFTER_SECONDS);
        refuse(
            &self.gateway,
            token,
            InitError {
                table: self.table.name.to_string(),
                snapshot_id: Some(snapshot_id),
                code: code(&error).to_owned(),
                message: error.to_string(),
                retry_after,
            },
        )
        .await;
    }
}

fn code(error: &SessionError) -> &'static str {
    match error {
        SessionError::Source(_) => "source_failed",
        SessionError::Transform(_) => "row_not_carried",
        SessionError::Table { .. } | SessionError::Outlet(_) => "table_suspended",
        SessionError::Guest(_) => "guest_failed",
        SessionError::Broker(_)
        | SessionError::Kv(_)
        | SessionError::Publish(_)
        | SessionError::PublishFailed(_) => "stream_failed",
        SessionError::Replaced(_) | SessionError::Task(_) => "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_refused_once_a_second() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let token = |n: usize| Token::parse(&format!("t{n}")).unwrap();
        assert!(refused.may_tell(&token(0), now));
        assert!(!refused.may_tell(&token(0), now + REFUSED_AGAIN / 2));
        assert!(refused.may_tell(&token(1), now + REFUSED_AGAIN / 2));
        assert!(refused.may_tell(&token(0), now + REFUSED_AGAIN));
        let later = now + REFUSED_AGAIN * 2;
        let told = (0..5000).filter(|&n| refused.may_tell(&token(n), later)).count();
        assert!(told >= REFUSED_TABLES_MAX - 2 && refused.0.len() == REFUSED_TABLES_MAX, "{told}");
        assert!(refused.may_tell(&token(0), later + REFUSED_AGAIN));
        assert_eq!(refused.0.len(), 1, "what is old is forgotten");
    }
}
