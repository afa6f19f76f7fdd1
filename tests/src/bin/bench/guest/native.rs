//! The guest `users` in the gateway's wasm host, compared with the same source as native code in
//! this process.
//!
//! The host's side is all of `BoundGuest::run`: it lays out rows, calls the guest, checks its
//! decisions and applies them. The native side is the guest alone, on the same rows, laid out
//! before. The note has the time of the call alone: that is the like-for-like figure.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use users::users;
use walgate_guest::{
    Column, GuestPlan, Kind, Table,
    layout::VERDICT_KEEP,
    test::{Cells, Decided, Image, Value, encode_batch},
    transform::Instance,
};
use walgate_host::{
    config::{GuestsConfig, OnGuestError, PostgresConfig},
    guest::{BoundGuest, Engine, GuestOutcome, Limits},
    postgres::{catalog::Catalog, snapshot::sample_rows},
    rows::{Rendered, TableVersion, batch::RowBatch},
};
use walgate_tests::{Site, site::guest_bytes};
use walgate_wire::{Lsn, TableName};

use super::GUEST;
use crate::{
    ground::Ground,
    median,
    report::{Measured, thousands},
    row,
    users::{TABLE, create},
};

/// Rows as Postgres sends them; a gateway shows a guest this much at a time in a snapshot.
const BATCH_BYTES: usize = 256 << 10;
const ROWS: u64 = 5000;

pub async fn measure(ground: &Ground) -> Result<Vec<Measured>> {
    let site = ground.new_site().await;
    create(&site.database, ROWS).await;
    let batch = some_rows(&site).await?;
    let engine = Engine::new(Limits::of(&GuestsConfig::default()), None)?;
    let bound =
        engine.load(&guest_bytes(GUEST))?.bind(Arc::clone(&batch.table), &BTreeMap::new())?;
    let mut native = Native::of(&batch)?;
    native.assert_agreement(&run(&bound, &batch)?.1)?;
    let mut rounds = vec![];
    let calls = ground.pick(200, 1000);
    // The first round warms caches.
    for number in 0..=ground.pick(7, 15) {
        let mut whole = vec![];
        let mut called = vec![];
        let mut alone = vec![];
        for _ in 0..calls {
            let (took, outcome) = run(&bound, &batch)?;
            whole.push(took.as_secs_f64());
            called.push(outcome.called.as_secs_f64());
        }
        for _ in 0..calls {
            alone.push(native.run()?.as_secs_f64());
        }
        if number > 0 {
            // Medians over single calls: delays by other work on the machine do not count.
            let [whole, called, alone] = [median(&whole)?, median(&called)?, median(&alone)?];
            rounds.push(Round { whole, called, native: alone });
        }
    }
    let all = |part: fn(&Round) -> f64| rounds.iter().map(part).collect::<Vec<_>>();
    let ns = |part| Ok::<_, anyhow::Error>(median(&all(part))? * 1e9 / batch.len() as f64);
    let note = format!(
        "{} rows in batches of {} KiB as Postgres sends them, {} KiB of which the guest reads: BoundGuest::run {:.0} ns a row \
         (layout, call, check, apply), Instance::process natively {:.0} ns (the guest alone). Like for like, the wasm \
         call with its copies in and out ÷ native: {:.2}, {:.0} ns",
        thousands(batch.len() as i64),
        batch.raw_bytes() >> 10,
        native.encoded.len() >> 10,
        ns(|round| round.whole)?,
        ns(|round| round.native)?,
        median(&all(|round| round.called / round.native))?,
        ns(|round| round.called)?,
    );
    Ok(vec![row("guest_native_ratio", all(|round| round.whole / round.native), note)?])
}

/// Seconds for one batch.
struct Round {
    /// All of `BoundGuest::run`.
    whole: f64,
    /// The guest's call, a part of `whole`.
    called: f64,
    native: f64,
}

/// A batch of the table as a snapshot reads it.
async fn some_rows(site: &Site) -> Result<RowBatch> {
    let postgres = PostgresConfig::at(site.database.url().into(), "walgate".to_owned());
    let name: TableName = TABLE.parse()?;
    let mut catalog = Catalog::connect(&postgres).await?;
    let (version, _) = catalog.load_current(&name, name.token(), Lsn(0)).await?;
    Ok(sample_rows(&postgres, &Arc::new(version), BATCH_BYTES).await?)
}

/// `run` consumes a copy; the time to make it does not count.
fn run(bound: &BoundGuest, batch: &RowBatch) -> Result<(Duration, GuestOutcome)> {
    let batch = batch.clone();
    let mut rendered = Rendered::default();
    let began = Instant::now();
    let outcome = bound.run(batch, &mut rendered, OnGuestError::Halt)?;
    Ok((began.elapsed(), outcome))
}

/// The guest as native code, and its input.
struct Native {
    table: Table,
    plan: GuestPlan,
    instance: Instance<users>,
    encoded: Vec<u8>,
}

impl Native {
    fn of(batch: &RowBatch) -> Result<Native> {
        let table = describe_table(&batch.table);
        let (instance, plan) = Instance::<users>::plan(&table).map_err(|why| anyhow!(why))?;
        let reads: Vec<_> = plan.reads.iter().map(|read| read.column.as_str()).collect();
        let rows: Vec<Cells> = (0..batch.len())
            .map(|row| {
                let cell =
                    |name: &&str| Ok(((*name).to_owned(), text_cell(batch, row, name)?.into()));
                reads.iter().map(cell).collect()
            })
            .collect::<Result<_>>()?;
        // No flag: a row of a snapshot.
        let images: Vec<_> = rows.iter().map(|cells| Image { flags: 0, cells }).collect();
        let encoded = encode_batch(&table, &plan, &images).map_err(|why| anyhow!(why))?;
        Ok(Native { table, plan, instance, encoded })
    }

    fn run(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let answer = self.instance.process(black_box(&self.encoded));
        let answer = black_box(answer);
        let took = began.elapsed();
        answer.map(|_| took).map_err(|why| anyhow!(why))
    }

    /// Both sides keep the same rows and write the same e-mail addresses.
    fn assert_agreement(&mut self, outcome: &GuestOutcome) -> Result<()> {
        let answer = self.instance.process(&self.encoded).map_err(|why| anyhow!(why))?;
        let decided =
            Decided::decode(&answer, &self.table, &self.plan).map_err(|why| anyhow!(why))?;
        let written = decided.columns.first().context("the guest replaces no column")?;
        let kept = decided.verdicts.iter().zip(written);
        let kept: Vec<_> = kept.filter(|(verdict, _)| **verdict == VERDICT_KEEP).collect();
        let batch = &outcome.batch;
        ensure!(
            kept.len() == batch.len() && outcome.dropped > 0,
            "{} rows are kept in wasm and {} natively",
            batch.len(),
            kept.len()
        );
        for (row, (_, email)) in kept.into_iter().enumerate() {
            ensure!(
                *email == Value::from(text_cell(batch, row, "email")?),
                "another address in wasm"
            );
        }
        Ok(())
    }
}

/// The cell of a text column that is not NULL.
fn text_cell<'a>(batch: &'a RowBatch, row: usize, name: &str) -> Result<&'a str> {
    let columns = &batch.table.schema.columns;
    let column = columns.iter().position(|column| column.name == name);
    let cell = batch.row_at((row * columns.len()) as u32)[column.context("a column is missing")?];
    Ok(std::str::from_utf8(batch.cell_bytes(cell).context("a cell without a value")?)?)
}

/// The table as the gateway describes it to the guest.
fn describe_table(version: &TableVersion) -> Table {
    version.schema.columns.iter().fold(Table::new(version.name.to_string()), |table, column| {
        table.with_column(Column {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            kind: Kind::of_type(&column.type_name),
            nullable: column.nullable,
            key: column.key,
        })
    })
}
