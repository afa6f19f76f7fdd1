//! Keeps an eye on the WAL that the slot holds back, so that the gateway does not fill the database's disk.
//!
//! Runs beside the sessions, on a connection of its own: what it watches for happens when they stand still. What
//! follows from the pressure is done by those who ask for it, snapshots and the session's tables.

mod meter;

use std::time::{Duration, Instant};

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::MissedTickBehavior,
};

pub use meter::{Meter, Pressure, Reading, Seen};

use crate::{
    gateway::Gateway,
    source::{SourceError, catalog, slot},
};

const EVERY: Duration = Duration::from_secs(2);

/// The pressure as of now, for those who give way to it.
#[derive(Debug)]
pub struct Relief {
    pressure: watch::Sender<Pressure>,
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

/// Ends never, drop it to stop.
pub async fn watch(gateway: Gateway) {
    let mut meter = Meter::new(gateway.config.postgres.wal_budget);
    let began = Instant::now();
    loop {
        let Err(error) = observe(&gateway, &mut meter, began).await;
        tracing::debug!(%error, "the slot cannot be watched for now");
        tokio::time::sleep(EVERY).await;
    }
}

async fn observe(
    gateway: &Gateway,
    meter: &mut Meter,
    began: Instant,
) -> Result<std::convert::Infallible, SourceError> {
    let client = catalog::open(&gateway.config.postgres).await?;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(slot) = slot::slot_state(&client, &gateway.config.postgres.slot).await? else {
            continue;
        };
        let seen = Seen {
            retained: slot.retained_bytes,
            behind: slot.server_lsn.0.saturating_sub(slot.confirmed_flush.0),
            room: slot.room_bytes,
        };
        let now = began.elapsed();
        let reading = meter.observe(seen, now);
        if let Some(warning) = meter.warning(&reading, now) {
            tracing::warn!("{warning}");
        }
        let changed =
            |before: &mut Pressure| std::mem::replace(before, reading.pressure) != reading.pressure;
        if gateway.relief.pressure.send_if_modified(changed) {
            tracing::info!(pressure = ?reading.pressure, retained_bytes = reading.retained_bytes,
                behind_bytes = reading.behind_bytes, "WAL kept for the slot");
        }
        gateway.status.set_wal(reading);
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
