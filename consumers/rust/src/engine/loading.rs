//! Loading of tables without a usable copy, one at a time, between the local transactions of the
//! others.

use tokio::time::{Duration, Instant};
use walgate_nats_connect::add_jitter;
use walgate_wire::Token;

use super::{Engine, OpenTransaction};
use crate::{
    Error, Sink, SnapshotRows,
    feed::Delivery,
    snapshot::{CompleteSnapshot, SnapshotEvent, SnapshotLoader, SnapshotWanted, find_or_request},
    status::TablePhase,
};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
const AVOIDED_MAX: usize = 8;

/// When to load a table again after failed attempts, and which snapshots to avoid.
#[derive(Debug)]
pub(super) struct LoadRetry {
    at: Instant,
    delay: Duration,
    /// Ids of snapshots that could not be used.
    avoid: Vec<String>,
}

impl LoadRetry {
    /// `after`: the delay that the gateway requested. `avoid`: the snapshot that could not be used.
    fn after_failure(
        earlier: Option<LoadRetry>,
        now: Instant,
        after: Option<Duration>,
        avoid: Option<String>,
    ) -> LoadRetry {
        let delay = earlier.as_ref().map_or(RETRY_FIRST, |retry| (retry.delay * 2).min(RETRY_MAX));
        let mut avoided = earlier.map_or(vec![], |retry| retry.avoid);
        avoided.extend(avoid);
        // Only the latest snapshot can be found in the stream; the stream has dropped those before
        // it.
        let avoid = avoided.split_off(avoided.len().saturating_sub(AVOIDED_MAX));
        // The gateway's delay is limited, because it comes from outside, and gets jitter, because
        // all consumers receive the same.
        let delay_with_jitter = add_jitter(after.unwrap_or(delay).min(RETRY_MAX));
        LoadRetry { at: now + delay_with_jitter, delay, avoid }
    }
}

impl<S: Sink> Engine<'_, S> {
    /// Begins to load the next table that needs it. Requests the other tables' snapshots as well,
    /// so that the gateway can work ahead.
    pub(super) async fn start_loading(&mut self) -> Result<(), Error> {
        self.abandon_stale_load();
        if self.loader.is_some() {
            return Ok(());
        }
        let waiting: Vec<(Token, String)> = self
            .tables
            .tables_to_load()
            .map(|(token, reason)| (token.clone(), reason.to_owned()))
            .collect();
        let now = Instant::now();
        let ready = |token: &Token| self.retries.get(token).is_none_or(|retry| retry.at <= now);
        let Some((token, reason)) = waiting.iter().find(|(token, _)| ready(token)).cloned() else {
            return Ok(());
        };
        let table = token.as_str();
        tracing::info!(table, reason, "loading table");
        let wanted = self.snapshot_wanted(&token);
        match Box::pin(SnapshotLoader::begin(&self.remote, wanted, self.limits.caps)).await {
            Ok(loader) => self.loader = Some(loader),
            Err(error) => {
                self.schedule_retry(&token, &error.to_string(), None, None);
                return Ok(());
            }
        }
        self.status.table_mut(&token).phase = TablePhase::Loading;
        self.requested.insert(token.clone());
        for (other, _) in waiting {
            if self.requested.insert(other.clone()) {
                self.request_ahead(&other).await;
            }
        }
        Ok(())
    }

    /// Ends a load that is no longer possible, or that has stalled while other tables wait. The
    /// sink drops its partial rows when the next load begins.
    fn abandon_stale_load(&mut self) {
        let Some(loader) = &self.loader else { return };
        let token = loader.wanted.token.clone();
        if !self.tables.must_load(&token) {
            tracing::info!(table = token.as_str(), "load abandoned: table is suspended or dropped");
            self.loader = None;
            self.requested.remove(&token);
            self.status.table_mut(&token).phase = TablePhase::Waiting;
            self.status.publish();
        } else if loader.has_stalled() && self.has_other_ready_table(&token) {
            self.loader = None;
            self.schedule_retry(
                &token,
                "no snapshot begins, other tables are loaded first",
                None,
                None,
            );
        }
    }

    /// Whether another table is ready to be loaded.
    fn has_other_ready_table(&self, token: &Token) -> bool {
        let now = Instant::now();
        self.tables.tables_to_load().any(|(other, _)| {
            other != token && self.retries.get(other).is_none_or(|retry| retry.at <= now)
        })
    }

    async fn request_ahead(&mut self, token: &Token) {
        let wanted = self.snapshot_wanted(token);
        let requested = async {
            let cdc = self.remote.stream_extent(&self.remote.names.cdc).await?;
            find_or_request(&self.remote, &wanted, cdc).await
        };
        if let Err(error) = requested.await {
            tracing::debug!(table = token.as_str(), %error, "snapshot request failed, retrying later");
        }
    }

    fn snapshot_wanted(&self, token: &Token) -> SnapshotWanted {
        SnapshotWanted {
            token: token.clone(),
            epoch: self.epoch,
            watermark: self.tables.required_watermark(token),
            avoid: self.retries.get(token).map_or(vec![], |retry| retry.avoid.clone()),
        }
    }

    fn schedule_retry(
        &mut self,
        token: &Token,
        reason: &str,
        after: Option<Duration>,
        avoid: Option<String>,
    ) {
        let now = Instant::now();
        let retry = LoadRetry::after_failure(self.retries.remove(token), now, after, avoid);
        let table = token.as_str();
        let retry_in_s = (retry.at - now).as_secs();
        tracing::warn!(table, reason, retry_in_s, "snapshot failed");
        self.status.table_mut(token).reason = Some(reason.to_owned());
        self.status.publish();
        self.requested.remove(token);
        self.retries.insert(token.clone(), retry);
    }

    /// The table is live again, so its snapshot can be taken now.
    pub(super) fn retry_now(&mut self, token: &Token) {
        if let Some(retry) = self.retries.get_mut(token) {
            retry.at = Instant::now();
        }
    }

    pub(super) async fn on_snapshot(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.chunk_first = false;
        let Some(mut loader) = self.loader.take() else { return Ok(()) };
        let event = loader.handle_message(&delivery, &mut self.assets).await?;
        let token = loader.wanted.token.clone();
        match event {
            SnapshotEvent::Nothing => {}
            SnapshotEvent::Begin { schema, estimated_rows } => {
                self.status.table_mut(&token).estimated_rows = estimated_rows;
                self.status.publish();
                self.sink.begin_load(schema).await?;
            }
            SnapshotEvent::Rows { schema, body, bytes, dictionary } => {
                self.status.add_received(&token, bytes, body.len(), dictionary);
                self.status.publish();
                let count = self.status.snapshot_row_counter(&token);
                let caps = loader.caps();
                self.sink.load_rows(SnapshotRows { schema, body, caps, count }).await?;
            }
            SnapshotEvent::Complete(complete) => {
                let created = loader.cdc.created;
                return self.finish_load(&token, *complete, created).await;
            }
            SnapshotEvent::Failed { reason, retry_after, snapshot_id } => {
                self.schedule_retry(&token, &reason, retry_after, snapshot_id);
                return Ok(());
            }
        }
        self.loader = Some(loader);
        Ok(())
    }

    /// The new generation becomes the table. The feed of changes is opened again at the snapshot's
    /// position; the other tables skip messages that they have applied.
    async fn finish_load(
        &mut self,
        token: &Token,
        complete: CompleteSnapshot,
        created: i64,
    ) -> Result<(), Error> {
        let CompleteSnapshot { start, schema, finished_at, rows } = complete;
        let (records, checkpoint) =
            self.tables.complete_load(&start, &schema, finished_at, created);
        // From here on the sink may hold this checkpoint. No other may be stored if this future is
        // dropped.
        self.unsaved = false;
        self.sink.finish_load(schema.clone(), records.clone(), checkpoint).await?;
        self.tables.adopt_load(records, checkpoint);
        tracing::info!(table = schema.table, rows, watermark = %start.lsn, "table loaded");
        self.changes = None;
        self.joiner.clear();
        self.transaction = OpenTransaction::default();
        self.retries.remove(token);
        self.requested.remove(token);
        self.status.table_mut(token).phase = TablePhase::Live;
        self.status.set_committed(checkpoint);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_nats::jetstream::{self, kv, stream};
    use tokio::{sync::watch, time::timeout};
    use walgate_servers::{NatsOptions, PrivateNats, find_nats};
    use walgate_wire::{Caps, Schema, TableName, subjects, to_msgpack};

    use super::*;
    use crate::{
        ConsumerStatus, SqliteSink, StreamNames, engine::EngineLimits, remote::RemoteStreams,
        test_support::schema,
    };

    /// Streams and the schemas of these tables, but no gateway.
    async fn streams_without_gateway(nats: &PrivateNats, tables: &[&str]) -> RemoteStreams {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let streams = [
            ("CDC", subjects::CDC_ALL),
            ("INIT", subjects::INIT_ALL),
            ("REQUESTS", subjects::REQUESTS_ALL),
        ];
        for (name, subject) in streams {
            let subjects = vec![subject.to_owned()];
            let config = stream::Config { name: name.into(), subjects, ..Default::default() };
            jetstream.create_stream(config).await.unwrap();
        }
        let config = kv::Config { bucket: "schemas".into(), ..Default::default() };
        let bucket = jetstream.create_key_value(config).await.unwrap();
        for table in tables {
            let name = TableName::new("public", *table);
            let table = name.to_string();
            let token = name.token();
            let schema = Schema { table, token, revision: 0, ..schema(&[("id", 20)]) };
            let body = to_msgpack(&schema).unwrap();
            bucket.put(schema.token.as_str(), body.into()).await.unwrap();
        }
        RemoteStreams::new(client, StreamNames::default())
    }

    #[tokio::test]
    async fn a_table_without_a_snapshot_does_not_block_others() {
        let bin = find_nats(None).unwrap().bin;
        let nats = PrivateNats::start(&bin, NatsOptions::default()).unwrap();
        let remote = streams_without_gateway(&nats, &["a", "b"]).await;
        let dir = tempfile::tempdir().unwrap();
        let mut sink = SqliteSink::new(dir.path().join("replica.db"));
        let limits = EngineLimits {
            caps: Caps::default(),
            commit_delay_max: Duration::from_millis(50),
            commit_bytes_max: 1 << 20,
        };
        let tokens = ["a", "b"].map(|table| Token::parse(table).unwrap());
        let (status, _) = watch::channel(ConsumerStatus::default());
        let mut engine = Engine::open(remote, &mut sink, &tokens, limits, status).await.unwrap();
        let mut tried = BTreeSet::new();
        for _ in 0..100 {
            let ended = timeout(Duration::from_millis(100), engine.run()).await;
            assert!(ended.is_err(), "the engine ended: {ended:?}");
            tried.extend(engine.loader.as_ref().map(|loader| loader.wanted.token.clone()));
            if tried.len() == 2 {
                return;
            }
        }
        panic!("only {tried:?} was tried");
    }

    #[test]
    fn an_unusable_snapshot_is_remembered_over_other_failures() {
        let now = Instant::now();
        let first = LoadRetry::after_failure(None, now, None, Some("a".into()));
        let refused = LoadRetry::after_failure(Some(first), now, Some(Duration::ZERO), None);
        assert_eq!((refused.at, refused.delay), (now, RETRY_FIRST * 2));
        let mut retry = LoadRetry::after_failure(Some(refused), now, None, Some("b".into()));
        assert_eq!(retry.avoid, ["a", "b"]);
        for n in 0..20 {
            retry = LoadRetry::after_failure(Some(retry), now, None, Some(n.to_string()));
        }
        assert_eq!((retry.avoid.len(), retry.delay), (AVOIDED_MAX, RETRY_MAX));
        assert_eq!(retry.avoid.last().unwrap(), "19");
    }

    #[test]
    fn a_requested_delay_is_limited() {
        let now = Instant::now();
        let retry = LoadRetry::after_failure(None, now, Some(Duration::from_secs(u64::MAX)), None);
        assert!(retry.at <= now + RETRY_MAX * 2);
        let retry = LoadRetry::after_failure(None, now, Some(Duration::from_secs(7)), None);
        assert!(retry.at >= now + Duration::from_secs(7), "never sooner than requested");
    }
}
