//! How far the stream is behind Postgres, as a time.
//!
//! Pure: told of commits as they are read, sent and stored, and of moments in which Postgres had nothing more to
//! say. Between two such moments an idle gateway is not behind; one that hears nothing, or cannot send, is.

use std::collections::VecDeque;

/// Postgres is asked for a sign of life every five seconds: after this long without one nothing is known.
const UNHEARD_MICROS_MAX: i64 = 15_000_000;

/// Times are microseconds since 1970.
#[derive(Debug, Default)]
pub struct Lag {
    /// Commit time of the oldest transaction that was read and is not stated.
    unstated: Option<i64>,
    /// What was stated and is not stored: the LSN that will be confirmed then, and the oldest commit time in it.
    stated: VecDeque<(u64, i64)>,
    heard_at: i64,
    /// From commit to stored, of what was stored last.
    last: i64,
}

impl Lag {
    /// Changes or the end of a transaction that committed at `at` were read.
    pub fn read(&mut self, at: i64, now: i64) {
        self.heard_at = now;
        self.unstated.get_or_insert(at);
    }

    /// All that was read is stated by a message that confirms `end_lsn`. `at`: of the last transaction in it.
    pub fn stated(&mut self, end_lsn: u64, at: i64) {
        let oldest = self.unstated.take().unwrap_or(at);
        self.stated.push_back((end_lsn, oldest));
    }

    /// Everything up to `lsn` is stored.
    pub fn stored(&mut self, lsn: u64, now: i64) {
        while let Some((_, at)) = self.stated.pop_front_if(|(end_lsn, _)| *end_lsn <= lsn) {
            self.last = (now - at).max(0);
        }
    }

    /// Postgres had nothing more to say. `all_stored`: what it said before is in the stream.
    pub fn heard(&mut self, now: i64, all_stored: bool) {
        self.heard_at = now;
        if all_stored {
            (self.unstated, self.last) = (None, 0);
            self.stated.clear();
        }
    }

    /// A session begins. What the one before left behind is read again, or turns out to be stored.
    pub fn begin(&mut self, now: i64) {
        self.unstated = self.oldest();
        self.stated.clear();
        self.heard_at = now;
    }

    pub fn micros(&self, now: i64) -> i64 {
        let unheard = now - self.heard_at;
        let behind = self.oldest().map_or(self.last, |at| now - at);
        let behind = if unheard > UNHEARD_MICROS_MAX { behind.max(unheard) } else { behind };
        behind.max(0)
    }

    fn oldest(&self) -> Option<i64> {
        self.stated.front().map(|(_, at)| *at).or(self.unstated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn it_grows_until_what_was_read_is_stored() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.read(SECOND, SECOND);
        assert_eq!(lag.micros(3 * SECOND), 2 * SECOND, "read, not stated");
        lag.read(2 * SECOND, 3 * SECOND);
        lag.stated(100, 2 * SECOND);
        lag.read(4 * SECOND, 4 * SECOND);
        lag.stated(200, 4 * SECOND);
        assert_eq!(lag.micros(9 * SECOND), 8 * SECOND, "the oldest counts");
        lag.stored(100, 9 * SECOND);
        assert_eq!(lag.micros(9 * SECOND), 5 * SECOND);
        lag.stored(200, 10 * SECOND);
        assert_eq!(lag.micros(12 * SECOND), 6 * SECOND, "what the last one took");
        lag.heard(13 * SECOND, true);
        assert_eq!(lag.micros(14 * SECOND), 0, "nothing came after it");
    }

    #[test]
    fn silence_counts_only_where_it_is_strange() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.heard(10 * SECOND, true);
        assert_eq!(lag.micros(20 * SECOND), 0);
        assert_eq!(lag.micros(30 * SECOND), 20 * SECOND, "not even a keepalive");
        lag.heard(31 * SECOND, true);
        assert_eq!(lag.micros(32 * SECOND), 0);
    }

    #[test]
    fn a_new_session_inherits_what_is_not_stored() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.read(SECOND, SECOND);
        lag.stated(100, SECOND);
        lag.begin(30 * SECOND);
        assert_eq!(lag.micros(30 * SECOND), 29 * SECOND);
        lag.heard(31 * SECOND, false);
        assert_eq!(lag.micros(31 * SECOND), 30 * SECOND);
        lag.heard(32 * SECOND, true);
        assert_eq!(lag.micros(32 * SECOND), 0, "it had been stored after all");
    }
}
