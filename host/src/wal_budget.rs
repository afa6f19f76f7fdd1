//! The WAL that the slot retains: measured, and turned into pressure, so that the disk of the
//! database does not fill up.

mod meter;
mod pressure;
mod watcher;

pub use meter::{PressureLevel, SlotSample, WalMeter, WalReport};
pub use pressure::WalPressure;
pub use watcher::watch;
