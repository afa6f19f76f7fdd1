//! Waits for a condition. No assertion depends on a clock: the deadline only ends a test that would
//! otherwise hang.

use std::time::{Duration, Instant};

use crate::program;

/// Generous: a loaded machine is not a defect. `WALGATE_TEST_PATIENCE_SECONDS` overrides it.
const PATIENCE_SECONDS: u64 = 120;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Polls `look` until it returns `Ok`, and returns that value. An `Err` describes the current
/// state. The wait also fails if a program of the test ended unexpectedly.
#[track_caller]
pub fn eventually<T, L>(what: impl Into<String>, look: L) -> impl Future<Output = T>
where
    L: AsyncFnMut() -> Result<T, String>,
{
    let caller = std::panic::Location::caller();
    poll_until_ok(what.into(), caller, look)
}

async fn poll_until_ok<T, L>(
    what: String,
    caller: &'static std::panic::Location<'static>,
    mut look: L,
) -> T
where
    L: AsyncFnMut() -> Result<T, String>,
{
    let seconds = std::env::var("WALGATE_TEST_PATIENCE_SECONDS");
    let seconds =
        seconds.map_or(PATIENCE_SECONDS, |text| text.parse().expect("a number of seconds"));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut pause = Duration::from_millis(5);
    loop {
        let reason = match look().await {
            Ok(seen) => return seen,
            Err(reason) => reason,
        };
        if let Some(dead) = program::find_unexpected_end() {
            panic!("{caller}: while waiting: {what}: {dead}; last seen: {reason}");
        }
        assert!(Instant::now() < deadline, "{caller}: waited in vain: {what}; last seen: {reason}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
