//! Drop-in folders of dictionaries and guests: watched, validated, made available to the stages.

pub mod dictionaries;
mod drop_in;
pub mod guests;
pub mod watch;

pub use drop_in::write_whole;
