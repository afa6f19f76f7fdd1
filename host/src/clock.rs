//! The wall clock, in the units of the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    since_epoch().as_micros() as i64
}

/// Seconds since 1970.
pub fn now_seconds() -> u32 {
    since_epoch().as_secs() as u32
}
