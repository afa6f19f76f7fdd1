//! `walgate train`: makes a zstd dictionary for each table from rows that its consumers would
//! receive.
//!
//! Rows come from a snapshot, so guests have processed them. The wire crate trains and compresses.
//! The gateway distributes a dictionary once the file is in its folder.

mod sampler;
mod samples;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use tokio::sync::mpsc;
use walgate_consumer::{Consumer, ConsumerOptions, StreamNames};
use walgate_wire::{Compressor, Dictionary, MAX_DICTIONARY_BYTES, TableName};

use self::{
    sampler::{Sampled, Sampler},
    samples::Samples,
};
use crate::commands::{NatsArgs, StreamArgs};
use walgate_host::assets::write_whole;
use walgate_host::{assets::dictionaries, egress::compress::THOROUGH_LEVEL};

/// Fewer rows predict too little of the next row.
const ROWS_MIN: usize = 500;
/// A dictionary that saves less is not worth its upkeep.
const SAVED_PERCENT_MIN: f64 = 3.0;
/// One of so many samples is held out for measuring.
const HELD_OUT_EVERY: usize = 5;
/// Train compression dictionaries on the rows of tables.
///
/// Reads a snapshot of each table and trains on rows from all parts of it. Measures on held-out
/// rows, and writes {table}.zstd.dict atomically into the given directory. A gateway that watches
/// this directory uses it from the next message on. A table with fewer than 500 rows, or whose
/// dictionary would save less than 3 %, is left out, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    streams: StreamArgs,
    /// Directory for the dictionaries
    #[arg(long, value_name = "DIR", default_value = "dictionaries")]
    out: PathBuf,
    /// Largest size of a dictionary, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 112_640, value_parser = max_bytes)]
    max_bytes: usize,
    /// Bytes of samples for training; one to three million are enough
    #[arg(long, value_name = "BYTES", default_value_t = 3_000_000)]
    samples_bytes: usize,
    /// A table, for example public.users
    #[arg(value_name = "TABLE", required = true)]
    tables: Vec<TableName>,
}

fn max_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|e| format!("{e}"))?;
    let allowed = 1024..=MAX_DICTIONARY_BYTES;
    if allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("must be 1024 to {MAX_DICTIONARY_BYTES}: it has to fit one message"))
    }
}

pub async fn run(args: Args) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let mut all_written = true;
    let mut lines = Vec::new();
    for table in &args.tables {
        let sampled =
            sample(&args, table).await.with_context(|| format!("reading rows of {table}"))?;
        let max_bytes = args.max_bytes;
        let (name, rows) = (table.to_string(), sampled.rows);
        let trained = if sampled.samples.count() < ROWS_MIN {
            None
        } else {
            let name = name.clone();
            let train = move || train(&name, &sampled, max_bytes);
            Some(tokio::task::spawn_blocking(train).await??)
        };
        let verdict = match &trained {
            None => Err(format!("{ROWS_MIN} rows are needed, and so few cost little without")),
            Some(trained) if trained.saved_more() < SAVED_PERCENT_MIN => {
                Err(format!("it would save less than {SAVED_PERCENT_MIN} %"))
            }
            Some(trained) => {
                let path = args.out.join(dictionaries::file_name(&table.token()));
                write_whole(&path, trained.dictionary.bytes())
                    .with_context(|| format!("writing {}", path.display()))?;
                Ok(path)
            }
        };
        all_written &= verdict.is_ok();
        let verdict = verdict
            .map_or_else(|why| format!("not written: {why}"), |path| path.display().to_string());
        lines.push(Line { table: name, rows, trained, verdict });
    }
    print(&lines);
    Ok(if all_written { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Receives the table's snapshot and keeps some of its rows.
async fn sample(args: &Args, table: &TableName) -> Result<Sampled> {
    let (sender, mut sampled) = mpsc::channel(1);
    let names: StreamNames = args.streams.names();
    let consumer = Consumer::builder()
        .nats(args.nats.access()?)
        .table(table.to_string())
        .options(ConsumerOptions { streams: names, ..ConsumerOptions::default() })
        .sink(Sampler::new(args.samples_bytes, sender))
        .build()
        .await?;
    let mut consumer = Box::pin(consumer.run(walgate_host::supervisor::stop_signal()));
    tokio::select! {
        sampled = sampled.recv() => sampled.context("the snapshot ended without rows"),
        ended = &mut consumer => {
            ended?;
            bail!("interrupted")
        }
    }
}

/// The report on one table.
struct Line {
    table: String,
    rows: u64,
    /// `None`: there were too few rows for training.
    trained: Option<Trained>,
    verdict: String,
}

/// A dictionary and its effect on rows that it has not seen.
struct Trained {
    samples: usize,
    dictionary: Dictionary,
    raw_bytes: usize,
    plain_bytes: usize,
    with_bytes: usize,
}

impl Trained {
    fn saved(&self, bytes: usize) -> f64 {
        100.0 * (1.0 - bytes as f64 / self.raw_bytes.max(1) as f64)
    }

    /// The columns of the report: samples, bytes, bytes per row, saved without, saved with.
    fn figures(&self) -> [String; 5] {
        let bytes_a_row = self.raw_bytes / (self.samples / (HELD_OUT_EVERY - 1)).max(1);
        [
            self.samples.to_string(),
            self.dictionary.bytes().len().to_string(),
            bytes_a_row.to_string(),
            format!("{:.1} %", self.saved(self.plain_bytes)),
            format!("{:.1} %", self.saved(self.with_bytes)),
        ]
    }

    /// The percentage that the dictionary saves, compared with the bytes sent without it.
    fn saved_more(&self) -> f64 {
        100.0 * (1.0 - self.with_bytes as f64 / self.plain_bytes.max(1) as f64)
    }
}

fn train(table: &str, sampled: &Sampled, max_bytes: usize) -> Result<Trained> {
    let (training, held_out) = sampled.samples.split(HELD_OUT_EVERY);
    let dictionary = walgate_wire::train_dictionary(training.bytes(), training.sizes(), max_bytes)
        .with_context(|| format!("training on {table}"))?;
    let plain_bytes = compressed_bytes(&held_out, None)?;
    let with_bytes = compressed_bytes(&held_out, Some(&dictionary))?;
    let raw_bytes = held_out.bytes().len();
    Ok(Trained { samples: training.count(), dictionary, raw_bytes, plain_bytes, with_bytes })
}

/// Each sample as a message of its own, compressed only if that makes it smaller.
fn compressed_bytes(samples: &Samples, dictionary: Option<&Dictionary>) -> Result<usize> {
    let mut compressor = Compressor::new(THOROUGH_LEVEL, dictionary)?;
    let mut frame = Vec::new();
    let mut total = 0;
    for sample in samples.iter() {
        frame.clear();
        compressor.compress(sample, &mut frame)?;
        total += frame.len().min(sample.len());
    }
    Ok(total)
}

fn print(lines: &[Line]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "table",
        "rows",
        "trained on",
        "bytes",
        "bytes a row",
        "saved without",
        "saved with",
        "written to",
    ]);
    for line in lines {
        let figures = line.trained.as_ref().map_or_else(Default::default, Trained::figures);
        let mut cells = vec![line.table.clone(), line.rows.to_string()];
        cells.extend(figures);
        cells.push(line.verdict.clone());
        table.add_row(cells);
    }
    for column in 1..=6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}\nSaved: of single rows that were held out, each as a message of its own.");
}
