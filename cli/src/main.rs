//! The `walgate` binary: parse, run, exit code. All of it is in `cli` and `commands`.

mod cli;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
