//! Where each table stands and what follows from it: pure, no runtime, no broker, no database.
//!
//! There is one common position for all tables, moved by progress messages, and for each table what it has
//! beyond that: a table loaded later, or a common position that was moved back for another table's sake.

use std::collections::BTreeMap;

use walgate_wire::{Epoch, Lsn, Position, Schema, StreamPosition, TableState, Token, XidWindow};

mod filter;
mod loaded;
mod migration;
mod record;

pub use filter::{Filter, SnapshotWindow};
pub use migration::{Migration, Step, migration, same_column};
pub use record::{Mark, Stored, StreamExtent, TableRecord, Verdict};

#[derive(Debug, Default)]
struct Table {
    record: Option<TableRecord>,
    /// The schema in KV; none until the gateway has published it.
    latest: Option<Schema>,
    /// The last state of KV was not told to anybody yet.
    news: bool,
    /// Copies below this are void, and the KV revision that said so.
    reseed: Option<(u64, Lsn)>,
    /// Copies of the current epoch that do not reach beyond this lead back to what could not be applied.
    stuck_at: Option<Lsn>,
}

impl Table {
    fn live(&self) -> Option<&TableRecord> {
        self.record.as_ref().filter(|record| record.reload.is_none())
    }

    /// Why it has to be loaded, if it has to and can be.
    fn wanted(&self) -> Option<&str> {
        let state = self.latest.as_ref()?.state;
        let available = matches!(state, TableState::Live | TableState::Reseed);
        let reason = match &self.record {
            None => "there is no copy yet",
            Some(record) => record.reload.as_deref()?,
        };
        available.then_some(reason)
    }
}

/// All tables of a consumer.
#[derive(Debug, Default)]
pub struct Tables {
    tables: BTreeMap<Token, Table>,
    mark: Option<Mark>,
    /// KV revision at which the current epoch began: older `reseed` entries speak of other positions.
    epoch_since: u64,
}

impl Tables {
    /// Also returns what is stored of tables that are not wanted any more: it has to be forgotten, for the
    /// common position moves on without them.
    pub fn new(wanted: &[Token], stored: Stored) -> (Tables, Vec<Token>) {
        let mut tables: BTreeMap<_, _> =
            wanted.iter().map(|token| (token.clone(), Table::default())).collect();
        let mut forgotten = Vec::new();
        for record in stored.tables {
            match tables.get_mut(&record.token) {
                Some(table) => table.record = Some(record),
                None => forgotten.push(record.token),
            }
        }
        (Tables { tables, mark: stored.mark, epoch_since: 0 }, forgotten)
    }

    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tables.keys()
    }

    pub fn record(&self, token: &Token) -> Option<&TableRecord> {
        self.tables.get(token)?.record.as_ref()
    }

    /// The schema in KV as last seen.
    pub fn latest(&self, token: &Token) -> Option<&Schema> {
        self.tables.get(token)?.latest.as_ref()
    }

    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Entries in KV from before this revision speak of other positions.
    pub fn epoch_begins(&mut self, kv_revision: u64) {
        self.epoch_since = kv_revision;
        for table in self.tables.values_mut() {
            table.reseed = table.reseed.filter(|(revision, _)| *revision > kv_revision);
            table.stuck_at = None;
        }
    }

    /// A schema from KV. Returns whether it voids the table's copy.
    pub fn on_schema(&mut self, schema: Schema) -> bool {
        let voids = self.reseeds(&schema);
        let since = self.epoch_since;
        let Some(table) = self.tables.get_mut(&schema.token) else { return false };
        if schema.state == TableState::Reseed && schema.revision > since {
            let lsn = table.reseed.map_or(Lsn(0), |(_, lsn)| lsn).max(schema.lsn);
            table.reseed = Some((schema.revision, lsn));
        }
        let before = table.latest.as_ref().map(|s| (s.state, &s.reason));
        table.news |= before != Some((schema.state, &schema.reason));
        table.latest = Some(schema);
        voids
    }

    /// Schemas whose state or reason differs from when this was last asked.
    pub fn news(&mut self) -> Vec<&Schema> {
        let told = |table: &mut Table| std::mem::take(&mut table.news);
        let news = self.tables.values_mut().filter_map(|table| told(table).then_some(&*table));
        news.filter_map(|table| table.latest.as_ref()).collect()
    }

    /// Whether this schema says that the copy must be loaded again.
    pub fn reseeds(&self, schema: &Schema) -> bool {
        let newer = |record: &TableRecord| schema.lsn > record.seeded;
        schema.state == TableState::Reseed
            && schema.revision > self.epoch_since
            && self.tables.get(&schema.token).and_then(Table::live).is_some_and(newer)
    }

    /// The lowest watermark at which a copy of the table is good.
    pub fn watermark_min(&self, token: &Token) -> Lsn {
        let Some(table) = self.tables.get(token) else { return Lsn(0) };
        let reseed = table.reseed.map_or(Lsn(0), |(_, lsn)| lsn);
        reseed.max(table.stuck_at.map_or(Lsn(0), |lsn| Lsn(lsn.0 + 1)))
    }

    /// Tables whose copy is of an epoch before this one, and why that matters.
    pub fn outdated(&self, epoch: Epoch) -> Vec<(Token, String)> {
        let live = self.tables.iter().filter_map(|(token, table)| Some((token, table.live()?)));
        let outdated = live.filter(|(_, record)| record.epoch < epoch);
        outdated
            .map(|(token, record)| (token.clone(), epoch_changed(record.epoch, epoch)))
            .collect()
    }

    /// Tables to load, with the reason: those never loaded that can be, and those marked.
    pub fn wanted(&self) -> impl Iterator<Item = (&Token, &str)> {
        self.tables.iter().filter_map(|(token, table)| Some((token, table.wanted()?)))
    }

    /// Whether it is one of the [wanted](Tables::wanted).
    pub fn is_wanted(&self, token: &Token) -> bool {
        self.tables.get(token).is_some_and(|table| table.wanted().is_some())
    }

    /// Tables whose changes are applied.
    pub fn live(&self) -> impl Iterator<Item = &Token> {
        self.tables.iter().filter(|(_, table)| table.live().is_some()).map(|(token, _)| token)
    }

    /// The table's copy is not to be relied on any more. Returns the record to store.
    pub fn mark_reload(&mut self, token: &Token, reason: &str) -> Option<TableRecord> {
        let record = self.tables.get_mut(token)?.record.as_mut()?;
        record.reload.get_or_insert_with(|| reason.to_owned());
        Some(record.clone())
    }

    /// The stream cannot be applied at `position`: only a snapshot from beyond it helps.
    pub fn stuck(&mut self, token: &Token, position: Position) {
        let Some(table) = self.tables.get_mut(token) else { return };
        table.stuck_at = table.stuck_at.max(Some(position.commit_lsn));
    }

    fn applied_seq(&self, record: &TableRecord) -> u64 {
        record.seq.max(self.mark.map_or(0, |mark| mark.seq))
    }

    fn applied_position(&self, record: &TableRecord) -> Position {
        match self.mark {
            Some(mark) if mark.epoch == record.epoch => record.position.max(mark.position),
            _ => record.position,
        }
    }

    /// A message of changes, judged by its headers alone.
    pub fn judge(&self, token: &Token, seq: u64, last: StreamPosition) -> Verdict {
        let Some(record) = self.tables.get(token).and_then(Table::live) else {
            return Verdict::Skip;
        };
        if seq <= self.applied_seq(record) || last.epoch < record.epoch {
            return Verdict::Skip;
        }
        if last.epoch > record.epoch {
            return Verdict::Reload(epoch_changed(record.epoch, last.epoch));
        }
        let after = self.applied_position(record);
        if last.position <= after {
            return Verdict::Skip;
        }
        Verdict::Apply(Filter { after, window: record.window.clone() })
    }

    /// A progress message. Returns the mark to commit, or which tables must be loaded again.
    pub fn judge_progress(
        &self,
        seq: u64,
        at: i64,
        place: StreamPosition,
    ) -> Result<Mark, Vec<(Token, String)>> {
        let before = self.mark.unwrap_or_default();
        let outdated = self.outdated(place.epoch);
        if !outdated.is_empty() {
            return Err(outdated);
        }
        let older = place.epoch < before.epoch
            || (place.epoch == before.epoch && place.position <= before.position);
        let mark = if older {
            before
        } else {
            Mark { epoch: place.epoch, position: place.position, at, ..before }
        };
        Ok(Mark { seq: seq.max(before.seq), ..mark })
    }

    /// The mark was committed, or may be as far as memory goes.
    pub fn advance(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// The stream was looked at and had lost nothing from what was read so far.
    pub fn verified(&mut self, seq: u64) {
        if let Some(mark) = &mut self.mark {
            mark.verified_seq = mark.verified_seq.max(seq);
        }
    }

    /// The local table has the shape of `schema` now. Returns the record to store.
    pub fn migrated(&mut self, schema: &Schema) -> Option<TableRecord> {
        let record = self.tables.get_mut(&schema.token)?.record.as_mut()?;
        record.schema = schema.clone();
        Some(record.clone())
    }

    /// The table is as this says: a migration was rolled back, or a snapshot stored.
    pub fn restore(&mut self, record: TableRecord) {
        if let Some(table) = self.tables.get_mut(&record.token) {
            table.record = Some(record);
        }
    }

    /// The stream sequence to read from, if any table flows.
    pub fn read_from(&self) -> Option<u64> {
        let live = self.tables.values().filter_map(Table::live);
        live.map(|record| self.applied_seq(record) + 1).min()
    }

    /// Tables whose next message the stream does not hold any more, and why.
    pub fn gaps(&self, stream: StreamExtent) -> Vec<(Token, String)> {
        let Some(mark) = self.mark else { return vec![] };
        let gap = |record: &TableRecord| {
            let seq = self.applied_seq(record);
            let verified = mark.verified_seq.max(record.seq);
            if stream.created != mark.stream_created {
                Some("the stream was created anew".to_owned())
            } else if stream.last_seq < seq {
                Some(format!("the stream ends at {}, before our position {seq}", stream.last_seq))
            } else if stream.first_seq > verified + 1 {
                let (from, to) = (verified + 1, stream.first_seq - 1);
                Some(format!("the stream dropped messages {from} to {to} before they were read"))
            } else {
                None
            }
        };
        let live = self.tables.iter().filter_map(|(token, table)| Some((token, table.live()?)));
        live.filter_map(|(token, record)| Some((token.clone(), gap(record)?))).collect()
    }
}

fn epoch_changed(from: Epoch, to: Epoch) -> String {
    format!("the source began epoch {to} (the copy is of {from}): its slot or stream was recreated")
}

/// Whether a window's `XidWindow` is empty, as a view's is.
pub(crate) fn is_open(window: &XidWindow) -> bool {
    window.xmax != 0
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
