//! Everything that parses foreign bytes, as plain functions that take bytes and assert properties.
//!
//! A target never fails on refused bytes. It fails if a parser panics, if it trusts an unchecked
//! length, or if an accepted value does not read back as the same. The targets do not know the
//! source of the bytes. A test makes a fixed number of seeded mutations; libFuzzer runs for as long
//! as its options demand.
#![allow(clippy::unwrap_used, reason = "a target fails where it stands")]

mod bodies;
mod config;
mod guests;
mod heap;
mod names;
mod postgres;

pub use heap::{Peak, peak_of};

/// One parser and its properties.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder in `corpus`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// In the order of the data's way through the system.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config::config },
    Target { name: "names", run: names::names },
    Target { name: "pgoutput", run: postgres::pgoutput },
    Target { name: "copy", run: postgres::copy },
    Target { name: "module", run: guests::module },
    Target { name: "decisions", run: guests::decisions },
    Target { name: "dictionary", run: bodies::dictionary },
    Target { name: "frame", run: bodies::frame },
    Target { name: "control", run: bodies::control },
    Target { name: "changes", run: bodies::changes },
    Target { name: "chunk", run: bodies::chunk },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
