//! The clock by which calls are interrupted: one thread that ticks while a call is in progress and sleeps else.
//!
//! What a tick does is the caller's business.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How late a call can be interrupted.
pub const TICK: Duration = Duration::from_millis(5);

/// Ends its thread when dropped.
#[derive(Debug)]
pub struct Ticker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: usize,
    asleep: bool,
    ended: bool,
}

/// A call in progress.
#[derive(Debug)]
pub struct Running<'a>(&'a Shared);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there is a call to tick for; false at the end.
    fn wait(&self) -> bool {
        let mut state = self.state();
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
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("guest-clock".into()).spawn(move || {
            while of_thread.wait() {
                thread::sleep(TICK);
                tick();
            }
        })?;
        Ok(Ticker(shared))
    }

    /// Ticks until the result is dropped.
    pub fn running(&self) -> Running<'_> {
        let mut state = self.0.state();
        state.calls += 1;
        if state.asleep {
            self.0.wake.notify_one();
        }
        Running(&self.0)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().calls -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.state().ended = true;
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
        let running = ticker.running();
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
