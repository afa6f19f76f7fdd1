//! The figures with their goals, and how they are printed. This file does not know the
//! measurements.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// The goal of a figure.
#[derive(Debug)]
pub struct Goal {
    pub id: &'static str,
    unit: &'static str,
    goal: f64,
    better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    Higher,
    Lower,
}

/// A measured row of the report.
#[derive(Debug)]
pub struct Measured {
    pub goal: &'static Goal,
    pub value: f64,
    /// The value of each run; `value` is their median.
    pub runs: Vec<f64>,
    /// The conditions of the runs, and the absolute figures.
    pub note: String,
}

const fn higher(id: &'static str, unit: &'static str, goal: f64) -> Goal {
    Goal { id, unit, goal, better: Better::Higher }
}

const fn lower(id: &'static str, unit: &'static str, goal: f64) -> Goal {
    Goal { id, unit, goal, better: Better::Lower }
}

/// In the order of printing.
pub static GOALS: &[Goal] = &[
    higher("snapshot_ratio", "ratio", 0.80),
    higher("live_ratio", "ratio", 0.95),
    higher("live_unix_ratio", "ratio", 0.90),
    lower("live_cpu_ratio", "ratio", 1.0),
    lower("live_unix_cpu_ratio", "ratio", 1.0),
    higher("catchup_ratio", "ratio", 2.0),
    higher("catchup_unix_ratio", "ratio", 1.2),
    lower("latency_p50_ms", "ms", 3.0),
    lower("latency_p99_ms", "ms", 10.0),
    lower("rss_idle_mb", "MB", 30.0),
    lower("rss_txn_mb", "MB", 64.0),
    lower("rss_stall_mb", "MB", 64.0),
    lower("rss_snapshot_mb", "MB", 96.0),
    higher("guest_ratio", "ratio", 0.90),
    lower("guest_native_ratio", "ratio", 1.5),
    lower("guest_swap_gap_ms", "ms", 50.0),
    higher("bytes_change_saved", "%", 85.0),
    higher("bytes_row_saved_users", "%", 70.0),
    higher("bytes_row_saved_orders", "%", 77.0),
    higher("bytes_snapshot_saved_wide", "%", 80.0),
    higher("bytes_snapshot_saved_typical", "%", 88.0),
    higher("bytes_snapshot_saved_uniform", "%", 95.0),
    higher("sqlite_snapshot_rows_s", "rows/s", 150_000.0),
    higher("sqlite_changes_s", "changes/s", 60_000.0),
    lower("start_ms", "ms", 300.0),
];

impl Goal {
    pub fn of(id: &str) -> Result<&'static Goal> {
        GOALS.iter().find(|goal| goal.id == id).with_context(|| format!("no goal is set for {id}"))
    }

    fn is_met(&self, value: f64) -> bool {
        match self.better {
            Better::Higher => value >= self.goal,
            Better::Lower => value <= self.goal,
        }
    }
}

pub fn sort(rows: &mut [Measured]) {
    rows.sort_by_key(|row| GOALS.iter().position(|goal| goal.id == row.goal.id));
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    value: f64,
    unit: &'a str,
    goal: f64,
    better: Better,
    runs: Vec<f64>,
    note: &'a str,
}

pub fn print_json(rows: &[Measured]) -> Result<()> {
    for Measured { goal, value, runs, note } in rows {
        let line = Line {
            id: goal.id,
            value: rounded(*value),
            unit: goal.unit,
            goal: goal.goal,
            better: goal.better,
            runs: runs.iter().copied().map(rounded).collect(),
            note,
        };
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

pub fn print_table(rows: &[Measured]) {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["id", "value", "goal", "verdict", "runs", "note"]);
    for Measured { goal, value, runs, note } in rows {
        let at = if goal.better == Better::Higher { "≥" } else { "≤" };
        let runs: Vec<_> = runs.iter().copied().map(shown_value).collect();
        table.add_row([
            goal.id.to_owned(),
            format!("{} {}", shown_value(*value), goal.unit),
            format!("{at} {}", shown_value(goal.goal)),
            if goal.is_met(*value) { "met" } else { "missed" }.to_owned(),
            runs.join(" "),
            note.clone(),
        ]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

/// Three decimals for small values, none for large ones.
fn rounded(value: f64) -> f64 {
    if value.abs() >= 1000.0 { value.round() } else { (value * 1000.0).round() / 1000.0 }
}

fn shown_value(value: f64) -> String {
    match value.abs() {
        1000.0.. => thousands(value.round() as i64),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `1,234,567`
pub fn thousands(number: i64) -> String {
    let digits = number.abs().to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, groups.join(","))
}

/// `812 k`, `1.25 M`: a rate in a note.
pub fn rate(per_second: f64) -> String {
    if per_second >= 1e6 {
        format!("{:.2} M/s", per_second / 1e6)
    } else {
        format!("{:.0} k/s", per_second / 1e3)
    }
}
