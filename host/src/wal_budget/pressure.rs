//! The current pressure of retained WAL, for the stages that slow down because of it.
//!
//! How it is measured is not known here.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::meter::PressureLevel;

/// The current pressure. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WalPressure {
    level: watch::Sender<PressureLevel>,
    background: Arc<Semaphore>,
}

impl Default for WalPressure {
    fn default() -> Self {
        let level = watch::Sender::new(PressureLevel::Calm);
        WalPressure { level, background: Arc::new(Semaphore::new(1)) }
    }
}

impl WalPressure {
    /// The level, and a notification whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<PressureLevel> {
        self.level.subscribe()
    }

    /// Returns whether the level changed.
    pub(super) fn set_level(&self, level: PressureLevel) -> bool {
        self.level.send_if_modified(|before| std::mem::replace(before, level) != level)
    }

    /// Under pressure, the permit for a piece of background work: one at a time in the process.
    pub async fn acquire_background_slot(&self) -> Option<SemaphorePermit<'_>> {
        if *self.level.borrow() == PressureLevel::Calm {
            return None;
        }
        self.background.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn pressure_at(level: PressureLevel) -> WalPressure {
        let pressure = WalPressure::default();
        pressure.set_level(level);
        pressure
    }

    #[test]
    fn without_pressure_no_work_waits() {
        let pressure = pressure_at(PressureLevel::Calm);
        for _ in 0..3 {
            let slot = pressure.acquire_background_slot().now_or_never();
            assert!(slot.expect("it does not wait").is_none());
        }
    }

    #[test]
    fn under_pressure_one_piece_of_work_runs_at_a_time() {
        for level in [PressureLevel::Throttled, PressureLevel::Shedding] {
            let pressure = pressure_at(level);
            let first = pressure.acquire_background_slot().now_or_never();
            let first = first.expect("there is none before it");
            assert!(first.is_some(), "{level:?}");
            let mut second = pin!(pressure.acquire_background_slot());
            assert!(second.as_mut().now_or_never().is_none(), "{level:?}: two at a time");
            drop(first);
            let second = second.now_or_never().expect("its turn");
            assert!(second.is_some(), "{level:?}");
        }
    }

    #[test]
    fn after_the_pressure_no_work_waits_for_work_that_began_under_it() {
        let pressure = pressure_at(PressureLevel::Throttled);
        let _first = pressure.acquire_background_slot().now_or_never();
        pressure.set_level(PressureLevel::Calm);
        let second = pressure.acquire_background_slot().now_or_never();
        assert!(second.expect("it does not wait").is_none());
    }
}
