//! The demo without a terminal: events as they happen, and figures once a second.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    board::Board,
    figures::{bytes, count, millis, ratio, seconds},
    meter::{Meter, Reading},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const FIGURES_EVERY: Duration = Duration::from_secs(1);

pub fn show(board: &Board, ended: &AtomicBool) {
    let mut meter = Meter::new(board);
    let mut seen = 0;
    let mut figures_at = Instant::now();
    loop {
        // Read before the events, so that no last event is missed.
        let is_end = ended.load(Relaxed);
        for event in board.events_after(seen) {
            println!("[{:>6}] {}", seconds(event.at), event.text);
            seen += 1;
        }
        if is_end {
            return;
        }
        if figures_at.elapsed() >= FIGURES_EVERY {
            figures_at = Instant::now();
            let reading = meter.read(board);
            if reading.total.rows_per_s > 0.0 {
                println!("[{:>6}]   {}", seconds(reading.elapsed), line(&reading));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn line(reading: &Reading) -> String {
    let mut line = format!(
        "{} rows/s · {} raw → {} sent ({} now)",
        count(reading.total.rows_per_s as u64),
        bytes(reading.total.bytes.raw),
        bytes(reading.total.bytes.sent),
        ratio(reading.total.ratio_now),
    );
    for table in &reading.tables {
        line += &format!(" · {} {} lag {}", table.name, ratio(table.ratio_now), millis(table.lag));
        if table.dictionary_revision > 0 {
            line += &format!(" dict@{}", table.dictionary_revision);
        }
    }
    if reading.transactions_per_s > 0.0 {
        line += &format!(" · {:.0} tx/s", reading.transactions_per_s);
    }
    if let Some(latency) = reading.latency {
        line +=
            &format!(" · commit→replica p50 {} p99 {}", millis(latency.p50), millis(latency.p99));
    }
    line
}
