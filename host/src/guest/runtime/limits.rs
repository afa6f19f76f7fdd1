//! What a guest may use: memory, time, size, log lines; and the accounts that are kept of it.
//!
//! How the runtime asks and interrupts is not known here.

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
    /// As configured.
    pub fn of(config: &config::Guests) -> Limits {
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

/// Memory of one instance.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    used: usize,
    table_elements: usize,
    /// The size that was asked for and refused last.
    refused: Option<usize>,
}

impl Memory {
    pub fn new(limit: usize) -> Memory {
        Memory { limit, used: 0, table_elements: 0, refused: None }
    }

    /// Whether a memory may grow; an instance may have several.
    pub fn grows(&mut self, current: usize, desired: usize) -> bool {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        if total > self.limit {
            self.refused = Some(total);
            return false;
        }
        self.used = total;
        true
    }

    pub fn table_grows(&mut self, current: usize, desired: usize) -> bool {
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

/// Of the time that passes, the part that calls which fail may take for long: one in so many.
const LOST_SHARE: u32 = 20;

/// Time that a guest may lose for a table in calls that fail, while the other tables wait.
#[derive(Debug)]
pub struct Patience {
    max: Duration,
    left: Duration,
    at: Instant,
}

impl Patience {
    /// `max`: what may be lost at once.
    pub fn new(max: Duration, now: Instant) -> Patience {
        Patience { max, left: max, at: now }
    }

    pub fn left(&mut self, now: Instant) -> Duration {
        let earned = now.duration_since(self.at) / LOST_SHARE;
        self.at = now;
        self.left = self.left.saturating_add(earned).min(self.max);
        self.left
    }

    pub fn lose(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(took);
    }
}

/// Longest log line of a guest that is kept.
const LOG_LINE_BYTES_MAX: usize = 2000;

/// Lets so many log lines through each second.
#[derive(Debug)]
pub struct LogGate {
    lines_per_s: u32,
    second: Instant,
    lines: u32,
    suppressed: u64,
}

/// What becomes of a log line.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    No,
    /// After so many that were not.
    Yes {
        suppressed: u64,
    },
}

impl LogGate {
    pub fn new(lines_per_s: u32, now: Instant) -> LogGate {
        LogGate { lines_per_s, second: now, lines: 0, suppressed: 0 }
    }

    pub fn admit(&mut self, now: Instant) -> Admitted {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.lines = 0;
        }
        if self.lines >= self.lines_per_s {
            self.suppressed += 1;
            return Admitted::No;
        }
        self.lines += 1;
        Admitted::Yes { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

/// One line, of bounded length.
pub fn log_line(message: &str) -> String {
    shorten(message, LOG_LINE_BYTES_MAX)
}

/// A guest's words on one line, at most `max` bytes of them.
pub fn shorten(text: &str, max: usize) -> String {
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
        let mut memory = Memory::new(100);
        assert!(memory.grows(0, 60));
        assert!(!memory.grows(0, 60));
        assert_eq!(memory.take_refused(), Some(120));
        assert!(memory.grows(60, 100));
        assert!(!memory.grows(0, usize::MAX));
        assert!(!memory.table_grows(0, TABLE_ELEMENTS_MAX + 1));
    }

    #[test]
    fn patience_comes_back_slowly() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut patience = Patience::new(16 * second, start);
        patience.lose(20 * second);
        assert_eq!(patience.left(start), Duration::ZERO);
        assert_eq!(patience.left(start + 40 * second), 2 * second);
        assert_eq!(patience.left(start + 4000 * second), 16 * second);
    }

    #[test]
    fn log_lines_are_few_and_short() {
        let start = Instant::now();
        let mut gate = LogGate::new(2, start);
        let admitted: Vec<Admitted> = (0..5).map(|_| gate.admit(start)).collect();
        assert_eq!(admitted.iter().filter(|a| **a != Admitted::No).count(), 2);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.admit(later), Admitted::Yes { suppressed: 3 });
        assert_eq!(gate.admit(later), Admitted::Yes { suppressed: 0 });
        assert_eq!(shorten("a\nb\u{1b}[31m", 100), "a b [31m");
        assert_eq!(shorten("äöü", 3), "ä…");
        assert!(log_line(&"x".repeat(1 << 20)).len() < 2100);
    }
}
