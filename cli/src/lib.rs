//! The command line of Walgate. All of it is in this library, so that its code is generated once for
//! the binary and the tests.

mod cli;
mod commands;

pub use cli::main;
