//! The time from COMMIT in Postgres until a reader of the replica sees the change.
//!
//! The writer names some orders and the time of their COMMIT. A thread looks for them in the SQLite
//! file, as any program beside the consumer would. This file knows nothing of the path in between.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// Pause between two queries: the measurement may add this much.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// An order that has not arrived after this long is given up. The final comparison will report it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Orders that wait for their query; beyond this some are not followed.
const WAITING_MAX: usize = 4096;

struct Probe {
    order: i64,
    commit_sent: Instant,
}

/// Where the writer announces orders.
#[derive(Clone, Debug)]
pub struct Probes {
    sender: mpsc::SyncSender<Probe>,
    latencies: Latencies,
}

impl Probes {
    pub fn follow(&self, order: i64, commit_sent: Instant) {
        if self.latencies.0.is_started.load(Relaxed) {
            // If the channel is full or closed, this order is not measured.
            let _ = self.sender.try_send(Probe { order, commit_sent });
        }
    }
}

/// The latencies so far.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_started: AtomicBool,
    measured: Mutex<Vec<Duration>>,
}

/// Median and 99th percentile.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    pub p50: Duration,
    pub p99: Duration,
    pub count: usize,
}

impl Latencies {
    /// Looks for orders in this SQLite file until the last [`Probes`] is dropped.
    pub fn follow_in(&self, replica: &Path) -> Probes {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let (replica, latencies) = (replica.to_owned(), self.clone());
        std::thread::spawn(move || latencies.measure(&replica, &receiver));
        Probes { sender, latencies: self.clone() }
    }

    /// Orders are followed from now on; before, the replica is still loading.
    pub fn start(&self) {
        self.0.is_started.store(true, Relaxed);
    }

    pub fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted = self.lock().clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?)).copied()
        };
        Some(Percentiles { p50: at(50)?, p99: at(99)?, count: sorted.len() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.0.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, replica: &PathBuf, probes: &mpsc::Receiver<Probe>) {
        let mut connection = None;
        for probe in probes {
            while probe.commit_sent.elapsed() < GIVE_UP_AFTER {
                if connection.is_none() {
                    connection =
                        Connection::open_with_flags(replica, OpenFlags::SQLITE_OPEN_READ_ONLY).ok();
                }
                if connection.as_ref().is_some_and(|connection| is_there(connection, probe.order)) {
                    self.lock().push(probe.commit_sent.elapsed());
                    break;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Whether a reader sees the order; false while the table does not exist.
pub fn is_there(replica: &Connection, order: i64) -> bool {
    let look = || {
        replica
            .prepare_cached("SELECT 1 FROM orders WHERE id = ?1")?
            .query_row([order], |_| Ok(()))
            .optional()
    };
    matches!(look(), Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_many() {
        let latencies = Latencies::default();
        assert!(latencies.percentiles().is_none());
        latencies.lock().extend((1..=100).rev().map(Duration::from_millis));
        let percentiles = latencies.percentiles().unwrap();
        assert_eq!(percentiles.p50, Duration::from_millis(51));
        assert_eq!(percentiles.p99, Duration::from_millis(100));
    }
}
