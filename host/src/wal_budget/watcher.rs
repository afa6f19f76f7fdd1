//! Watches the WAL that the slot retains, on a connection of its own beside the sessions.
//!
//! How the gateway reacts to the pressure is not known here.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use super::{
    meter::{SlotSample, WalMeter, WalReport},
    pressure::WalPressure,
};
use crate::{
    config::PostgresConfig,
    postgres::{PostgresError, catalog::Catalog, slot::read_slot},
};

const EVERY: Duration = Duration::from_secs(2);

/// Measures until it is dropped; `on_report` receives each report.
pub async fn watch(postgres: PostgresConfig, pressure: WalPressure, on_report: impl Fn(WalReport)) {
    let mut meter = WalMeter::new(postgres.wal_budget);
    let began = Instant::now();
    loop {
        let observed = observe_slot(&postgres, &pressure, &on_report, &mut meter, began).await;
        let Err(error) = observed;
        tracing::debug!(%error, "replication slot cannot be watched, retrying");
        tokio::time::sleep(EVERY).await;
    }
}

async fn observe_slot(
    postgres: &PostgresConfig,
    pressure: &WalPressure,
    on_report: &impl Fn(WalReport),
    meter: &mut WalMeter,
    began: Instant,
) -> Result<Infallible, PostgresError> {
    let catalog = Catalog::connect(postgres).await?;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(slot) = read_slot(&catalog, &postgres.slot).await? else { continue };
        let sample = SlotSample {
            retained: slot.retained_bytes,
            unconfirmed: slot.server_lsn.0.saturating_sub(slot.confirmed_flush.0),
            room: slot.room_bytes,
        };
        let now = began.elapsed();
        let report = meter.observe(sample, now);
        if let Some(warning) = meter.take_warning(&report, now) {
            tracing::warn!("{warning}");
        }
        if pressure.set_level(report.pressure) {
            tracing::info!(
                pressure = ?report.pressure,
                retained_bytes = report.retained_bytes,
                behind_bytes = report.behind_bytes,
                "WAL pressure changed"
            );
        }
        on_report(report);
    }
}
