//! Tables without a usable copy: one after the other is loaded, between the local transactions of the others.

use tokio::time::{Duration, Instant};
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
        Retry { at: now + after.unwrap_or(delay), delay, avoid }
    }
}

impl<S: Sink> Engine<S> {
    /// Begins to load the next table that needs it. The others' snapshots are asked for as well, so that the
    /// gateway works ahead.
    pub(super) async fn start_loading(&mut self) -> Result<(), Error> {
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
        self.sink.finish_load(schema.clone(), records, mark).await?;
        tracing::info!(table = schema.table, rows, watermark = %start.lsn, "loaded");
        self.changes = None;
        self.joiner.clear();
        self.open = Open::default();
        self.unsaved = false;
        self.retries.remove(token);
        self.asked.remove(token);
        self.board.table(token).phase = Phase::Live;
        self.board.committed(mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
