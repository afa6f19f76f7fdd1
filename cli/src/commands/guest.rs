//! `walgate guest`: the tools for authors of guests, from an empty folder to the running gateway.
//!
//! Guests run here under the gateway's own host. Each command has a file. `recorded` is the file
//! format of rows that several commands share, `live` reads rows of a table.

mod bench;
mod build;
mod check;
mod golden;
mod list;
mod new;
mod printed;
mod record;
mod recorded;
mod test;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use walgate_wire::{TableName, Token};

use crate::commands::database::{Database, configured};
use walgate_host::{
    config::{self, Config, PostgresConfig},
    guest::{Engine, GuestError, Limits, Module},
};

/// Write, check, test and watch guests: small WebAssembly programs that decide which rows and
/// columns of a table are published, and in which form. docs/GUESTS.md is the tutorial.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a crate for a guest that builds and tests at once
    New(new::Args),
    /// Build a guest's crate to WebAssembly
    Build(build::Args),
    /// Describe a .wasm, check whether the gateway accepts it, and show its plan for a table
    Check(check::Args),
    /// Write rows of a table to a file, for `test` and `bench`
    Record(record::Args),
    /// Run a guest on recorded rows under the gateway's own host, with all limits
    Test(test::Args),
    /// Measure what a row costs
    Bench(bench::Args),
    /// Show what runs where in a gateway
    List(list::Args),
}

pub async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Check(args) => check::run(args).await,
        Command::Record(args) => record::run(args).await,
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(args).await,
        Command::List(args) => list::run(args).await,
    }
}

/// The configuration's settings for guests, and the arguments that override them.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Configuration of the gateway, for limits, the database and a table's guest_params [default:
    /// walgate.toml if there is one]
    #[arg(short, long, value_name = "FILE", env = "WALGATE_CONFIG")]
    config: Option<PathBuf>,
    /// A parameter of the guest, for example region=DE; overrides guest_params; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Settings {
    fn load(&self) -> Result<Loaded> {
        let config = configured(self.config.clone())?;
        Ok(Loaded { config, parameters: self.parameters.iter().cloned().collect() })
    }
}

/// Settings after loading.
struct Loaded {
    config: Option<Config>,
    parameters: BTreeMap<String, String>,
}

impl Loaded {
    fn limits(&self) -> Limits {
        Limits::of(&self.config.as_ref().map(|config| config.guests.clone()).unwrap_or_default())
    }

    fn table(&self, name: &TableName) -> Option<&config::ConfiguredTable> {
        self.config.as_ref()?.tables.iter().find(|table| table.name == *name)
    }

    fn token(&self, name: &TableName) -> Token {
        self.table(name).map_or_else(|| name.token(), |table| table.token.clone())
    }

    /// `recorded`: the parameters in the file of rows.
    fn parameters(
        &self,
        name: &TableName,
        recorded: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let configured = self.table(name).map_or(recorded, |table| &table.guest.parameters);
        let mut all = configured.clone();
        all.extend(self.parameters.clone());
        all
    }

    fn postgres(&self, database: &Database) -> Result<PostgresConfig> {
        Ok(database.postgres(self.config.as_ref())?)
    }

    fn load_guest(&self, file: &Path) -> Result<Module> {
        let bytes = read(file)?;
        Ok(self.engine()?.load(&bytes)?)
    }

    fn engine(&self) -> Result<Engine, GuestError> {
        Engine::new(self.limits(), None)
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Prints the refusal.
fn refused(file: &Path, error: &anyhow::Error) -> ExitCode {
    eprintln!("{}: {error:#}", file.display());
    ExitCode::FAILURE
}
