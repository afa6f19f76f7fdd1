//! The WAL that the slot holds back: measured, and turned into pressure, so that the disk of the database does not
//! fill up.

mod meter;
mod pressure;
mod watcher;

pub use meter::{Meter, Pressure, Reading, Seen};
pub use pressure::Relief;
pub use watcher::watch;
