//! The consumer against real servers and files; a stand-in publishes what a gateway would.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod cases;
mod endings;
mod flow;
mod hardship;
mod names;
mod publisher;
mod rows;
mod sinks;
mod speed;
