//! Everything that parses bytes from outside, as plain functions that take bytes and assert what must hold of them.
//!
//! A target never fails on bytes that are refused. It fails where a parser panics, believes a length before it is
//! checked, or accepts what does not read back as the same. Who makes the bytes is not known here: a test does
//! with a fixed number of seeded mutations, libFuzzer for as long as it is told.
#![allow(clippy::unwrap_used, reason = "a target fails where it stands")]

mod bodies;
mod config;
mod guests;
mod heap;
mod names;
mod postgres;

pub use heap::{Peak, peak_of};

/// One parser and what must hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of its folder in `corpus`, too.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// In the order in which data meets them.
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
