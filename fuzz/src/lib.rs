//! Fuzz targets for everything that parses bytes from outside.
//!
//! A target is a plain function that takes bytes and asserts invariants. It does not fail if a
//! parser refuses the bytes. It fails if a parser panics, reserves memory for an unchecked length,
//! or accepts bytes that do not round-trip.
//!
//! This crate does not generate the bytes. A test generates a fixed number of seeded mutations,
//! libFuzzer generates inputs until its time limit.
#![allow(clippy::unwrap_used, reason = "a failed assertion is how a target fails")]

mod bodies;
mod config;
mod guests;
mod heap;
mod names;
mod postgres;

pub use heap::{HeapLimit, measure_peak};

/// A parser and its invariants.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// The target's name, which is also that of its folder in `corpus`.
    pub name: &'static str,
    /// Parses an input. Panics if an invariant does not hold.
    pub run: fn(&[u8]),
}

/// All targets, in the order of the data flow.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "config", run: config::check_config },
    FuzzTarget { name: "names", run: names::check_names },
    FuzzTarget { name: "pgoutput", run: postgres::check_pgoutput },
    FuzzTarget { name: "copy", run: postgres::check_copy },
    FuzzTarget { name: "module", run: guests::check_module },
    FuzzTarget { name: "decisions", run: guests::check_decisions },
    FuzzTarget { name: "dictionary", run: bodies::check_dictionary },
    FuzzTarget { name: "frame", run: bodies::check_frame },
    FuzzTarget { name: "control", run: bodies::check_control },
    FuzzTarget { name: "changes", run: bodies::check_changes },
    FuzzTarget { name: "chunk", run: bodies::check_chunk },
];

/// The target of this name.
pub fn find_target(name: &str) -> Option<&'static FuzzTarget> {
    TARGETS.iter().find(|target| target.name == name)
}
