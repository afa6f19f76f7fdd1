//! `walgate verify`: compares a copy with its source, table by table, and names what differs.
//!
//! Both sides are streamed, never held: what differs is narrowed down by sums of hashes (`compare`). A row of
//! the source goes through the gateway's own packing and the consumer's own conversion before it is compared,
//! so equal means: what a consumer should have stored is what is there.

mod compare;
mod postgres;
mod report;
mod sqlite;
mod tables;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use walgate_wire::{Guest, Schema};

use self::{
    compare::{Key, Look, Sums},
    postgres::{Form, PostgresSide},
    sqlite::SqliteSide,
};
use super::{
    database::{Database, configured},
    target::Target,
};
use crate::{
    assets::Gate,
    config::{Config, Postgres, Table},
    guest::{Engine, Limits},
};

pub use report::{Comparison, print};

/// Differences that are named for each table.
const NAMED_MAX: usize = 20;
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Compare a copy with its source, table by table.
///
/// Counts rows and compares hashes; where they differ, names up to 20 rows and the columns that differ. A column
/// that the source publishes and the copy lacks is a difference, too: it arrives with the first row that is written
/// after it was added. Exit code 1 on any difference. While the source is written to, the copy is a moment behind
/// and that shows as differences: stop the writer, or give the copy time with --wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Database,
    /// The copy: sqlite:edge.db or postgres://user@host/database
    #[arg(long, value_name = "TARGET")]
    replica: Target,
    /// A table to compare; may be repeated [default: every table that the copy keeps]
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// The gateway's configuration: the database, and the guests, of which what they let through should have arrived
    /// [default: walgate.toml if there is one]
    #[arg(short, long, value_name = "FILE", env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Compare again until everything is equal, for at most so long
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// What is to be compared with what.
#[derive(Clone, Debug)]
pub struct Question {
    pub source: Postgres,
    pub replica: Target,
    /// None: every table that the copy keeps.
    pub tables: Vec<String>,
    /// Tables with guests.
    pub gates: Vec<TableGate>,
}

/// A table and the guest that stands before it.
#[derive(Clone, Debug)]
pub struct TableGate {
    pub table: Table,
    pub gate: Gate,
}

/// Loads the guests that lie in their folder.
pub async fn gates(config: &Config) -> Result<Vec<TableGate>> {
    let engine = Engine::new(Limits::of(&config.guests), None)?;
    let mut gates = vec![];
    for table in &config.tables {
        let path = config.guests.dir.join(&table.guest.file);
        if !path.exists() && !table.guest.named {
            continue;
        }
        let reading = || format!("reading guest {}", path.display());
        let bytes = tokio::fs::read(&path).await.with_context(reading)?;
        let engine = engine.clone();
        let module = tokio::task::spawn_blocking(move || engine.load(&bytes)).await?;
        let gate = Gate::Guest(Arc::new(module.with_context(reading)?));
        gates.push(TableGate { table: table.clone(), gate });
    }
    Ok(gates)
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let wait = Duration::from_secs(args.wait);
    let config = configured(args.config)?;
    let source = args.source.postgres(config.as_ref())?;
    let gates = match &config {
        Some(config) => gates(config).await?,
        None => vec![],
    };
    let question = Question { source, replica: args.replica, tables: args.tables, gates };
    loop {
        let compared = compare(&question).await;
        let equal = compared.as_ref().is_ok_and(|all| all.iter().all(Comparison::is_equal));
        // A copy that is not there yet is as good as one that is behind.
        if equal || begun.elapsed() + RETRY_EVERY >= wait {
            print(&compared?);
            return Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Compares one table after the other.
pub async fn compare(question: &Question) -> Result<Vec<Comparison>> {
    let kept = tables::kept(&question.replica).await?;
    let wanted = tables::wanted(&kept, &question.tables)?;
    ensure!(
        !wanted.is_empty(),
        "the replica keeps no tables yet: has `walgate replicate` loaded any?"
    );
    let mut comparisons = Vec::with_capacity(wanted.len());
    for schema in wanted {
        let (question, table) = (question.clone(), schema.table.clone());
        // On a worker thread, where rows need no thread switch to arrive.
        let comparing = tokio::spawn(async move { compare_table(&question, &schema).await });
        comparisons.push(comparing.await?.with_context(|| format!("comparing {table}"))?);
    }
    Ok(comparisons)
}

async fn compare_table(question: &Question, schema: &Schema) -> Result<Comparison> {
    let begun = Instant::now();
    let mut replica = Replica::open(&question.replica, schema).await?;
    let forms = replica.forms(schema);
    let guest = question.gates.iter().find(|gate| gate.table.token == schema.token);
    if let (Some(Guest { name, version, .. }), None) = (&schema.guest, guest) {
        bail!(
            "its rows went through guest {name} {version}: name the gateway's configuration with --config, so \
             that they are compared with what it lets through"
        );
    }
    let mut source = PostgresSide::open(&question.source, schema, &forms, guest).await?;
    let key = Key::new(schema.key_indexes());
    let sums = Sums::new(key);
    let both = tokio::try_join!(source.scan(sums.clone()), replica.scan(sums));
    let (expected, found) = both?;
    let mut comparison = Comparison::new(schema, expected.rows(), found.rows());
    comparison.lack(source.beyond());
    if !expected.differing(&found).is_empty() {
        let suspects = source.scan(expected.suspects(&found)).await?;
        let suspects = replica.scan(suspects.now_replica()).await?;
        let named = source.scan(suspects.culprits(NAMED_MAX)).await?;
        let named = replica.scan(named.now_replica()).await?;
        comparison.differ(named.differences(), schema);
    }
    comparison.took = begun.elapsed();
    Ok(comparison)
}

/// The side that is judged.
enum Replica {
    Sqlite(SqliteSide),
    Postgres(Box<PostgresSide>),
}

impl Replica {
    async fn open(target: &Target, schema: &Schema) -> Result<Replica> {
        Ok(match target {
            Target::Sqlite(path) => Replica::Sqlite(SqliteSide::open(path, schema)?),
            Target::Postgres(url) => {
                let postgres = Postgres::at(url.clone().into(), String::new());
                let forms = vec![Form::Wire; schema.columns.len()];
                Replica::Postgres(Box::new(
                    PostgresSide::open(&postgres, schema, &forms, None).await?,
                ))
            }
        })
    }

    fn forms(&self, schema: &Schema) -> Vec<Form> {
        match self {
            Replica::Sqlite(_) => vec![Form::Sqlite; schema.columns.len()],
            Replica::Postgres(side) => side.forms(),
        }
    }

    async fn scan<L: Look>(&mut self, look: L) -> Result<L> {
        match self {
            Replica::Sqlite(side) => side.scan(look).await,
            Replica::Postgres(side) => side.scan(look).await,
        }
    }
}
