//! `walgate guest test`: runs recorded rows through a guest, under the gateway's own host. Prints
//! the result, or compares it with an earlier one.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json};

use crate::commands::guest::{
    Settings, golden,
    printed::{Printed, Printer},
    recorded::{Recorded, Recordings},
    refused,
};
use crate::commands::still_read;
use walgate_host::{
    assets::write_whole,
    guest::{BoundGuest, OnGuestError},
    rows::{
        Rendered,
        batch::{Cell, Change, Op, RowBatch},
    },
};

/// Run a guest on recorded rows under the gateway's own host, with all limits.
///
/// Prints one JSON object per line and row: {"op":"insert","new":{…}} as consumers see it, with old
/// and unchanged if present, {"op":"dropped"}, or {"op":"failed","error":"…"}. With --golden it
/// prints only the differences from that file. Exit code 1 if there is a difference, or, without
/// --golden, if a row failed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Rows, as `walgate guest record` writes them
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// The file with the expected output
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Write the output to --golden instead of comparing it
    #[arg(long, requires = "golden")]
    bless: bool,
    /// The guest, for example users.wasm
    #[arg(value_name = "FILE")]
    guest: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let settings = args.settings.load()?;
    let recorded = Recorded::read(&args.rows)?;
    let parameters = settings.parameters(&recorded.table.name, &recorded.parameters);
    let bound = settings
        .load_guest(&args.guest)
        .and_then(|module| Ok(module.bind(recorded.table.clone(), &parameters)?));
    let seen = match bound.and_then(|bound| seen(&bound, &recorded)) {
        Ok(seen) => seen,
        Err(error) => return Ok(refused(&args.guest, &error)),
    };
    let counts = Counts::of(&seen);
    match &args.golden {
        None => {
            print(&seen)?;
            eprintln!("{}: {counts}", args.guest.display());
            Ok(if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Some(file) if args.bless => {
            let lines: String = seen.iter().map(|line| format!("{line}\n")).collect();
            write_whole(file, lines.as_bytes())
                .with_context(|| format!("writing {}", file.display()))?;
            println!("{}: {counts}", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Some(file) => compare(args, &seen, file, &counts),
    }
}

fn compare(args: &Args, seen: &[Json], file: &Path, counts: &Counts) -> Result<ExitCode> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read; --bless writes it", file.display()))?;
    let expected = golden::read(&text).with_context(|| file.display().to_string())?;
    let differences = golden::differences(&expected, seen);
    golden::print(&differences);
    if differences.is_empty() {
        println!("{}: {counts}, as in {}", args.guest.display(), file.display());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "{}: {counts}; {} differences to {}; if they are meant, --bless writes it anew",
        args.guest.display(),
        differences.len(),
        file.display()
    );
    Ok(ExitCode::FAILURE)
}

fn print(seen: &[Json]) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed =
        seen.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    still_read(printed).map(|_| ())
}

struct Counts {
    rows: usize,
    dropped: usize,
    failed: usize,
}

impl Counts {
    fn of(seen: &[Json]) -> Counts {
        let count = |op: &str| seen.iter().filter(|line| line["op"] == op).count();
        Counts { rows: seen.len(), dropped: count("dropped"), failed: count("failed") }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { rows, dropped, failed } = self;
        let kept = rows - dropped - failed;
        write!(f, "{rows} rows: {kept} leave, {dropped} dropped, {failed} failed")
    }
}

/// One line for each recorded row.
fn seen(bound: &BoundGuest, recorded: &Recorded) -> Result<Vec<Json>> {
    let printer = Printer::new(bound.output());
    let mut seen = Vec::with_capacity(recorded.len());
    for recordings in recorded.batches()? {
        check_unchanged(bound, &recordings)?;
        let lines = if recordings.batch.changes.is_empty() {
            copied(bound, &printer, recordings.batch)
        } else {
            changed(bound, &printer, recordings.batch)
        };
        seen.extend(lines?);
    }
    Ok(seen)
}

/// The gateway looks such values up. Here there is no table for that.
fn check_unchanged(bound: &BoundGuest, recordings: &Recordings) -> Result<()> {
    let Recordings { lines, batch } = recordings;
    for (name, _) in bound.answer().reads.iter().filter(|(_, unchanged)| !unchanged) {
        let columns = &batch.table.schema.columns;
        let Some(index) = columns.iter().position(|column| column.name == *name) else { continue };
        let lacks = |change: &Change| {
            batch.new_row(change).is_some_and(|row| row[index] == Cell::Unchanged)
        };
        if let Some(at) = batch.changes.iter().position(lacks) {
            bail!(
                "line {}: column {name} is unchanged, and the guest reads it as a value: give the value that the \
                 gateway would look up",
                lines[at]
            );
        }
    }
    Ok(())
}

fn changed(bound: &BoundGuest, printer: &Printer, batch: RowBatch) -> Result<Vec<Json>> {
    let mut lines = vec![dropped(); batch.len()];
    let out = bound.run(batch, &mut Rendered::default(), OnGuestError::DeadLetter)?;
    for change in &out.batch.changes {
        lines[change.ordinal as usize - 1] = leaves(printer, &out.batch, change)?;
    }
    // A failed row may lead to a delete of the earlier row, which is not the guest's output.
    out.failed.iter().for_each(|failed| lines[failed.index] = failure(&failed.error));
    Ok(lines)
}

/// The result of a batch does not name the missing rows of a copy. If some are missing, each row is
/// run alone. The output is the same, because it depends only on the row.
fn copied(bound: &BoundGuest, printer: &Printer, batch: RowBatch) -> Result<Vec<Json>> {
    let rows = batch.len();
    let all = bound.run(batch.clone(), &mut Rendered::default(), OnGuestError::DeadLetter)?;
    if all.batch.len() == rows {
        return all.batch.rows().map(|row| copy(printer, &all.batch, row)).collect();
    }
    let mut lines = vec![];
    let mut left = 0;
    for index in 0..rows {
        let one =
            bound.run(batch.only(index), &mut Rendered::default(), OnGuestError::DeadLetter)?;
        left += one.batch.len();
        lines.push(match (one.batch.rows().next(), one.failed.first()) {
            (_, Some(failed)) => failure(&failed.error),
            (Some(row), None) => copy(printer, &one.batch, row)?,
            (None, None) => dropped(),
        });
    }
    if left != all.batch.len() {
        bail!(
            "of {rows} rows it keeps {} when they are shown together and {left} when they are shown one by one; what it \
             does may depend on nothing but the row and its parameters",
            all.batch.len()
        );
    }
    Ok(lines)
}

fn dropped() -> Json {
    serde_json::json!({"op": "dropped"})
}

fn failure(error: &str) -> Json {
    serde_json::json!({"op": "failed", "error": error})
}

fn copy(printer: &Printer, batch: &RowBatch, row: &[Cell]) -> Result<Json> {
    let printed = printer.row(batch, row, false, &mut Rendered::default())?;
    Ok(line("snapshot", Some(printed), None))
}

fn leaves(printer: &Printer, batch: &RowBatch, change: &Change) -> Result<Json> {
    let op = match change.op {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Truncate => "truncate",
    };
    let print = |row, key_only| printer.row(batch, row, key_only, &mut Rendered::default());
    let new = batch.new_row(change).map(|row| print(row, false)).transpose()?;
    let old = batch.old_row(change).map(|row| print(row, change.old_is_key)).transpose()?;
    Ok(line(op, new, old))
}

fn line(op: &str, new: Option<Printed>, old: Option<Printed>) -> Json {
    let mut line = Map::new();
    line.insert("op".into(), op.into());
    if let Some(Printed { row, unchanged }) = new {
        line.insert("new".into(), row.into());
        if !unchanged.is_empty() {
            line.insert("unchanged".into(), unchanged.into());
        }
    }
    if let Some(Printed { row, .. }) = old {
        line.insert("old".into(), row.into());
    }
    line.into()
}
