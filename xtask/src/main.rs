//! `cargo xtask`: what a developer types. Finds or fetches the servers, then runs cargo or walgate
//! with them; it knows nothing of what those do.

mod cargo;
mod fuzz;
mod guests;
mod sbom;
mod setup;
mod supply;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Servers;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set up, demonstrate, test and measure Walgate")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find Postgres and nats-server, or fetch what is missing into the cache
    Setup,
    /// Run the demo: a private Postgres, a private broker, the gateway and a replica
    Demo(Rest),
    /// Run all tests against real servers, on each major version of Postgres that is here
    Test(Rest),
    /// Break things under load, and prove that nothing was lost
    Chaos(Rest),
    /// Run the benchmarks
    Bench(Rest),
    /// Build the guests that ship and those of the tests to WebAssembly, into target/guests
    Guests,
    /// Formatting, lints and layering
    Check,
    /// Run the fuzz targets under libFuzzer; needs a C++ compiler
    Fuzz(fuzz::Fuzz),
    /// Judge what Walgate depends on: advisories, licences, bans, sources
    Audit,
    /// List what is linked into walgate, in CycloneDX
    Sbom,
    /// Write the conformance vectors in tests/vectors anew
    Vectors(Rest),
}

#[derive(Debug, clap::Args)]
struct Rest {
    /// Passed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => Servers::ready().map(|_| ExitCode::SUCCESS),
        Task::Demo(rest) => {
            let servers = Servers::ready()?;
            // As the tests build it, so that the tree is compiled once for all of them.
            cargo::cargo(["build", "--release", "--workspace", "--bin", "walgate"])?;
            let mut walgate = cargo::built("walgate");
            servers.export(&mut walgate);
            guests::export(&mut walgate, guests::shipped)?;
            cargo::become_it(walgate.arg("demo").args(rest.args))
        }
        Task::Test(rest) => {
            let servers = Servers::ready_for_tests()?;
            // End-to-end tests run the programs; cargo builds those of other packages only if told.
            cargo::cargo(["build", "--release", "--workspace", "--bins"])?;
            let mut test = cargo::command(["test", "--release", "--workspace"]);
            servers.export(&mut test);
            guests::export(&mut test, guests::all)?;
            cargo::become_it(test.args(rest.args))
        }
        Task::Chaos(rest) => {
            // As for the tests: it may run on every major version that is here.
            let servers = Servers::ready_for_tests()?;
            let mut chaos = with_guests("chaos")?;
            servers.export(&mut chaos);
            cargo::become_it(chaos.args(rest.args))
        }
        Task::Bench(rest) => {
            // What the user named is in the environment; of what is here the newest Postgres is measured.
            Servers::ready()?;
            cargo::become_it(with_guests("bench")?.args(rest.args))
        }
        Task::Guests => guests::all().map(|_| ExitCode::SUCCESS),
        Task::Check => cargo::check().map(|()| ExitCode::SUCCESS),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Audit => supply::audit(),
        Task::Sbom => supply::sbom(),
        Task::Vectors(rest) => {
            cargo::cargo(["build", "--release", "--workspace", "--bin", "vectors"])?;
            let home = format!("{}/tests/vectors", cargo::ROOT);
            cargo::become_it(cargo::built("vectors").arg(home).args(rest.args))
        }
    }
}

/// A program that runs others of the workspace, with the guests that ship.
fn with_guests(program: &str) -> Result<Command> {
    cargo::cargo(["build", "--release", "--workspace", "--bins"])?;
    let mut program = cargo::built(program);
    guests::export(&mut program, guests::shipped)?;
    Ok(program)
}
