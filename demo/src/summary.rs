//! The final report of the demo, and whether it passed.

use comfy_table::{CellAlignment, Table, presets};
use walgate_wire::Token;

use crate::{
    board::{Board, Bytes},
    figures::{bytes, count, millis, ratio, seconds},
    flow::Flow,
    latency::Percentiles,
};
use walgate_host::observe::counts::TableCounts;
use walgate_verify::Comparison;

/// `--check` accepts at most this ratio of bytes with dictionaries to bytes without. Typically it
/// is below a half.
const SENT_WITH_MAX: f64 = 0.8;

#[derive(Clone, Debug)]
pub struct Report {
    pub comparisons: Vec<Comparison>,
    /// Values in the replica that the guests should have removed; `None` without guests.
    pub leaks: Option<Vec<String>>,
    /// Since the start.
    pub counts: Vec<(Token, TableCounts)>,
    pub transactions: u64,
    /// Live changes before the dictionaries, and with them.
    pub plain: Flow,
    pub trained: Flow,
    /// The dictionary named by the last message of each table that reached the replica.
    pub seen_in_messages: Vec<(Token, Option<String>)>,
    pub latency: Option<Percentiles>,
}

/// Prints events for readers who saw them on a screen that is gone.
pub fn print_events(board: &Board) {
    for event in board.events_after(0) {
        println!("[{:>6}] {}", seconds(event.at), event.text);
    }
}

/// Prints everything and returns whether the demo passed. `check`: dictionaries have to show an
/// effect.
pub fn print(report: &Report, check: bool) -> bool {
    println!();
    print_flows(report);
    print_sums(report);
    walgate_verify::print(&report.comparisons);
    let equal = report.comparisons.iter().all(Comparison::is_equal);
    if equal {
        let rows: u64 = report.comparisons.iter().map(|comparison| comparison.source_rows).sum();
        println!(
            "The replica equals what may leave its source: {} rows, every value compared.",
            count(rows)
        );
    } else {
        println!("THE REPLICA DIFFERS from its source.");
    }
    match report.leaks.as_deref() {
        Some([]) => println!(
            "Behind the guests: no password hashes, masked e-mail addresses, one region, no test orders."
        ),
        Some(leaks) => leaks.iter().for_each(|leak| println!("LEAK: {leak}.")),
        None => {
            println!("Without guests: `cargo xtask demo` builds them, --guests names their folder.")
        }
    }
    let tight = report.leaks.as_ref().is_none_or(Vec::is_empty);
    let complaints = if check { complaints(report) } else { vec![] };
    complaints.iter().for_each(|complaint| println!("CHECK FAILED: {complaint}"));
    equal && tight && complaints.is_empty()
}

fn print_flows(report: &Report) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "live changes",
        "without dictionary",
        "bytes each",
        "ratio",
        "with dictionary",
        "bytes each",
        "ratio",
        "revision",
    ]);
    for (token, counts) in &report.counts {
        let revision = counts.dictionary_revision;
        let (plain, trained) = (report.plain.of(token), report.trained.of(token));
        let side = |flow: Option<&super::flow::TableFlow>| {
            let (changes, sent) =
                flow.map_or((0, Bytes::default()), |flow| (flow.changes, flow.bytes));
            [count(changes), (sent.sent / changes.max(1)).to_string(), ratio(sent.ratio())]
        };
        let [a, b, c] = side(plain);
        let [d, e, f] = side(trained);
        table.add_row([token.to_string(), a, b, c, d, e, f, revision.to_string()]);
    }
    for column in 1..=7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

fn print_sums(report: &Report) {
    let sum = |of: fn(&TableCounts) -> u64| {
        report.counts.iter().map(|(_, counts)| of(counts)).sum::<u64>()
    };
    let (raw, sent) = (sum(|c| c.raw_bytes), sum(|c| c.sent_bytes));
    println!(
        "{} snapshot rows and {} changes of {} transactions: {} raw, {} sent.",
        count(sum(|c| c.snapshot_rows)),
        count(sum(|c| c.changes)),
        count(report.transactions),
        bytes(raw),
        bytes(sent),
    );
    println!(
        "Compression of live changes: {} without dictionaries, {} with.",
        ratio(report.plain.all().ratio()),
        ratio(report.trained.all().ratio())
    );
    if let Some(latency) = report.latency {
        println!(
            "From COMMIT in Postgres until a reader of the SQLite file saw it: p50 {}, p99 {} ({} orders followed).",
            millis(latency.p50),
            millis(latency.p99),
            count(latency.count as u64)
        );
    }
}

/// The reasons why dictionaries lacked their expected effect.
fn complaints(report: &Report) -> Vec<String> {
    let mut complaints = Vec::new();
    for (token, counts) in &report.counts {
        let expected = format!("{}@{}", token.dictionary_key(), counts.dictionary_revision);
        let seen = report.seen_in_messages.iter().find(|(t, _)| t == token);
        let seen = seen.and_then(|(_, seen)| seen.as_deref());
        if seen != Some(expected.as_str()) {
            let seen = seen.unwrap_or("no dictionary");
            complaints.push(format!("the last message of {token} names {seen}, not {expected}"));
        }
    }
    let (plain, trained) = (report.plain.all().ratio(), report.trained.all().ratio());
    if trained == 0.0 || plain / trained > SENT_WITH_MAX {
        complaints.push(format!(
            "dictionaries took the ratio from {} to {} only",
            ratio(plain),
            ratio(trained)
        ));
    }
    complaints
}
