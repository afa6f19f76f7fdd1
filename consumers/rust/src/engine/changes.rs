//! Changes as they arrive: judged, decoded, applied in one local transaction that ends at a progress mark.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use walgate_wire::{PROGRESS_SUBJECT, Progress, Schema, StreamPosition, Token, from_msgpack};

use super::{Engine, Limits};
use crate::{
    Changes, Error, Sink,
    decode::{self, Envelope, unreadable},
    error::Unreadable,
    feed::Delivery,
    state::{Filter, Mark, Migration, TableRecord, Verdict, migration},
};

const CDC_PREFIX: &str = "cdc.";

/// The local transaction that is open, if one is.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// When the first of its changes was applied.
    since: Option<Instant>,
    bytes: usize,
    /// The last progress mark, if nothing was applied after it: here it can be committed.
    mark: Option<Mark>,
    /// The records of tables that it altered, as they were.
    undo: Vec<TableRecord>,
}

impl Open {
    pub fn has_changes(&self) -> bool {
        self.since.is_some()
    }

    /// In the order in which to restore them: a table that was altered twice ends as it was at first.
    pub fn undo(self) -> impl Iterator<Item = TableRecord> {
        self.undo.into_iter().rev()
    }

    /// When it has to be committed at the latest.
    pub fn commit_due(&self, delay_max: Duration) -> Option<Instant> {
        self.mark.and(self.since).map(|since| since + delay_max)
    }

    fn applied(&mut self, bytes: usize) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
        self.mark = None;
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.bytes >= limits.commit_bytes_max
            || self.commit_due(limits.commit_delay_max).is_some_and(|due| due <= Instant::now())
    }
}

impl<S: Sink> Engine<'_, S> {
    pub(super) async fn on_change(&mut self, delivery: Delivery) -> Result<(), Error> {
        if delivery.subject == PROGRESS_SUBJECT {
            return self.on_progress(&delivery).await;
        }
        let token = delivery.subject.strip_prefix(CDC_PREFIX).map(Token::parse);
        let Some(Ok(token)) = token else { return Ok(()) };
        let envelope = Envelope::read(&delivery.headers).map_err(unreadable(&delivery))?;
        let Some(position) = envelope.position else {
            return Err(missing(&delivery, walgate_wire::POS));
        };
        match self.tables.judge(&token, delivery.seq, position) {
            Verdict::Skip => Ok(()),
            Verdict::Reload(reason) => self.reload(vec![(token, reason)]).await,
            Verdict::Apply(filter) => self.apply(delivery, envelope, token, filter).await,
        }
    }

    async fn apply(
        &mut self,
        delivery: Delivery,
        envelope: Envelope,
        token: Token,
        filter: Filter,
    ) -> Result<(), Error> {
        if self.open.is_full(&self.limits) && self.open.mark.is_some() {
            self.commit().await?;
        }
        let Some(revision) = envelope.schema else {
            return Err(missing(&delivery, walgate_wire::SCHEMA));
        };
        let dictionary =
            envelope.dictionary.as_ref().map(|name| format!("{}@{}", name.key, name.revision));
        let position = envelope.position.unwrap_or_default().position;
        let body =
            decode::body(&delivery, envelope, &mut self.joiner, &mut self.assets, None).await;
        let body = match body {
            Err(lost @ Unreadable::Lost(_)) => {
                return self.reload_beyond(position, vec![(token, lost.to_string())]).await;
            }
            body => body.map_err(unreadable(&delivery))?,
        };
        let Some(body) = body else { return Ok(()) };
        let Some(schema) = self.assets.schema(&token, revision).await? else {
            let reason = format!("schema revision {revision} is not in KV any more");
            return self.reload_beyond(position, vec![(token, reason)]).await;
        };
        if self.tables.reseeds(&schema) {
            return self.reload(vec![(token, reseed_reason(&schema))]).await;
        }
        if let Some(reason) = self.follow(&schema).await? {
            return self.reload_beyond(position, vec![(token, reason)]).await;
        }
        let Some(record) = self.tables.record(&token) else { return Ok(()) };
        let local = if record.schema.revision == schema.revision {
            schema.clone()
        } else {
            Arc::new(record.schema.clone())
        };
        self.board.received(&token, delivery.payload.len(), body.len(), dictionary);
        self.open.applied(body.len());
        let (count, caps) = (self.board.changes(&token), self.limits.caps);
        Ok(self.sink.apply(Changes { schema, local, body, filter, caps, count }).await?)
    }

    /// Gives the local table the shape of `schema` if that is later than what it has. Returns why the table
    /// has to be loaded again, if it has.
    async fn follow(&mut self, schema: &Arc<Schema>) -> Result<Option<String>, Error> {
        let Some(record) = self.tables.record(&schema.token) else { return Ok(None) };
        if schema.revision <= record.schema.revision {
            return Ok(None);
        }
        let before = record.clone();
        let steps = match migration(&before.schema, schema) {
            Migration::Steps(steps) => steps,
            Migration::Reload(reason) => return Ok(Some(reason)),
        };
        let (table, revision) = (schema.table.as_str(), schema.revision);
        tracing::info!(table, revision, ?steps, "the source table was altered");
        let Some(record) = self.tables.migrated(schema) else { return Ok(None) };
        self.open.applied(0);
        self.open.undo.push(before);
        self.sink.migrate(record, steps).await?;
        Ok(None)
    }

    async fn on_progress(&mut self, delivery: &Delivery) -> Result<(), Error> {
        let place = self.progress_place(delivery).map_err(unreadable(delivery))?;
        let Some((place, at)) = place else { return Ok(()) };
        let mark = match self.tables.judge_progress(delivery.seq, at, place) {
            Ok(mark) => mark,
            Err(outdated) => return self.reload(outdated).await,
        };
        let lost = self.joiner.overdue(place);
        if !lost.is_empty() {
            let token = |subject: &String| Token::parse(subject.strip_prefix(CDC_PREFIX)?).ok();
            let reason = format!("the stream lost part of a body before {place}");
            let lost = lost.iter().filter_map(token).map(|token| (token, reason.clone()));
            return self.reload_beyond(place.position, lost.collect()).await;
        }
        // Of what is not stated yet the rest did not follow: it comes again from its first part.
        self.joiner.clear();
        if !self.open.has_changes() {
            self.tables.advance(mark);
            self.unsaved = true;
            return Ok(());
        }
        self.open.mark = Some(mark);
        let nothing_waits =
            delivery.pending == 0 && self.changes.as_ref().is_some_and(|c| c.is_idle());
        if nothing_waits || self.open.is_full(&self.limits) { self.commit().await } else { Ok(()) }
    }

    /// Position and commit time; none if no epoch is known.
    fn progress_place(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<(StreamPosition, i64)>, Unreadable> {
        let progress: Progress = from_msgpack(&delivery.payload)?;
        let envelope = Envelope::read(&delivery.headers)?;
        let current = self.tables.mark().map(|mark| mark.epoch);
        let Some(epoch) = envelope.position.map(|place| place.epoch).or(current) else {
            return Ok(None);
        };
        Ok(Some((StreamPosition { epoch, position: progress.position() }, progress.at)))
    }

    /// Only where nothing was applied after the last progress mark.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        let Some(mark) = std::mem::take(&mut self.open).mark else { return Ok(()) };
        // From here on the sink may hold this mark: the one in memory is older, and whoever ends this must not store it.
        self.unsaved = false;
        self.sink.commit(mark).await?;
        self.tables.advance(mark);
        self.chunk_first = true;
        self.board.committed(mark);
        Ok(())
    }
}

pub(super) fn reseed_reason(schema: &Schema) -> String {
    let reason = schema.reason.as_deref().unwrap_or("the gateway asks for it");
    format!("{reason} (at {})", schema.lsn)
}

fn missing(delivery: &Delivery, header: &str) -> Error {
    unreadable(delivery)(Unreadable::Other(format!("it has no header {header}")))
}

#[cfg(test)]
mod tests {
    use walgate_wire::{Epoch, Lsn, Position};

    use super::*;
    use crate::test_support::schema;

    #[test]
    fn what_was_altered_twice_is_restored_to_its_first_shape() {
        let altered = |revision| {
            let schema = Schema { revision, ..schema(&[("id", 20)]) };
            let (epoch, position) = (Epoch(1), Position::default());
            let token = schema.token.clone();
            let (seeded, seq, window, reload) = (Lsn(0), 0, None, None);
            TableRecord { token, schema, epoch, seeded, seq, position, window, reload }
        };
        let open = Open { undo: vec![altered(7), altered(8)], ..Open::default() };
        let restored = open.undo().last().map(|record| record.schema.revision);
        assert_eq!(restored, Some(7));
    }
}
