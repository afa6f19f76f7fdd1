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

use crate::{guest::Outcome, lag::Lag, wal_budget::Reading};

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
    dictionary_ratio: Mutex<Option<f64>>,
    guest: Mutex<GuestCounts>,
    /// Why it does not flow.
    suspended: Mutex<Option<String>>,
}

/// What a table's guest did since the start.
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
    /// Of the last row or batch that it failed on.
    pub last_error: Option<String>,
}

/// A table's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TableCounts {
    pub changes: u64,
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

    /// `rows` went through the guest, as `outcome` says.
    pub fn add_guest(&self, rows: u64, outcome: &Outcome) {
        let mut counts = self.guest();
        counts.batches += 1;
        counts.rows += rows;
        counts.dropped += outcome.dropped;
        counts.failed += outcome.failed.len() as u64;
        counts.micros += outcome.took.as_micros() as u64;
        if let Some(last) = outcome.failed.last() {
            counts.last_error = Some(format!("{}: {}", last.place, last.error));
        }
    }

    pub fn set_guest_error(&self, error: String) {
        self.guest().last_error = Some(error);
    }

    /// It flows, through this guest if it has one.
    pub fn flows(&self, guest: Option<&walgate_wire::Guest>) {
        self.guest().guest =
            guest.map_or_else(String::new, |guest| format!("{} {}", guest.name, guest.version));
        *self.suspended() = None;
    }

    /// It does not flow.
    pub fn stops(&self, reason: &str) {
        *self.suspended() = Some(reason.to_owned());
    }

    fn suspended(&self) -> MutexGuard<'_, Option<String>> {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self) -> MutexGuard<'_, GuestCounts> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_dictionary_revision(&self, revision: u64) {
        if self.dictionary_revision.swap(revision, Relaxed) != revision {
            *self.dictionary_ratio() = None;
        }
    }

    /// Bytes of single changes with the dictionary ÷ without it.
    pub fn set_dictionary_ratio(&self, ratio: f64) {
        *self.dictionary_ratio() = Some((ratio * 1000.0).round() / 1000.0);
    }

    fn dictionary_ratio(&self) -> MutexGuard<'_, Option<f64>> {
        self.dictionary_ratio.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn counts(&self) -> TableCounts {
        TableCounts {
            changes: self.changes.load(Relaxed),
            snapshot_rows: self.snapshot_rows.load(Relaxed),
            raw_bytes: self.raw_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            dictionary_revision: self.dictionary_revision.load(Relaxed),
            dictionary_ratio: *self.dictionary_ratio(),
            guest: Some(self.guest().clone()).filter(|guest| !guest.guest.is_empty()),
            suspended: self.suspended().clone(),
        }
    }
}
