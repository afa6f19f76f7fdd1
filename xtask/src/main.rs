//! `cargo xtask`: the developer's commands. Finds or downloads the servers, then runs cargo or
//! walgate with them. What those do is not known here.

mod cache;
mod cargo;
mod debian_toolchain;
mod fetch;
mod fuzz;
mod guests;
mod programs;
mod sbom;
mod setup;
mod supply;
mod wasm_toolchain;
mod wheels;

use std::process::ExitCode;

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
    /// Find Postgres and nats-server, or download missing ones into the cache
    Setup,
    /// Run the demo: a private Postgres, a private broker, the gateway and a replica
    Demo(Rest),
    /// Run all tests against real servers, on the oldest and the newest installed Postgres
    Test(Rest),
    /// Cause faults under load, and prove that nothing was lost
    Chaos(Rest),
    /// Run the benchmarks
    Bench(Rest),
    /// Build the guests that ship and those of the tests to WebAssembly, into target/guests
    Guests,
    /// Formatting, lints, layering and the language of comments
    Check,
    /// Run the fuzz targets under libFuzzer; needs a C++ compiler
    Fuzz(fuzz::Fuzz),
    /// Check Walgate's dependencies: advisories, licences, bans, sources
    Audit,
    /// List the packages that are linked into walgate, in CycloneDX
    Sbom,
    /// Rewrite the conformance vectors in tests/vectors
    Vectors(Rest),
    /// Rewrite the generated tables of docs/CONFIGURATION.md
    Docs,
}

#[derive(Debug, clap::Args)]
struct Rest {
    /// Passed on unchanged
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
        Task::Setup => Servers::provide().map(|_| ExitCode::SUCCESS),
        Task::Demo(rest) => programs::run_demo(&rest.args),
        Task::Test(rest) => programs::run_tests(&rest.args),
        Task::Chaos(rest) => programs::run_chaos(&rest.args),
        Task::Bench(rest) => programs::run_bench(&rest.args),
        Task::Guests => guests::build_all().map(|_| ExitCode::SUCCESS),
        Task::Check => cargo::run_checks().map(|()| ExitCode::SUCCESS),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Audit => supply::run_audit(),
        Task::Sbom => supply::write_sbom(),
        Task::Vectors(rest) => programs::write_vectors(&rest.args),
        Task::Docs => programs::write_docs(),
    }
}
