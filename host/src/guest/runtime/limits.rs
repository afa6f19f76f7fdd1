//! Limits of guests: memory, time, size and log lines; and accounts of what they use.
//!
//! How the runtime enforces them is not known here.

use std::time::{Duration, Instant};

use crate::config;

/// Limits of every guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance.
    pub memory_bytes: usize,
    /// One call: a batch, or a plan.
    pub batch: Duration,
    /// Size of the file.
    pub module_bytes: usize,
    /// The answer to a batch.
    pub output_bytes: usize,
    pub log_lines_per_s: u32,
}

impl Limits {
    /// The configured limits.
    pub fn of(config: &config::GuestsConfig) -> Limits {
        Limits {
            memory_bytes: config.memory_bytes,
            batch: config.batch,
            module_bytes: config.module_bytes,
            output_bytes: config.output_bytes,
            log_lines_per_s: config.log_lines_s,
        }
    }
}

/// Entries of all tables of an instance; toolchains of other languages need some ten thousand.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The memory that one instance uses.
#[derive(Debug)]
pub struct MemoryAccount {
    limit: usize,
    used: usize,
    table_elements: usize,
    /// The size of the last request that was refused.
    refused: Option<usize>,
}

impl MemoryAccount {
    pub fn new(limit: usize) -> MemoryAccount {
        MemoryAccount { limit, used: 0, table_elements: 0, refused: None }
    }

    /// Counts the growth of a memory if it is allowed. An instance may have several memories.
    pub fn try_grow(&mut self, current: usize, desired: usize) -> bool {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        if total > self.limit {
            self.refused = Some(total);
            return false;
        }
        self.used = total;
        true
    }

    pub fn try_grow_table(&mut self, current: usize, desired: usize) -> bool {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        let fits = total <= TABLE_ELEMENTS_MAX;
        if fits {
            self.table_elements = total;
        }
        fits
    }

    pub fn take_refused(&mut self) -> Option<usize> {
        self.refused.take()
    }
}

/// Failing calls may take one part in so many of the time that passes.
const FAILURE_SHARE: u32 = 20;

/// Time that a guest may spend on failing calls for a table, while the other tables wait.
#[derive(Debug)]
pub struct FailureTimeBudget {
    max: Duration,
    left: Duration,
    at: Instant,
}

impl FailureTimeBudget {
    /// `max`: what may be spent at once.
    pub fn new(max: Duration, now: Instant) -> FailureTimeBudget {
        FailureTimeBudget { max, left: max, at: now }
    }

    /// Adds the share of the time that has passed; returns what is left.
    pub fn refill(&mut self, now: Instant) -> Duration {
        let earned = now.duration_since(self.at) / FAILURE_SHARE;
        self.at = now;
        self.left = self.left.saturating_add(earned).min(self.max);
        self.left
    }

    pub fn spend(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(took);
    }
}

/// Longest log line of a guest. The rest is cut off.
const LOG_LINE_BYTES_MAX: usize = 2000;

/// Admits so many log lines each second.
#[derive(Debug)]
pub struct LogGate {
    lines_per_s: u32,
    second: Instant,
    lines: u32,
    suppressed: u64,
}

/// Whether a log line is written.
#[derive(Debug, PartialEq, Eq)]
pub enum LogAdmission {
    No,
    /// After so many lines that were not.
    Yes {
        suppressed: u64,
    },
}

impl LogGate {
    pub fn new(lines_per_s: u32, now: Instant) -> LogGate {
        LogGate { lines_per_s, second: now, lines: 0, suppressed: 0 }
    }

    pub fn admit(&mut self, now: Instant) -> LogAdmission {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.lines = 0;
        }
        if self.lines >= self.lines_per_s {
            self.suppressed += 1;
            return LogAdmission::No;
        }
        self.lines += 1;
        LogAdmission::Yes { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

/// A guest's log message on one line of bounded length.
pub fn format_log_line(message: &str) -> String {
    shorten_text(message, LOG_LINE_BYTES_MAX)
}

/// Longest text of a guest that is repeated to an operator.
pub const ERROR_BYTES_MAX: usize = 500;

/// A guest's text on one line, at most `max` bytes of it.
pub fn shorten_text(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text[..end].trim_end().chars().map(clean).collect();
    if end < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut memory = MemoryAccount::new(100);
        assert!(memory.try_grow(0, 60));
        assert!(!memory.try_grow(0, 60));
        assert_eq!(memory.take_refused(), Some(120));
        assert!(memory.try_grow(60, 100));
        assert!(!memory.try_grow(0, usize::MAX));
        assert!(!memory.try_grow_table(0, TABLE_ELEMENTS_MAX + 1));
    }

    #[test]
    fn a_failure_budget_comes_back_slowly() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut budget = FailureTimeBudget::new(16 * second, start);
        budget.spend(20 * second);
        assert_eq!(budget.refill(start), Duration::ZERO);
        assert_eq!(budget.refill(start + 40 * second), 2 * second);
        assert_eq!(budget.refill(start + 4000 * second), 16 * second);
    }

    #[test]
    fn log_lines_are_few_and_short() {
        let start = Instant::now();
        let mut gate = LogGate::new(2, start);
        let admitted: Vec<LogAdmission> = (0..5).map(|_| gate.admit(start)).collect();
        assert_eq!(admitted.iter().filter(|a| **a != LogAdmission::No).count(), 2);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.admit(later), LogAdmission::Yes { suppressed: 3 });
        assert_eq!(gate.admit(later), LogAdmission::Yes { suppressed: 0 });
        assert_eq!(shorten_text("a\nb\u{1b}[31m", 100), "a b [31m");
        assert_eq!(shorten_text("äöü", 3), "ä…");
        assert!(format_log_line(&"x".repeat(1 << 20)).len() < 2100);
    }
}
