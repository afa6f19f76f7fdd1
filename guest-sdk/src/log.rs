//! Writes lines to the gateway's log: `log::info!("…")`. In native tests they go to stderr.
//!
//! The gateway limits the number of lines per second. Do not log the data of rows.
//!
//! ```
//! use walgate_guest::prelude::*;
//!
//! log::warn!("country {:?} is not configured", "XX");
//! ```

/// The level of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// For the author of the guest.
    Debug,
    /// A normal event.
    Info,
    /// An event that an operator should look at.
    Warn,
    /// A failure.
    Error,
}

pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};

#[doc(hidden)]
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::wasm::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}

#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($args:tt)*) => { $crate::log::write($crate::log::Level::Debug, &format!($($args)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($args:tt)*) => { $crate::log::write($crate::log::Level::Info, &format!($($args)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($args:tt)*) => { $crate::log::write($crate::log::Level::Warn, &format!($($args)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($args:tt)*) => { $crate::log::write($crate::log::Level::Error, &format!($($args)*)) };
}
