//! `walgate guest record`: writes rows of a table to a file, for tests without a database.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde_json::json;
use walgate_wire::TableName;

use crate::commands::guest::{Database, Settings, printed::Printer, recorded::Head};
use crate::commands::still_read;
use walgate_host::{
    assets::write_whole,
    egress::outlet::Outlet,
    rows::{Rendered, TableVersion, batch::RowBatch},
    snapshot::live_rows::LiveTable,
};

/// Write rows of a table to a file, for `walgate guest test` and `bench` and for tests of the
/// guest's crate.
///
/// The first line is the table. Each other line is a row as a guest sees it, including the values
/// that a guest would remove. Treat the file like the table.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    database: Database,
    /// The file, written atomically [default: standard output]
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// At most so many rows, from the beginning of the table
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// The table, for example public.users
    #[arg(value_name = "TABLE")]
    table: TableName,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings.load()?;
    let postgres = settings.postgres(&args.database)?;
    let mut table = LiveTable::open(&postgres, &args.table, settings.token(&args.table)).await?;
    let parameters = settings.parameters(&args.table, &Default::default());
    let head = Head::of(&table.version, parameters);
    let mut out = vec![];
    line(&mut out, &head)?;
    let printer = Printer::new(&table.version);
    let mut rows = 0;
    let print = |batch: RowBatch, rendered: &mut Rendered| {
        rows += batch.len();
        batch.rows().try_for_each(|row| {
            let printed = printer.row(&batch, row, false, rendered)?;
            line(&mut out, &json!({"op": "snapshot", "new": printed.row}))
        })
    };
    let outlet = Outlet::unguarded(TableVersion::clone(&table.version));
    table.for_each_batch(&outlet, args.limit, print).await?;
    match &args.rows {
        None => write(&out)?,
        Some(file) => {
            write_whole(file, &out).with_context(|| format!("writing {}", file.display()))?;
            let kb = out.len().div_ceil(1000);
            println!("{}: {rows} rows of {}, {kb} kB", file.display(), args.table);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.push(b'\n');
    Ok(())
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    still_read(out.write_all(bytes).and_then(|()| out.flush())).map(|_| ())
}
