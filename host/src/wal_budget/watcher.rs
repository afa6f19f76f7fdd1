//! Watches the WAL that the slot holds back, on a connection of its own beside the sessions.
//!
//! What follows from the pressure is done by those who ask for it, snapshots and the session's tables.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::meter::{Meter, Pressure, Seen};

use crate::{
    context::Gateway,
    postgres::{PostgresError, catalog::Catalog, slot::read_slot},
};

const EVERY: Duration = Duration::from_secs(2);

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
) -> Result<std::convert::Infallible, PostgresError> {
    let catalog = Catalog::connect(&gateway.config.postgres).await?;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(slot) = read_slot(&catalog, &gateway.config.postgres.slot).await? else {
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
