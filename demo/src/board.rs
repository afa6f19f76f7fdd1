//! The demo's own state: the stages write it, the view reads it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use walgate_wire::Token;

use crate::latency::Latencies;
use walgate_host::observe::{counts::TableCounts, status::Status};

/// Shared by the stages and the view; cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    status: Status,
    latencies: Latencies,
    transactions: AtomicU64,
    stage: Mutex<String>,
    events: Mutex<Vec<Event>>,
}

/// An event to report to the reader.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Duration,
    pub text: String,
}

impl Board {
    pub fn new() -> Self {
        Board(Arc::new(Inner {
            begun: Instant::now(),
            status: Status::default(),
            latencies: Latencies::default(),
            transactions: AtomicU64::new(0),
            stage: Mutex::new("starting".to_owned()),
            events: Mutex::default(),
        }))
    }

    pub fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// The gateway's own counters.
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    pub fn latencies(&self) -> &Latencies {
        &self.0.latencies
    }

    pub fn counts(&self) -> Vec<(Token, TableCounts)> {
        self.0.status.counts()
    }

    pub fn add_transaction(&self) {
        self.0.transactions.fetch_add(1, Relaxed);
    }

    /// Transactions that the writer has committed.
    pub fn transactions(&self) -> u64 {
        self.0.transactions.load(Relaxed)
    }

    /// The current stage.
    pub fn stage(&self) -> String {
        lock(&self.0.stage).clone()
    }

    pub fn set_stage(&self, stage: impl Into<String>) {
        *lock(&self.0.stage) = stage.into();
    }

    pub fn event(&self, text: impl Into<String>) {
        lock(&self.0.events).push(Event { at: self.elapsed(), text: text.into() });
    }

    /// Events from the `seen`th on.
    pub fn events_after(&self, seen: usize) -> Vec<Event> {
        lock(&self.0.events).iter().skip(seen).cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The size of bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub raw: u64,
    pub sent: u64,
}

impl Bytes {
    pub fn since(self, before: Bytes) -> Bytes {
        Bytes {
            raw: self.raw.saturating_sub(before.raw),
            sent: self.sent.saturating_sub(before.sent),
        }
    }

    /// Raw bytes for each sent byte; zero if nothing was sent.
    pub fn ratio(self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.raw as f64 / self.sent as f64 }
    }
}
