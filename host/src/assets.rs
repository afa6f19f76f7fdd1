//! Dictionaries and guests that are dropped into folders: watched, checked, made available to the stages.

pub mod dictionaries;
mod drop_in;
pub mod guests;
pub mod registry;
pub mod watch;

pub use drop_in::write_whole;
