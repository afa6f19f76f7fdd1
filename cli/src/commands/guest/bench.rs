//! `walgate guest bench`: the cost of a guest per row, compared with a snapshot without it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, HumanCount};
use walgate_wire::{ChunkWriter, Guest, TableName};

use crate::commands::guest::{Database, Settings, recorded::Recorded, refused};
use walgate_host::{
    config::{CompressionConfig, UseDictionary},
    egress::{
        compress::{BodyPacker, Effort},
        outlet::Outlet,
    },
    guest::{BoundGuest, GuestOutcome, OnGuestError},
    rows::{Rendered, TableVersion, batch::RowBatch},
    snapshot::live_rows::LiveTable,
};

/// Measure what a row costs: in the guest, around it, and against the same rows without it.
///
/// Rows are packed and compressed as in a snapshot, with and without the guest, over and over. Rows
/// from the database are measured as Postgres sends them. Recorded rows hold more values as text,
/// which favours the side without the guest a little.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    database: Database,
    /// Rows, as `walgate guest record` writes them
    #[arg(long, value_name = "FILE", required_unless_present = "table")]
    rows: Option<PathBuf>,
    /// Rows of this table, from the database
    #[arg(long, value_name = "TABLE", conflicts_with = "rows")]
    table: Option<TableName>,
    /// At most so many of the table
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    limit: usize,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 4)]
    seconds: u64,
    /// The guest, for example users.wasm
    #[arg(value_name = "FILE")]
    guest: PathBuf,
}

/// Batches, and the values that the server rendered for them.
type Batches = Vec<(RowBatch, Rendered)>;

pub async fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings.load()?;
    let (batches, recorded) = rows(&args).await?;
    let (first, _) = batches.first().context("the table has no rows to measure with")?;
    let table = first.table.clone();
    let parameters = settings.parameters(&table.name, &recorded);
    let module = match settings.load_guest(&args.guest) {
        Ok(module) => module,
        Err(error) => return Ok(refused(&args.guest, &error)),
    };
    let bound = match module.bind(table, &parameters) {
        Ok(bound) => bound,
        Err(error) => return Ok(refused(&args.guest, &error.into())),
    };
    let each = Duration::from_secs(args.seconds.max(1)) / 2;
    let guest = bound.guest().clone();
    match measure(bound, batches, each) {
        Ok((without, with)) => {
            print(&guest, &without, &with);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(refused(&args.guest, &error)),
    }
}

/// The rows, and the parameters that belong to them.
async fn rows(args: &Args) -> Result<(Batches, std::collections::BTreeMap<String, String>)> {
    let mut batches = vec![];
    if let Some(name) = &args.table {
        let settings = args.settings.load()?;
        let postgres = settings.postgres(&args.database)?;
        let mut table = LiveTable::open(&postgres, name, settings.token(name)).await?;
        let outlet = Outlet::unguarded(TableVersion::clone(&table.version));
        let take = |batch, rendered: &mut Rendered| {
            batches.push((batch, std::mem::take(rendered)));
            anyhow::Ok(())
        };
        table.for_each_batch(&outlet, args.limit, take).await?;
        return Ok((batches, Default::default()));
    }
    let file = args.rows.as_deref().context("which rows? Name --rows or --table")?;
    let recorded = Recorded::read(file)?;
    for recordings in recorded.batches()? {
        batches.push((recordings.batch, Rendered::default()));
    }
    Ok((batches, recorded.parameters))
}

/// Sums over all rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    rounds: u64,
    rows: u64,
    /// As received.
    bytes_in: u64,
    /// As sent.
    bytes_out: u64,
    dropped: u64,
    took: Duration,
    /// The guest's part: in total, and in its own code.
    guest: Duration,
    called: Duration,
}

/// Measures without and with the guest. Rounds alternate, so that other work on the machine slows
/// both.
fn measure(bound: BoundGuest, mut batches: Batches, each: Duration) -> Result<(Sums, Sums)> {
    let table = batches.first().map(|(batch, _)| batch.table.clone()).context("no rows")?;
    let mut plain = Way::new(Outlet::unguarded(TableVersion::clone(&table)));
    let mut guarded = Way::new(Outlet::guarded(bound, OnGuestError::Drop));
    // The first round of each warms caches.
    plain.round(&mut batches)?;
    guarded.round(&mut batches)?;
    (plain.sums, guarded.sums) = Default::default();
    while plain.sums.took + guarded.sums.took < each * 2 {
        plain.round(&mut batches)?;
        guarded.round(&mut batches)?;
    }
    Ok((plain.sums, guarded.sums))
}

/// From rows to bodies.
struct Way {
    outlet: Outlet,
    writer: ChunkWriter,
    bodies: BodyPacker,
    raw: Vec<u8>,
    sums: Sums,
}

impl Way {
    fn new(outlet: Outlet) -> Way {
        let compression = CompressionConfig {
            enabled: true,
            level: 1,
            use_dictionary: UseDictionary::Always,
            dictionaries: PathBuf::new(),
        };
        let bodies = BodyPacker::new(&compression);
        let writer = outlet.packer().chunk_writer();
        Way { outlet, writer, bodies, raw: vec![], sums: Sums::default() }
    }

    fn round(&mut self, batches: &mut Batches) -> Result<()> {
        let packer = self.outlet.packer();
        for (batch, rendered) in batches {
            let batch = batch.clone();
            self.sums.rows += batch.len() as u64;
            self.sums.bytes_in += batch.raw_bytes() as u64;
            let began = Instant::now();
            let GuestOutcome { batch, dropped, took, called, .. } =
                self.outlet.apply_guest(batch, rendered)?;
            self.sums.dropped += dropped;
            self.sums.guest += took;
            self.sums.called += called;
            let packed = if batch.changes.is_empty() {
                let rows = 0..batch.len();
                packer.pack_rows(&batch, rows, &mut self.writer, rendered)?;
                self.bodies.finish_chunk(&batch.table, &mut self.writer, &mut self.raw, None)?
            } else {
                self.bodies.pack_changes(packer, &batch, rendered, None, Effort::Quick)?
            };
            self.sums.took += began.elapsed();
            self.sums.bytes_out += packed.body.len() as u64;
        }
        self.sums.rounds += 1;
        Ok(())
    }
}

impl Sums {
    fn rows_per_s(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn ns(&self, of: Duration) -> String {
        format!("{:.0} ns", of.as_nanos() as f64 / self.rows.max(1) as f64)
    }

    fn of_one_round(&self, sum: u64) -> u64 {
        sum / self.rounds.max(1)
    }
}

fn print(guest: &Guest, without: &Sums, with: &Sums) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "rows/s", "a row", "in", "out"]);
    for (name, sums) in [("without guest", without), ("with guest", with)] {
        table.add_row([
            name.to_owned(),
            HumanCount(sums.rows_per_s() as u64).to_string(),
            sums.ns(sums.took),
            HumanBytes(sums.of_one_round(sums.bytes_in)).to_string(),
            HumanBytes(sums.of_one_round(sums.bytes_out)).to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "{} {}: {} a row in it, {} around it (laying rows out, checking and applying what it decides)",
        guest.name,
        guest.version,
        with.ns(with.called),
        with.ns(with.guest.saturating_sub(with.called)),
    );
    println!(
        "{} of {} rows dropped; with the guest ÷ without: {:.2}",
        HumanCount(with.of_one_round(with.dropped)),
        HumanCount(with.of_one_round(with.rows)),
        with.rows_per_s() / without.rows_per_s(),
    );
}
