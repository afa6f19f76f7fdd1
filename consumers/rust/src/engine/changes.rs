//! Changes: judged, decoded, and applied in a local transaction that ends at a progress message.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use walgate_wire::{PROGRESS_SUBJECT, Progress, Schema, StreamPosition, Token, from_msgpack};

use super::{Engine, EngineLimits};
use crate::{
    ChangeBatch, Error, Sink,
    decode::{self, Envelope, protocol_error},
    error::UnreadableMessage,
    feed::Delivery,
    state::{ChangeFilter, ChangeVerdict, Checkpoint, Migration, TableRecord, plan_migration},
};

const CDC_PREFIX: &str = "cdc.";

/// The open local transaction. Empty if none is open.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    /// When its first change was applied.
    since: Option<Instant>,
    bytes: usize,
    /// The checkpoint of the last progress message, if nothing was applied after it. The
    /// transaction can be committed only then.
    checkpoint: Option<Checkpoint>,
    /// The previous records of the tables that it altered.
    undo: Vec<TableRecord>,
}

impl OpenTransaction {
    pub fn has_changes(&self) -> bool {
        self.since.is_some()
    }

    /// The records in the order in which to restore them: a table that was altered twice gets its
    /// first record.
    pub fn into_undo_records(self) -> impl Iterator<Item = TableRecord> {
        self.undo.into_iter().rev()
    }

    /// The latest time for the commit.
    pub fn commit_due(&self, delay_max: Duration) -> Option<Instant> {
        self.checkpoint.and(self.since).map(|since| since + delay_max)
    }

    fn record_applied(&mut self, bytes: usize) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
        self.checkpoint = None;
    }

    fn is_full(&self, limits: &EngineLimits) -> bool {
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
        let envelope = Envelope::read(&delivery.headers).map_err(protocol_error(&delivery))?;
        let Some(position) = envelope.position else {
            return Err(missing_header(&delivery, walgate_wire::POS));
        };
        match self.tables.judge_change(&token, delivery.seq, position) {
            ChangeVerdict::Skip => Ok(()),
            ChangeVerdict::Reload(reason) => self.reload_tables(vec![(token, reason)]).await,
            ChangeVerdict::Apply(filter) => {
                self.apply_change(delivery, envelope, token, filter).await
            }
        }
    }

    async fn apply_change(
        &mut self,
        delivery: Delivery,
        envelope: Envelope,
        token: Token,
        filter: ChangeFilter,
    ) -> Result<(), Error> {
        if self.transaction.is_full(&self.limits) && self.transaction.checkpoint.is_some() {
            self.commit_transaction().await?;
        }
        let Some(revision) = envelope.schema else {
            return Err(missing_header(&delivery, walgate_wire::SCHEMA));
        };
        let dictionary =
            envelope.dictionary.as_ref().map(|name| format!("{}@{}", name.key, name.revision));
        let position = envelope.position.unwrap_or_default().position;
        let body =
            decode::complete_body(&delivery, envelope, &mut self.joiner, &mut self.assets, None)
                .await;
        let body = match body {
            Err(lost @ UnreadableMessage::Lost(_)) => {
                return self.reload_tables_beyond(position, vec![(token, lost.to_string())]).await;
            }
            body => body.map_err(protocol_error(&delivery))?,
        };
        let Some(body) = body else { return Ok(()) };
        let Some(schema) = self.assets.schema_revision(&token, revision).await? else {
            let reason = format!("schema revision {revision} is no longer in KV");
            return self.reload_tables_beyond(position, vec![(token, reason)]).await;
        };
        if self.tables.voids_copy(&schema) {
            return self.reload_tables(vec![(token, reseed_reason(&schema))]).await;
        }
        if let Some(reason) = self.migrate_to(&schema).await? {
            return self.reload_tables_beyond(position, vec![(token, reason)]).await;
        }
        let Some(record) = self.tables.record(&token) else { return Ok(()) };
        let local = if record.schema.revision == schema.revision {
            schema.clone()
        } else {
            Arc::new(record.schema.clone())
        };
        self.status.add_received(&token, delivery.payload.len(), body.len(), dictionary);
        self.transaction.record_applied(body.len());
        let count = self.status.change_counter(&token);
        let caps = self.limits.caps;
        Ok(self
            .sink
            .apply_changes(ChangeBatch { schema, local, body, filter, caps, count })
            .await?)
    }

    /// Alters the local table to the shape of `schema` if that is later than its own. Returns the
    /// reason if the table must be loaded again instead.
    async fn migrate_to(&mut self, schema: &Arc<Schema>) -> Result<Option<String>, Error> {
        let Some(record) = self.tables.record(&schema.token) else { return Ok(None) };
        if schema.revision <= record.schema.revision {
            return Ok(None);
        }
        let before = record.clone();
        let steps = match plan_migration(&before.schema, schema) {
            Migration::Steps(steps) => steps,
            Migration::Reload(reason) => return Ok(Some(reason)),
        };
        let table = schema.table.as_str();
        let revision = schema.revision;
        tracing::info!(table, revision, ?steps, "source table altered, migrating the copy");
        let Some(record) = self.tables.set_local_schema(schema) else { return Ok(None) };
        self.transaction.record_applied(0);
        self.transaction.undo.push(before);
        self.sink.migrate_table(record, steps).await?;
        Ok(None)
    }

    async fn on_progress(&mut self, delivery: &Delivery) -> Result<(), Error> {
        let place = self.progress_position(delivery).map_err(protocol_error(delivery))?;
        let Some((place, at)) = place else { return Ok(()) };
        let checkpoint = match self.tables.judge_progress(delivery.seq, at, place) {
            Ok(checkpoint) => checkpoint,
            Err(outdated) => return self.reload_tables(outdated).await,
        };
        let lost = self.joiner.overdue_subjects(place);
        if !lost.is_empty() {
            let token = |subject: &String| Token::parse(subject.strip_prefix(CDC_PREFIX)?).ok();
            let reason = format!("the stream lost part of a body before {place}");
            let lost = lost.iter().filter_map(token).map(|token| (token, reason.clone()));
            return self.reload_tables_beyond(place.position, lost.collect()).await;
        }
        // A body that is still incomplete will be published again from its first part.
        self.joiner.clear();
        if !self.transaction.has_changes() {
            self.tables.advance_to(checkpoint);
            self.unsaved = true;
            return Ok(());
        }
        self.transaction.checkpoint = Some(checkpoint);
        let is_idle = delivery.pending == 0 && self.changes.as_ref().is_some_and(|c| c.is_idle());
        if is_idle || self.transaction.is_full(&self.limits) {
            self.commit_transaction().await
        } else {
            Ok(())
        }
    }

    /// The position and commit time of a progress message; none if no epoch is known.
    fn progress_position(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<(StreamPosition, i64)>, UnreadableMessage> {
        let progress: Progress = from_msgpack(&delivery.payload)?;
        let envelope = Envelope::read(&delivery.headers)?;
        let current = self.tables.checkpoint().map(|checkpoint| checkpoint.epoch);
        let Some(epoch) = envelope.position.map(|place| place.epoch).or(current) else {
            return Ok(None);
        };
        Ok(Some((StreamPosition { epoch, position: progress.position() }, progress.at)))
    }

    /// Commits the open transaction. Does nothing if changes were applied after the last progress
    /// message.
    pub(super) async fn commit_transaction(&mut self) -> Result<(), Error> {
        let Some(checkpoint) = std::mem::take(&mut self.transaction).checkpoint else {
            return Ok(());
        };
        // From here on the sink may hold this checkpoint. The one in memory is older, and must not
        // be stored if this future is dropped.
        self.unsaved = false;
        self.sink.commit(checkpoint).await?;
        self.tables.advance_to(checkpoint);
        self.chunk_first = true;
        self.status.set_committed(checkpoint);
        Ok(())
    }
}

pub(super) fn reseed_reason(schema: &Schema) -> String {
    let reason = schema.reason.as_deref().unwrap_or("the gateway requires it");
    format!("{reason} (at {})", schema.lsn)
}

fn missing_header(delivery: &Delivery, header: &str) -> Error {
    protocol_error(delivery)(UnreadableMessage::Other(format!("it has no header {header}")))
}

#[cfg(test)]
mod tests {
    use walgate_wire::{Epoch, Lsn, Position};

    use super::*;
    use crate::test_support::schema;

    #[test]
    fn a_table_altered_twice_is_restored_to_its_first_shape() {
        let altered = |revision| {
            let schema = Schema { revision, ..schema(&[("id", 20)]) };
            let epoch = Epoch(1);
            let position = Position::default();
            let token = schema.token.clone();
            let seeded = Lsn(0);
            let seq = 0;
            let window = None;
            let reload = None;
            TableRecord { token, schema, epoch, seeded, seq, position, window, reload }
        };
        let transaction =
            OpenTransaction { undo: vec![altered(7), altered(8)], ..OpenTransaction::default() };
        let restored = transaction.into_undo_records().last().map(|record| record.schema.revision);
        assert_eq!(restored, Some(7));
    }
}
