//! Tables without a usable copy: one after the other is loaded, between the local transactions of the others.

use tokio::time::{Duration, Instant};
use walgate_nats_connect::add_jitter;
use walgate_wire::Token;

use super::{Engine, Open};
use crate::{
    Error, Rows, Sink,
    feed::Delivery,
    snapshot::{Complete, Event, Loader, Wish, ask_unless_there},
    status::Phase,
};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
const AVOIDED_MAX: usize = 8;

/// What was learned from attempts that failed.
#[derive(Debug)]
pub(super) struct Retry {
    at: Instant,
    delay: Duration,
    /// Snapshots that turned out bad.
    avoid: Vec<String>,
}

impl Retry {
    /// `after`: what the gateway asks for; `avoid`: the snapshot, if it is to blame.
    fn next(
        earlier: Option<Retry>,
        now: Instant,
        after: Option<Duration>,
        avoid: Option<String>,
    ) -> Retry {
        let delay = earlier.as_ref().map_or(RETRY_FIRST, |retry| (retry.delay * 2).min(RETRY_MAX));
        let mut avoided = earlier.map_or(vec![], |retry| retry.avoid);
        avoided.extend(avoid);
        // Only the last one is ever offered; those before it are gone from the stream.
        let avoid = avoided.split_off(avoided.len().saturating_sub(AVOIDED_MAX));
        // What the gateway asks for is a number from outside, and all its consumers are told the same.
        let wait = add_jitter(after.unwrap_or(delay).min(RETRY_MAX));
        Retry { at: now + wait, delay, avoid }
    }
}

impl<S: Sink> Engine<'_, S> {
    /// Begins to load the next table that needs it. The others' snapshots are asked for as well, so that the
    /// gateway works ahead.
    pub(super) async fn start_loading(&mut self) -> Result<(), Error> {
        self.make_way();
        if self.loader.is_some() {
            return Ok(());
        }
        let wanted: Vec<(Token, String)> = self
            .tables
            .wanted()
            .map(|(token, reason)| (token.clone(), reason.to_owned()))
            .collect();
        let now = Instant::now();
        let ready = |token: &Token| self.retries.get(token).is_none_or(|retry| retry.at <= now);
        let Some((token, reason)) = wanted.iter().find(|(token, _)| ready(token)).cloned() else {
            return Ok(());
        };
        let table = token.as_str();
        tracing::info!(table, reason, "loading");
        let wish = self.wish(&token);
        match Box::pin(Loader::begin(&self.remote, wish, self.limits.caps)).await {
            Ok(loader) => self.loader = Some(loader),
            Err(error) => {
                self.try_later(&token, &error.to_string(), None, None);
                return Ok(());
            }
        }
        self.board.table(&token).phase = Phase::Loading;
        self.asked.insert(token.clone());
        for (other, _) in wanted {
            if self.asked.insert(other.clone()) {
                self.ask_ahead(&other).await;
            }
        }
        Ok(())
    }

    /// Gives up a load that nothing will come of, or nothing for now while others wait. What the sink holds of it is
    /// dropped when the next begins.
    fn make_way(&mut self) {
        let Some(loader) = &self.loader else { return };
        let token = loader.wish.token.clone();
        if !self.tables.is_wanted(&token) {
            tracing::info!(
                table = token.as_str(),
                "not loaded any further: it does not flow any more"
            );
            self.loader = None;
            self.asked.remove(&token);
            self.board.table(&token).phase = Phase::Waiting;
            self.board.publish();
        } else if loader.has_stalled() && self.others_wait(&token) {
            self.loader = None;
            self.try_later(&token, "no snapshot begins, others are loaded first", None, None);
        }
    }

    /// Whether another table could be loaded now.
    fn others_wait(&self, token: &Token) -> bool {
        let now = Instant::now();
        self.tables.wanted().any(|(other, _)| {
            other != token && self.retries.get(other).is_none_or(|retry| retry.at <= now)
        })
    }

    async fn ask_ahead(&mut self, token: &Token) {
        let wish = self.wish(token);
        let asked = async {
            let cdc = self.remote.extent(&self.remote.names.cdc).await?;
            ask_unless_there(&self.remote, &wish, cdc).await
        };
        if let Err(error) = asked.await {
            tracing::debug!(table = token.as_str(), %error, "cannot ask ahead, later then");
        }
    }

    fn wish(&self, token: &Token) -> Wish {
        Wish {
            token: token.clone(),
            epoch: self.epoch,
            watermark: self.tables.watermark_min(token),
            avoid: self.retries.get(token).map_or(vec![], |retry| retry.avoid.clone()),
        }
    }

    fn try_later(
        &mut self,
        token: &Token,
        reason: &str,
        after: Option<Duration>,
        avoid: Option<String>,
    ) {
        let now = Instant::now();
        let retry = Retry::next(self.retries.remove(token), now, after, avoid);
        let (table, retry_in_s) = (token.as_str(), (retry.at - now).as_secs());
        tracing::warn!(table, reason, retry_in_s, "the snapshot failed");
        self.board.table(token).reason = Some(reason.to_owned());
        self.board.publish();
        self.asked.remove(token);
        self.retries.insert(token.clone(), retry);
    }

    /// The table flows again: what kept its snapshot from being taken has passed.
    pub(super) fn try_now(&mut self, token: &Token) {
        if let Some(retry) = self.retries.get_mut(token) {
            retry.at = Instant::now();
        }
    }

    pub(super) async fn on_snapshot(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.chunk_first = false;
        let Some(mut loader) = self.loader.take() else { return Ok(()) };
        let event = loader.take(&delivery, &mut self.assets).await?;
        let token = loader.wish.token.clone();
        match event {
            Event::Nothing => {}
            Event::Begin { schema, estimated_rows } => {
                self.board.table(&token).estimated_rows = estimated_rows;
                self.board.publish();
                self.sink.begin_load(schema).await?;
            }
            Event::Rows { schema, body, bytes, dictionary } => {
                self.board.received(&token, bytes, body.len(), dictionary);
                self.board.publish();
                let (count, caps) = (self.board.snapshot_rows(&token), loader.caps());
                self.sink.load(Rows { schema, body, caps, count }).await?;
            }
            Event::Complete(complete) => {
                let created = loader.cdc.created;
                return self.finish(&token, *complete, created).await;
            }
            Event::Failed { reason, retry_after, snapshot_id } => {
                self.try_later(&token, &reason, retry_after, snapshot_id);
                return Ok(());
            }
        }
        self.loader = Some(loader);
        Ok(())
    }

    /// The new generation becomes the table. Changes are read from where the snapshot says, for this table;
    /// the others skip what they have.
    async fn finish(
        &mut self,
        token: &Token,
        complete: Complete,
        created: i64,
    ) -> Result<(), Error> {
        let Complete { start, schema, finished_at, rows } = complete;
        let (records, mark) = self.tables.loaded(&start, &schema, finished_at, created);
        // From here on the sink may hold this mark, and no other may be stored after it by whoever ends this.
        self.unsaved = false;
        self.sink.finish_load(schema.clone(), records.clone(), mark).await?;
        self.tables.adopt(records, mark);
        tracing::info!(table = schema.table, rows, watermark = %start.lsn, "loaded");
        self.changes = None;
        self.joiner.clear();
        self.open = Open::default();
        self.retries.remove(token);
        self.asked.remove(token);
        self.board.table(token).phase = Phase::Live;
        self.board.committed(mark);
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
        SqliteSink, Status, StreamNames, engine::Limits, remote::Remote, test_support::schema,
    };

    /// Streams and the schemas of these tables, and no gateway.
    async fn deserted(nats: &PrivateNats, tables: &[&str]) -> Remote {
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
            let (table, token) = (name.to_string(), name.token());
            let schema = Schema { table, token, revision: 0, ..schema(&[("id", 20)]) };
            let body = to_msgpack(&schema).unwrap();
            bucket.put(schema.token.as_str(), body.into()).await.unwrap();
        }
        Remote::new(client, StreamNames::default())
    }

    #[tokio::test]
    async fn a_table_of_which_no_snapshot_begins_lets_others_go_first() {
        let bin = find_nats(None).unwrap().bin;
        let nats = PrivateNats::start(&bin, NatsOptions::default()).unwrap();
        let remote = deserted(&nats, &["a", "b"]).await;
        let dir = tempfile::tempdir().unwrap();
        let mut sink = SqliteSink::new(dir.path().join("replica.db"));
        let limits = Limits {
            caps: Caps::default(),
            commit_delay_max: Duration::from_millis(50),
            commit_bytes_max: 1 << 20,
        };
        let tokens = ["a", "b"].map(|table| Token::parse(table).unwrap());
        let (status, _) = watch::channel(Status::default());
        let mut engine = Engine::open(remote, &mut sink, &tokens, limits, status).await.unwrap();
        let mut tried = BTreeSet::new();
        for _ in 0..100 {
            let ended = timeout(Duration::from_millis(100), engine.run()).await;
            assert!(ended.is_err(), "it goes on: {ended:?}");
            tried.extend(engine.loader.as_ref().map(|loader| loader.wish.token.clone()));
            if tried.len() == 2 {
                return;
            }
        }
        panic!("only {tried:?} was tried");
    }

    #[test]
    fn a_bad_snapshot_is_remembered_over_attempts_that_fail_otherwise() {
        let now = Instant::now();
        let first = Retry::next(None, now, None, Some("a".into()));
        let refused = Retry::next(Some(first), now, Some(Duration::ZERO), None);
        assert_eq!((refused.at, refused.delay), (now, RETRY_FIRST * 2));
        let mut retry = Retry::next(Some(refused), now, None, Some("b".into()));
        assert_eq!(retry.avoid, ["a", "b"]);
        for n in 0..20 {
            retry = Retry::next(Some(retry), now, None, Some(n.to_string()));
        }
        assert_eq!((retry.avoid.len(), retry.delay), (AVOIDED_MAX, RETRY_MAX));
        assert_eq!(retry.avoid.last().unwrap(), "19");
    }

    #[test]
    fn a_gateway_cannot_ask_for_a_wait_without_end() {
        let now = Instant::now();
        let retry = Retry::next(None, now, Some(Duration::from_secs(u64::MAX)), None);
        assert!(retry.at <= now + RETRY_MAX * 2);
        let retry = Retry::next(None, now, Some(Duration::from_secs(7)), None);
        assert!(retry.at >= now + Duration::from_secs(7), "never sooner than it asks for");
    }
}
