//! Compares a copy with its source, table by table, and lists the differences.
//!
//! Both sides are streamed, never held: sums of hashes narrow differences down (`compare`). A row
//! of the source passes the gateway's own packing and the consumer's own conversion before the
//! comparison. So equal means: the copy holds what a consumer should have stored.

mod compare;
pub mod database;
mod postgres;
mod report;
mod sqlite;
mod tables;
pub mod target;

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use walgate_wire::{Guest, Schema};

use self::{
    compare::{Key, Look, Sums},
    postgres::{Form, PostgresSide},
    sqlite::SqliteSide,
};
use crate::target::Target;
use walgate_host::{
    config::{Config, ConfiguredTable, PostgresConfig},
    egress::outlet::Gate,
    guest::{Engine, Limits},
};

pub use report::{Comparison, print};

/// At most so many differences are listed for each table.
const NAMED_MAX: usize = 20;

/// The two sides and the tables to compare.
#[derive(Clone, Debug)]
pub struct Question {
    pub source: PostgresConfig,
    pub replica: Target,
    /// Empty: every table of the copy.
    pub tables: Vec<String>,
    /// Tables with guests.
    pub gates: Vec<TableGate>,
}

/// A table and its guest.
#[derive(Clone, Debug)]
pub struct TableGate {
    pub table: ConfiguredTable,
    pub gate: Gate,
}

/// Loads the guests from their folder.
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
        // On a worker thread: there, rows arrive without a switch of threads.
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

/// The copy to compare.
enum Replica {
    Sqlite(SqliteSide),
    Postgres(Box<PostgresSide>),
}

impl Replica {
    async fn open(target: &Target, schema: &Schema) -> Result<Replica> {
        Ok(match target {
            Target::Sqlite(path) => Replica::Sqlite(SqliteSide::open(path, schema)?),
            Target::Postgres(url) => {
                let postgres = PostgresConfig::at(url.clone().into(), String::new());
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
