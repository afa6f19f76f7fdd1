//! What the gateway counts about itself, for an operator to look at. Plain numbers, no output format.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};
use walgate_wire::Token;

use crate::{
    egress::dictionary_stats::DictionaryWear, guest::GuestOutcome, observe::lag::Lag,
    wal_budget::Reading,
};

/// Shared by all tasks; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tables: Mutex<BTreeMap<Token, Arc<TableStatus>>>,
    streaming: AtomicBool,
    has_streamed: AtomicBool,
    confirmed_lsn: AtomicU64,
    received_lsn: AtomicU64,
    lag: Mutex<Lag>,
    problem: Mutex<Option<String>>,
    wal: Mutex<Reading>,
}

/// Counters of one table since the start.
#[derive(Debug, Default)]
pub struct TableStatus {
    changes: AtomicU64,
    snapshot_rows: AtomicU64,
    raw_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    dictionary_revision: AtomicU64,
    wear: Mutex<Option<DictionaryWear>>,
    lag_micros: AtomicU64,
    guest: Mutex<GuestStatus>,
    /// Why it does not flow.
    suspended: Mutex<Option<String>>,
}

/// Of a table: the guest that its rows go through, and the file that is there for it.
#[derive(Debug, Default)]
struct GuestStatus {
    /// Whose counts these are.
    of: Option<walgate_wire::Guest>,
    counts: GuestCounts,
    file_problem: Option<String>,
}

/// What a table's guest did since it became live here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct GuestCounts {
    /// Name and version of the one that its rows go through.
    pub guest: String,
    pub batches: u64,
    /// Rows shown to it, or changes of rows.
    pub rows: u64,
    pub dropped: u64,
    pub failed: u64,
    /// In it and around it.
    pub micros: u64,
    /// Of the last row that it failed on.
    pub last_error: Option<String>,
    /// Why the file that lies in the folder is not the one that serves; absent: it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_problem: Option<String>,
}

/// A table's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TableCounts {
    pub changes: u64,
    /// From the commit of its last change until that was handed to JetStream, milliseconds.
    pub lag_ms: f64,
    pub snapshot_rows: u64,
    /// Bodies before compression, bytes.
    pub raw_bytes: u64,
    /// Bodies as sent, bytes.
    pub sent_bytes: u64,
    /// Zero: none.
    pub dictionary_revision: u64,
    /// Bytes of single changes with the dictionary ÷ without it; absent: not measured yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary_ratio: Option<f64>,
    /// Absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestCounts>,
    /// Why it does not flow; absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
}

impl Status {
    pub fn table(&self, token: &Token) -> Arc<TableStatus> {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        match tables.get(token) {
            Some(table) => Arc::clone(table),
            None => Arc::clone(tables.entry(token.clone()).or_default()),
        }
    }

    pub fn counts(&self) -> Vec<(Token, TableCounts)> {
        let tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|(token, table)| (token.clone(), table.counts())).collect()
    }

    /// Connected to both sides and holding the slot.
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

    /// Why it is not streaming, in words for an operator.
    pub fn problem(&self) -> Option<String> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_problem(&self, problem: Option<String>) {
        *self.0.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// WAL that the slot held back when it was looked at last.
    pub fn wal(&self) -> Reading {
        self.0.wal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_wal(&self, reading: Reading) {
        *self.0.wal.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    /// What Postgres was told last.
    pub fn confirmed_lsn(&self) -> u64 {
        self.0.confirmed_lsn.load(Relaxed)
    }

    pub fn set_confirmed_lsn(&self, lsn: u64) {
        self.0.confirmed_lsn.store(lsn, Relaxed);
    }

    /// How far the stream is behind; held only for a moment.
    pub fn lag(&self) -> MutexGuard<'_, Lag> {
        self.0.lag.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// `rows` went through this guest, as `outcome` says. A snapshot can still go through one that was replaced: that
    /// does not count.
    pub fn add_guest(
        &self,
        guest: Option<&walgate_wire::Guest>,
        rows: u64,
        outcome: &GuestOutcome,
    ) {
        let mut status = self.guest();
        if status.of.as_ref() != guest {
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

    /// Why the file in the folder of guests is not in use; none if it is, will be, or is not there.
    pub fn set_file_problem(&self, problem: Option<&str>) {
        self.guest().file_problem = problem.map(str::to_owned);
    }

    /// It flows, through this guest if it has one. Another one begins to count anew.
    pub fn flows(&self, guest: Option<&walgate_wire::Guest>) {
        let mut status = self.guest();
        if status.of.as_ref() != guest {
            let named = |guest: &walgate_wire::Guest| format!("{} {}", guest.name, guest.version);
            let name = guest.map(named).unwrap_or_default();
            status.counts = GuestCounts { guest: name, ..GuestCounts::default() };
            status.of = guest.cloned();
            status.file_problem = None;
        }
        drop(status);
        *self.suspended() = None;
    }

    /// It does not flow.
    pub fn stops(&self, reason: &str) {
        *self.suspended() = Some(reason.to_owned());
    }

    fn suspended(&self) -> MutexGuard<'_, Option<String>> {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self) -> MutexGuard<'_, GuestStatus> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_dictionary_revision(&self, revision: u64) {
        if self.dictionary_revision.swap(revision, Relaxed) != revision {
            *self.wear() = None;
        }
    }

    /// Bytes of single changes with this revision of the dictionary ÷ without it. Says what it was at first, once it has
    /// worn out.
    pub fn set_dictionary_ratio(&self, revision: u64, ratio: f64) -> Option<f64> {
        let mut wear = self.wear();
        if wear.as_ref().is_none_or(|wear| wear.revision() != revision) {
            *wear = Some(DictionaryWear::new(revision, ratio));
        }
        wear.as_mut()?.note_ratio(ratio)
    }

    fn wear(&self) -> MutexGuard<'_, Option<DictionaryWear>> {
        self.wear.lock().unwrap_or_else(PoisonError::into_inner)
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
        status.of.as_ref()?;
        Some(GuestCounts { file_problem: status.file_problem.clone(), ..status.counts.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walgate_wire::Guest;

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
    fn counts_are_of_the_guest_that_serves() {
        let table = TableStatus::default();
        assert_eq!(table.counts().guest, None);
        let (first, second) = (guest("1"), guest("2"));
        table.flows(Some(&first));
        table.add_guest(Some(&first), 10, &outcome(3));
        // As after every new session.
        table.flows(Some(&first));
        let counts = table.counts().guest.unwrap();
        assert_eq!((counts.batches, counts.rows, counts.dropped, counts.micros), (1, 10, 3, 5));
        // The same version, built anew.
        table.flows(Some(&second));
        table.add_guest(Some(&first), 10, &outcome(3));
        table.add_guest(Some(&second), 4, &outcome(0));
        let counts = table.counts().guest.unwrap();
        assert_eq!((counts.batches, counts.rows, counts.dropped), (1, 4, 0));
        table.flows(None);
        assert_eq!(table.counts().guest, None);
    }

    #[test]
    fn a_refused_file_is_named_until_it_is_mended() {
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
