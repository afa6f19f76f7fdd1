//! The state of each table and the decisions that follow from it. Pure: no runtime, no broker, no
//! database.
//!
//! All tables share one checkpoint, which progress messages move. A table can be ahead of it: it
//! was loaded later, or the checkpoint was moved back for another table.

use std::collections::BTreeMap;

use walgate_wire::{Epoch, Lsn, Position, Schema, StreamPosition, TableState, Token, XidWindow};

mod filter;
mod loaded;
mod migration;
mod record;

pub use filter::{ChangeFilter, SnapshotWindow};
pub use migration::{Migration, MigrationStep, plan_migration, same_column};
pub use record::{ChangeVerdict, Checkpoint, StoredState, StreamExtent, TableRecord};

#[derive(Debug, Default)]
struct TrackedTable {
    record: Option<TableRecord>,
    /// The schema in KV; none until the gateway published it.
    latest: Option<Schema>,
    /// The state in KV changed since the last `take_state_changes`.
    state_changed: bool,
    /// The KV revision of the last reseed, and the LSN below which copies are void.
    reseed: Option<(u64, Lsn)>,
    /// A change at this LSN could not be applied. A copy of the current epoch must have its
    /// watermark beyond it, otherwise it leads back to that change.
    unappliable_at: Option<Lsn>,
}

impl TrackedTable {
    fn live_record(&self) -> Option<&TableRecord> {
        self.record.as_ref().filter(|record| record.reload.is_none())
    }

    /// Why the table must be loaded, if it must be and can be.
    fn load_reason(&self) -> Option<&str> {
        let state = self.latest.as_ref()?.state;
        let available = matches!(state, TableState::Live | TableState::Reseed);
        let reason = match &self.record {
            None => "there is no copy yet",
            Some(record) => record.reload.as_deref()?,
        };
        available.then_some(reason)
    }
}

/// All tables of a consumer, and their common checkpoint.
#[derive(Debug, Default)]
pub struct Tables {
    tables: BTreeMap<Token, TrackedTable>,
    checkpoint: Option<Checkpoint>,
    /// The KV revision at which the current epoch began. Positions in older `reseed` entries are
    /// not comparable.
    epoch_since: u64,
}

impl Tables {
    /// Also returns stored tables that are no longer configured. Their records must be removed,
    /// because the common checkpoint moves on without them.
    pub fn new(configured: &[Token], stored: StoredState) -> (Tables, Vec<Token>) {
        let mut tables: BTreeMap<_, _> =
            configured.iter().map(|token| (token.clone(), TrackedTable::default())).collect();
        let mut forgotten = Vec::new();
        for record in stored.tables {
            match tables.get_mut(&record.token) {
                Some(table) => table.record = Some(record),
                None => forgotten.push(record.token),
            }
        }
        (Tables { tables, checkpoint: stored.checkpoint, epoch_since: 0 }, forgotten)
    }

    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tables.keys()
    }

    pub fn record(&self, token: &Token) -> Option<&TableRecord> {
        self.tables.get(token)?.record.as_ref()
    }

    /// The latest schema seen in KV.
    pub fn latest_schema(&self, token: &Token) -> Option<&Schema> {
        self.tables.get(token)?.latest.as_ref()
    }

    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// An epoch begins. Positions in KV entries before this revision are not comparable any more.
    pub fn begin_epoch(&mut self, kv_revision: u64) {
        self.epoch_since = kv_revision;
        for table in self.tables.values_mut() {
            table.reseed = table.reseed.filter(|(revision, _)| *revision > kv_revision);
            table.unappliable_at = None;
        }
    }

    /// Records a schema from KV. Returns whether it voids the table's copy.
    pub fn on_schema(&mut self, schema: Schema) -> bool {
        let voids = self.voids_copy(&schema);
        let since = self.epoch_since;
        let Some(table) = self.tables.get_mut(&schema.token) else { return false };
        if schema.state == TableState::Reseed && schema.revision > since {
            let lsn = table.reseed.map_or(Lsn(0), |(_, lsn)| lsn).max(schema.lsn);
            table.reseed = Some((schema.revision, lsn));
        }
        let before = table.latest.as_ref().map(|s| (s.state, &s.reason));
        table.state_changed |= before != Some((schema.state, &schema.reason));
        table.latest = Some(schema);
        voids
    }

    /// Schemas whose state or reason changed since the last call.
    pub fn take_state_changes(&mut self) -> Vec<&Schema> {
        let take = |table: &mut TrackedTable| std::mem::take(&mut table.state_changed);
        let changed = self.tables.values_mut().filter_map(|table| take(table).then_some(&*table));
        changed.filter_map(|table| table.latest.as_ref()).collect()
    }

    /// Whether this schema reseeds the table above the copy's watermark.
    pub fn voids_copy(&self, schema: &Schema) -> bool {
        let newer = |record: &TableRecord| schema.lsn > record.seeded;
        schema.state == TableState::Reseed
            && schema.revision > self.epoch_since
            && self.tables.get(&schema.token).and_then(TrackedTable::live_record).is_some_and(newer)
    }

    /// The lowest watermark that a snapshot of the table may have.
    pub fn required_watermark(&self, token: &Token) -> Lsn {
        let Some(table) = self.tables.get(token) else { return Lsn(0) };
        let reseed = table.reseed.map_or(Lsn(0), |(_, lsn)| lsn);
        reseed.max(table.unappliable_at.map_or(Lsn(0), |lsn| Lsn(lsn.0 + 1)))
    }

    /// Tables whose copy is of an epoch before this one, with the reason to load them again.
    pub fn outdated_tables(&self, epoch: Epoch) -> Vec<(Token, String)> {
        let live =
            self.tables.iter().filter_map(|(token, table)| Some((token, table.live_record()?)));
        let outdated = live.filter(|(_, record)| record.epoch < epoch);
        outdated
            .map(|(token, record)| (token.clone(), epoch_changed(record.epoch, epoch)))
            .collect()
    }

    /// Tables that must be loaded and can be, with the reason.
    pub fn tables_to_load(&self) -> impl Iterator<Item = (&Token, &str)> {
        self.tables.iter().filter_map(|(token, table)| Some((token, table.load_reason()?)))
    }

    /// Whether the table is one of the [tables to load](Tables::tables_to_load).
    pub fn must_load(&self, token: &Token) -> bool {
        self.tables.get(token).is_some_and(|table| table.load_reason().is_some())
    }

    /// Tables whose changes are applied.
    pub fn live_tables(&self) -> impl Iterator<Item = &Token> {
        self.tables
            .iter()
            .filter(|(_, table)| table.live_record().is_some())
            .map(|(token, _)| token)
    }

    /// The table's copy cannot be continued and must be loaded again. Returns the record to store.
    pub fn require_reload(&mut self, token: &Token, reason: &str) -> Option<TableRecord> {
        let record = self.tables.get_mut(token)?.record.as_mut()?;
        record.reload.get_or_insert_with(|| reason.to_owned());
        Some(record.clone())
    }

    /// The change at `position` cannot be applied: the next snapshot must have a higher watermark.
    pub fn require_snapshot_beyond(&mut self, token: &Token, position: Position) {
        let Some(table) = self.tables.get_mut(token) else { return };
        table.unappliable_at = table.unappliable_at.max(Some(position.commit_lsn));
    }

    fn applied_seq(&self, record: &TableRecord) -> u64 {
        record.seq.max(self.checkpoint.map_or(0, |checkpoint| checkpoint.seq))
    }

    fn applied_position(&self, record: &TableRecord) -> Position {
        match self.checkpoint {
            Some(checkpoint) if checkpoint.epoch == record.epoch => {
                record.position.max(checkpoint.position)
            }
            _ => record.position,
        }
    }

    /// Decides about a message of changes by its headers alone.
    pub fn judge_change(&self, token: &Token, seq: u64, last: StreamPosition) -> ChangeVerdict {
        let Some(record) = self.tables.get(token).and_then(TrackedTable::live_record) else {
            return ChangeVerdict::Skip;
        };
        if seq <= self.applied_seq(record) || last.epoch < record.epoch {
            return ChangeVerdict::Skip;
        }
        if last.epoch > record.epoch {
            return ChangeVerdict::Reload(epoch_changed(record.epoch, last.epoch));
        }
        let after = self.applied_position(record);
        if last.position <= after {
            return ChangeVerdict::Skip;
        }
        ChangeVerdict::Apply(ChangeFilter { after, window: record.window.clone() })
    }

    /// Decides about a progress message. Returns the checkpoint to commit, or the tables that must
    /// be loaded again.
    pub fn judge_progress(
        &self,
        seq: u64,
        at: i64,
        place: StreamPosition,
    ) -> Result<Checkpoint, Vec<(Token, String)>> {
        let before = self.checkpoint.unwrap_or_default();
        let outdated = self.outdated_tables(place.epoch);
        if !outdated.is_empty() {
            return Err(outdated);
        }
        let older = place.epoch < before.epoch
            || (place.epoch == before.epoch && place.position <= before.position);
        let checkpoint = if older {
            before
        } else {
            Checkpoint { epoch: place.epoch, position: place.position, at, ..before }
        };
        Ok(Checkpoint { seq: seq.max(before.seq), ..checkpoint })
    }

    /// Moves the checkpoint: it was committed, or nothing was applied since the last commit.
    pub fn advance_to(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = Some(checkpoint);
    }

    /// The stream was checked, and no message up to `seq` had been dropped before it was read.
    pub fn mark_verified(&mut self, seq: u64) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.verified_seq = checkpoint.verified_seq.max(seq);
        }
    }

    /// The local table now has the shape of `schema`. Returns the record to store.
    pub fn set_local_schema(&mut self, schema: &Schema) -> Option<TableRecord> {
        let record = self.tables.get_mut(&schema.token)?.record.as_mut()?;
        record.schema = schema.clone();
        Some(record.clone())
    }

    /// Replaces a table's record: a migration was rolled back, or a snapshot was stored.
    pub fn restore_record(&mut self, record: TableRecord) {
        if let Some(table) = self.tables.get_mut(&record.token) {
            table.record = Some(record);
        }
    }

    /// The stream sequence to read from, if changes of any table are applied.
    pub fn next_sequence(&self) -> Option<u64> {
        let live = self.tables.values().filter_map(TrackedTable::live_record);
        live.map(|record| self.applied_seq(record) + 1).min()
    }

    /// Tables whose next message the stream no longer holds, with the reason.
    pub fn find_gaps(&self, stream: StreamExtent) -> Vec<(Token, String)> {
        let Some(checkpoint) = self.checkpoint else { return vec![] };
        let gap = |record: &TableRecord| {
            let seq = self.applied_seq(record);
            let verified = checkpoint.verified_seq.max(record.seq);
            if stream.created != checkpoint.stream_created {
                Some("the stream was created again".to_owned())
            } else if stream.last_seq < seq {
                Some(format!("the stream ends at {}, before our position {seq}", stream.last_seq))
            } else if stream.first_seq > verified + 1 {
                let from = verified + 1;
                let to = stream.first_seq - 1;
                Some(format!("the stream dropped messages {from} to {to} before they were read"))
            } else {
                None
            }
        };
        let live =
            self.tables.iter().filter_map(|(token, table)| Some((token, table.live_record()?)));
        live.filter_map(|(token, record)| Some((token.clone(), gap(record)?))).collect()
    }
}

fn epoch_changed(from: Epoch, to: Epoch) -> String {
    format!("the source began epoch {to} (the copy is of {from}): its slot or stream was recreated")
}

/// Whether the window holds transactions. The window of a view does not.
pub(crate) fn has_transactions(window: &XidWindow) -> bool {
    window.xmax != 0
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
