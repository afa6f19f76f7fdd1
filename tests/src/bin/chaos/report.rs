//! The outcome of the cases: a table, lines of JSON, and the commands that repeat the failed ones.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use crate::cases::Case;

/// The longest explanation in the table.
const SHOWN_CHARS_MAX: usize = 200;

#[derive(Debug)]
pub enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// One run of one case.
#[derive(Debug)]
pub struct Report {
    pub case: &'static str,
    pub seed: u64,
    pub postgres: u32,
    /// The injected faults, and how often each.
    pub faults: Vec<(String, u32)>,
    pub outcome: Outcome,
    pub seconds: f64,
    /// The highest resident memory of a gateway, in 10⁶ bytes.
    pub peak_mb: f64,
}

impl Report {
    pub fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    fn result_text(&self) -> &'static str {
        match self.outcome {
            Outcome::Passed => "passed",
            Outcome::Skipped(_) => "skipped",
            Outcome::Failed(_) => "FAILED",
        }
    }

    fn failure_text(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Passed => None,
            Outcome::Skipped(why) | Outcome::Failed(why) => Some(why),
        }
    }

    fn faults_text(&self) -> String {
        let fault = |(what, count): &(String, u32)| match count {
            1 => what.clone(),
            count => format!("{count} × {what}"),
        };
        self.faults.iter().map(fault).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { case, seed, postgres, seconds, .. } = self;
        write!(
            f,
            "{case}, seed {seed}, Postgres {postgres}: {} in {seconds:.1} s",
            self.result_text()
        )?;
        match self.failure_text() {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

pub fn print_list(cases: &[&Case]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(cases.iter().map(|case| [case.name, case.what]));
    println!("{table}");
}

pub fn print_table(reports: &[Report]) {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["case", "seed", "postgres", "faults injected", "result", "peak MB", "s"]);
    for report in reports {
        let result = match report.failure_text() {
            Some(why) => format!("{}: {}", report.result_text(), shorten(why)),
            None => report.result_text().to_owned(),
        };
        table.add_row([
            report.case.to_owned(),
            report.seed.to_string(),
            report.postgres.to_string(),
            report.faults_text(),
            result,
            format!("{:.0}", report.peak_mb),
            format!("{:.1}", report.seconds),
        ]);
    }
    for column in [1, 2, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    let count =
        |result: &str| reports.iter().filter(|report| report.result_text() == result).count();
    println!(
        "{} runs: {} passed, {} skipped, {} failed",
        reports.len(),
        count("passed"),
        count("skipped"),
        count("FAILED")
    );
}

pub fn print_json(reports: &[Report]) -> serde_json::Result<()> {
    for report in reports {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|(what, count)| json!({ "what": what, "count": count }))
            .collect();
        let line = json!({
            "case": report.case,
            "seed": report.seed,
            "postgres": report.postgres,
            "faults": faults,
            "result": report.result_text().to_lowercase(),
            "why": report.failure_text(),
            "seconds": (report.seconds * 10.0).round() / 10.0,
            "peak_mb": (report.peak_mb * 10.0).round() / 10.0,
        });
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

/// The seed decides the faults, but not how threads and servers interleave.
pub fn print_replays(reports: &[Report], is_long: bool) {
    for report in reports.iter().filter(|report| report.failed()) {
        let Report { case, seed, postgres, .. } = report;
        let long = if is_long { " --minutes 0" } else { "" };
        eprintln!(
            "chaos: again: cargo xtask chaos --only {case} --seed {seed} --postgres {postgres}{long}"
        );
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
