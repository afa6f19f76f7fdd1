//! Delays between attempts. Delays grow and are randomized, because thousands of consumers that
//! lost the same server must not all return at once.

use std::time::Duration;

/// An exponential backoff: delays double up to a limit, each with up to half of jitter on top.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first`; no delay exceeds `max` before jitter. `max`: hours at most.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, next: first }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = add_jitter(self.next);
        self.next = (self.next * 2).min(self.max);
        delay
    }

    /// Call this after a success: the next delay is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// At least `delay` and at most half as much again. `delay`: hours at most.
pub fn add_jitter(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..=1.5))
}

/// Uniform between zero and `max`, which is hours at most.
pub(crate) fn pick_up_to(max: Duration) -> Duration {
    max.mul_f64(rand::random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_differ() {
        let first = Duration::from_millis(100);
        let max = Duration::from_secs(1);
        let mut backoff = Backoff::new(first, max);
        for least in [100, 200, 400, 800, 1000, 1000] {
            let least = Duration::from_millis(least);
            let delay = backoff.next_delay();
            assert!(delay >= least && delay <= least * 3 / 2, "{delay:?} for {least:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first * 3 / 2);
        let delays: std::collections::HashSet<Duration> =
            (0..100).map(|_| add_jitter(max)).collect();
        assert!(delays.len() > 90, "they differ");
        assert!((0..100).all(|_| pick_up_to(max) <= max));
    }
}
