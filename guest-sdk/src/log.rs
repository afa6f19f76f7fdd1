//! Lines for the gateway's log: `log::info!("…")`. In tests they go to stderr. The gateway limits how many a
//! second it takes.

/// How much a line matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    Debug,
    Info,
    Warn,
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
    ($($words:tt)*) => { $crate::log::write($crate::log::Level::Debug, &format!($($words)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($words:tt)*) => { $crate::log::write($crate::log::Level::Info, &format!($($words)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($words:tt)*) => { $crate::log::write($crate::log::Level::Warn, &format!($($words)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($words:tt)*) => { $crate::log::write($crate::log::Level::Error, &format!($($words)*)) };
}
