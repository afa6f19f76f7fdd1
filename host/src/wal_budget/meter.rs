//! From how much WAL the slot holds back to what has to be done about it.
//!
//! Pure: told sizes and times. Where they come from, and what is then done, is not known here.

use std::{collections::VecDeque, time::Duration};

use bytesize::ByteSize;

use crate::config::WalBudget;

/// Growth is measured over this long.
const WINDOW: Duration = Duration::from_secs(60);
/// Growth over less says nothing.
const WINDOW_MIN: Duration = Duration::from_secs(5);
/// An operator is told again after this long.
const AGAIN: Duration = Duration::from_secs(60);

/// How hard the slot's WAL presses, from harmless to dangerous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pressure {
    #[default]
    Calm,
    /// Snapshots make way for changes.
    Throttled,
    /// Tables that may be shed do not flow.
    Shedding,
}

/// What the slot showed at one moment; sizes in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// WAL that the server keeps for the slot.
    pub retained: u64,
    /// What of it is not confirmed: how far behind the gateway is. The rest is kept for open transactions.
    pub behind: u64,
    /// What may be added before the server gives the slot up, if it has a limit (`safe_wal_size`).
    pub room: Option<u64>,
}

/// The figures that an operator gets to see.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Reading {
    pub pressure: Pressure,
    pub retained_bytes: u64,
    pub behind_bytes: u64,
    /// Absent while it is not known; negative while it shrinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_s: Option<f64>,
    /// Until the disk is full, or the server gives the slot up. Absent: not known, or not in sight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_in_seconds: Option<u64>,
}

#[derive(Debug)]
pub struct Meter {
    budget: WalBudget,
    pressure: Pressure,
    samples: VecDeque<(Duration, u64)>,
    told: Option<Duration>,
}

impl Meter {
    pub fn new(budget: WalBudget) -> Meter {
        Meter { budget, pressure: Pressure::Calm, samples: VecDeque::new(), told: None }
    }

    /// `now`: since any fixed moment.
    pub fn observe(&mut self, seen: Seen, now: Duration) -> Reading {
        self.pressure = self.pressure_at(seen);
        self.samples.push_back((now, seen.retained));
        while self.samples.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.samples.pop_front();
        }
        let growth = self.growth();
        let disk = self.budget.disk.map(|disk| disk.saturating_sub(seen.retained));
        let room = [disk, seen.room].into_iter().flatten().min();
        let full_in = match (room, growth) {
            (Some(room), Some(growth)) if growth >= 1.0 => Some((room as f64 / growth) as u64),
            _ => None,
        };
        Reading {
            pressure: self.pressure,
            retained_bytes: seen.retained,
            behind_bytes: seen.behind,
            growth_bytes_per_s: growth,
            full_in_seconds: full_in,
        }
    }

    /// Over the budget snapshots make way; half a budget further tables are shed, if it is the gateway that is
    /// behind. Each ends well below where it began, so that neither flaps.
    fn pressure_at(&self, Seen { retained, behind, .. }: Seen) -> Pressure {
        let budget = self.budget.bytes;
        if budget == 0 {
            return Pressure::Calm;
        }
        let shed_above =
            if self.pressure == Pressure::Shedding { budget / 2 } else { budget + budget / 2 };
        let throttle_above = if self.pressure == Pressure::Calm { budget } else { budget / 2 };
        if behind > shed_above {
            Pressure::Shedding
        } else if retained > throttle_above {
            Pressure::Throttled
        } else {
            Pressure::Calm
        }
    }

    fn growth(&self) -> Option<f64> {
        let (&(first_at, first), &(last_at, last)) = (self.samples.front()?, self.samples.back()?);
        let took = last_at - first_at;
        (took >= WINDOW_MIN).then(|| (last as f64 - first as f64) / took.as_secs_f64())
    }

    /// What an operator should be told now, if anything.
    pub fn warning(&mut self, reading: &Reading, now: Duration) -> Option<String> {
        if reading.pressure == Pressure::Calm {
            self.told = None;
            return None;
        }
        if self.told.is_some_and(|told| now - told < AGAIN) || reading.growth_bytes_per_s.is_none()
        {
            return None;
        }
        self.told = Some(now);
        Some(words(reading, self.budget.bytes))
    }
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

fn words(reading: &Reading, budget: u64) -> String {
    let Reading { retained_bytes, behind_bytes, growth_bytes_per_s, full_in_seconds, .. } = reading;
    let growth = growth_bytes_per_s.unwrap_or(0.0);
    let why = if *behind_bytes < retained_bytes / 2 {
        "for a transaction that is still open, not for the gateway: look for the oldest xact_start in pg_stat_activity and pg_prepared_xacts"
    } else {
        "because the stream is behind: look at the NATS server, and at lag_ms in /readyz"
    };
    let end = match full_in_seconds {
        Some(seconds) => {
            let left = coarse_duration(*seconds);
            format!("at this rate its place is used up in {left}")
        }
        None if growth < 1.0 => "it does not grow".to_owned(),
        None => "when its place is used up cannot be said: set [postgres] wal_disk, or max_slot_wal_keep_size at the server".to_owned(),
    };
    format!(
        "Postgres keeps {} of WAL for the slot, over the budget of {} (growing by {}/s), {why}; {end}",
        ByteSize(*retained_bytes),
        ByteSize(budget),
        ByteSize(growth.max(0.0) as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn meter(disk: Option<u64>) -> Meter {
        Meter::new(WalBudget { bytes: 100 * MIB, disk })
    }

    fn at(meter: &mut Meter, retained: u64, behind: u64) -> Pressure {
        let seen = Seen { retained: retained * MIB, behind: behind * MIB, room: None };
        meter.observe(seen, Duration::ZERO).pressure
    }

    #[test]
    fn it_rises_over_the_budget_and_falls_well_below() {
        let mut meter = meter(None);
        let steps = [
            (100, 100, Pressure::Calm),
            (101, 101, Pressure::Throttled),
            (151, 150, Pressure::Throttled),
            (151, 151, Pressure::Shedding),
            (90, 60, Pressure::Shedding),
            (90, 50, Pressure::Throttled),
            (51, 50, Pressure::Throttled),
            (50, 50, Pressure::Calm),
        ];
        for (retained, behind, pressure) in steps {
            assert_eq!(at(&mut meter, retained, behind), pressure, "{retained} {behind}");
        }
    }

    #[test]
    fn nothing_is_shed_for_the_transactions_of_others() {
        let mut meter = meter(None);
        assert_eq!(at(&mut meter, 10_000, 10), Pressure::Throttled);
        assert_eq!(
            Meter::new(WalBudget { bytes: 0, disk: None })
                .observe(Seen { retained: u64::MAX, ..Seen::default() }, Duration::ZERO)
                .pressure,
            Pressure::Calm
        );
    }

    #[test]
    fn durations_have_one_unit() {
        let expected =
            [(70, "70 seconds"), (7199, "119 minutes"), (7200, "2 hours"), (180_000, "2 days")];
        for (seconds, words) in expected {
            assert_eq!(coarse_duration(seconds), words);
        }
    }

    #[test]
    fn the_end_is_foreseen_from_the_smaller_room() {
        let mut meter = meter(Some(1000 * MIB));
        let seen = |retained, room| Seen { retained, behind: retained, room };
        let first = meter.observe(seen(200 * MIB, None), Duration::ZERO);
        assert_eq!((first.growth_bytes_per_s, first.full_in_seconds), (None, None));
        assert_eq!(meter.warning(&first, Duration::ZERO), None, "nothing is known of its growth");
        let now = Duration::from_secs(10);
        let second = meter.observe(seen(300 * MIB, None), now);
        assert_eq!(second.full_in_seconds, Some(70));
        let warning = meter.warning(&second, now).unwrap();
        assert!(warning.contains("300.0 MiB") && warning.contains("70 seconds"), "{warning}");
        assert_eq!(meter.warning(&second, now + AGAIN / 2), None);
        let third = meter.observe(seen(300 * MIB, Some(10 * MIB)), now);
        assert_eq!(third.full_in_seconds, Some(1));
        let calm = meter.observe(seen(0, None), now + AGAIN);
        assert_eq!(meter.warning(&calm, now + AGAIN), None);
    }
}
