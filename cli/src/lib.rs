//! The command line of Walgate. All of it is in this library, so that the binary only starts it.

mod cli;
mod commands;

pub use cli::main;
