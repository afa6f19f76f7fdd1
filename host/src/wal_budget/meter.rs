//! From the size of the retained WAL to a pressure level and a warning.
//!
//! Pure: its inputs are sizes and times. How they are measured, and how the gateway reacts, is not
//! known here.

use std::{collections::VecDeque, time::Duration};

use bytesize::ByteSize;

use crate::config::WalBudget;

/// Growth is measured over this long.
const WINDOW: Duration = Duration::from_secs(60);
/// A shorter time gives no usable growth.
const WINDOW_MIN: Duration = Duration::from_secs(5);
/// The warning is repeated after this long.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The level of pressure from retained WAL, from harmless to dangerous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PressureLevel {
    #[default]
    Calm,
    /// Snapshots yield to changes.
    Throttled,
    /// Tables that may be shed are suspended.
    Shedding,
}

/// The state of the slot at one moment; sizes in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotSample {
    /// WAL that the server retains for the slot.
    pub retained: u64,
    /// The unconfirmed part: how far behind the gateway is. The rest is for open transactions.
    pub unconfirmed: u64,
    /// WAL that may be added before the server invalidates the slot, if it has a limit
    /// (`safe_wal_size`).
    pub room: Option<u64>,
}

/// The figures that an operator sees.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct WalReport {
    pub pressure: PressureLevel,
    pub retained_bytes: u64,
    pub behind_bytes: u64,
    /// Absent while unknown; negative while the WAL shrinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_s: Option<f64>,
    /// Until the disk is full, or the server invalidates the slot. Absent: unknown, or no growth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_in_seconds: Option<u64>,
}

/// Derives pressure and growth from samples.
#[derive(Debug)]
pub struct WalMeter {
    budget: WalBudget,
    pressure: PressureLevel,
    /// Times and retained bytes.
    samples: VecDeque<(Duration, u64)>,
    /// When the last warning was given.
    warned_at: Option<Duration>,
}

impl WalMeter {
    pub fn new(budget: WalBudget) -> WalMeter {
        WalMeter {
            budget,
            pressure: PressureLevel::Calm,
            samples: VecDeque::new(),
            warned_at: None,
        }
    }

    /// `now`: the time since any fixed moment.
    pub fn observe(&mut self, sample: SlotSample, now: Duration) -> WalReport {
        self.pressure = self.pressure_at(sample);
        self.samples.push_back((now, sample.retained));
        while self.samples.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.samples.pop_front();
        }
        let growth = self.growth();
        let disk = self.budget.disk.map(|disk| disk.saturating_sub(sample.retained));
        let room = [disk, sample.room].into_iter().flatten().min();
        let full_in = match (room, growth) {
            (Some(room), Some(growth)) if growth >= 1.0 => Some((room as f64 / growth) as u64),
            _ => None,
        };
        WalReport {
            pressure: self.pressure,
            retained_bytes: sample.retained,
            behind_bytes: sample.unconfirmed,
            growth_bytes_per_s: growth,
            full_in_seconds: full_in,
        }
    }

    /// Over the budget, snapshots are throttled. Half a budget above, tables are shed, if the
    /// gateway is behind. Each ends well below its threshold, so that neither flaps.
    fn pressure_at(&self, SlotSample { retained, unconfirmed, .. }: SlotSample) -> PressureLevel {
        let budget = self.budget.bytes;
        if budget == 0 {
            return PressureLevel::Calm;
        }
        let shed_above =
            if self.pressure == PressureLevel::Shedding { budget / 2 } else { budget + budget / 2 };
        let throttle_above = if self.pressure == PressureLevel::Calm { budget } else { budget / 2 };
        if unconfirmed > shed_above {
            PressureLevel::Shedding
        } else if retained > throttle_above {
            PressureLevel::Throttled
        } else {
            PressureLevel::Calm
        }
    }

    /// In bytes a second.
    fn growth(&self) -> Option<f64> {
        let (&(first_at, first), &(last_at, last)) = (self.samples.front()?, self.samples.back()?);
        let took = last_at - first_at;
        (took >= WINDOW_MIN).then(|| (last as f64 - first as f64) / took.as_secs_f64())
    }

    /// The warning that is due now, if any.
    pub fn take_warning(&mut self, report: &WalReport, now: Duration) -> Option<String> {
        if report.pressure == PressureLevel::Calm {
            self.warned_at = None;
            return None;
        }
        let warned = self.warned_at.is_some_and(|at| now - at < WARN_AGAIN_AFTER);
        if warned || report.growth_bytes_per_s.is_none() {
            return None;
        }
        self.warned_at = Some(now);
        Some(describe_report(report, self.budget.bytes))
    }
}

fn describe_report(report: &WalReport, budget: u64) -> String {
    let WalReport { retained_bytes, behind_bytes, growth_bytes_per_s, full_in_seconds, .. } =
        report;
    let growth = growth_bytes_per_s.unwrap_or(0.0);
    let why = if *behind_bytes < retained_bytes / 2 {
        "for a transaction that is still open, not for the gateway: look for the oldest xact_start \
         in pg_stat_activity and pg_prepared_xacts"
    } else {
        "because the stream is behind: look at the NATS server, and at lag_ms in /readyz"
    };
    let end = match full_in_seconds {
        Some(seconds) => {
            format!("at this rate the space is used up in {}", coarse_duration(*seconds))
        }
        None if growth < 1.0 => "it does not grow".to_owned(),
        None => "the time left is unknown: set [postgres] wal_disk, or max_slot_wal_keep_size at \
                 the server"
            .to_owned(),
    };
    format!(
        "Postgres retains {} of WAL for the slot, over the budget of {} (growing by {}/s), {why}; {end}",
        ByteSize(*retained_bytes),
        ByteSize(budget),
        ByteSize(growth.max(0.0) as u64),
    )
}

/// In one unit, rounded down: it is an estimate, and the warning must not come late.
fn coarse_duration(seconds: u64) -> String {
    let (unit_seconds, unit) = match seconds {
        0..120 => (1, "seconds"),
        120..7200 => (60, "minutes"),
        7200..172_800 => (3600, "hours"),
        _ => (86_400, "days"),
    };
    format!("{} {unit}", seconds / unit_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn meter_with_disk(disk: Option<u64>) -> WalMeter {
        WalMeter::new(WalBudget { bytes: 100 * MIB, disk })
    }

    fn level_at(meter: &mut WalMeter, retained: u64, behind: u64) -> PressureLevel {
        let sample = SlotSample { retained: retained * MIB, unconfirmed: behind * MIB, room: None };
        meter.observe(sample, Duration::ZERO).pressure
    }

    #[test]
    fn pressure_rises_over_the_budget_and_falls_well_below_it() {
        let mut meter = meter_with_disk(None);
        let steps = [
            (100, 100, PressureLevel::Calm),
            (101, 101, PressureLevel::Throttled),
            (151, 150, PressureLevel::Throttled),
            (151, 151, PressureLevel::Shedding),
            (90, 60, PressureLevel::Shedding),
            (90, 50, PressureLevel::Throttled),
            (51, 50, PressureLevel::Throttled),
            (50, 50, PressureLevel::Calm),
        ];
        for (retained, behind, pressure) in steps {
            assert_eq!(level_at(&mut meter, retained, behind), pressure, "{retained} {behind}");
        }
    }

    #[test]
    fn open_transactions_alone_shed_no_table() {
        let mut meter = meter_with_disk(None);
        assert_eq!(level_at(&mut meter, 10_000, 10), PressureLevel::Throttled);
        assert_eq!(
            WalMeter::new(WalBudget { bytes: 0, disk: None })
                .observe(SlotSample { retained: u64::MAX, ..SlotSample::default() }, Duration::ZERO)
                .pressure,
            PressureLevel::Calm
        );
    }

    #[test]
    fn the_smaller_room_limits_the_time_left() {
        let mut meter = meter_with_disk(Some(1000 * MIB));
        let sample = |retained, room| SlotSample { retained, unconfirmed: retained, room };
        let first = meter.observe(sample(200 * MIB, None), Duration::ZERO);
        assert_eq!((first.growth_bytes_per_s, first.full_in_seconds), (None, None));
        assert_eq!(meter.take_warning(&first, Duration::ZERO), None, "the growth is unknown");
        let now = Duration::from_secs(10);
        let second = meter.observe(sample(300 * MIB, None), now);
        assert_eq!(second.full_in_seconds, Some(70));
        let warning = meter.take_warning(&second, now).unwrap();
        assert!(warning.contains("300.0 MiB") && warning.contains("70 seconds"), "{warning}");
        assert_eq!(meter.take_warning(&second, now + WARN_AGAIN_AFTER / 2), None);
        let third = meter.observe(sample(300 * MIB, Some(10 * MIB)), now);
        assert_eq!(third.full_in_seconds, Some(1));
        let calm = meter.observe(sample(0, None), now + WARN_AGAIN_AFTER);
        assert_eq!(meter.take_warning(&calm, now + WARN_AGAIN_AFTER), None);
    }

    #[test]
    fn durations_have_one_unit() {
        let expected =
            [(70, "70 seconds"), (7199, "119 minutes"), (7200, "2 hours"), (180_000, "2 days")];
        for (seconds, text) in expected {
            assert_eq!(coarse_duration(seconds), text);
        }
    }
}
