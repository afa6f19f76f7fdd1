//! Builds the programs of the workspace and runs them with the servers and guests that they need.
//! What the programs do is not known here.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{cargo, guests, setup::Servers};

pub fn run_demo(args: &[String]) -> Result<ExitCode> {
    let servers = Servers::provide()?;
    // With the features that the tests need, so that the tree is compiled once for both.
    cargo::run_cargo(["build", "--release", "--workspace", "--bin", "walgate"])?;
    let mut walgate = cargo::built_program("walgate");
    servers.export_to(&mut walgate);
    guests::export_to(&mut walgate, guests::build_shipped)?;
    cargo::replace_process(walgate.arg("demo").args(args))
}

pub fn run_tests(args: &[String]) -> Result<ExitCode> {
    let servers = Servers::provide_for_tests()?;
    // End-to-end tests run the programs, which `cargo test` alone does not build.
    cargo::run_cargo(["build", "--release", "--workspace", "--bins", "--examples"])?;
    let mut test = cargo::cargo_command(["test", "--release", "--workspace"]);
    servers.export_to(&mut test);
    guests::export_to(&mut test, guests::build_all)?;
    cargo::replace_process(test.args(args))
}

pub fn run_chaos(args: &[String]) -> Result<ExitCode> {
    // Like the tests, chaos may run on every installed major version.
    let servers = Servers::provide_for_tests()?;
    let mut chaos = build_with_guests("chaos")?;
    servers.export_to(&mut chaos);
    cargo::replace_process(chaos.args(args))
}

pub fn run_bench(args: &[String]) -> Result<ExitCode> {
    // The newest installed Postgres is measured, unless the environment names another.
    Servers::provide()?;
    cargo::replace_process(build_with_guests("bench")?.args(args))
}

pub fn write_vectors(args: &[String]) -> Result<ExitCode> {
    cargo::run_cargo(["build", "--release", "--workspace", "--bin", "vectors"])?;
    let home = format!("{}/tests/vectors", cargo::ROOT);
    cargo::replace_process(cargo::built_program("vectors").arg(home).args(args))
}

pub fn write_docs() -> Result<ExitCode> {
    cargo::run_cargo(["build", "--release", "--workspace", "--bin", "docs"])?;
    cargo::replace_process(&mut cargo::built_program("docs"))
}

/// A program that runs others of the workspace, with the guests that ship.
fn build_with_guests(program: &str) -> Result<Command> {
    cargo::run_cargo(["build", "--release", "--workspace", "--bins"])?;
    let mut program = cargo::built_program(program);
    guests::export_to(&mut program, guests::build_shipped)?;
    Ok(program)
}
