//! The gateway's counters and states, for an operator. The JSON form is in `counts`.
//!
//! What the numbers mean for health is not known here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, MutexGuard};
use walgate_wire::{Guest, Token};

use super::{
    counts::{GuestCounts, TableCounts},
    lag::Lag,
};
use crate::{egress::dictionary_stats::DictionaryWear, guest::GuestOutcome, wal_budget::WalReport};

/// Shared by all tasks; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<StatusInner>);

#[derive(Debug, Default)]
struct StatusInner {
    tables: Mutex<BTreeMap<Token, Arc<TableStatus>>>,
    streaming: AtomicBool,
    has_streamed: AtomicBool,
    confirmed_lsn: AtomicU64,
    received_lsn: AtomicU64,
    lag: Mutex<Lag>,
    problem: Mutex<Option<String>>,
    wal: Mutex<WalReport>,
}

/// Counters of one table since the start.
#[derive(Debug, Default)]
pub struct TableStatus {
    changes: AtomicU64,
    snapshot_rows: AtomicU64,
    raw_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    dictionary_revision: AtomicU64,
    dictionary_wear: Mutex<Option<DictionaryWear>>,
    lag_micros: AtomicU64,
    guest: Mutex<GuestStatus>,
    /// Why the table is suspended.
    suspended: Mutex<Option<String>>,
}

/// The live guest of a table, and the problem of its file.
#[derive(Debug, Default)]
struct GuestStatus {
    /// The live guest, which `counts` are about.
    live: Option<Guest>,
    counts: GuestCounts,
    file_problem: Option<String>,
}

impl Status {
    pub fn table(&self, token: &Token) -> Arc<TableStatus> {
        let mut tables = self.0.tables.lock();
        match tables.get(token) {
            Some(table) => Arc::clone(table),
            None => Arc::clone(tables.entry(token.clone()).or_default()),
        }
    }

    pub fn counts(&self) -> Vec<(Token, TableCounts)> {
        let tables = self.0.tables.lock();
        tables.iter().map(|(token, table)| (token.clone(), table.counts())).collect()
    }

    /// Whether the gateway is connected to both sides and holds the slot.
    pub fn is_streaming(&self) -> bool {
        self.0.streaming.load(Relaxed)
    }

    /// Whether this process has held the slot before.
    pub fn has_streamed(&self) -> bool {
        self.0.has_streamed.load(Relaxed)
    }

    pub fn set_streaming(&self, streaming: bool) {
        self.0.streaming.store(streaming, Relaxed);
        if streaming {
            self.0.has_streamed.store(true, Relaxed);
            self.set_problem(None);
        }
    }

    /// Why the gateway is not streaming, as a text for an operator.
    pub fn problem(&self) -> Option<String> {
        self.0.problem.lock().clone()
    }

    pub fn set_problem(&self, problem: Option<String>) {
        *self.0.problem.lock() = problem;
    }

    /// The last report about the WAL that the slot retains.
    pub fn wal(&self) -> WalReport {
        self.0.wal.lock().clone()
    }

    pub fn set_wal(&self, report: WalReport) {
        *self.0.wal.lock() = report;
    }

    /// The LSN that was confirmed to Postgres last.
    pub fn confirmed_lsn(&self) -> u64 {
        self.0.confirmed_lsn.load(Relaxed)
    }

    pub fn set_confirmed_lsn(&self, lsn: u64) {
        self.0.confirmed_lsn.store(lsn, Relaxed);
    }

    /// How far the stream is behind Postgres. Hold the lock only for a moment.
    pub fn lag(&self) -> MutexGuard<'_, Lag> {
        self.0.lag.lock()
    }

    pub fn received_lsn(&self) -> u64 {
        self.0.received_lsn.load(Relaxed)
    }

    pub fn set_received_lsn(&self, lsn: u64) {
        self.0.received_lsn.store(lsn, Relaxed);
    }
}

impl TableStatus {
    pub fn set_lag(&self, micros: u64) {
        self.lag_micros.store(micros, Relaxed);
    }

    pub fn add_changes(&self, changes: u64, raw_bytes: u64, sent_bytes: u64) {
        self.changes.fetch_add(changes, Relaxed);
        self.add_bytes(raw_bytes, sent_bytes);
    }

    pub fn add_snapshot_rows(&self, rows: u64, raw_bytes: u64, sent_bytes: u64) {
        self.snapshot_rows.fetch_add(rows, Relaxed);
        self.add_bytes(raw_bytes, sent_bytes);
    }

    fn add_bytes(&self, raw_bytes: u64, sent_bytes: u64) {
        self.raw_bytes.fetch_add(raw_bytes, Relaxed);
        self.sent_bytes.fetch_add(sent_bytes, Relaxed);
    }

    /// Counts a batch of `rows` that went through this guest. A snapshot may still use a guest that
    /// was replaced: its batches do not count.
    pub fn add_guest(&self, guest: Option<&Guest>, rows: u64, outcome: &GuestOutcome) {
        let mut status = self.guest();
        if status.live.as_ref() != guest {
            return;
        }
        let counts = &mut status.counts;
        counts.batches += 1;
        counts.rows += rows;
        counts.dropped += outcome.dropped;
        counts.failed += outcome.failed.len() as u64;
        counts.micros += outcome.took.as_micros() as u64;
        if let Some(last) = outcome.failed.last() {
            counts.last_error = Some(format!("{}: {}", last.place, last.error));
        }
    }

    /// Why the file in the folder of guests is not in use; `None` if it is, will be, or is missing.
    pub fn set_file_problem(&self, problem: Option<&str>) {
        self.guest().file_problem = problem.map(str::to_owned);
    }

    /// The table is published, through this guest if it has one. A new guest starts its counters at
    /// zero.
    pub fn flows(&self, guest: Option<&Guest>) {
        let mut status = self.guest();
        if status.live.as_ref() != guest {
            let named = |guest: &Guest| format!("{} {}", guest.name, guest.version);
            let name = guest.map(named).unwrap_or_default();
            status.counts = GuestCounts { guest: name, ..GuestCounts::default() };
            status.live = guest.cloned();
            status.file_problem = None;
        }
        drop(status);
        *self.suspended() = None;
    }

    /// The table is suspended.
    pub fn stops(&self, reason: &str) {
        *self.suspended() = Some(reason.to_owned());
    }

    fn suspended(&self) -> MutexGuard<'_, Option<String>> {
        self.suspended.lock()
    }

    fn guest(&self) -> MutexGuard<'_, GuestStatus> {
        self.guest.lock()
    }

    pub fn set_dictionary_revision(&self, revision: u64) {
        if self.dictionary_revision.swap(revision, Relaxed) != revision {
            *self.wear() = None;
        }
    }

    /// Bytes of single-row changes with this revision of the dictionary ÷ without it. Returns the
    /// first ratio once the dictionary should be trained again.
    pub fn set_dictionary_ratio(&self, revision: u64, ratio: f64) -> Option<f64> {
        let mut wear = self.wear();
        if wear.as_ref().is_none_or(|wear| wear.revision() != revision) {
            *wear = Some(DictionaryWear::new(revision, ratio));
        }
        wear.as_mut()?.note_ratio(ratio)
    }

    fn wear(&self) -> MutexGuard<'_, Option<DictionaryWear>> {
        self.dictionary_wear.lock()
    }

    pub fn counts(&self) -> TableCounts {
        TableCounts {
            changes: self.changes.load(Relaxed),
            lag_ms: self.lag_micros.load(Relaxed) as f64 / 1000.0,
            snapshot_rows: self.snapshot_rows.load(Relaxed),
            raw_bytes: self.raw_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            dictionary_revision: self.dictionary_revision.load(Relaxed),
            dictionary_ratio: self
                .wear()
                .as_ref()
                .map(|wear| (wear.last_ratio() * 1000.0).round() / 1000.0),
            guest: self.guest_counts(),
            suspended: self.suspended().clone(),
        }
    }

    fn guest_counts(&self) -> Option<GuestCounts> {
        let status = self.guest();
        status.live.as_ref()?;
        Some(GuestCounts { file_problem: status.file_problem.clone(), ..status.counts.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use Guest;

    use super::*;
    use crate::{rows::batch::RowBatch, rows::test_support::table_version};

    fn guest(sha256: &str) -> Guest {
        Guest { name: "g".into(), version: "1".into(), sha256: sha256.into() }
    }

    fn outcome(dropped: u64) -> GuestOutcome {
        let batch = RowBatch::new(table_version("t", 7, 1));
        let (took, called) = (Duration::from_micros(5), Duration::ZERO);
        GuestOutcome { batch, dropped, failed: vec![], took, called }
    }

    #[test]
    fn counts_are_of_the_live_guest() {
        let table = TableStatus::default();
        assert_eq!(table.counts().guest, None);
        let (first, second) = (guest("1"), guest("2"));
        table.flows(Some(&first));
        table.add_guest(Some(&first), 10, &outcome(3));
        // As after every new session.
        table.flows(Some(&first));
        let counts = table.counts().guest.unwrap();
        assert_eq!((counts.batches, counts.rows, counts.dropped, counts.micros), (1, 10, 3, 5));
        // The same version, another build.
        table.flows(Some(&second));
        table.add_guest(Some(&first), 10, &outcome(3));
        table.add_guest(Some(&second), 4, &outcome(0));
        let counts = table.counts().guest.unwrap();
        assert_eq!((counts.batches, counts.rows, counts.dropped), (1, 4, 0));
        table.flows(None);
        assert_eq!(table.counts().guest, None);
    }

    #[test]
    fn a_file_problem_is_shown_until_it_is_fixed() {
        let table = TableStatus::default();
        table.flows(Some(&guest("1")));
        table.set_file_problem(Some("no wasm"));
        table.flows(Some(&guest("1")));
        assert_eq!(table.counts().guest.unwrap().file_problem.as_deref(), Some("no wasm"));
        table.set_file_problem(None);
        let counts = table.counts().guest.unwrap();
        assert_eq!((counts.file_problem, counts.last_error), (None, None));
    }
}
