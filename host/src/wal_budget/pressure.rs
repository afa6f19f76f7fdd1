//! The pressure of retained WAL as of now, for the stages that give way to it.
//!
//! Who measures it is not known here.

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::meter::Pressure;

/// The pressure as of now, for those who give way to it.
#[derive(Debug)]
pub struct Relief {
    pub(crate) pressure: watch::Sender<Pressure>,
    turns: Semaphore,
}

impl Default for Relief {
    fn default() -> Self {
        Relief { pressure: watch::Sender::new(Pressure::Calm), turns: Semaphore::new(1) }
    }
}

impl Relief {
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    /// Under pressure, the permit to do a piece of work that can wait: one at a time in the whole process.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if *self.pressure.borrow() == Pressure::Calm {
            return None;
        }
        self.turns.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    fn under(pressure: Pressure) -> Relief {
        let relief = Relief::default();
        relief.pressure.send_replace(pressure);
        relief
    }

    #[test]
    fn nobody_waits_while_it_is_calm() {
        let relief = under(Pressure::Calm);
        let turns = [relief.turn(), relief.turn(), relief.turn()];
        for turn in turns.map(FutureExt::now_or_never) {
            assert!(turn.expect("it does not wait").is_none());
        }
    }

    #[test]
    fn under_pressure_one_works_at_a_time() {
        for pressure in [Pressure::Throttled, Pressure::Shedding] {
            let relief = under(pressure);
            let first = relief.turn().now_or_never().expect("there is none before it");
            assert!(first.is_some(), "{pressure:?}");
            let mut second = pin!(relief.turn());
            assert!(second.as_mut().now_or_never().is_none(), "{pressure:?}: two at a time");
            drop(first);
            let second = second.now_or_never().expect("its turn");
            assert!(second.is_some(), "{pressure:?}");
        }
    }

    #[test]
    fn whoever_comes_when_it_is_over_does_not_wait_for_who_still_works() {
        let relief = under(Pressure::Throttled);
        let _first = relief.turn().now_or_never().expect("there is none before it");
        relief.pressure.send_replace(Pressure::Calm);
        assert!(relief.turn().now_or_never().expect("it does not wait").is_none());
    }
}
