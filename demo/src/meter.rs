//! Computes rates and ratios over the last moments from the board's counters.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use walgate_wire::Token;

use crate::{
    board::{Board, Bytes},
    latency::Percentiles,
};
use walgate_host::{clock::now_micros, observe::counts::TableCounts};

/// Rates are averages over this time.
const WINDOW: Duration = Duration::from_secs(2);
/// Points of the curve of bytes per change, one for each second.
const CURVE_POINTS: usize = 120;

/// All displayed values at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub elapsed: Duration,
    pub stage: String,
    pub tables: Vec<TableReading>,
    pub total: TableReading,
    pub transactions_per_s: f64,
    /// From the commit in Postgres until the message is stored in the stream, as the gateway
    /// measures it.
    pub gateway_lag: Duration,
    /// From COMMIT until a reader of the replica sees the change.
    pub latency: Option<Percentiles>,
    /// Bytes sent for one change, second by second.
    pub bytes_per_change: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct TableReading {
    pub name: String,
    /// Snapshot rows and changes since the start.
    pub rows: u64,
    pub rows_per_s: f64,
    /// From the commit of the last change until the gateway handed it to JetStream. The longest of
    /// all tables.
    pub lag: Duration,
    pub bytes: Bytes,
    /// Raw bytes for each sent byte, over the last moments.
    pub ratio_now: f64,
    /// Zero: no dictionary.
    pub dictionary_revision: u64,
}

/// Keeps counters of some seconds.
#[derive(Debug)]
pub struct Meter {
    samples: VecDeque<Sample>,
    curve: VecDeque<u64>,
    curve_from: Sample,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    transactions: u64,
    tables: Vec<(Token, TableCounts)>,
}

impl Sample {
    fn take(board: &Board) -> Sample {
        Sample { at: Instant::now(), transactions: board.transactions(), tables: board.counts() }
    }

    fn of(&self, token: &Token) -> TableCounts {
        self.tables
            .iter()
            .find(|(t, _)| t == token)
            .map(|(_, counts)| counts.clone())
            .unwrap_or_default()
    }

    fn sum(&self) -> TableCounts {
        let mut sum = TableCounts::default();
        for (_, table) in &self.tables {
            sum.changes += table.changes;
            sum.lag_ms = sum.lag_ms.max(table.lag_ms);
            sum.snapshot_rows += table.snapshot_rows;
            sum.raw_bytes += table.raw_bytes;
            sum.sent_bytes += table.sent_bytes;
        }
        sum
    }
}

impl Meter {
    pub fn new(board: &Board) -> Self {
        Meter { samples: VecDeque::new(), curve: VecDeque::new(), curve_from: Sample::take(board) }
    }

    /// Call this regularly.
    pub fn read(&mut self, board: &Board) -> Reading {
        let now = Sample::take(board);
        self.samples.push_back(now.clone());
        while self.samples.len() > 2 && self.samples[1].at + WINDOW <= now.at {
            self.samples.pop_front();
        }
        self.extend_curve(&now);
        let before = self.samples.front().unwrap_or(&now);
        let seconds = (now.at - before.at).as_secs_f64().max(0.001);
        let table = |name: String, now: TableCounts, before: TableCounts| {
            let bytes = Bytes { raw: now.raw_bytes, sent: now.sent_bytes };
            let rows = now.changes + now.snapshot_rows;
            TableReading {
                name,
                rows,
                rows_per_s: (rows - before.changes - before.snapshot_rows) as f64 / seconds,
                lag: Duration::from_secs_f64(now.lag_ms / 1000.0),
                bytes,
                ratio_now: bytes
                    .since(Bytes { raw: before.raw_bytes, sent: before.sent_bytes })
                    .ratio(),
                dictionary_revision: now.dictionary_revision,
            }
        };
        let tables = now
            .tables
            .iter()
            .map(|(token, counts)| table(token.to_string(), counts.clone(), before.of(token)));
        Reading {
            elapsed: board.elapsed(),
            stage: board.stage(),
            tables: tables.collect(),
            total: table("total".to_owned(), now.sum(), before.sum()),
            transactions_per_s: (now.transactions - before.transactions) as f64 / seconds,
            gateway_lag: Duration::from_micros(board.status().lag().micros(now_micros()) as u64),
            latency: board.latencies().percentiles(),
            bytes_per_change: self.curve.iter().copied().collect(),
        }
    }

    /// Without snapshots: their bodies hold thousands of rows and would hide the cost of single
    /// changes.
    fn extend_curve(&mut self, now: &Sample) {
        if now.at < self.curve_from.at + Duration::from_secs(1) {
            return;
        }
        let (sum, before) = (now.sum(), self.curve_from.sum());
        let changes = sum.changes - before.changes;
        if changes > 0 && sum.snapshot_rows == before.snapshot_rows {
            self.curve.push_back((sum.sent_bytes - before.sent_bytes) / changes);
        }
        if self.curve.len() > CURVE_POINTS {
            self.curve.pop_front();
        }
        self.curve_from = now.clone();
    }
}
