//! How far the stream is behind Postgres, as a time.
//!
//! Pure. Its events are commits (read, sent, stored), and moments at which Postgres has no more WAL
//! to send. An idle gateway is not behind. One that receives nothing, or cannot send, is behind.

use std::collections::VecDeque;

/// Postgres is asked for a reply every five seconds. After this long without one, its state is
/// unknown.
const SILENCE_MICROS_MAX: i64 = 15_000_000;

/// Times are microseconds since 1970.
#[derive(Debug, Default)]
pub struct Lag {
    /// Commit time of the oldest transaction that no progress message covers yet.
    pending: Option<i64>,
    /// Progress messages that are not stored: the LSN that each confirms, and its oldest commit
    /// time.
    in_flight: VecDeque<(u64, i64)>,
    last_received_at: i64,
    /// From commit to stored, of the last stored progress message.
    last: i64,
}

impl Lag {
    /// The gateway read changes or the end of a transaction that committed at `at`.
    pub fn read(&mut self, at: i64, now: i64) {
        self.last_received_at = now;
        self.pending.get_or_insert(at);
    }

    /// A progress message covers everything that was read, and confirms `end_lsn`. `at`: the commit
    /// time of its last transaction.
    pub fn stated(&mut self, end_lsn: u64, at: i64) {
        let oldest = self.pending.take().unwrap_or(at);
        self.in_flight.push_back((end_lsn, oldest));
    }

    /// The stream stored everything up to `lsn`.
    pub fn stored(&mut self, lsn: u64, now: i64) {
        while let Some((_, at)) = self.in_flight.pop_front_if(|(end_lsn, _)| *end_lsn <= lsn) {
            self.last = (now - at).max(0);
        }
    }

    /// Postgres has no more WAL to send. `all_stored`: everything before is in the stream.
    pub fn heard(&mut self, now: i64, all_stored: bool) {
        self.last_received_at = now;
        if all_stored {
            (self.pending, self.last) = (None, 0);
            self.in_flight.clear();
        }
    }

    /// A session begins. Unstored transactions of the last session are read again, or turn out to
    /// be stored.
    pub fn begin(&mut self, now: i64) {
        self.pending = self.oldest();
        self.in_flight.clear();
        self.last_received_at = now;
    }

    pub fn micros(&self, now: i64) -> i64 {
        let silence = now - self.last_received_at;
        let behind = self.oldest().map_or(self.last, |at| now - at);
        let behind = if silence > SILENCE_MICROS_MAX { behind.max(silence) } else { behind };
        behind.max(0)
    }

    fn oldest(&self) -> Option<i64> {
        self.in_flight.front().map(|(_, at)| *at).or(self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn lag_grows_until_the_read_transactions_are_stored() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.read(SECOND, SECOND);
        assert_eq!(lag.micros(3 * SECOND), 2 * SECOND, "read, not yet covered");
        lag.read(2 * SECOND, 3 * SECOND);
        lag.stated(100, 2 * SECOND);
        lag.read(4 * SECOND, 4 * SECOND);
        lag.stated(200, 4 * SECOND);
        assert_eq!(lag.micros(9 * SECOND), 8 * SECOND, "the oldest counts");
        lag.stored(100, 9 * SECOND);
        assert_eq!(lag.micros(9 * SECOND), 5 * SECOND);
        lag.stored(200, 10 * SECOND);
        assert_eq!(lag.micros(12 * SECOND), 6 * SECOND, "the lag of the last stored one");
        lag.heard(13 * SECOND, true);
        assert_eq!(lag.micros(14 * SECOND), 0, "everything is stored");
    }

    #[test]
    fn long_silence_counts_as_lag() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.heard(10 * SECOND, true);
        assert_eq!(lag.micros(20 * SECOND), 0);
        assert_eq!(lag.micros(30 * SECOND), 20 * SECOND, "not even a keepalive");
        lag.heard(31 * SECOND, true);
        assert_eq!(lag.micros(32 * SECOND), 0);
    }

    #[test]
    fn a_new_session_inherits_unstored_transactions() {
        let mut lag = Lag::default();
        lag.begin(0);
        lag.read(SECOND, SECOND);
        lag.stated(100, SECOND);
        lag.begin(30 * SECOND);
        assert_eq!(lag.micros(30 * SECOND), 29 * SECOND);
        lag.heard(31 * SECOND, false);
        assert_eq!(lag.micros(31 * SECOND), 30 * SECOND);
        lag.heard(32 * SECOND, true);
        assert_eq!(lag.micros(32 * SECOND), 0, "it was stored after all");
    }
}
