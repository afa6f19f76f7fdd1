//! The clock that interrupts calls: a thread that ticks while a call is in progress, and sleeps
//! otherwise.
//!
//! What a tick does is not known here.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How late a call can be interrupted.
pub const TICK: Duration = Duration::from_millis(5);

/// Ends its thread when dropped.
#[derive(Debug)]
pub struct Ticker(Arc<TickerShared>);

#[derive(Debug, Default)]
struct TickerShared {
    state: Mutex<TickerState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct TickerState {
    calls: usize,
    asleep: bool,
    ended: bool,
}

/// A call in progress.
#[derive(Debug)]
pub struct TickedCall<'a>(&'a TickerShared);

impl TickerShared {
    fn lock_state(&self) -> MutexGuard<'_, TickerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a call is in progress; false at the end.
    fn wait_for_call(&self) -> bool {
        let mut state = self.lock_state();
        while state.calls == 0 && !state.ended {
            state.asleep = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        !state.ended
    }
}

impl Ticker {
    pub fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerShared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("guest-clock".into()).spawn(move || {
            while of_thread.wait_for_call() {
                thread::sleep(TICK);
                tick();
            }
        })?;
        Ok(Ticker(shared))
    }

    /// Ticks until the result is dropped.
    pub fn start_ticking(&self) -> TickedCall<'_> {
        let mut state = self.0.lock_state();
        state.calls += 1;
        if state.asleep {
            self.0.wake.notify_one();
        }
        TickedCall(&self.0)
    }
}

impl Drop for TickedCall<'_> {
    fn drop(&mut self) {
        self.0.lock_state().calls -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock_state().ended = true;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn ticks_while_a_call_runs_and_only_then() {
        let ticks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&ticks);
        let ticker = Ticker::start(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        thread::sleep(TICK * 4);
        assert_eq!(ticks.load(Ordering::Relaxed), 0);
        let running = ticker.start_ticking();
        while ticks.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        drop(running);
        thread::sleep(TICK * 4);
        let after = ticks.load(Ordering::Relaxed);
        thread::sleep(TICK * 4);
        assert_eq!(ticks.load(Ordering::Relaxed), after);
    }
}
