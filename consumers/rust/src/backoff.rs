//! How long to wait before something is tried again. Waits grow, and no two wait alike: thousands that lost the
//! same server must not all come back at once.

use std::time::Duration;

/// Waits that double, up to a limit, each a little different from those of others.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, next: first }
    }

    /// How long to wait this time.
    pub fn wait(&mut self) -> Duration {
        let wait = spread(self.next);
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// It worked: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Never less than `delay`, and up to half as much again. `delay`: hours at most.
pub(crate) fn spread(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..=1.5))
}

/// Anything up to `most`, which is hours at most.
pub(crate) fn anywhere_in(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_differ() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, max);
        for least in [100, 200, 400, 800, 1000, 1000] {
            let (least, wait) = (Duration::from_millis(least), backoff.wait());
            assert!(wait >= least && wait <= least * 3 / 2, "{wait:?} for {least:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= first * 3 / 2);
        let waits: std::collections::HashSet<Duration> = (0..100).map(|_| spread(max)).collect();
        assert!(waits.len() > 90, "they differ");
        assert!((0..100).all(|_| anywhere_in(max) <= max));
    }
}
